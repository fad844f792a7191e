"""One batch through a torch module: what `gradutils.probes.probe` does with one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from gradutils import _measures
from gradutils._backends.graph import without_flat
from gradutils._batches import Batch, as_array
from gradutils._measures import NOTHING, Weight
from gradutils._records import Head, LayerRecord, OptimizerRecord, OwnLoss, Probe
from gradutils._torch.modules import (
    array,
    call,
    check,
    described,
    one_batch,
    optimizer_twin,
    sandbox,
    unwrapped,
    weights_of,
)
from gradutils._torch.recorder import Call, Recorder, Taken

#: torch's function of a loss -> the name that Keras has for it, and whether it takes logits.
LOSSES = {
    F.mse_loss: ("mean_squared_error", False),
    F.l1_loss: ("mean_absolute_error", False),
    F.huber_loss: ("huber", False),
    F.smooth_l1_loss: ("huber", False),
    F.binary_cross_entropy: ("binary_crossentropy", False),
    F.binary_cross_entropy_with_logits: ("binary_crossentropy", True),
    F.cross_entropy: ("sparse_categorical_crossentropy", True),
    F.nll_loss: ("sparse_categorical_crossentropy", True),
}
_OF_REGRESSION = {"mean_squared_error", "mean_absolute_error", "huber"}
#: Options of these losses, with the values that leave a plain mean over the samples.
_PLAIN: dict[str, tuple] = {
    "weight": (None,),
    "pos_weight": (None,),
    "reduction": ("mean", "none"),
    "label_smoothing": (0.0,),
}
_IGNORED = -100  # The label that torch's cross-entropies leave out.


def probe(
    model: nn.Module,
    x: Any,
    y: Any = None,
    loss: Any = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    batch_size: int = 64,
    loss_scale: float | None = None,
) -> Probe:
    """Run one batch forward and backward in training mode and measure every layer."""
    model, unseen = unwrapped(model)
    loss = check(model, loss, optimizer)
    batch = one_batch(model, x, y, batch_size)
    weights = weights_of(model, optimizer)
    with sandbox(model, weights), torch.enable_grad():
        train(model)
        with Recorder(model) as recorder:
            passed = _pass(model, batch, loss, recorder)
            at_outputs, gradients = _backward(recorder, passed.value, weights, loss_scale or 1.0)
        layers = recorder.folded(set(at_outputs))
        heads = _heads(recorder, passed, batch, {id(end): start for start, end in layers})
        own_loss = _own_loss(loss, passed, batch, heads)
        model.eval()
        inference = float(array(loss_of(loss, call(model, batch.x), batch.y)))
        curvature = _curvature(model, batch.x) if recorder.differentiates_twice else np.nan
        affine = _is_affine(model, batch.x)
    updates = _next_updates(optimizer, weights, gradients)
    measured = {
        id(w): Weight(array(w), None if g is None else array(g), None if u is None else array(u))
        for w, g, u in zip(weights, gradients, updates, strict=True)
    }
    _refuse_the_unseen(model, recorder, measured, at_outputs)
    inputs = [as_array(a) for a in pytree.tree_leaves(batch.x) if torch.is_tensor(a)]
    return Probe(
        loss=float(array(passed.value)),
        layers=_records(layers, measured, at_outputs, _with_logits(layers, heads)),
        outputs=len(heads),
        inference_loss=inference,
        heads=heads,
        own_loss=own_loss,
        optimizer=_optimizer(model, optimizer),
        curvature=curvature,
        affine=affine,
        row_sizes=_measures.row_sizes(inputs),
        unseen=[*unseen, *dict.fromkeys(recorder.unseen)],
    )


class _Passed(NamedTuple):
    """What a pass forward gave: the tensors that the model returns, and the loss."""

    predictions: Any
    outputs: list[torch.Tensor]
    value: torch.Tensor


def train(model: nn.Module) -> None:
    """Training mode; a model that is in it stays as it is, since parts may be frozen by intent."""
    if not model.training:
        model.train()


def loss_of(loss: Callable, predictions: Any, y: Any) -> torch.Tensor:
    """The loss as one number, the mean if it is one for each sample.

    Parameters
    ----------
    loss : callable
        (predictions, targets) -> torch.Tensor
    predictions, y : tensors in any nest

    Returns
    -------
    torch.Tensor, shape ()

    Raises
    ------
    ValueError
        If the loss raises, or returns no tensor.
    """
    try:
        value = loss(predictions, y)
    except Exception as error:
        raise ValueError(
            "y must fit the loss, which is called as loss(predictions, y); received "
            f"{described(y)} for predictions of {described(predictions)}: {error}"
        ) from error
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        raise ValueError(f"loss must return a floating tensor; received {described(value)}")
    return value.mean() if value.dim() else value


def _pass(model: nn.Module, batch: Batch, loss: Callable, recorder: Recorder) -> _Passed:
    predictions = call(model, batch.x)
    outputs = [a for a in pytree.tree_leaves(predictions) if torch.is_tensor(a)]
    recorder.losses.clear()
    recorder.uses.update({id(a): -recorder.uses[id(a)] for a in outputs})  # The loss's uses count.
    return _Passed(predictions, outputs, loss_of(loss, predictions, batch.y))


def _backward(
    recorder: Recorder, value: torch.Tensor, weights: list[nn.Parameter], scale: float
) -> tuple[dict[int, torch.Tensor], list]:
    """The gradient at every output that the loss depends on, by its id, and at the weights."""
    recorder.watching = False
    outputs = [c.output for c in recorder.calls]
    if not value.requires_grad:
        return {}, [None] * len(weights)
    try:
        found = torch.autograd.grad(value * scale, outputs + weights, allow_unused=True)
    except RuntimeError as error:
        if "heckpoint" in str(error):
            raise ValueError(
                "model must use no re-entrant checkpoint, which hides the gradients inside it: "
                "call torch.utils.checkpoint.checkpoint with use_reentrant=False"
            ) from error
        raise
    found = without_flat(value, outputs + weights, found)
    found = [None if g is None else g / scale for g in found]
    at_outputs = {
        id(h): g for h, g in zip(outputs, found[: len(outputs)], strict=True) if g is not None
    }
    return at_outputs, found[len(outputs) :]


def _refuse_the_unseen(
    model: nn.Module,
    recorder: Recorder,
    measured: dict[int, Weight],
    at_outputs: dict[int, torch.Tensor],
) -> None:
    """A layer whose weights have a gradient has an output that the loss depends on."""
    reached = {id(w) for c in recorder.calls if id(c.output) in at_outputs for w in c.weights}
    for name, module in model.named_modules():
        for weight in module.parameters(recurse=False):
            known = measured.get(id(weight))
            if known is not None and known.gradient is not None and id(weight) not in reached:
                raise ValueError(
                    f"model must call its layers for them to be seen; the weights of "
                    f"{name or 'the model'} ({type(module).__name__}) have a gradient, but no "
                    "output of it was seen on the way to the loss. Is it called by its forward "
                    "method, are its weights used elsewhere, or does compiled code hide it?"
                )


def _records(
    layers: list[tuple[Call, Call]],
    measured: dict[int, Weight],
    at_outputs: dict[int, torch.Tensor],
    logits: set[int],
) -> list[LayerRecord]:
    by_layer: dict[Any, list[tuple[Call, Call]]] = {}
    for start, end in layers:
        by_layer.setdefault(start.key, []).append((start, end))
    records = []
    for calls in by_layer.values():
        used = [(start, end) for start, end in calls if id(end.output) in at_outputs]
        if not used and not any(id(w) in measured for w in calls[0][0].weights):
            continue  # It holds nothing that is trained, and the loss does not depend on it.
        records.append(_record(used or calls[:1], measured, at_outputs, logits))
    return records


def _record(
    calls: list[tuple[Call, Call]],
    measured: dict[int, Weight],
    at_outputs: dict[int, torch.Tensor],
    logits: set[int],
) -> LayerRecord:
    first = calls[0][0]
    watched = [start if id(end) in logits else end for start, end in calls]
    backward = [at_outputs.get(id(c.output), torch.zeros_like(c.output)) for c in watched]
    own = [w for w in first.weights if id(w) in measured]
    received = None
    if first.argument is not None:
        received = array(first.argument)
        if not first.argument.is_floating_point():
            received = received.astype(int)
    return _measures.layer_record(
        name=first.name,
        kind=first.kind,
        activation=calls[0][1].activation,
        inputs=_features_last(received, first.channels_first),
        outputs=[_features_last(array(end.output), end.channels_first) for _, end in calls],
        backward=[
            _features_last(array(g), c.channels_first)
            for g, c in zip(backward, watched, strict=True)
        ],
        weights=[_units_last(measured[id(w)], first) for w in own],
        weight_dtype=str(own[0].dtype).removeprefix("torch.") if own else "",
    )


def _features_last(values: Any, channels_first: bool) -> Any:
    return np.moveaxis(values, 1, -1) if channels_first and values is not None else values


def _units_last(weight: Weight, layer: Call) -> Weight:
    """torch's matrices are (outputs, inputs), but for embeddings and transposed convolutions."""
    axis = 1 if "Transpose" in layer.kind or layer.kind.startswith("Embedding") else 0

    def moved(values: Any) -> Any:
        return values if values is None or values.ndim < 2 else np.moveaxis(values, axis, -1)

    return Weight(*map(moved, weight))


