"""One batch through a Keras model: what `gradutils.probes.probe` does with one."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from gradutils import _measures
from gradutils._backends import Seen, Watch
from gradutils._batches import Batch, as_array, ranges, shapes
from gradutils._keras import backend, get_keras_mask, keras
from gradutils._keras_optimizers import inner_optimizer, optimizer_twin
from gradutils._keras_state import sandbox
from gradutils._measures import NOTHING, Weight
from gradutils._records import Head, LayerRecord, OptimizerRecord, OwnLoss, Probe


def probe(
    model: keras.Model, batch: Batch, loss: Callable | str | None, loss_scale: float | None
) -> Probe:
    """Run one batch forward and backward in training mode and measure every layer."""
    check_usable(model, batch, loss)
    batch = as_in_fit(batch)
    with sandbox(model), Recorder(model) as recorder:
        run = recorder.differentiate(batch, loss, loss_scale)
        heads = _heads(model, batch, loss, run)
        inference = float(as_float64(batch_loss(model, batch, loss, training=False)[0]))
        own_loss = _own_loss(model, batch, loss, run.predictions, heads)
        curvature = _curvature(model, batch) if run.differentiates_twice else np.nan
        affine = _is_affine(model, batch)
    gradients = [None if g is None else as_float64(g) / run.scale for g in run.gradients]
    updates = _next_updates(model, gradients)
    weights = {
        id(v): Weight(as_float64(v), g, u)
        for v, g, u in zip(model.trainable_variables, gradients, updates, strict=True)
    }
    layers: dict[int, list[Call]] = {}
    for call in run.calls:
        layers.setdefault(id(call.layer), []).append(call)
    penalties, regularization = _penalties(model, run.added)
    return Probe(
        loss=float(as_float64(run.loss)),
        layers=[_record(_connected(calls), run.scale, weights) for calls in layers.values()],
        outputs=len(heads),
        inference_loss=inference,
        heads=heads,
        own_loss=own_loss,
        penalties=penalties,
        regularization=regularization,
        optimizer=_optimizer(model),
        curvature=curvature,
        affine=affine,
        row_sizes=_measures.row_sizes([as_array(a) for a in keras.tree.flatten(batch.x)]),
    )


def as_in_fit(batch: Batch) -> Batch:
    """The batch in the form in which the model and its loss receive it in `fit`."""
    x, y, sample_weight = (backend.tensors(part) for part in batch[:3])
    return batch._replace(x=x, y=y, sample_weight=sample_weight)


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
) -> tuple[Any, Any]:
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
            value += sum(keras.ops.cast(extra, value.dtype) for extra in model.losses)
    except Exception as error:
        outputs = [a for a in keras.tree.flatten(predictions) if is_floating(a)]
        if not all(np.isfinite(as_float64(a)).all() for a in outputs if backend.REFUSES_NAN):
            return sum(keras.ops.sum(a) for a in outputs) * np.nan, predictions
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


def _mean_loss(loss: Callable, batch: Batch, predictions: Any) -> Any:
    if isinstance(loss, keras.losses.Loss):
        return loss(batch.y, predictions, batch.sample_weight)
    values, weights = loss(batch.y, predictions), batch.sample_weight
    if weights is not None:
        if not values.ndim:
            raise ValueError("a loss by sample is needed where x yields sample weights")
        weights = keras.ops.cast(weights, values.dtype)
        values *= keras.ops.reshape(weights, [-1] + [1] * (values.ndim - 1))
    return keras.ops.mean(values)


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
    given = [
        keras.ops.cast(np.zeros(v.shape) if g is None else g, v.dtype)
        for g, v in zip(gradients, variables, strict=True)
    ]
    with backend.frozen():
        twin.apply(given, copies)
    return [as_float64(c) - as_float64(v) for c, v in zip(copies, variables, strict=True)]


class Call(NamedTuple):
    """One call of a layer: what it got and gave, and the gradient of the loss there, or None."""

    layer: keras.Layer
    argument: Any
    output: Any
    gradient: Any = None


class _Head(NamedTuple):
    """What is known of one output of the model while it is computed."""

    layer: "keras.Layer | None"
    mask: Any
    has_logits: bool


class Run(NamedTuple):
    """One forward and backward pass; the gradients are those of the loss times the scale."""

    loss: Any
    predictions: Any
    added: dict[str, list]  # by layer, what regularisers of activities and `add_loss` add
    heads: list[_Head]
    calls: list[Call]
    gradients: list
    scale: float
    differentiates_twice: bool


#: The activations that a cross-entropy undoes: what counts is the gradient at what they receive.
_UNDONE = {"sigmoid", "softmax"}


class Recorder:
    """Records every call of every layer that computes something itself, and leaves no trace.

    While it is open, no layer's activations are recomputed (a `keras.RematScope` hides them), and
    a recurrent layer is kept from a fused kernel, which never calls its cell. A pass in training
    mode moves normalisation statistics, seeds, and the kernel of a `SpectralNormalization`: that is
    for `sandbox` to put back.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._hooks = ExitStack()
        self._watch: Watch | None = None
        self._marks: list[tuple[keras.Layer, bool]] = []  # of each watched place: is it logits?
        self._outputs: list[tuple[Any, keras.Layer]] = []

    def __enter__(self) -> "Recorder":
        self._hooks.enter_context(backend.undisturbed())
        for layer in self.model._flatten_layers():
            self._set(layer, "_remat_mode", None)
            if hasattr(layer, "use_cudnn"):
                self._set(layer, "use_cudnn", False)
            is_input = isinstance(layer, keras.layers.InputLayer)
            if not is_input and (own_weights(layer) or not layer._layers):
                self._set(layer, "call", self._recording(layer, layer.call))
                if "activation" in vars(layer) and activation_of(layer) in _UNDONE:
                    self._set(layer, "activation", self._activating(layer, layer.activation))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def differentiate(self, batch: Batch, loss: Any, scale: float | None) -> Run:
        """Run the batch forward in training mode, and backward."""
        optimizer = getattr(self.model, "optimizer", None)
        if scale is None:
            one = keras.ops.ones(())
            scale = 1.0 if optimizer is None else float(as_float64(optimizer.scale_loss(one)))
        heads: list[_Head] = []
        twice: list[bool] = []

        def forward(watch: Watch) -> tuple[Any, Any]:
            with self._watching(watch), backend.differentiating_twice() as found:
                value, predictions = batch_loss(self.model, batch, loss)
            twice.extend(found)
            heads.extend(self._head(output) for output in keras.tree.flatten(predictions))
            added = {
                path_of(layer): layer._get_own_losses() for layer in self.model._flatten_layers()
            }
            return value * scale, (value, predictions, added)

        (value, predictions, added), seen, gradients = backend.differentiate(
            forward, self.model.trainable_variables
        )
        undone = _undone(heads, _losses(self.model, loss, predictions))
        calls = self._calls(seen, undone)
        return Run(value, predictions, added, heads, calls, gradients, scale, bool(twice))

    def observe(self, batch: Batch, loss: Any) -> tuple[Any, Any, list[Call]]:
        """Run the batch forward in inference mode: the loss, the predictions, and the calls."""

        def forward(watch: Watch) -> Any:
            with self._watching(watch):
                return batch_loss(self.model, batch, loss, training=False)

        (value, predictions), seen = backend.observe(forward)
        return value, predictions, self._calls(seen, set())

    @contextmanager
    def _watching(self, watch: Watch) -> Iterator[None]:
        self._watch, self._marks, self._outputs = watch, [], []
        try:
            yield
        finally:
            self._watch = None

    def _head(self, output: Any) -> _Head:
        layer = next((layer for known, layer in self._outputs if known is output), None)
        has_logits = backend.LOSSES_TAKE_LOGITS and hasattr(output, "_keras_logits")
        return _Head(layer, get_keras_mask(output), has_logits)

    def _calls(self, seen: list[list[Seen]], undone: set[int]) -> list[Call]:
        """The calls, in their order, with the gradient at the logits where that is what counts."""
        outputs: list[Call] = []
        at_logits: dict[int, list[Any]] = {}
        for (layer, logits), entries in zip(self._marks, seen, strict=True):
            for argument, output, gradient in entries:
                if logits:
                    at_logits.setdefault(id(layer), []).append(gradient)
                else:
                    outputs.append(Call(layer, argument, output, gradient))
        calls = []
        for call in outputs:
            waiting = at_logits.get(id(call.layer))
            at_these = waiting.pop(0) if waiting else None
            if at_these is not None and (call.gradient is None or id(call.layer) in undone):
                call = call._replace(gradient=at_these)
            calls.append(call)
        return calls

    def _set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute until the recorder closes, past the tracking of Keras."""
        attributes = vars(owner)
        if name in attributes:
            self._hooks.callback(attributes.__setitem__, name, attributes[name])
        else:
            self._hooks.callback(attributes.pop, name)
        attributes[name] = value

    def _mark(self, layer: keras.Layer, output: Any, argument: Any, logits: bool = False) -> Any:
        """Watch a tensor of floating numbers; return what to go on with."""
        if self._watch is None or not is_floating(output):
            return output
        self._marks.append((layer, logits))
        return self._watch(output, argument)

    def _recording(self, layer: keras.Layer, call: Callable) -> Callable:
        @functools.wraps(call)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            if isinstance(layer, keras.layers.Embedding):
                _check_ids(layer, args[0])
            if isinstance(layer, keras.layers.Softmax):
                args = (self._mark(layer, args[0], None, logits=True), *args[1:])
            places = len(self._marks)
            outputs = call(*args, **kwargs)
            first = keras.tree.flatten(outputs)[0]
            if len(self._marks) == places and hasattr(first, "_keras_logits"):
                self._mark(layer, first._keras_logits, None, logits=True)
            watched = self._mark(layer, first, args[0] if args else None)
            self._outputs.append((watched, layer))
            if watched is first:
                return outputs
            # A recurrent cell returns one tensor as its output and as its state.
            return keras.tree.map_structure(lambda a: watched if a is first else a, outputs)

        return recorded

    def _activating(self, layer: keras.Layer, activation: Callable) -> Callable:
        @functools.wraps(activation)
        def activated(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return activation(self._mark(layer, inputs, None, logits=True), *args, **kwargs)

        return activated


def _undone(heads: list[_Head], losses: list) -> set[int]:
    """The layers whose sigmoid or softmax a cross-entropy of probabilities undoes."""
    return {
        id(head.layer)
        for head, loss in zip(heads, losses, strict=True)
        if "crossentropy" in _known(loss)[0] and not _known(loss)[1]
    }


def is_floating(tensor: Any) -> bool:
    """Whether something is a tensor of floating numbers."""
    return keras.ops.is_tensor(tensor) and keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(tensor.dtype)
    )


def _check_ids(layer: keras.Layer, ids: Any) -> None:
    """A CPU raises an error of its own for such ids; a GPU looks up zeros and says nothing."""
    ids = as_array(keras.ops.convert_to_numpy(ids))
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= layer.input_dim:
        raise ValueError(
            f"ids must lie in 0 to {layer.input_dim - 1}, by the input_dim of the embedding "
            f"{layer.path}; received {low} to {high}"
        )


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """The layer's trainable variables, without those of the layers inside it."""
    inner = {id(v) for sub in layer._layers for v in sub.trainable_variables}
    return [v for v in layer.trainable_variables if id(v) not in inner]


