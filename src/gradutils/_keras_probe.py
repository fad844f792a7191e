"""One batch through a Keras model: what `gradutils.probes.probe` does with one."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from gradutils import _measures
from gradutils._batches import Batch, ranges, shapes
from gradutils._keras import keras, tf
from gradutils._keras_optimizers import inner_optimizer, optimizer_twin
from gradutils._measures import NOTHING, Weight
from gradutils._records import Head, LayerRecord, OptimizerRecord, OwnLoss, Probe


def probe(
    model: keras.Model, batch: Batch, loss: Callable | str | None, loss_scale: float | None
) -> Probe:
    """Run one batch forward and backward in training mode and measure every layer."""
    check_usable(model, batch, loss)
    with Recorder(model) as recorder:
        predictions, value, scaled, factor = recorder.forward(batch, loss, loss_scale)
        backward, gradients = recorder.backward(scaled)
        calls = recorder.calls
        penalties, regularization = _penalties(model)
        heads = _heads(model, batch, loss, predictions, calls)
        inference = float(as_float64(batch_loss(model, batch, loss, training=False)[0]))
        own_loss = _own_loss(model, batch, loss, predictions, heads)
        curvature = _curvature(model, batch) if recorder.differentiates_twice else np.nan
        affine = _is_affine(model, batch)
    gradients = [None if g is None else as_float64(g) / factor for g in gradients]
    updates = _next_updates(model, gradients)
    weights = {
        id(v): Weight(as_float64(v), g, u)
        for v, g, u in zip(model.trainable_variables, gradients, updates, strict=True)
    }
    layers: dict[int, list[tuple[_Call, Any]]] = {}
    for call, gradient in zip(calls, backward, strict=True):
        layers.setdefault(id(call.layer), []).append((call, gradient))
    return Probe(
        loss=float(as_float64(value)),
        layers=[_record(_connected(pairs, factor), weights) for pairs in layers.values()],
        outputs=len(heads),
        inference_loss=inference,
        heads=heads,
        own_loss=own_loss,
        penalties=penalties,
        regularization=regularization,
        optimizer=_optimizer(model),
        curvature=curvature,
        affine=affine,
        row_sizes=_measures.row_sizes([np.asarray(a) for a in keras.tree.flatten(batch.x)]),
    )


def check_usable(model: keras.Model, batch: Batch, loss: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model; received {type(model).__name__}")
    if not model.built:
        raise ValueError(
            "model must be built: give it a keras.Input, or call it once on a batch of data"
        )
    if loss is None and not model.compiled:
        raise ValueError("loss must be given, or the model compiled with one; received neither")


def batch_loss(
    model: keras.Model, batch: Batch, loss: Any, *, training: bool = True
) -> tuple[tf.Tensor, Any]:
    """The loss and the predictions."""
    try:
        predictions = model(batch.x, training=training)
    except Exception as error:
        raise ValueError(
            f"x must fit the model; received shapes {shapes(batch.x)}: {error}"
        ) from error
    try:
        if loss is None:
            value = model.compute_loss(*batch[:2], predictions, batch.sample_weight, training)
        else:
            value = _mean_loss(keras.losses.get(loss), batch, predictions)
            value += sum(tf.cast(extra, value.dtype) for extra in model.losses)
    except Exception as error:
        if "No loss to compute" in str(error):
            raise ValueError(
                "loss must be given: the model was compiled without one, and what a train_step of "
                "its own computes cannot be asked for"
            ) from error
        raise ValueError(
            f"y must fit the loss and the predictions; received shapes {shapes(batch.y)} and "
            f"{shapes(predictions)}, labels {ranges(batch.y)}: {error}"
        ) from error
    return value, predictions


def _mean_loss(loss: Callable, batch: Batch, predictions: Any) -> tf.Tensor:
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
        scale = 1.0 if optimizer is None else float(as_float64(optimizer.scale_loss(tf.ones(()))))
    return value * scale, scale


def _next_updates(
    model: keras.Model, gradients: list[np.ndarray | None]
) -> list[np.ndarray | None]:
    """What the optimiser would add to each weight, from a copy of it on copies of the weights."""
    optimizer = inner_optimizer(model)
    if optimizer is None:
        return [None] * len(gradients)
    variables = model.trainable_variables
    copies = [
        keras.Variable(keras.ops.convert_to_numpy(v), name=v.name, dtype=v.dtype) for v in variables
    ]
    twin = optimizer_twin(optimizer, copies)
    twin.apply(
        [
            tf.cast(np.zeros(v.shape) if g is None else g, v.dtype)
            for g, v in zip(gradients, variables, strict=True)
        ],
        copies,
    )
    return [as_float64(c) - as_float64(v) for c, v in zip(copies, variables, strict=True)]


class _Call(NamedTuple):
    layer: keras.Layer
    argument: Any
    output: tf.Tensor
    logits: tf.Tensor  # what a cross-entropy uses instead of a last sigmoid's or softmax' output


class Recorder:
    """Records every call of every layer that computes something itself, and leaves no trace.

    While it is open, every tf.function runs eagerly, no layer's activations are recomputed (a
    `keras.RematScope` hides them from the tape), and a recurrent layer is kept from the fused
    kernel of a GPU, which never calls its cell. When it closes, all variables are as before: a
    pass in training mode moves normalisation statistics, seeds, and the kernel of a
    `SpectralNormalization`.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.calls: list[_Call] = []
        self.differentiates_twice = False
        self.tape = tf.GradientTape()
        self._tapes = 0

    def __enter__(self) -> "Recorder":
        model = self.model
        self._eager = tf.config.functions_run_eagerly()
        self._before = [(v, tf.identity(v)) for v in state_of(model)]
        self._attributes: list[tuple[Any, str, Any]] = []
        tf.config.run_functions_eagerly(True)
        for layer in model._flatten_layers():
            self._set(layer, "_remat_mode", None)
            if hasattr(layer, "use_cudnn"):
                self._set(layer, "use_cudnn", False)
            is_input = isinstance(layer, keras.layers.InputLayer)
            if not is_input and (own_weights(layer) or not layer._layers):
                self._set(layer, "call", self._recording(layer, layer.call))
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, value in reversed(self._attributes):
            if value is _ABSENT:
                del owner.__dict__[name]
            else:
                owner.__dict__[name] = value
        for variable, value in self._before:
            variable.assign(value)
        tf.config.run_functions_eagerly(self._eager)

    def forward(
        self, batch: Batch, loss: Any, scale: float | None
    ) -> tuple[Any, tf.Tensor, tf.Tensor, float]:
        """The predictions, the loss, the loss times its scale, and the scale; on the tape."""
        with self.tape:
            with self._tapes_counted():
                value, predictions = batch_loss(self.model, batch, loss)
            scaled, factor = _scaled(value, getattr(self.model, "optimizer", None), scale)
        return predictions, value, scaled, factor

    def backward(self, scaled: tf.Tensor) -> tuple[list, list]:
        """The gradient at every call's output, or at its logits, and at the weights."""
        weights = [v.value for v in self.model.trainable_variables]
        sources = [[c.output for c in self.calls], [c.logits for c in self.calls], weights]
        at_outputs, at_logits, gradients = self.tape.gradient(scaled, sources)
        signals = [h if g is None else g for g, h in zip(at_outputs, at_logits, strict=True)]
        return signals, gradients

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._attributes.append((owner, name, owner.__dict__.get(name, _ABSENT)))
        owner.__dict__[name] = value

    def _recording(self, layer: keras.Layer, call: Callable) -> Callable:
        @functools.wraps(call)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            if isinstance(layer, keras.layers.Embedding):
                _check_ids(layer, args[0])
            outputs = call(*args, **kwargs)
            first = keras.tree.flatten(outputs)[0]
            if self.tape._recording and tf.is_tensor(first) and first.dtype.is_floating:
                self.tape.watch(first)
                logits = getattr(first, "_keras_logits", first)
                self.calls.append(_Call(layer, args[0] if args else None, first, logits))
            return outputs

        return recorded

    @contextmanager
    def _tapes_counted(self) -> Iterator[None]:
        """Note whether a tape opens inside another one: the loss differentiates twice."""
        enter, leave = tf.GradientTape.__enter__, tf.GradientTape.__exit__

        def counted(tape: tf.GradientTape) -> tf.GradientTape:
            self._tapes += 1
            self.differentiates_twice |= self._tapes > 1
            return enter(tape)

        def uncounted(tape: tf.GradientTape, *error: object) -> None:
            self._tapes -= 1
            leave(tape, *error)

        tf.GradientTape.__enter__, tf.GradientTape.__exit__ = counted, uncounted
        try:
            yield
        finally:
            tf.GradientTape.__enter__, tf.GradientTape.__exit__ = enter, leave


