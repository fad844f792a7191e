"""One batch through a Keras model: what every layer passes forward, and what comes back.

Needs Keras 3 on TensorFlow (``pip install '.[keras]'``). The model is left as it was.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gradutils import _checks
from gradutils._keras import keras, tf

SATURATION = 0.97  # |tanh| above it; Glorot and Bengio 2010 look at the same tails
_SQUASHING = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
_RECTIFYING = {"relu", "relu6"}


@dataclass(frozen=True)
class LayerRecord:
    """What one layer did with the batch. Norms are Euclidean, over the whole batch.

    Attributes
    ----------
    name, kind : str
        Path of the layer in the model, and its class.
    activation : str
        Name of its activation function; "" if it has none.
    parameters : int
        Trainable parameters of its own; 0 for a layer that is frozen or has none.
    input_second_moment : float
        Mean square of what the layer receives, at its first call; NaN if that is not floating.
    second_moment, spread : float
        Mean square and standard deviation of the outputs.
    backward : float
        Norm of the gradient of the loss with respect to the layer's outputs; with respect to its
        logits for a sigmoid or softmax that feeds a cross-entropy, as Keras computes it.
    backward_by_call : ndarray, shape (calls,)
        The same for each call: the time steps of a recurrent cell, the uses of a shared layer.
    weight_norm, gradient_norm : float
        Norms of the trainable weights and of their gradient; NaN without trainable weights.
    update_ratio : float
        Norm of the optimiser's next update over the norm of the weights; NaN without an optimiser.
    dead : float
        Share of units that a rectifier holds at zero for every sample; NaN for other layers.
    saturated : float
        Share of outputs in the outer 3 % of tanh's or sigmoid's range; NaN for other layers.
    nonfinite_weights, nonfinite_outputs, nonfinite_backward : int
        Counts of NaN and inf.
    input_zeros : float
        Share of what the layer receives, at its first call, that is exactly 0.
    nonfinite_rows : float
        Share of the batch's rows whose backward signal holds NaN or inf.
    disconnected : bool
        Whether the loss does not depend on any of the layer's weights: their gradient is None.
    equal_units : bool
        Whether a weight matrix gives all of several units the same column, and the same gradient.
    """

    name: str
    kind: str
    activation: str
    parameters: int
    input_second_moment: float
    second_moment: float
    spread: float
    backward: float
    backward_by_call: np.ndarray
    weight_norm: float
    gradient_norm: float
    update_ratio: float
    dead: float
    saturated: float
    nonfinite_weights: int
    nonfinite_outputs: int
    nonfinite_backward: int
    input_zeros: float = 0.0
    nonfinite_rows: float = 0.0
    disconnected: bool = False
    equal_units: bool = False


@dataclass(frozen=True)
class Probe:
    """What one batch showed.

    Attributes
    ----------
    loss : float
    layers : list of LayerRecord
        In the order of their first call.
    outputs : int
        Number of arrays that the model returns.
    """

    loss: float
    layers: list[LayerRecord]
    outputs: int

    def __getitem__(self, name: str) -> LayerRecord:
        """Return the record whose layer path is that name, or is the only one to end in it."""
        found = [layer for layer in self.layers if layer.name == name]
        found = found or [layer for layer in self.layers if layer.name.endswith(f"/{name}")]
        if not found:
            known = ", ".join(layer.name for layer in self.layers)
            raise KeyError(f"no layer {name!r}; the model called {known}")
        if len(found) > 1:
            several = ", ".join(layer.name for layer in found)
            raise KeyError(f"layer {name!r} is ambiguous; name one of {several}")
        return found[0]


def probe(
    model: keras.Model,
    x: Any,
    y: Any = None,
    loss: Callable | str | None = None,
    *,
    batch_size: int = 64,
    loss_scale: float | None = None,
) -> Probe:
    """Run one batch forward and backward in training mode and measure every layer.

    Nothing of the model changes: weights, normalisation statistics, random seeds, optimiser and
    compiled functions are as before.

    Parameters
    ----------
    model : keras.Model
        Built; compiled, unless `loss` is given.
    x : array, list or dict of arrays, tf.data.Dataset or keras.utils.PyDataset
        Of arrays, `batch_size` evenly spaced samples are used; of a dataset, the first batch.
    y : array, list or dict of arrays, optional
        Targets; None if `x` is a dataset.
    loss : callable or str, optional
        (y, predictions) -> loss of each sample or of the batch, or a name that Keras knows; the
        compiled loss by default. Sample weights of a dataset count, as in `fit`.
    batch_size : int
    loss_scale : float, optional
        Factor on the loss during the backward pass, divided out of all results. That of the
        optimiser by default, 1 if it has none.

    Raises
    ------
    ValueError
        If the model is not built, there is no loss, the data are empty or hold NaN or inf, or
        they do not fit the model or the loss. NaN in the weights is a result, not an error.

    Examples
    --------
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    >>> x, y = np.ones((8, 4)), np.zeros((8, 1))
    >>> probe(model, x, y, loss="binary_crossentropy").layers[0].kind
    'Dense'
    """
    if loss_scale is not None:
        _checks.positive(loss_scale=loss_scale)
    batch = _one_batch(x, y, batch_size)
    _check(model, batch, loss)
    with _state_restored(model), tf.GradientTape() as tape:
        with _calls_recorded(model, tape) as calls:
            value, outputs = _batch_loss(model, batch, loss)
        scaled, factor = _scaled(value, getattr(model, "optimizer", None), loss_scale)
        weights = [v.value for v in model.trainable_variables]
        sources = [[c.output for c in calls], [c.logits for c in calls], weights]
        with tape.stop_recording():
            at_outputs, at_logits, gradients = tape.gradient(scaled, sources)
    backward = [h if g is None else g for g, h in zip(at_outputs, at_logits, strict=True)]
    cut = {id(v) for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None}
    gradients = [
        np.zeros(v.shape) if g is None else _array(g) / factor
        for v, g in zip(model.trainable_variables, gradients, strict=True)
    ]
    updates = _next_updates(model, gradients)
    measured = {
        id(v): (_array(v), g, u)
        for v, g, u in zip(model.trainable_variables, gradients, updates, strict=True)
    }
    layers: dict[int, list[tuple[_Call, Any]]] = {}
    for call, gradient in zip(calls, backward, strict=True):
        layers.setdefault(id(call.layer), []).append((call, gradient))
    records = [_record(_connected(pairs, factor), measured, cut) for pairs in layers.values()]
    return Probe(float(_array(value)), records, outputs)


class _Batch(NamedTuple):
    x: Any
    y: Any
    sample_weight: Any


def _one_batch(x: Any, y: Any, batch_size: int) -> _Batch:
    _checks.positive_integers(batch_size=batch_size)
    if isinstance(x, keras.utils.PyDataset | tf.data.Dataset):
        if y is not None:
            raise ValueError("y must be None where x is a dataset: it yields both")
        first = next(iter(x), None) if isinstance(x, tf.data.Dataset) else x[0] if len(x) else None
        if first is None:
            raise ValueError("x must yield a batch; received an empty dataset")
        return _Batch(*keras.utils.unpack_x_y_sample_weight(first))
    arrays = [a for a in keras.tree.flatten((x, y)) if a is not None]
    if not all(np.ndim(a) for a in arrays):
        kind = type(x).__name__
        raise ValueError(f"x and y must be arrays, or lists or dicts of them; received {kind}")
    sizes = {len(a) for a in arrays}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(f"x and y must hold as many samples, one or more; received {sizes}")
    (samples,) = sizes
    chosen = np.unique(np.linspace(0, samples - 1, min(batch_size, samples)).astype(int))
    x, y = keras.tree.map_structure(lambda a: None if a is None else np.asarray(a)[chosen], (x, y))
    return _Batch(x, y, None)


def _check(model: keras.Model, batch: _Batch, loss: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model; received {type(model).__name__}")
    if not model.built:
        raise ValueError(
            "model must be built: give it a keras.Input, or call it once on a batch of data"
        )
    if loss is None and not model.compiled:
        raise ValueError("loss must be given, or the model compiled with one; received neither")
    for name, data in (("x", batch.x), ("y", batch.y)):
        for array in map(np.asarray, keras.tree.flatten(data)):
            for what, is_bad in (("NaN", np.isnan), ("inf", np.isinf)):
                if array.dtype.kind == "f" and is_bad(array).any():
                    count = is_bad(array).sum()
                    raise ValueError(f"{name} must hold no {what}; received {count} of them")


def _batch_loss(model: keras.Model, batch: _Batch, loss: Any) -> tuple[tf.Tensor, int]:
    """The loss, and how many arrays the model returns."""
    try:
        predictions = model(batch.x, training=True)
    except Exception as error:
        raise ValueError(f"x must fit the model; received shapes {_shapes(batch.x)}") from error
    try:
        if loss is None:
            value = model.compute_loss(*batch[:2], predictions, batch.sample_weight, training=True)
        else:
            value = _mean_loss(keras.losses.get(loss), batch, predictions)
            value += sum(tf.cast(extra, value.dtype) for extra in model.losses)
    except Exception as error:
        raise ValueError(
            f"y must fit the loss and the predictions; received shapes {_shapes(batch.y)} and "
            f"{_shapes(predictions)}, labels {_range(batch.y)}: {error}"
        ) from error
    return value, len(keras.tree.flatten(predictions))


def _mean_loss(loss: Callable, batch: _Batch, predictions: Any) -> tf.Tensor:
    if isinstance(loss, keras.losses.Loss):
        return loss(batch.y, predictions, batch.sample_weight)
    values, weights = loss(batch.y, predictions), batch.sample_weight
    if weights is not None:
        if not values.shape.rank:
            raise ValueError("a loss by sample is needed where x yields sample weights")
        weights = tf.reshape(tf.cast(weights, values.dtype), [-1] + [1] * (values.shape.rank - 1))
        values *= weights
    return tf.reduce_mean(values)


def _scaled(value: tf.Tensor, optimizer: Any, scale: float | None) -> tuple[tf.Tensor, float]:
    """The loss times the scale, and the scale."""
    if scale is None:
        scale = 1.0 if optimizer is None else float(_array(optimizer.scale_loss(tf.ones(()))))
    return value * scale, scale


def _next_updates(model: keras.Model, gradients: list[np.ndarray]) -> list[np.ndarray | None]:
    """What the optimiser would add to each weight, from a copy of it on copies of the weights."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return [None] * len(gradients)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    variables = model.trainable_variables
    copies = [
        keras.Variable(keras.ops.convert_to_numpy(v), name=v.name, dtype=v.dtype) for v in variables
    ]
    twin = type(optimizer).from_config(optimizer.get_config())
    twin.build(copies)
    if optimizer.built:
        for mine, theirs in zip(twin.variables, optimizer.variables, strict=True):
            mine.assign(theirs.value)
    twin.apply([tf.cast(g, v.dtype) for g, v in zip(gradients, variables, strict=True)], copies)
    return [_array(c) - _array(v) for c, v in zip(copies, variables, strict=True)]