def _heads(
    recorder: Recorder, passed: _Passed, batch: Batch, starts: dict[int, Call]
) -> list[Head]:
    """The outputs that the loss depends on, as the loss function takes them where it is known."""
    floating = [a for a in passed.outputs if a.is_floating_point()]
    needed = [a for a in floating if recorder.uses[id(a)]] if len(floating) > 1 else floating
    targets = [a for a in pytree.tree_leaves(batch.y) if torch.is_tensor(a)]
    everything = [a for a in pytree.tree_leaves(batch.all_targets) if torch.is_tensor(a)]
    aligned = len(targets) == len(needed)
    return [
        _head(
            recorder,
            passed,
            starts,
            output,
            targets[i] if aligned else None,
            everything[i] if aligned else None,
            alone=len(needed) == 1,
        )
        for i, output in enumerate(needed)
    ]


def _head(
    recorder: Recorder,
    passed: _Passed,
    starts: dict[int, Call],
    output: torch.Tensor,
    target: torch.Tensor | None,
    given: torch.Tensor | None,
    *,
    alone: bool,
) -> Head:
    end = recorder.origin(output)
    layer = None if end is None else starts.get(id(end), end)
    activation = "" if end is None else end.activation or ("linear" if end.weights else "")
    found = [_known(taken, output, passed.value if alone else None) for taken in recorder.losses]
    known = next((k for k in found if k is not None), None)
    if known is None:
        p, y = output.detach(), target
        name, from_logits, losses, shares = "", False, NOTHING, NOTHING
    else:
        p, y, losses = known.outputs, known.targets, known.losses
        name, from_logits = LOSSES[known.function]
        if known.function is F.nll_loss:  # It takes the logarithms of probabilities.
            from_logits = activation in ("softmax", "log_softmax")
        if name.startswith("sparse") and y.is_floating_point():
            name = name.removeprefix("sparse_")
        counted = y if given is None or (given == _IGNORED).any() else given
        shares = _measures.class_shares(name, array(counted), p.shape[-1] if p.dim() else 1)
    if y is not None and p.dim() == y.dim() == 1:
        p, y = p[:, None], y[:, None]
    return Head(
        outputs=array(p),
        targets=None if y is None else array(y),
        loss=name,
        from_logits=from_logits,
        activation=activation,
        layer="" if layer is None else layer.name,
        sample_losses=_measures.by_sample(losses, len(losses) if losses.ndim else 0),
        class_shares=shares,
    )


