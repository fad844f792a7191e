"""Remedies that are tried on the model itself before they are given as advice.

A remedy is one row of `REMEDIES` and one function of `TREATMENTS`. Needs Keras 3, on
TensorFlow (``pip install '.[keras]'``), torch or JAX.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from gradutils import _checks
from gradutils._batches import Batch, one_batch
from gradutils._courses import (
    MOST_LONGER,
    MOST_TOGETHER,
    REMEDIES,
    SLOW,
    Clinic,
    Practice,
    Remedy,
    Treated,
)
from gradutils._keras import backend, keras
from gradutils._keras_optimizers import inner_optimizer, optimizer_twin
from gradutils._keras_probe import (
    activation_of,
    as_float64,
    check_usable,
    overrides,
    own_weights,
    path_of,
)
from gradutils._outcomes import (
    FASTER,
    LEAST_FALL,
    LEAST_RISE,
    Outcome,
    closes_gap,
    fall,
    falls_faster,
    speed,
    turns_round,
)
from gradutils._records import Probe, Trial
from gradutils.checks import THRESHOLDS
from gradutils.probes import probe
from gradutils.trials import gradients_of, sandbox, trainer

__all__ = [
    "FAR_ROWS",
    "FAR_SCALE",
    "FASTER",
    "LEAST_FALL",
    "LEAST_RISE",
    "MOST_LONGER",
    "MOST_TOGETHER",
    "RATES",
    "REMEDIES",
    "SLOW",
    "TREATMENTS",
    "UNFIT",
    "Outcome",
    "Patient",
    "Remedy",
    "Treated",
    "class_weights",
    "clip",
    "closes_gap",
    "drop_rows",
    "epsilon",
    "fall",
    "falls_faster",
    "float32",
    "forget_bias",
    "hidden_relu",
    "hidden_tanh",
    "layer_normalization",
    "leaky_relu",
    "less_momentum",
    "linear_output",
    "loss_scale",
    "negated_loss",
    "no_penalty",
    "other_logits",
    "other_rates",
    "recurrent_tanh",
    "redraw",
    "relu",
    "scale_inputs",
    "scale_targets",
    "shape_targets",
    "sigmoid_output",
    "softmax_output",
    "speed",
    "swap_arguments",
    "try_remedies",
    "turns_round",
    "unfreeze",
]

FAR_ROWS = 5.0  # a row's loss over the median of all, from which the row is dropped
FAR_SCALE = 10 ** THRESHOLDS["data scale, plain steps"].limit  # of targets, or one over it

#: What a model raises that cannot take a remedy.
UNFIT = (ValueError, TypeError, NotImplementedError, *backend.ERRORS)

_HE = {"relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "swish", "softplus", "mish"}
_PIECEWISE_LINEAR = {"relu", "relu6", "leaky_relu"}
_UNBOUNDED = {"relu", "leaky_relu", "elu", "selu", "softplus", "linear", "exponential", "gelu"}
_PASSING = (
    keras.layers.Add,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.LayerNormalization,
    keras.layers.Rescaling,
    keras.layers.Reshape,
)
_LOSSES_OF_LOGITS = {
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "binary_focal_crossentropy": keras.losses.BinaryFocalCrossentropy,
    "categorical_focal_crossentropy": keras.losses.CategoricalFocalCrossentropy,
}


class Patient(NamedTuple):
    """The model and the batch, in the sandbox, that a remedy treats."""

    model: keras.Model
    batch: Batch
    loss: Any
    seen: Probe
    undo: ExitStack


def try_remedies(
    checks: Iterable[str],
    model: keras.Model,
    x: Any,
    y: Any = None,
    loss: Callable | str | None = None,
    *,
    steps: int = 10,
    batch_size: int = 64,
    judge: Callable[[Probe, Trial], Iterable[str]] | None = None,
    seen: Probe | None = None,
    untreated: Trial | None = None,
) -> list[Outcome]:
    """Try every remedy that a check calls for, on the model, for a few training steps.

    A remedy helps if the loss falls by more than 1 % in the given steps, and at least twice as
    fast as without it: ``(end / start)**(1 / steps)`` is compared, so that a new unit of the loss
    is no advantage. It helps as well if the loss falls and the check is silent afterwards.

    Where something else is found in the treated model, or its loss hardly falls, what that calls
    for is tried on top, and the two are one course if the loss falls twice as fast again.

    Parameters
    ----------
    checks : iterable of str
        Ids of rows of `gradutils.checks.CHECKS`.
    model, x, y, loss, batch_size
        As in `gradutils.probes.probe`; the model is left as it was.
    steps : int
        Training steps for each remedy.
    judge : callable, optional
        (probe before the steps, trial) -> ids of the checks that still find something.
    seen, untreated : gradutils.probes.Probe and gradutils.trials.Trial, optional
        What is known of the untreated model; measured by default.

    Returns
    -------
    list of Outcome
        In the order of `REMEDIES`; empty without an optimiser, and for remedies that do not fit
        the model.

    Raises
    ------
    ValueError
        As `gradutils.probes.probe`.

    Examples
    --------
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(-0.1), "mse")
    >>> x = np.linspace(-1, 1, 16)[:, None]
    >>> outcomes = try_remedies(["G32"], model, x, 1 + 2 * x)
    >>> [outcome.helped for outcome in outcomes]
    [True]
    """
    _checks.positive_integers(steps=steps)
    batch = one_batch(x, y, batch_size)
    check_usable(model, batch, loss)
    if getattr(model, "optimizer", None) is None:
        return []
    seen = probe(model, batch, loss=loss) if seen is None else seen
    with sandbox(model) as restore:
        practice = _practice(model, loss)
        patient = Patient(model, batch, loss, seen, ExitStack())
        if untreated is None:
            untreated = practice.trainer(patient, [])(batch, steps, None)
        clinic = Clinic(practice, patient, untreated, restore, steps, list(checks), judge)
        return clinic.outcomes()


def _practice(model: keras.Model, loss: Any) -> Practice:
    """What Keras supplies for courses of remedies."""
    gradients = gradients_of(model, loss)

    def trainer_of(patient: Patient, taken: list[Treated]) -> Callable:
        optimizer = model.optimizer
        for make in [t.optimizer for t in taken if t.optimizer] or [optimizer_twin]:
            optimizer = make(optimizer, patient.model.trainable_variables)
        same = not any(t.model or t.loss or t.retrace for t in taken)
        run = trainer(patient.model, optimizer, patient.loss, gradients if same else None)

        def at_rate(batch: Batch, steps: int, rate: float | None) -> Trial:
            if rate is not None:
                optimizer.learning_rate = rate
            return run(batch, steps)

        return at_rate

    return Practice(
        treatments=TREATMENTS,
        sandbox=lambda patient: sandbox(patient.model),
        probe=lambda patient: probe(patient.model, patient.batch, loss=patient.loss),
        trainer=trainer_of,
        unfit=UNFIT,
    )


# The remedies, in the order in which they are tried.


def redraw(patient: Patient) -> Iterator[Treated]:
    """Weights drawn for each layer's activation, biases 0: He, Glorot, or LeCun for SELU."""
    for i, layer in enumerate(patient.model._flatten_layers()):
        for variable in own_weights(layer):
            _redraw(layer, variable, seed=i)
    yield Treated()