_ABSENT = object()


def _check_ids(layer: keras.Layer, ids: Any) -> None:
    """A CPU raises an error of its own for such ids; a GPU looks up zeros and says nothing."""
    low, high = int(tf.reduce_min(ids)), int(tf.reduce_max(ids))
    if low < 0 or high >= layer.input_dim:
        raise ValueError(
            f"ids must lie in 0 to {layer.input_dim - 1}, by the input_dim of the embedding "
            f"{layer.path}; received {low} to {high}"
        )


def state_of(model: keras.Model) -> list[Any]:
    """Every variable of a model, those that Keras does not count among its variables included.

    Keras leaves out the states of a stateful recurrent layer, and a tf.Variable of one's own.
    """
    found = [*model.variables, *model.metrics_variables]
    for layer in model._flatten_layers():
        for value in vars(layer).values():
            values = value if isinstance(value, list | tuple) else [value]
            found += [v for v in values if isinstance(v, keras.Variable | tf.Variable)]
    return list({id(v): v for v in found}.values())


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """The layer's trainable variables, without those of the layers inside it."""
    inner = {id(v) for sub in layer._layers for v in sub.trainable_variables}
    return [v for v in layer.trainable_variables if id(v) not in inner]


def _connected(pairs: list[tuple[_Call, Any]], factor: float) -> list[tuple[_Call, np.ndarray]]:
    """The calls that the loss depends on, with their gradients; one zero if there is none.

    Keras calls a recurrent cell once more than there are steps; that output leads nowhere.
    """
    used = [(call, as_float64(g) / factor) for call, g in pairs if g is not None]
    return used or [(call, np.zeros(call.output.shape)) for call, _ in pairs[:1]]


