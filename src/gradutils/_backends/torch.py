"""Keras on PyTorch. What a name is for stands in `gradutils._backends.tensorflow`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import torch

from gradutils._backends import NO_GRADIENT, Seen, Watch, layer_of, loss_scale
from gradutils._backends.graph import without_flat

ERRORS = (RuntimeError,)
LOSSES_TAKE_LOGITS = False
REFUSES_NAN = True
CANNOT_RECORD = ""

frozen = torch.no_grad


@contextmanager
def undisturbed() -> Iterator[None]:
    """Nothing is compiled here that would have to be kept apart; gradients are switched on."""
    with torch.enable_grad():
        yield


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the global generators back when the block ends: Dropout without a seed draws from one."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


def copy_of(variable: Any) -> torch.Tensor:
    """A variable's value now, which no later assignment changes."""
    return variable.value.detach().clone()


def assign(variable: Any, value: np.ndarray) -> None:
    """Give a variable a value of its own shape and type."""
    variable.assign(value)


def other_state(model: Any) -> Callable[[], None]:
    """A function that puts back what Keras does not count among a model's variables.

    That is what a wrapped torch.nn.Module holds: buffers, such as the statistics of its batch
    normalisation, and whether it is in training mode.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]

    def restore() -> None:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for module, training in modes:
            module.training = training

    return restore


def tensors(data: Any) -> Any:
    """Data in the form in which a loss or model receives them: tensors, as in `fit`."""
    return keras.tree.map_structure(_tensor, data)


def _tensor(array: Any) -> Any:
    if array is None or (not keras.ops.is_tensor(array) and np.asarray(array).dtype.kind in "OSU"):
        return array
    tensor = keras.ops.convert_to_tensor(array)
    return tensor.to(torch.get_default_dtype()) if tensor.dtype == torch.float64 else tensor


def differentiate(
    forward: Callable[[Watch], tuple[Any, Any]], variables: list
) -> tuple[Any, list[list[Seen]], list]:
    """Run a forward pass and differentiate its loss; no `.grad` changes."""
    watched: list[tuple[Any, Any]] = []

    def watch(output: Any, argument: Any) -> Any:
        if not output.requires_grad:  # It stands behind frozen layers.
            output = output.detach().requires_grad_()
        watched.append((argument, output))
        return output

    loss, extra = forward(watch)
    sources = [output for _, output in watched] + [v.value for v in variables]
    gradients = [None] * len(sources)
    if loss.requires_grad and sources:
        found = torch.autograd.grad(loss, sources, allow_unused=True)
        gradients = without_flat(loss, sources, found)
    seen = [[Seen(*pair, g)] for pair, g in zip(watched, gradients, strict=False)]
    return extra, seen, gradients[len(watched) :]


def observe(forward: Callable[[Watch], Any]) -> tuple[Any, list[list[Seen]]]:
    """Run a forward pass; return its value and what went through the places that it watches."""
    watched: list[list[Seen]] = []

    def watch(output: Any, argument: Any) -> Any:
        watched.append([Seen(argument, output)])
        return output

    return forward(watch), watched


@contextmanager
def differentiating_twice() -> Iterator[list[bool]]:
    """Yield a list that is not empty at the end if a gradient is taken of a gradient."""
    grad, twice = torch.autograd.grad, list[bool]()
    derivatives = set[int]()

    def counted(outputs: Any, *args: Any, **kwargs: Any) -> Any:
        given = outputs if isinstance(outputs, list | tuple) else [outputs]
        if any(_comes_from(output.grad_fn, derivatives) for output in given):
            twice.append(True)
        found = grad(outputs, *args, **kwargs)
        kept.extend(g.grad_fn for g in found if g is not None and g.grad_fn is not None)
        derivatives.update(map(id, kept))
        return found

    kept: list[Any] = []
    torch.autograd.grad = counted
    try:
        yield twice
    finally:
        torch.autograd.grad = grad


def _comes_from(node: Any, origins: set[int]) -> bool:
    """Whether one of these nodes stands in the graph above a node."""
    seen, stack = set[Any](), [node]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        if id(node) in origins:
            return True
        seen.add(node)
        stack += [parent for parent, _ in node.next_functions]
    return False


def curvature(outputs_of: Callable[[Any], list], x: Any) -> float:
    """Largest absolute derivative of the summed first derivatives of the outputs."""
    x = _tensor(x).detach().requires_grad_()
    total = sum(output.sum() for output in outputs_of(x))
    (first,) = torch.autograd.grad(total, x, create_graph=True, allow_unused=True)
    if first is None or not first.requires_grad:
        return 0.0
    (second,) = torch.autograd.grad(first.sum(), x, allow_unused=True)
    return 0.0 if second is None else float(second.abs().max())


def gradients_of(
    loss_of: Callable[..., Any], model: Any
) -> Callable[[tuple, Any], tuple[Any, list]]:
    """A function for a model's loss and its gradients; no `.grad` changes."""

    def gradients(data: tuple, scale: Any) -> tuple[Any, list]:
        with torch.enable_grad():
            value = loss_of(*data)
            weights = [v.value for v in model.trainable_variables]
            if not value.requires_grad:
                return value, [None] * len(weights)
            found = torch.autograd.grad(value * scale, weights, allow_unused=True)
        return value.detach(), list(found)

    return gradients


