"""Numbers about a layer, its head or its loss, from NumPy arrays; no framework is needed.

The last axis of every array is that of the features, or of the units of a weight matrix.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gradutils._records import LayerRecord, OwnLoss

SATURATION = 0.97  # |tanh| above it; Glorot and Bengio 2010 look at the same tails
SQUASHING = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
RECTIFYING = {"relu", "relu6"}
NOTHING = np.empty(0)


class Weight(NamedTuple):
    """A trainable weight as float64, its gradient and the optimiser's next update of it.

    gradient is None if the loss does not depend on the weight, update None without an optimiser.
    """

    value: np.ndarray
    gradient: np.ndarray | None
    update: np.ndarray | None = None


def layer_record(
    *,
    name: str,
    kind: str,
    activation: str,
    inputs: np.ndarray | None,
    outputs: list[np.ndarray],
    backward: list[np.ndarray],
    weights: list[Weight],
    weight_dtype: str = "",
    compute_dtype: str = "",
) -> LayerRecord:
    """The record of one layer.

    Parameters
    ----------
    name, kind, activation, weight_dtype, compute_dtype
        As in the record; "linear" counts as no activation.
    inputs : ndarray, or None
        What the layer receives at its first call; None if that is no tensor.
    outputs, backward : list of ndarray
        For each call, what the layer returns, and the gradient of the loss with respect to it.
    weights : list of Weight
        Those that are the layer's own.

    Returns
    -------
    LayerRecord
    """
    values = [weight.value for weight in weights]
    gradients = [np.zeros(w.value.shape) if w.gradient is None else w.gradient for w in weights]
    updates = [weight.update for weight in weights if weight.update is not None]
    flat = np.concatenate([a.ravel() for a in outputs])
    floating = inputs if inputs is not None and inputs.dtype.kind == "f" else None
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        means, stds = (NOTHING, NOTHING) if floating is None else features(floating)
        return LayerRecord(
            name=name,
            kind=kind,
            activation="" if activation == "linear" else activation,
            parameters=sum(w.size for w in values),
            input_second_moment=np.nan if floating is None else float(np.mean(floating**2)),
            second_moment=float(np.mean(flat**2)),
            spread=float(np.std(flat)),
            backward=norm(backward),
            backward_by_call=np.array([norm([g]) for g in backward]),
            weight_norm=norm(values) if values else np.nan,
            gradient_norm=norm(gradients) if values else np.nan,
            update_ratio=float(np.divide(norm(updates), norm(values))) if updates else np.nan,
            dead=dead(outputs) if activation in RECTIFYING else np.nan,
            saturated=saturated(flat, *SQUASHING[activation])
            if activation in SQUASHING
            else np.nan,
            nonfinite_weights=nonfinite(values),
            nonfinite_outputs=nonfinite(outputs),
            nonfinite_backward=nonfinite(backward),
            input_zeros=0.0 if inputs is None else float((inputs == 0).mean()),
            nonfinite_rows=_nonfinite_rows(backward[0]),
            disconnected=bool(values) and all(weight.gradient is None for weight in weights),
            equal_units=any(map(_both_alike, values, gradients)),
            equal_weights=any(map(_alike, values)),
            feature_means=means,
            feature_stds=stds,
            weight_dtype=weight_dtype,
            compute_dtype=compute_dtype,
            units=outputs[0].shape[-1] if outputs[0].ndim else 0,
        )


def norm(arrays: list[np.ndarray]) -> float:
    """Euclidean norm of all numbers together."""
    return float(np.sqrt(sum(np.vdot(a, a) for a in arrays)))


def change(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    """Norm of the change of some arrays over their norm before; 0 where nothing moved."""
    with np.errstate(all="ignore"):
        moved = norm([b - a for a, b in zip(before, after, strict=True)])
        return 0.0 if moved == 0 else float(np.divide(moved, norm(before)))


def spread_and_size(outputs: list[np.ndarray]) -> tuple[float, float]:
    """Standard deviation over the samples, and size; both as root mean square over the units."""
    flat = [a.reshape(len(a), -1) for a in outputs]  # (samples, units) each
    units = sum(a.shape[1] for a in flat)
    with np.errstate(all="ignore"):
        spread = np.sqrt(np.divide(sum((a.std(axis=0) ** 2).sum() for a in flat), units))
        size = np.sqrt(np.divide(sum((a**2).mean(axis=0).sum() for a in flat), units))
    return float(spread), float(size)


def nonfinite(arrays: list[np.ndarray]) -> int:
    """Count of NaN and inf."""
    return int(sum((~np.isfinite(a)).sum() for a in arrays))


def dead(outputs: list[np.ndarray]) -> float:
    """Share of units that are 0 for every sample and call."""
    units = np.concatenate([a.reshape(-1, a.shape[-1]) for a in outputs])  # (samples, units)
    return float((units == 0).all(axis=0).mean())


def saturated(values: np.ndarray, low: float, high: float) -> float:
    """Share of the values in the outer 3 % of a range."""
    return float((np.abs(2 * (values - low) / (high - low) - 1) > SATURATION).mean())


def features(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation along the last axis."""
    if not inputs.ndim:
        return NOTHING, NOTHING
    columns = inputs.reshape(-1, inputs.shape[-1])
    return columns.mean(axis=0), columns.std(axis=0)


def _nonfinite_rows(gradient: np.ndarray) -> float:
    rows = gradient.reshape(len(gradient), -1) if gradient.ndim else gradient.reshape(1, 1)
    return float((~np.isfinite(rows)).any(axis=1).mean())