def _record(calls: list[tuple[_Call, np.ndarray]], weights: dict[int, Weight]) -> LayerRecord:
    layer, own = calls[0][0].layer, own_weights(calls[0][0].layer)
    return _measures.layer_record(
        name=path_of(layer),
        kind=type(layer).__name__,
        activation=activation_of(layer),
        inputs=_received(calls[0][0].argument),
        outputs=[as_float64(call.output) for call, _ in calls],
        backward=[gradient for _, gradient in calls],
        weights=[weights[id(v)] for v in own],
        weight_dtype=own[0].dtype if own else "",
        compute_dtype=layer.compute_dtype,
    )


def path_of(layer: keras.Layer) -> str:
    """The layer's place in the model; its name before Keras has told it its place."""
    return layer.path or layer.name


def activation_of(layer: keras.Layer) -> str:
    kinds = {"ReLU": "relu", "Softmax": "softmax", "LeakyReLU": "leaky_relu", "ELU": "elu"}
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return kinds.get(type(layer).__name__, name)


def _optimizer(model: keras.Model) -> OptimizerRecord | None:
    optimizer = inner_optimizer(model)
    if optimizer is None:
        return None
    now = int(as_float64(optimizer.iterations))
    schedule = getattr(optimizer, "_learning_rate", None)
    rate = float(as_float64(optimizer.learning_rate))
    later = [rate]
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        later = [float(as_float64(schedule(now + k))) for k in (10, 100, 1000, 10_000)]
    epsilon = float(getattr(optimizer, "epsilon", None) or np.nan)
    return OptimizerRecord(type(optimizer).__name__, now, rate, max(later), epsilon)