@contextmanager
def _state_restored(model: keras.Model) -> Iterator[None]:
    """Put back what a forward pass in training mode changes; run every tf.function eagerly."""
    eager = tf.config.functions_run_eagerly()
    before = {id(v): (v, keras.ops.convert_to_numpy(v)) for v in model.non_trainable_variables}
    before |= {id(v): (v, keras.ops.convert_to_numpy(v)) for v in model.metrics_variables}
    try:
        tf.config.run_functions_eagerly(True)
        yield
    finally:
        tf.config.run_functions_eagerly(eager)
        for variable, value in before.values():
            variable.assign(value)


class _Call(NamedTuple):
    layer: keras.Layer
    argument: Any
    output: tf.Tensor
    logits: tf.Tensor  # what a cross-entropy uses instead of a last sigmoid's or softmax' output


@contextmanager
def _calls_recorded(model: keras.Model, tape: tf.GradientTape) -> Iterator[list[_Call]]:
    """Collect the output of every call of every layer that computes something itself.

    A recurrent layer is kept from the fused kernel of a GPU, which never calls its cell.
    """
    calls: list[_Call] = []

    def recording(layer: keras.Layer, call: Callable) -> Callable:
        @functools.wraps(call)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            first = keras.tree.flatten(outputs)[0]
            if tf.is_tensor(first) and first.dtype.is_floating:
                tape.watch(first)
                logits = getattr(first, "_keras_logits", first)
                calls.append(_Call(layer, args[0] if args else None, first, logits))
            return outputs

        return recorded

    layers = [
        layer
        for layer in model._flatten_layers()
        if not isinstance(layer, keras.layers.InputLayer) and (_own(layer) or not layer._layers)
    ]
    fused = [(layer, layer.use_cudnn) for layer in _recurrent(model)]
    for layer, _ in fused:
        layer.use_cudnn = False
    kept = [layer.__dict__.get("call") for layer in layers]
    for layer in layers:
        layer.__dict__["call"] = recording(layer, layer.call)
    try:
        yield calls
    finally:
        for layer, use in fused:
            layer.use_cudnn = use
        for layer, call in zip(layers, kept, strict=True):
            del layer.__dict__["call"]
            if call is not None:
                layer.__dict__["call"] = call