def _redraw(layer: keras.Layer, variable: keras.Variable, seed: int) -> None:
    activation = _next_activation(layer)
    if variable.name == "recurrent_kernel":
        draw = keras.initializers.Orthogonal(seed=seed)
    elif variable.name.endswith("kernel"):
        gains = {"selu": keras.initializers.LecunNormal} | dict.fromkeys(
            _HE, keras.initializers.HeNormal
        )
        draw = gains.get(activation, keras.initializers.GlorotNormal)(seed=seed)
    elif variable.name == "bias":
        draw = keras.initializers.Zeros()
    else:
        return  # embeddings and the scales of normalisations
    variable.assign(draw(variable.shape, dtype=variable.dtype))
    if variable.name == "bias" and getattr(layer, "unit_forget_bias", False):
        _fill(variable, layer.units, 1.0)


def _fill(bias: keras.Variable, units: int, value: float, gate: int = 1) -> None:
    """Set the part of a cell's bias that belongs to one gate; the input's row, if it has two."""
    array = keras.ops.convert_to_numpy(bias).copy()
    (array[0] if array.ndim == 2 else array)[gate * units : (gate + 1) * units] = value
    bias.assign(array)


def _next_activation(layer: keras.Layer) -> str:
    """Name of the activation that a layer's outputs reach first; "linear" if that is not clear."""
    for _ in range(10):
        name = _name(layer)
        if name != "linear":
            return name
        nodes = getattr(layer, "_outbound_nodes", [])
        if len(nodes) != 1:
            return "linear"
        layer = nodes[0].operation
        if _name(layer) == "linear" and not isinstance(layer, _PASSING):
            return "linear"
        if getattr(layer, "weights", []) and not isinstance(layer, _PASSING):
            return "linear"
    return "linear"