def _penalties(model: keras.Model) -> tuple[dict[str, float], float]:
    """What regularisers and `add_loss` add, by layer, and the weight regularisers' part of it."""
    penalties: dict[str, float] = {}
    of_weights = 0.0
    for layer in model._flatten_layers():
        added = [float(as_float64(value)) for value in layer._losses]
        decay = [float(as_float64(v.regularizer(v))) for v in own_weights(layer) if v.regularizer]
        of_weights += sum(decay)
        if added or decay:
            penalties[path_of(layer)] = sum(added) + sum(decay)
    return penalties, of_weights


def _heads(
    model: keras.Model, batch: Batch, loss: Any, predictions: Any, calls: list[_Call]
) -> list[Head]:
    outputs = keras.tree.flatten(predictions)
    names = _names(model, predictions)
    targets = _aligned(batch.y, predictions, names)
    everything = _aligned(batch.all_targets, predictions, names)
    losses = _losses(model, loss, predictions, names)
    by_output = {id(call.output): call.layer for call in calls}
    heads = []
    for output, target, given, function in zip(outputs, targets, everything, losses, strict=True):
        layer = by_output.get(id(output))
        name, from_logits = _known(function)
        values = _raw_losses(function, target, output)
        heads.append(
            Head(
                outputs=as_float64(output),
                targets=None if target is None else np.asarray(target, np.float64),
                loss=name,
                from_logits=from_logits,
                activation=activation_of(layer) if layer is not None else "",
                layer=layer.path if layer is not None else "",
                has_logits=hasattr(output, "_keras_logits"),
                sample_losses=_measures.by_sample(values, len(output)),
                masked_losses=_masked(values, output),
                class_shares=_measures.class_shares(name, given, output.shape[-1]),
            )
        )
    return heads


def _names(model: keras.Model, predictions: Any) -> list:
    if isinstance(predictions, dict):
        return sorted(predictions)
    names = getattr(model, "output_names", None) or []
    count = len(keras.tree.flatten(predictions))
    return list(names) if len(names) == count else list(range(count))


def _aligned(parts: Any, predictions: Any, names: list) -> list:
    """One part for each output, None where it has none; parts are one array, a list or a dict."""
    if isinstance(parts, dict):
        return [parts.get(name) for name in names]
    if isinstance(parts, list | tuple):
        return list(parts) if len(parts) == len(names) else [None] * len(names)
    return [parts] if len(names) == 1 else [None] * len(names)


def _losses(model: keras.Model, loss: Any, predictions: Any, names: list) -> list:
    """The loss function of each output: (targets, outputs) -> values; None if there is none."""
    if loss is None and overrides(model, "compute_loss"):
        return [None] * len(names)
    given = loss if loss is not None else model.loss
    if isinstance(given, str) or callable(given):
        given = [given] * len(names)
    return [None if g is None else keras.losses.get(g) for g in _aligned(given, predictions, names)]


def overrides(model: keras.Model, method: str) -> bool:
    return getattr(type(model), method) is not getattr(keras.Model, method)


def _known(function: Any) -> tuple[str, bool]:
    """Keras' name of a loss and whether it takes logits; "" for one's own."""
    options = getattr(function, "_fn_kwargs", {})
    inner = getattr(function, "fn", function)
    if not getattr(inner, "__module__", "").startswith("keras."):
        return "", False
    return getattr(inner, "__name__", ""), bool(options.get("from_logits", False))