def _both_alike(weight: np.ndarray, gradient: np.ndarray) -> bool:
    return _alike(weight) and _alike(gradient)


def _alike(matrix: np.ndarray) -> bool:
    """Whether a matrix of several columns holds one column only, up to rounding."""
    if matrix.ndim < 2 or matrix.shape[-1] < 2 or not np.isfinite(matrix).all():
        return False
    columns = matrix.reshape(-1, matrix.shape[-1])
    return bool((np.ptp(columns, axis=1) <= 1e-6 * np.abs(columns).max()).all())


def row_sizes(arrays: list[np.ndarray]) -> np.ndarray:
    """Root mean square of each sample's inputs; empty unless they are one floating array."""
    if len(arrays) != 1 or arrays[0].dtype.kind != "f":
        return NOTHING
    rows = arrays[0].reshape(len(arrays[0]), -1).astype(float)
    return np.sqrt(np.mean(rows**2, axis=1))


def by_sample(losses: np.ndarray, samples: int) -> np.ndarray:
    """The mean loss of each sample; empty if the loss gives one number for the batch."""
    if not losses.ndim or len(losses) != samples or not losses.size:
        return NOTHING
    return losses.reshape(samples, -1).mean(axis=1)


def class_shares(loss: str, targets: Any, classes: int) -> np.ndarray:
    """Share of each class among the targets; empty unless the loss is a cross-entropy.

    `classes` is the number of outputs: 1 for the two classes of a binary cross-entropy.
    """
    if targets is None or "crossentropy" not in loss:
        return NOTHING
    array = np.asarray(targets, np.float64)
    if loss.startswith("sparse"):
        if (array != array.astype(int)).any() or array.min() < 0:
            return NOTHING
        return np.bincount(array.astype(int).ravel(), minlength=classes) / array.size
    if loss.startswith("binary"):
        positive = float(array.mean())
        return np.array([1 - positive, positive]) if classes == 1 else NOTHING
    return array.reshape(-1, array.shape[-1]).mean(axis=0)


def own_loss(
    loss_at: Callable[[np.ndarray, np.ndarray, Any], Any],
    targets: np.ndarray,
    outputs: np.ndarray,
    *,
    bounded: bool,
    of_batch: bool,
) -> OwnLoss:
    """What a loss of one's own says at outputs of our choice.

    Parameters
    ----------
    loss_at : callable
        (targets, outputs, rows) -> the mean loss of these rows of the batch. Where it raises,
        nothing is measured.
    targets, outputs : ndarray
    bounded : bool
        Whether the outputs come from a sigmoid or softmax.
    of_batch : bool
        Whether the loss sees the inputs too, so that only rows of the batch can be exchanged.

    Returns
    -------
    OwnLoss
    """
    y, p = targets, outputs
    y = y.astype(p.dtype) if y.dtype.kind == "f" else y

    def at(targets: Any, outputs: Any, rows: Any = slice(None)) -> float:
        try:
            return float(loss_at(targets, outputs, rows))
        except Exception:  # a loss may refuse what we make up: then it is not measured
            return np.nan

    distinct = np.unique(y.reshape(len(y), -1), axis=0, return_index=True)[1]
    three = distinct[np.unique([0, len(distinct) // 2, len(distinct) - 1])]
    near = p if y.size != p.size else (0.9 * y + 0.1 * y.mean()).reshape(p.shape).astype(p.dtype)
    rows = [at(y[i : i + 1], near[i : i + 1], slice(i, i + 1)) for i in three]
    pairs = [at(y[i : i + 1], near[j : j + 1], slice(j, j + 1)) for i in three for j in three]
    together = at(y[three], near[three], three)
    if of_batch or y.size != p.size:
        return OwnLoss(float(np.mean(rows)), float(np.mean(pairs)), together)
    same = y.reshape(p.shape).astype(p.dtype)
    half = same.std() / 2
    binary = bool(np.isin(same, (0, 1)).all())
    ends = [(1e-3, 1 - 1e-3), (1e-6, 1 - 1e-6)] if bounded else [(-20, 20), (-200, 200)]
    against, far = (
        at(y, np.where(same == 1, low, high).astype(p.dtype)) if binary else np.nan
        for low, high in ends
    )
    return OwnLoss(
        rows=float(np.mean(rows)),
        pairs=float(np.mean(pairs)),
        together=together,
        at_targets=at(y, same),
        beside_targets=(at(y, same - half), at(y, same + half)),
        at_logits=at(y, 40 * same - 20) if binary else np.nan,
        against=(against, far),
        clipped=at(y, np.clip(p, 0.01, 0.99)),
        swapped=at(p, same),
    )


def is_affine(x: Any, outputs_of: Callable[[np.ndarray], np.ndarray | None]) -> bool:
    """Whether the outputs at the middle of two samples are the middle of their outputs.

    outputs_of returns None where there is not one floating output; x has three samples or more.
    """
    x = np.asarray(x, np.float32)
    middle = (x + np.roll(x, 1, axis=0)) / 2
    at_samples, at_middles = outputs_of(x), outputs_of(middle)
    if at_samples is None or at_middles is None:
        return False
    expected = (at_samples + np.roll(at_samples, 1, axis=0)) / 2
    if at_samples.std() == 0 or not np.isfinite(at_samples).all():
        return False
    return bool(np.abs(at_middles - expected).max() < 1e-4 * at_samples.std())