def _connected(calls: list[Call]) -> list[Call]:
    """The calls that the loss depends on; the first one if there is none.

    Keras calls a recurrent cell once more than there are steps; that output leads nowhere.
    """
    return [call for call in calls if call.gradient is not None] or calls[:1]


def _record(calls: list[Call], scale: float, weights: dict[int, Weight]) -> LayerRecord:
    layer, own = calls[0].layer, own_weights(calls[0].layer)
    outputs = [as_float64(call.output) for call in calls]
    return _measures.layer_record(
        name=path_of(layer),
        kind=type(layer).__name__,
        activation=activation_of(layer),
        inputs=_received(calls[0].argument),
        outputs=outputs,
        backward=[
            np.zeros(output.shape) if call.gradient is None else as_float64(call.gradient) / scale
            for call, output in zip(calls, outputs, strict=True)
        ],
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


def _penalties(model: keras.Model, added_by: dict[str, list]) -> tuple[dict[str, float], float]:
    """What regularisers and `add_loss` add, by layer, and the weight regularisers' part of it."""
    penalties: dict[str, float] = {}
    of_weights = 0.0
    for layer in model._flatten_layers():
        added = [float(as_float64(value)) for value in added_by.get(path_of(layer), [])]
        decay = [float(as_float64(v.regularizer(v))) for v in own_weights(layer) if v.regularizer]
        of_weights += sum(decay)
        if added or decay:
            penalties[path_of(layer)] = sum(added) + sum(decay)
    return penalties, of_weights


def _heads(model: keras.Model, batch: Batch, loss: Any, run: Run) -> list[Head]:
    outputs, names = keras.tree.flatten(run.predictions), _names(model, run.predictions)
    targets, everything = _aligned(batch.y, names), _aligned(batch.all_targets, names)
    losses = _losses(model, loss, run.predictions)
    heads = []
    for output, known, target, given, function in zip(
        outputs, run.heads, targets, everything, losses, strict=True
    ):
        name, from_logits = _known(function)
        values = _raw_losses(function, target, output)
        heads.append(
            Head(
                outputs=as_float64(output),
                targets=None if target is None else as_float64(target),
                loss=name,
                from_logits=from_logits,
                activation=activation_of(known.layer) if known.layer is not None else "",
                layer=path_of(known.layer) if known.layer is not None else "",
                has_logits=known.has_logits,
                sample_losses=_measures.by_sample(values, len(output)),
                masked_losses=_masked(values, known.mask),
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


def _aligned(parts: Any, names: list) -> list:
    """One part for each output, None where it has none; parts are one array, a list or a dict."""
    if isinstance(parts, dict):
        return [parts.get(name) for name in names]
    if isinstance(parts, list | tuple):
        return list(parts) if len(parts) == len(names) else [None] * len(names)
    return [parts] if len(names) == 1 else [None] * len(names)


def _losses(model: keras.Model, loss: Any, predictions: Any) -> list:
    """The loss function of each output: (targets, outputs) -> values; None if there is none."""
    names = _names(model, predictions)
    if loss is None and overrides(model, "compute_loss"):
        return [None] * len(names)
    given = loss if loss is not None else model.loss
    if isinstance(given, str) or callable(given):
        given = [given] * len(names)
    return [None if g is None else keras.losses.get(g) for g in _aligned(given, names)]


def overrides(model: keras.Model, method: str) -> bool:
    return getattr(type(model), method) is not getattr(keras.Model, method)


def _known(function: Any) -> tuple[str, bool]:
    """Keras' name of a loss and whether it takes logits; "" for one's own."""
    options = getattr(function, "_fn_kwargs", {})
    inner = getattr(function, "fn", function)
    if not getattr(inner, "__module__", "").startswith("keras."):
        return "", False
    return getattr(inner, "__name__", ""), bool(options.get("from_logits", False))


def _values(function: Any, target: Any, output: Any) -> Any:
    """The losses before they are averaged; targets get the outputs' rank, as in `fit`."""
    target, output = keras.ops.convert_to_tensor(target), keras.ops.convert_to_tensor(output)
    if target.ndim == output.ndim - 1 and output.shape[-1] == 1:
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
        if is_floating(output) and as_array(target).dtype.kind == "f":
            target = keras.ops.cast(target, output.dtype)
        return as_float64(_values(function, target, output))
    except Exception:  # a loss of one's own that cannot be called alone is not measured
        return NOTHING


def _masked(values: np.ndarray, mask: Any) -> float:
    bad = ~np.isfinite(values)
    if mask is None or not bad.any() or bad.shape != tuple(mask.shape):
        return np.nan
    return float((bad & ~as_array(mask).astype(bool)).sum() / bad.sum())


def _own_loss(
    model: keras.Model, batch: Batch, loss: Any, predictions: Any, heads: list[Head]
) -> OwnLoss | None:
    overridden = loss is None and overrides(model, "compute_loss")
    if len(heads) != 1 or heads[0].targets is None or not (overridden or not heads[0].loss):
        return None
    function = None if overridden else _losses(model, loss, predictions)[0]

    def loss_at(targets: np.ndarray, outputs: np.ndarray, rows: Any) -> Any:
        given = keras.ops.convert_to_tensor(outputs)
        if overridden:
            x = keras.tree.map_structure(lambda a: as_array(a)[rows], batch.x)
            x, targets = backend.tensors(x), backend.tensors(targets)
            return as_float64(model.compute_loss(x, targets, given))
        return as_float64(_values(function, targets, given)).mean()

    return _measures.own_loss(
        loss_at,
        as_array(keras.tree.flatten(batch.y)[0]),
        keras.ops.convert_to_numpy(keras.tree.flatten(predictions)[0]),
        bounded=heads[0].activation in _UNDONE,
        of_batch=overridden,
    )


def _is_affine(model: keras.Model, batch: Batch) -> bool:
    """Whether the outputs, or their logits where Keras keeps them, are affine in the inputs."""
    parts = keras.tree.flatten(batch.x)
    if len(parts) > 1 or as_array(parts[0]).dtype.kind != "f" or len(parts[0]) < 3:
        return False

    def outputs_of(x: np.ndarray) -> np.ndarray | None:
        outputs = keras.tree.flatten(model(x, training=False))
        if len(outputs) > 1 or not is_floating(outputs[0]):
            return None
        return as_float64(getattr(outputs[0], "_keras_logits", outputs[0]))

    return _measures.is_affine(as_array(parts[0]), outputs_of)


def _curvature(model: keras.Model, batch: Batch) -> float:
    """Largest absolute second derivative of the outputs, of a model with one floating input."""
    parts = keras.tree.flatten(batch.x)
    if len(parts) > 1 or as_array(parts[0]).dtype.kind != "f":
        return np.nan
    return backend.curvature(lambda x: keras.tree.flatten(model(x, training=False)), parts[0])


def _received(argument: Any) -> np.ndarray | None:
    """What a layer receives: as float64 if it is floating, as it is if not; None for no tensor."""
    if not keras.ops.is_tensor(argument):
        return None
    return as_float64(argument) if is_floating(argument) else keras.ops.convert_to_numpy(argument)


def as_float64(tensor: Any) -> np.ndarray:
    """As float64, so that squares neither overflow nor vanish."""
    return np.asarray(keras.ops.convert_to_numpy(tensor), dtype=np.float64)