def _name(layer: Any) -> str:
    return activation_of(layer) or "linear"


def relu(patient: Patient) -> Iterator[Treated]:
    """ReLU for sigmoid and tanh in the hidden layers, with He weights."""
    if _replaced(patient, _hidden(patient), {"sigmoid", "tanh", "hard_sigmoid"}, "relu"):
        yield from (t._replace(retrace=True) for t in redraw(patient))


def leaky_relu(patient: Patient) -> Iterator[Treated]:
    """Leaky ReLU for ReLU in the hidden layers."""
    if _replaced(patient, _hidden(patient), {"relu", "relu6"}, "leaky_relu"):
        yield Treated(retrace=True)


def hidden_relu(patient: Patient) -> Iterator[Treated]:
    """ReLU after every hidden layer that has no activation."""
    weighted = [
        layer for layer in _hidden(patient) if own_weights(layer) and hasattr(layer, "activation")
    ]
    if _replaced(patient, weighted, {"linear"}, "relu"):
        yield Treated(retrace=True)


def hidden_tanh(patient: Patient) -> Iterator[Treated]:
    """tanh, which is smooth, for piecewise linear activations in the hidden layers."""
    if _replaced(patient, _hidden(patient), _PIECEWISE_LINEAR, "tanh"):
        yield Treated(retrace=True)


def recurrent_tanh(patient: Patient) -> Iterator[Treated]:
    """tanh for an unbounded activation in a recurrent cell."""
    cells = [layer for layer in patient.model._flatten_layers() if hasattr(layer, "state_size")]
    if _replaced(patient, cells, _UNBOUNDED, "tanh"):
        yield Treated(retrace=True)


def layer_normalization(patient: Patient) -> Iterator[Treated]:
    """What reaches each hidden activation is brought to mean 0 and variance 1, row by row."""
    found = [
        layer
        for layer in _hidden(patient)
        if own_weights(layer) and _name(layer) not in ("linear", "softmax")
        and not hasattr(layer, "state_size")
    ]  # fmt: skip
    for layer in found:
        _set(patient.undo, layer, "activation", _after_normalization(layer.activation))
    if found:
        yield Treated(retrace=True)


def _after_normalization(activation: Callable) -> Callable:
    def normalized(h: Any) -> Any:
        mean = keras.ops.mean(h, axis=-1, keepdims=True)
        variance = keras.ops.var(h, axis=-1, keepdims=True)
        return activation((h - mean) / keras.ops.sqrt(variance + 1e-3))

    return normalized