def _recurrent(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model._flatten_layers() if hasattr(layer, "use_cudnn")]


def _own(layer: keras.Layer) -> list[keras.Variable]:
    """The layer's trainable variables, without those of the layers inside it."""
    inner = {id(v) for sub in layer._layers for v in sub.trainable_variables}
    return [v for v in layer.trainable_variables if id(v) not in inner]


def _connected(pairs: list[tuple[_Call, Any]], factor: float) -> list[tuple[_Call, np.ndarray]]:
    """The calls that the loss depends on, with their gradients; one zero if there is none.

    Keras calls a recurrent cell once more than there are steps; that output leads nowhere.
    """
    used = [(call, _array(g) / factor) for call, g in pairs if g is not None]
    return used or [(call, np.zeros(call.output.shape)) for call, _ in pairs[:1]]


def _record(
    calls: list[tuple[_Call, np.ndarray]],
    measured: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    cut: set[int],
) -> LayerRecord:
    layer = calls[0][0].layer
    outputs = [_array(call.output) for call, _ in calls]
    backward = [gradient for _, gradient in calls]
    weights = [measured[id(v)] for v in _own(layer)]
    values, gradients = [w for w, _, _ in weights], [g for _, g, _ in weights]
    updates = [u for _, _, u in weights if u is not None]
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    activation = {"ReLU": "relu"}.get(type(layer).__name__, activation)
    flat = np.concatenate([a.ravel() for a in outputs])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return LayerRecord(
            name=layer.path or layer.name,
            kind=type(layer).__name__,
            activation="" if activation == "linear" else activation,
            parameters=sum(w.size for w in values),
            input_second_moment=_mean_square(calls[0][0].argument),
            second_moment=float(np.mean(flat**2)),
            spread=float(np.std(flat)),
            backward=_norm(backward),
            backward_by_call=np.array([_norm([g]) for g in backward]),
            weight_norm=_norm(values) if values else np.nan,
            gradient_norm=_norm(gradients) if values else np.nan,
            update_ratio=float(np.divide(_norm(updates), _norm(values))) if updates else np.nan,
            dead=_dead(outputs) if activation in _RECTIFYING else np.nan,
            saturated=_saturated(flat, *_SQUASHING[activation])
            if activation in _SQUASHING
            else np.nan,
            nonfinite_weights=_nonfinite(values),
            nonfinite_outputs=_nonfinite(outputs),
            nonfinite_backward=_nonfinite(backward),
            input_zeros=_zeros(calls[0][0].argument),
            nonfinite_rows=_nonfinite_rows(backward[0]),
            disconnected=bool(values) and all(id(v) in cut for v in _own(layer)),
            equal_units=any(_alike(w) and _alike(g) for w, g, _ in weights),
        )