class _Known(NamedTuple):
    """A call of one of `LOSSES`, with the classes in the last axis and without ignored labels."""

    function: Any
    outputs: torch.Tensor
    targets: torch.Tensor
    losses: np.ndarray


def _known(taken: Taken, output: torch.Tensor, value: torch.Tensor | None) -> _Known | None:
    """That call, if it took this output, gave this value, and has no option that changes it."""
    if taken.function not in LOSSES:
        return None
    named = dict(zip(("input", "target"), taken.args, strict=False)) | taken.kwargs
    p, y = named["input"].detach(), named["target"].detach()
    categorical = taken.function in (F.cross_entropy, F.nll_loss)
    given = taken.output.mean() if taken.output.dim() else taken.output
    options = {name: named[name] for name in _PLAIN if name in named}
    if (
        not _is_view(p, output)
        or (value is not None and not given.equal(value))
        or not (categorical or p.shape == y.shape)  # Others broadcast.
        or any(isinstance(o, torch.Tensor) or o not in _PLAIN[n] for n, o in options.items())
    ):
        return None
    kept = {name: named[name] for name in ("delta", "beta") if name in named}
    losses = taken.function(p, y, **kept, reduction="none")
    if categorical:
        p = p.movedim(1, -1) if p.dim() > 2 else p
        y = y.movedim(1, -1) if y.is_floating_point() and y.dim() > 2 else y
        if not y.is_floating_point() and (y == _IGNORED).any():
            p, losses, y = p[y != _IGNORED], losses[y != _IGNORED], y[y != _IGNORED]
    return _Known(taken.function, p, y, array(losses))