def scale_inputs(patient: Patient) -> Iterator[Treated]:
    """Each feature of the inputs brought to mean 0 and variance 1 over the batch."""
    arrays = keras.tree.flatten(patient.batch.x)
    specs = getattr(patient.model, "inputs", None) or arrays
    floats = [
        keras.backend.is_float_dtype(keras.backend.standardize_dtype(spec.dtype)) for spec in specs
    ]
    if len(specs) != len(arrays) or not any(floats):
        return
    scaled = [_standard(a) if f else a for a, f in zip(arrays, floats, strict=True)]
    x = keras.tree.pack_sequence_as(patient.batch.x, scaled)
    yield Treated(batch=patient.batch._replace(x=x))


def scale_targets(patient: Patient) -> Iterator[Treated]:
    """Each target that is far from unit scale brought to mean 0 and variance 1."""
    targets = patient.batch.y
    if any(np.asarray(a).dtype.kind != "f" for a in keras.tree.flatten(targets) if a is not None):
        return
    if any(head.loss in _LOSSES_OF_LOGITS for head in patient.seen.heads):
        return
    scaled = keras.tree.map_structure(
        lambda a: None if a is None else _standard(a, far=True), targets
    )
    yield Treated(batch=patient.batch._replace(y=scaled), scale=True)


def _standard(array: Any, far: bool = False) -> np.ndarray:
    """Mean 0 and variance 1 over all axes but the last; with `far`, only for what is far away."""
    values = np.asarray(array)
    kind = values.dtype if values.dtype.kind == "f" else np.dtype("float32")
    values = values.astype(float)
    axes = tuple(range(max(1, values.ndim - 1)))
    mean, std = values.mean(axis=axes), values.std(axis=axes)
    if far:
        rms = np.sqrt(mean**2 + std**2)
        near = (rms < FAR_SCALE) & (rms > 1 / FAR_SCALE)
        mean, std = np.where(near, 0.0, mean), np.where(near, 1.0, std)
    return ((values - mean) / np.where(std > 0, std, 1.0)).astype(kind)


RATES = (1.0, 0.1, 1e-2, 1e-3, 10.0, 100.0, 1000.0)


def other_rates(patient: Patient) -> Iterator[Treated]:
    """The learning rate over six decades; a negative one turned round first.

    The middle is the present rate, or that with which a schedule began, since it may have ended.
    """
    now = float(as_float64(patient.model.optimizer.learning_rate))
    schedule: Any = getattr(inner_optimizer(patient.model), "_learning_rate", None)
    scheduled = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    rate = max(now, float(as_float64(schedule(0)))) if scheduled else now

    def fixed(optimizer: Any, weights: list[keras.Variable]) -> Any:
        return optimizer_twin(optimizer, weights, learning_rate=abs(rate) or 1e-3)

    for factor in RATES[1:] if rate == now > 0 else RATES:
        new = factor * (abs(rate) or 1e-3)
        advice = f"{'Lower' if new < abs(now) else 'Raise'} the learning rate to about {new:.0e}."
        if factor == 1 and now <= 0:
            advice = f"Make the learning rate positive: {new:.0e}."
        name = f"a learning rate of {new:.0e}"
        yield Treated(optimizer=fixed, rate=new, name=name, advice=advice)


def forget_bias(patient: Patient) -> Iterator[Treated]:
    """The bias of the gate that keeps the state raised to ln(steps), in LSTM and GRU cells."""
    counts = {layer.name: len(layer.backward_by_call) for layer in patient.seen.layers}
    steps = 0
    for layer in patient.model._flatten_layers():
        gate = {keras.layers.LSTMCell: 1, keras.layers.GRUCell: 0}.get(type(layer))
        bias = getattr(layer, "bias", None)
        calls = counts.get(path_of(layer), 0)
        if gate is not None and bias is not None and calls > 1:
            _fill(bias, layer.units, np.log(calls), gate)
            steps = calls
    if steps:
        value = np.log(steps)
        yield Treated(advice=f"Raise the forget bias to ln({steps}) = {value:.1f}.")