def _mean_square(argument: Any) -> float:
    if not (tf.is_tensor(argument) and argument.dtype.is_floating):
        return np.nan
    return float(np.mean(_array(argument) ** 2))


def _zeros(argument: Any) -> float:
    return float((_array(argument) == 0).mean()) if tf.is_tensor(argument) else 0.0


def _nonfinite_rows(gradient: np.ndarray) -> float:
    rows = gradient.reshape(len(gradient), -1) if gradient.ndim else gradient.reshape(1, 1)
    return float((~np.isfinite(rows)).any(axis=1).mean())


def _alike(matrix: np.ndarray) -> bool:
    """Whether a matrix of several columns holds one column only, up to rounding."""
    if matrix.ndim < 2 or matrix.shape[-1] < 2 or not np.isfinite(matrix).all():
        return False
    columns = matrix.reshape(-1, matrix.shape[-1])
    return bool((np.ptp(columns, axis=1) <= 1e-6 * np.abs(columns).max()).all())


def _dead(outputs: list[np.ndarray]) -> float:
    units = np.concatenate([a.reshape(-1, a.shape[-1]) for a in outputs])  # (samples, units)
    return float((units == 0).all(axis=0).mean())


def _saturated(values: np.ndarray, low: float, high: float) -> float:
    return float((np.abs(2 * (values - low) / (high - low) - 1) > SATURATION).mean())


def _norm(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.vdot(a, a) for a in arrays)))


def _nonfinite(arrays: list[np.ndarray]) -> int:
    return int(sum((~np.isfinite(a)).sum() for a in arrays))


def _array(tensor: Any) -> np.ndarray:
    """As float64, so that squares neither overflow nor vanish."""
    return np.asarray(tf.convert_to_tensor(getattr(tensor, "value", tensor)), dtype=np.float64)


def _shapes(arrays: Any) -> Any:
    return [tuple(np.shape(a)) for a in keras.tree.flatten(arrays)]


def _range(y: Any) -> str:
    arrays = [np.asarray(a) for a in keras.tree.flatten(y) if a is not None]
    return ", ".join(f"{a.min()} to {a.max()}" for a in arrays)