def _values(function: Any, target: Any, output: Any) -> tf.Tensor:
    """The losses before they are averaged; targets get the outputs' rank, as in `fit`."""
    target, output = tf.convert_to_tensor(target), tf.convert_to_tensor(output)
    if target.shape.rank == output.shape.rank - 1 and output.shape[-1] == 1:
        target = target[..., None]
    return (
        function.call(target, output)
        if isinstance(function, keras.losses.Loss)
        else function(target, output)
    )


def _raw_losses(function: Any, target: Any, output: Any) -> np.ndarray:
    if function is None or target is None:
        return NOTHING
    try:
        if output.dtype.is_floating and np.asarray(target).dtype.kind == "f":
            target = tf.cast(target, output.dtype)
        return as_float64(_values(function, target, output))
    except Exception:  # a loss of one's own that cannot be called alone is not measured
        return NOTHING


def _masked(values: np.ndarray, output: Any) -> float:
    mask = getattr(output, "_keras_mask", None)
    bad = ~np.isfinite(values)
    if mask is None or not bad.any() or bad.shape != tuple(mask.shape):
        return np.nan
    return float((bad & ~np.asarray(mask, bool)).sum() / bad.sum())


def _own_loss(
    model: keras.Model, batch: Batch, loss: Any, predictions: Any, heads: list[Head]
) -> OwnLoss | None:
    overridden = loss is None and overrides(model, "compute_loss")
    if len(heads) != 1 or heads[0].targets is None or not (overridden or not heads[0].loss):
        return None
    function = None if overridden else _losses(model, loss, predictions, [0])[0]

    def loss_at(targets: np.ndarray, outputs: np.ndarray, rows: Any) -> Any:
        if overridden:
            x = keras.tree.map_structure(lambda a: np.asarray(a)[rows], batch.x)
            return as_float64(model.compute_loss(x, targets, tf.constant(outputs)))
        return as_float64(_values(function, targets, tf.constant(outputs))).mean()

    return _measures.own_loss(
        loss_at,
        np.asarray(keras.tree.flatten(batch.y)[0]),
        _output(predictions),
        bounded=heads[0].activation in ("sigmoid", "softmax"),
        of_batch=overridden,
    )


def _is_affine(model: keras.Model, batch: Batch) -> bool:
    """Whether the outputs, or their logits where Keras keeps them, are affine in the inputs."""
    parts = keras.tree.flatten(batch.x)
    if len(parts) > 1 or np.asarray(parts[0]).dtype.kind != "f" or len(parts[0]) < 3:
        return False

    def outputs_of(x: np.ndarray) -> np.ndarray | None:
        outputs = keras.tree.flatten(model(x, training=False))
        if len(outputs) > 1 or not outputs[0].dtype.is_floating:
            return None
        return as_float64(getattr(outputs[0], "_keras_logits", outputs[0]))

    return _measures.is_affine(parts[0], outputs_of)


def _output(predictions: Any) -> np.ndarray:
    return np.asarray(tf.convert_to_tensor(keras.tree.flatten(predictions)[0]))


def _curvature(model: keras.Model, batch: Batch) -> float:
    """Largest absolute derivative of the summed first derivatives of the outputs."""
    x = tf.convert_to_tensor(keras.tree.flatten(batch.x)[0])
    if not x.dtype.is_floating or len(keras.tree.flatten(batch.x)) > 1:
        return np.nan
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            outputs = keras.tree.flatten(model(x, training=False))
        first = inner.gradient(outputs, x)
    second = None if first is None else outer.gradient(first, x)
    return 0.0 if second is None else float(np.abs(as_float64(second)).max())


def _received(argument: Any) -> np.ndarray | None:
    """What a layer receives: as float64 if it is floating, as it is if not; None for no tensor."""
    if not tf.is_tensor(argument):
        return None
    return as_float64(argument) if argument.dtype.is_floating else np.asarray(argument)


def as_float64(tensor: Any) -> np.ndarray:
    """As float64, so that squares neither overflow nor vanish."""
    return np.asarray(tf.convert_to_tensor(getattr(tensor, "value", tensor)), dtype=np.float64)