def _is_view(tensor: torch.Tensor, output: torch.Tensor) -> bool:
    """Whether a tensor holds the same numbers as an output, perhaps in another shape."""
    same = tensor.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
    return same and tensor.numel() == output.numel()


def _with_logits(layers: list[tuple[Call, Call]], heads: list[Head]) -> set[int]:
    """Ids of the calls of a last sigmoid or softmax that feeds a loss other than a regression's.

    There the signal is measured at the logits: a cross-entropy's derivative by p is about 1/p.
    """
    last = {head.layer for head in heads if head.loss not in _OF_REGRESSION}
    squashing = ("sigmoid", "softmax", "log_softmax")
    return {id(end) for start, end in layers if start.name in last and end.activation in squashing}


def _own_loss(loss: Callable, passed: _Passed, batch: Batch, heads: list[Head]) -> OwnLoss | None:
    p, y = passed.predictions, batch.y
    if len(heads) != 1 or heads[0].loss or not (torch.is_tensor(p) and torch.is_tensor(y)):
        return None

    def loss_at(targets: np.ndarray, outputs: np.ndarray, rows: Any) -> float:
        kind = p.dtype if y.is_floating_point() else y.dtype
        targets = torch.as_tensor(targets, device=y.device).to(kind)
        outputs = torch.as_tensor(outputs, device=p.device).to(p.dtype)
        return float(array(loss_of(loss, outputs, targets)))

    return _measures.own_loss(
        loss_at,
        as_array(y),
        array(p),
        bounded=heads[0].activation in ("sigmoid", "softmax"),
        of_batch=False,
    )


def _next_updates(
    optimizer: torch.optim.Optimizer | None, weights: list[nn.Parameter], gradients: list
) -> list[torch.Tensor | None]:
    """What the optimiser would add to each weight, from a copy of it on copies of the weights."""
    if optimizer is None:
        return [None] * len(weights)
    copies = [w.detach().clone().requires_grad_() for w in weights]
    twin = optimizer_twin(optimizer, {id(w): c for w, c in zip(weights, copies, strict=True)})
    for copy, gradient in zip(copies, gradients, strict=True):
        copy.grad = gradient
    take_step(twin)
    with torch.no_grad():
        return [c - w for c, w in zip(copies, weights, strict=True)]


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """One step of a copy of the optimiser.

    Raises
    ------
    ValueError
        If it raises.
    """
    try:
        optimizer.step()
    except Exception as error:
        raise ValueError(
            "optimizer must take a step on a copy of itself; received "
            f"{type(optimizer).__name__}: {error}"
        ) from error


def _optimizer(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> OptimizerRecord | None:
    """torch's SGD counts no steps: then those of a batch normalisation tell of them."""
    if optimizer is None:
        return None
    steps = [float(s["step"]) for s in optimizer.state.values() if "step" in s]
    steps += [float(b) for name, b in model.named_buffers() if name.endswith("num_batches_tracked")]
    groups = optimizer.param_groups
    rate = max((float(group["lr"]) for group in groups), key=abs)
    epsilon = float(groups[0].get("eps") or np.nan)
    return OptimizerRecord(
        type(optimizer).__name__, int(max(steps, default=0)), rate, rate, epsilon
    )


def _curvature(model: nn.Module, x: Any) -> float:
    """Largest absolute derivative of the summed first derivatives of the outputs."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        return np.nan
    x = x.detach().clone().requires_grad_()
    outputs = [a for a in pytree.tree_leaves(call(model, x)) if torch.is_tensor(a)]
    total = sum(a.sum() for a in outputs if a.requires_grad)
    (first,) = torch.autograd.grad(total, x, create_graph=True, allow_unused=True)
    if first is None or not first.requires_grad:
        return 0.0
    (second,) = torch.autograd.grad(first.sum(), x, allow_unused=True)
    return 0.0 if second is None else float(second.abs().max())


def _is_affine(model: nn.Module, x: Any) -> bool:
    """Whether the outputs are an affine function of the inputs."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or len(x) < 3:
        return False

    def outputs_of(rows: np.ndarray) -> np.ndarray | None:
        with torch.no_grad():
            outputs = model(torch.as_tensor(rows, dtype=x.dtype, device=x.device))
        return array(outputs) if isinstance(outputs, torch.Tensor) else None

    return _measures.is_affine(array(x), outputs_of)