def clip(patient: Patient) -> Iterator[Treated]:
    """Gradients clipped to a global norm of 1."""
    inner = inner_optimizer(patient.model)
    if inner.global_clipnorm is None:
        changes = {"clipnorm": None, "clipvalue": None, "global_clipnorm": 1.0}
        yield Treated(optimizer=lambda o, w: optimizer_twin(o, w, **changes))


def epsilon(patient: Patient) -> Iterator[Treated]:
    """The optimiser's epsilon at 1e-3, a number that float16 can hold."""
    inner = inner_optimizer(patient.model)
    if getattr(inner, "epsilon", None) is not None and inner.epsilon < 1e-3:
        yield Treated(optimizer=lambda o, w: optimizer_twin(o, w, epsilon=1e-3))


def float32(patient: Patient) -> Iterator[Treated]:
    """All layers of half precision in float32; where the weights are half, in a copy."""
    half = [layer for layer in patient.model._flatten_layers() if layer.compute_dtype == "float16"]
    if not half:
        return
    if all(layer.variable_dtype == "float32" for layer in half):
        for layer in half:
            _set(patient.undo, layer, "_dtype_policy", keras.DTypePolicy("float32"))
        yield Treated(retrace=True)
    elif isinstance(patient.model, keras.Sequential) or hasattr(patient.model, "_functional"):
        yield Treated(model=_in_float32(patient.model))


def _in_float32(model: keras.Model) -> keras.Model:
    def copied(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=copied)
    copy.set_weights([w.astype("float32") for w in model.get_weights()])
    optimizer = optimizer_twin(model.optimizer, copy.trainable_variables)
    copy.compile(optimizer, model.loss, jit_compile=False)
    return copy


def loss_scale(patient: Patient) -> Iterator[Treated]:
    """A dynamic loss scale around the optimiser."""
    half = any(layer.compute_dtype == "float16" for layer in patient.model._flatten_layers())
    if half and not hasattr(patient.model.optimizer, "inner_optimizer"):

        def scaled(optimizer: Any, weights: list[keras.Variable]) -> Any:
            wrapped = keras.optimizers.LossScaleOptimizer(optimizer_twin(optimizer, weights))
            wrapped.build(weights)
            return wrapped

        yield Treated(optimizer=scaled)


def linear_output(patient: Patient) -> Iterator[Treated]:
    """The last activation taken away."""
    yield from _last(patient, "linear")


def sigmoid_output(patient: Patient) -> Iterator[Treated]:
    """A sigmoid in place of the last activation."""
    yield from _last(patient, "sigmoid")


def softmax_output(patient: Patient) -> Iterator[Treated]:
    """A softmax in place of the last activation, where there are several units."""
    if patient.seen.heads and patient.seen.heads[0].outputs.shape[-1] > 1:
        yield from _last(patient, "softmax")


def _last(patient: Patient, name: str) -> Iterator[Treated]:
    heads = patient.seen.heads
    layer = _named(patient.model).get(heads[0].layer) if len(heads) == 1 else None
    if layer is None or _name(layer) == name:
        return
    is_activation = isinstance(
        layer, keras.layers.Softmax | keras.layers.ReLU | keras.layers.LeakyReLU
    )
    if not hasattr(layer, "activation") and not is_activation:
        return
    _activate(patient.undo, layer, name)
    yield Treated(retrace=True, scale=True)