class Recorder:
    """Stands in for one optimiser's `apply`, and keeps the norms of its gradients.

    The norms stay on the device until they are read, so that a step waits for nothing.
    """

    def __init__(self, optimizer: Any, model: Any, update_ratio: bool, witness: Any = None) -> None:
        self.optimizer, self.update_ratio, self.witness = optimizer, update_ratio, witness
        self.layer_names: list[str] = []
        self.owners: list[str] = []
        self.fresh: list[torch.Tensor] = []
        self.blocks: list[np.ndarray] = []

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Record every call of `apply` inside the block."""
        apply, own = self.optimizer.apply, self.optimizer.__dict__.get("apply")

        def recording_apply(grads: Any, trainable_variables: Any = None) -> Any:
            variables = trainable_variables or self.optimizer._trainable_variables
            grads, variables = list(grads), list(variables)
            if all(g is None for g in grads):
                return apply(grads, variables)  # Keras explains what is wrong.
            self.owners = [layer_of(v) for v in variables]
            self.layer_names = list(dict.fromkeys(self.owners))
            parts = [_norms(grads)]
            if self.witness is not None and not bool(torch.isfinite(parts[0]).all()):
                to_numpy = keras.ops.convert_to_numpy
                self.witness.keep(keras.tree.map_structure(to_numpy, self.witness.batch))
            scale = keras.ops.convert_to_tensor(loss_scale(self.optimizer))
            parts.append(scale.detach().to(parts[0]).reshape(1))
            before = [copy_of(v) for v in variables] if self.update_ratio else []
            result = apply(grads, variables)
            if self.update_ratio:
                change = [v.value.detach() - b for v, b in zip(variables, before, strict=True)]
                parts += [_norms(before), _norms(change)]
            self.fresh.append(torch.cat(parts))
            return result

        self.optimizer.__dict__["apply"] = recording_apply
        try:
            yield
        finally:
            del self.optimizer.__dict__["apply"]
            if own is not None:
                self.optimizer.__dict__["apply"] = own

    def written(self) -> int:
        """Return how many rows were written since the last reading."""
        return len(self.fresh)

    def forget(self) -> None:
        """Forget the rows that were written since the last reading."""
        self.fresh.clear()

    def read(self) -> np.ndarray:
        """Return the rows written since the last reading, shape (rows, 2 * layers)."""
        width = 2 * len(self.layer_names)
        if not self.fresh:
            return np.empty((0, width))
        rows = torch.stack(self.fresh).cpu().numpy()
        self.fresh.clear()
        count = len(self.owners)
        grads, scale, others = np.split(rows, [count, count + 1], axis=1)
        norms = self._by_layer(grads)
        ratios = np.full((len(rows), len(self.layer_names)), np.nan)
        if self.update_ratio:
            before, change = np.split(others, 2, axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = self._by_layer(change) / self._by_layer(before)
        norms = np.where(norms == NO_GRADIENT, norms, norms / scale)
        self.blocks.append(np.concatenate([norms, ratios], axis=1))
        return self.blocks[-1]

    def rows_read(self) -> np.ndarray:
        """Return all rows that were ever read."""
        self.blocks = [np.concatenate([np.empty((0, 2 * len(self.layer_names))), *self.blocks])]
        return self.blocks[0]

    def _by_layer(self, norms: np.ndarray) -> np.ndarray:
        """Norms of the layers from those of their variables; `NO_GRADIENT` where none has one."""
        columns = []
        for layer in self.layer_names:
            mine = norms[:, [owner == layer for owner in self.owners]]
            absent = mine == NO_GRADIENT
            joint = np.sqrt((np.where(absent, 0, mine) ** 2).sum(axis=1))
            columns.append(np.where(absent.all(axis=1), NO_GRADIENT, joint))
        return np.stack(columns, axis=1)


def _norms(tensors: list) -> torch.Tensor:
    """Norms in float64, shape (tensors,); `NO_GRADIENT` where there is none."""
    device = next(t.device for t in tensors if t is not None)
    missing = torch.tensor(NO_GRADIENT, dtype=torch.float64, device=device)
    return torch.stack(
        [
            missing if t is None else torch.linalg.vector_norm(t.detach(), dtype=torch.float64)
            for t in tensors
        ]
    )
