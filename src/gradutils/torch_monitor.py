"""Watch the gradient of every layer in a training loop of your own, in plain PyTorch.

Needs torch, and no Keras.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from gradutils import _checks
from gradutils._torch.modules import unwrapped, weights_of

Alarm = str | Callable[[str, int, float], None]


class GradientMonitor:
    """Record the norm of every layer's weight gradient at every step of an optimiser.

    It is a hook on the optimiser, and sees what `optimizer.step()` sees: norms are those after
    clipping, and after `GradScaler` has divided its scale out. A step that `GradScaler` skips,
    because a gradient was not finite, never reaches the optimiser: it is missed and not counted.
    Neither a backward pass nor a weight is changed.

    Parameters
    ----------
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer
        Its weights are grouped by the module that owns them. A model with several optimisers has
        a monitor for each.
    every : int
        Record the steps whose numbers are multiples of `every`.
    update_ratio : bool
        Also record the norm of each layer's update over the norm of its weights.
    on_alarm : "warn", "stop", "raise" or callable, optional
        What to do at the first norm that is not finite or exceeds `limit`: warn; warn and set
        `stop`, for the loop to look at; raise FloatingPointError before the step is taken; or call
        with the layer's name, the step and the norm. Done once in a monitor's life.
    limit : float
        Norm above which `on_alarm` acts.

    Attributes
    ----------
    steps : ndarray of int, shape (recorded,)
        Numbers of the recorded steps, from 0.
    layer_names : list of str
        Paths of the modules that own weights which the optimiser holds.
    norms : ndarray, shape (recorded, layers)
        NaN where a layer had no gradient.
    update_ratios : ndarray, shape (recorded, layers)
    stop : bool
        Whether ``on_alarm="stop"`` has acted.

    Raises
    ------
    TypeError
        If `model` or `optimizer` is none.
    ValueError
        If an argument is not one of the above, or the optimiser holds no weight of the model.

    Examples
    --------
    >>> import torch
    >>> first, last = torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)
    >>> model = torch.nn.Sequential(first, torch.nn.Tanh(), last)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with GradientMonitor(model, optimizer) as monitor:
    ...     for step in range(5):
    ...         optimizer.zero_grad()
    ...         model(torch.ones(16, 3)).square().mean().backward()
    ...         optimizer.step()
    >>> monitor.layer_names, monitor.norms.shape
    (['0', '2'], (5, 2))
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        every: int = 1,
        *,
        update_ratio: bool = False,
        on_alarm: Alarm | None = None,
        limit: float = 1e6,
    ) -> None:
        model, _ = unwrapped(model)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer; received {optimizer!r}")
        _checks.positive_integers(every=every)
        _checks.positive(limit=limit)
        _checks.alarm(on_alarm)
        held = {id(w) for w in weights_of(model, optimizer)}
        self._weights: dict[str, list[nn.Parameter]] = {}
        for name, weight in model.named_parameters():
            if id(weight) in held:
                owner = name.rpartition(".")[0] or type(model).__name__
                self._weights.setdefault(owner, []).append(weight)
        if not self._weights:
            raise ValueError("optimizer must hold weights of the model; received one over others")
        self.optimizer, self.every, self.update_ratio = optimizer, every, update_ratio
        self.on_alarm, self.limit, self.stop = on_alarm, limit, False
        self.layer_names = list(self._weights)
        self._step, self._alarm_given = 0, False
        self._steps: list[int] = []
        self._norms: list[torch.Tensor] = []
        self._ratios: list[torch.Tensor] = []
        self._before: list[list[torch.Tensor]] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> "GradientMonitor":
        self._hooks = [self.optimizer.register_step_pre_hook(self._record)]
        self._hooks.append(self.optimizer.register_step_post_hook(self._compare))
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def steps(self) -> np.ndarray:
        """Numbers of the recorded steps, shape (recorded,)."""
        return np.array(self._steps, dtype=int)

    @property
    def norms(self) -> np.ndarray:
        """Gradient norms, shape (recorded, layers); NaN where a layer had no gradient."""
        return self._table(self._norms)

    @property
    def update_ratios(self) -> np.ndarray:
        """Norm of each update over the norm of the weights, shape (recorded, layers).

        Raises
        ------
        ValueError
            If the monitor was made without `update_ratio=True`.
        """
        if not self.update_ratio:
            raise ValueError("update_ratio must be True to record update ratios; received False")
        return self._table(self._ratios)

    def _table(self, rows: list[torch.Tensor]) -> np.ndarray:
        shape = len(rows), len(self.layer_names)
        return torch.stack(rows).double().cpu().numpy() if rows else np.empty(shape)

    @torch.no_grad()
    def _record(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._step % self.every == 0:
            # A fused optimiser divides the scale of GradScaler out itself.
            scale = getattr(optimizer, "grad_scale", None)
            row = torch.stack([_gradient_norm(own) for own in self._weights.values()])
            self._norms.append(row if scale is None else row / scale)
            self._steps.append(self._step)
            if self.update_ratio:
                self._before = [[w.clone() for w in own] for own in self._weights.values()]
            if self.on_alarm and not self._alarm_given:
                self._check_alarm()
        self._step += 1

    @torch.no_grad()
    def _compare(self, *_: Any) -> None:
        if self._before:
            pairs = zip(self._before, self._weights.values(), strict=True)
            ratios = [
                _norm([w - b for b, w in zip(before, own, strict=True)]) / _norm(before)
                for before, own in pairs
            ]
            self._ratios.append(torch.stack(ratios))
            self._before = []

    def _check_alarm(self) -> None:
        norms = self._norms[-1].cpu()
        absent = [all(w.grad is None for w in own) for own in self._weights.values()]
        bad = [i for i, norm in enumerate(norms) if not (norm <= self.limit or absent[i])]
        if not bad:
            return
        self._alarm_given = True
        layer, step, norm = self.layer_names[bad[0]], self._steps[-1], float(norms[bad[0]])
        message = f"gradient norm {norm:.3g} in layer {layer} at step {step}"
        if not np.isfinite(norm):
            message += "; gradutils.diagnosis.diagnose looks into its batch"
        if callable(self.on_alarm):
            self.on_alarm(layer, step, norm)
        elif self.on_alarm == "raise":
            raise FloatingPointError(message)
        else:
            warnings.warn(message, stacklevel=2)
        self.stop = self.on_alarm == "stop"

    def plot(self, ax: Any = None) -> Any:
        """Draw the recorded norms as a heat map of layer by step.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ValueError
            If nothing was recorded.
        """
        from gradutils import plots  # Matplotlib is loaded where something is drawn.

        if not self._norms:
            raise ValueError("the monitor has recorded nothing to plot: train the model first")
        return plots.step_heatmap(self.norms, xlabel="recorded step", ax=ax)


def _norm(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Euclidean norm of all numbers together, in float64 where the device has it."""
    dense = [t.coalesce().values() if t.is_sparse else t for t in tensors]
    kind = torch.float32 if dense[0].device.type == "mps" else torch.float64
    norms = [torch.linalg.vector_norm(t, dtype=kind) for t in dense]
    return torch.linalg.vector_norm(torch.stack(norms))


def _gradient_norm(weights: list[nn.Parameter]) -> torch.Tensor:
    """That of all their gradients; NaN if there is none."""
    found = [w.grad for w in weights if w.grad is not None]
    return _norm(found) if found else torch.full_like(_norm(weights), torch.nan)