def other_logits(patient: Patient) -> Iterator[Treated]:
    """The loss told the contrary of what it was told about logits."""
    loss = patient.model.loss if patient.loss is None else patient.loss
    if isinstance(loss, keras.losses.Loss):
        config = loss.get_config()
        if "from_logits" in config:
            logits = not config["from_logits"]
            yield _from_logits(type(loss).from_config(config | {"from_logits": logits}), logits)
    elif isinstance(loss, str) or callable(loss):
        name = getattr(keras.losses.get(loss), "__name__", "")
        if name in _LOSSES_OF_LOGITS:
            yield _from_logits(_LOSSES_OF_LOGITS[name](from_logits=True), True)


def _from_logits(loss: Any, logits: bool) -> Treated:
    name = f"from_logits={logits}"
    return Treated(loss=loss, scale=True, name=name, advice=f"Give the loss {name}.")


def swap_arguments(patient: Patient) -> Iterator[Treated]:
    """The arguments of a loss of one's own the other way round."""
    loss = patient.model.loss if patient.loss is None else patient.loss
    if inspect.isfunction(loss) and not getattr(loss, "__module__", "").startswith("keras."):
        yield Treated(loss=lambda y, p: loss(p, keras.ops.cast(y, p.dtype)), scale=True)


def shape_targets(patient: Patient) -> Iterator[Treated]:
    """Targets in the shape of the outputs."""
    heads, y = patient.seen.heads, patient.batch.y
    if len(heads) == 1 and y is not None and not isinstance(y, list | tuple | dict):
        y, shape = np.asarray(y), heads[0].outputs.shape
        if y.shape != shape and y.size == np.prod(shape):
            yield Treated(batch=patient.batch._replace(y=y.reshape(shape)))


def drop_rows(patient: Patient) -> Iterator[Treated]:
    """The batch without the rows whose loss is not finite or far above the median."""
    losses = patient.seen.heads[0].sample_losses if len(patient.seen.heads) == 1 else np.empty(0)
    rows = len(keras.tree.flatten(patient.batch.x)[0])
    if len(losses) != rows:
        return
    with np.errstate(invalid="ignore"):
        good = np.isfinite(losses) & (losses <= FAR_ROWS * np.nanmedian(losses))
    if 0 < good.sum() < rows:
        kept = keras.tree.map_structure(
            lambda a: None if a is None else np.asarray(a)[good],
            {name: getattr(patient.batch, name) for name in ("x", "y", "sample_weight")},
        )
        yield Treated(batch=patient.batch._replace(**kept), scale=True)


def less_momentum(patient: Patient) -> Iterator[Treated]:
    """Batch normalisation whose moving averages follow within ten steps."""
    found = [
        layer
        for layer in patient.model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.momentum > 0.5
    ]
    for layer in found:
        _set(patient.undo, layer, "momentum", 0.5)
    if found:
        yield Treated(retrace=True)


def class_weights(patient: Patient) -> Iterator[Treated]:
    """Sample weights that make all classes count alike."""
    heads, batch = patient.seen.heads, patient.batch
    shares = heads[0].class_shares if len(heads) == 1 else np.empty(0)
    if len(shares) < 2 or not shares.all() or batch.sample_weight is not None:
        return
    labels = np.asarray(keras.tree.flatten(batch.y)[0])
    if heads[0].loss.startswith("categorical"):
        labels = labels.argmax(axis=-1)
    elif labels.ndim == heads[0].outputs.ndim:
        labels = labels[..., 0]
    weights = (1 / (len(shares) * shares))[labels.astype(int)].astype("float32")
    yield Treated(batch=batch._replace(sample_weight=weights), scale=True)


def unfreeze(patient: Patient) -> Iterator[Treated]:
    """All layers trainable."""
    for layer in patient.model._flatten_layers():
        _set(patient.undo, layer, "_trainable", True)
        for variable in layer._trainable_variables:
            patient.undo.callback(setattr, variable, "trainable", variable.trainable)
            variable.trainable = True
    yield Treated(retrace=True)


def no_penalty(patient: Patient) -> Iterator[Treated]:
    """The regularisers of weights and activities taken away."""
    found = False
    for layer in patient.model._flatten_layers():
        owners = [(variable, "_regularizer") for variable in own_weights(layer)]
        for owner, name in [*owners, (layer, "activity_regularizer")]:
            if getattr(owner, name, None) is not None:
                _set(patient.undo, owner, name, None)
                found = True
    if found:
        yield Treated(retrace=True, scale=True)


def negated_loss(patient: Patient) -> Iterator[Treated]:
    """The sign of a loss of one's own changed."""
    model, loss = patient.model, patient.model.loss if patient.loss is None else patient.loss
    if patient.loss is None and overrides(model, "compute_loss"):
        compute_loss = model.compute_loss
        _set(patient.undo, model, "compute_loss", lambda *a, **k: -compute_loss(*a, **k))
        yield Treated(retrace=True, scale=True)
    elif isinstance(loss, str) or callable(loss):
        function = keras.losses.get(loss)
        yield Treated(loss=lambda y, p: -function(y, p), scale=True)


def _hidden(patient: Patient) -> list[keras.Layer]:
    """The layers that are called before the last one that has weights or returns the outputs."""
    named = _named(patient.model)
    called = [record for record in patient.seen.layers if record.name in named]
    weighted = [i for i, record in enumerate(called) if record.parameters]
    return [named[record.name] for record in called[: weighted[-1] if weighted else 0]]


def _replaced(patient: Patient, found: list[keras.Layer], old: set[str], new: str) -> bool:
    """Give these layers a new activation where they have one of the old ones."""
    found = [layer for layer in found if _name(layer) in old]
    for layer in found:
        _activate(patient.undo, layer, new)
    return bool(found)


def _named(model: keras.Model) -> dict[str, keras.Layer]:
    """Path -> layer, as the records of a probe name it."""
    return {path_of(layer): layer for layer in model._flatten_layers()}


def _activate(undo: ExitStack, layer: keras.Layer, name: str) -> None:
    """Give a layer another activation; to a layer that is one, another call."""
    activation = keras.activations.get(name)
    if hasattr(layer, "activation"):
        _set(undo, layer, "activation", activation)
    else:
        _set(undo, layer, "call", lambda h, *_, **__: activation(h))


def _set(undo: ExitStack, thing: Any, name: str, value: Any) -> None:
    """Set an attribute until the stack is unwound, past the tracking of Keras."""
    attributes = vars(thing)
    if name in attributes:
        undo.callback(attributes.__setitem__, name, attributes[name])
    else:
        undo.callback(attributes.pop, name)
    attributes[name] = value


#: Name of a row of `REMEDIES` -> the function that treats a Keras model.
TREATMENTS: dict[str, Callable[[Patient], Iterable[Treated]]] = {
    "a sigmoid output": sigmoid_output,
    "a softmax output": softmax_output,
    "a linear output": linear_output,
    "the other from_logits": other_logits,
    "the loss's arguments exchanged": swap_arguments,
    "targets in the shape of the outputs": shape_targets,
    "the other sign of the loss": negated_loss,
    "all layers trainable": unfreeze,
    "no regulariser": no_penalty,
    "class weights": class_weights,
    "drawn weights": redraw,
    "ReLU and He weights": relu,
    "layer normalisation": layer_normalization,
    "leaky ReLU": leaky_relu,
    "ReLU between the layers": hidden_relu,
    "tanh in the hidden layers": hidden_tanh,
    "tanh in the recurrent layer": recurrent_tanh,
    "scaled inputs": scale_inputs,
    "scaled targets": scale_targets,
    "another learning rate": other_rates,
    "a forget bias of ln(steps)": forget_bias,
    "clipping by global norm": clip,
    "float32": float32,
    "an epsilon of 1e-3": epsilon,
    "a loss scale": loss_scale,
    "the bad rows dropped": drop_rows,
    "a momentum of 0.5 in batch normalisation": less_momentum,
}
