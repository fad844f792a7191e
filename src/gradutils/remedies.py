"""Remedies that are tried on the model itself before they are given as advice.

A remedy is one function and one row of `REMEDIES`. Needs Keras 3 on TensorFlow
(``pip install '.[keras]'``).
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from gradutils import _checks
from gradutils._batches import Batch, one_batch
from gradutils._keras import keras, tf
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
from gradutils.checks import THRESHOLDS, over_layers
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

SLOW = 0.05  # share of the loss up to which a treated model may need another rate as well
MOST_TOGETHER = 3  # remedies in one course
MOST_LONGER = 8  # courses of several remedies that are tried in all
FAR_ROWS = 5.0  # a row's loss over the median of all, from which the row is dropped
FAR_SCALE = 10 ** THRESHOLDS["data scale, plain steps"].limit  # of targets, or one over it

#: What a model raises that cannot take a remedy.
UNFIT = (ValueError, TypeError, NotImplementedError, tf.errors.OpError)

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


class Treated(NamedTuple):
    """What a remedy changed beside the weights; what is None stays as it was.

    optimizer makes the optimiser from that of the model, and rate is set as its learning rate.
    scale says whether the loss has another unit than before. name and advice replace those of the
    row.
    """

    model: "keras.Model | None" = None
    batch: Batch | None = None
    loss: Any = None
    optimizer: Callable[[Any, list[keras.Variable]], Any] | None = None
    rate: float | None = None
    retrace: bool = False
    scale: bool = False
    name: str = ""
    advice: str = ""


class Remedy(NamedTuple):
    """One row: its name as in "with ...", the checks that call for it, its advice, its functions.

    treat changes the model in the sandbox and returns what else is changed, one `Treated` for
    each form of the remedy; none where the remedy does not fit the model.
    """

    name: str
    checks: tuple[str, ...]
    advice: str
    treat: Callable[[Patient], Iterable[Treated]]
    helped: Callable[[Trial, Trial], bool]


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
    >>> [outcome.helped for outcome in try_remedies(["G32"], model, x, 1 + 2 * x)]
    [True]
    """
    _checks.positive_integers(steps=steps)
    batch = one_batch(x, y, batch_size)
    check_usable(model, batch, loss)
    if getattr(model, "optimizer", None) is None:
        return []
    seen = probe(model, batch, loss=loss) if seen is None else seen
    rows = _called_for(checks, seen)
    if not rows:
        return []
    with sandbox(model) as restore:
        gradients = gradients_of(model, loss)
        if untreated is None:
            twin = optimizer_twin(model.optimizer, model.trainable_variables)
            untreated = trainer(model, twin, loss, gradients)(batch, steps)
        patient = Patient(model, batch, loss, seen, ExitStack())
        clinic = _Clinic(patient, gradients, untreated, restore, steps, list(checks), judge)
        found = [clinic.best_form((row,)) for row in rows]
        courses = _longer(clinic, [course for course in found if course is not None])
    return _without_the_lesser([course.outcome for course in courses])


def _called_for(checks: Iterable[str], seen: Probe) -> list[Remedy]:
    """The remedies for these checks, in the order of the table."""
    wanted = set(checks)
    if any(layer.nonfinite_outputs for layer in seen.layers):
        wanted |= {f"{check} outputs" for check in wanted}
    return [row for row in REMEDIES if set(row.checks) & wanted]


def _without_the_lesser(outcomes: list[Outcome]) -> list[Outcome]:
    """What only silences a check, or ends in a constant, is no advice beside what does more."""

    def drop(outcomes: list[Outcome], lesser: Callable[[Outcome], bool]) -> list[Outcome]:
        better = {check for o in outcomes if o.helped and not lesser(o) for check in o.checks}
        return [
            replace(o, helped=False) if lesser(o) and set(o.checks) <= better else o
            for o in outcomes
        ]

    return drop(drop(outcomes, lambda o: o.silenced), lambda o: not _alive(o.trial))


class _Course(NamedTuple):
    """Remedies that were taken together, what became of them, and what is still found."""

    rows: tuple[Remedy, ...]
    outcome: Outcome
    seen: Probe | None
    left: tuple[str, ...]


@dataclass(frozen=True)
class _Clinic:
    """All that one course of remedies needs to be tried."""

    patient: Patient
    gradients: Callable
    untreated: Trial
    restore: Callable[[], None]
    steps: int
    wanted: list[str]
    judge: Callable[[Probe, Trial], Iterable[str]] | None

    def best_form(self, rows: tuple[Remedy, ...]) -> _Course | None:
        """Try these remedies together, the last one in all its forms, and return the best."""
        forms: list[tuple[float, _Course]] = []
        self.restore()
        # A remedy that the model cannot take, such as a copy of a layer without a configuration,
        # is left out.
        with suppress(*UNFIT), ExitStack() as undo:
            patient, taken = self.patient._replace(undo=undo), []
            for row in rows[:-1]:
                taken.append(next(iter(row.treat(patient))))
                patient = _treated(patient, taken[-1])
            again = undo.enter_context(sandbox(patient.model))
            optimizer = None
            for treated in rows[-1].treat(patient):
                whole = _treated(patient, treated)
                if treated.rate is None or optimizer is None:
                    run, optimizer = self._trainer([*taken, treated], whole)
                if treated.rate is not None:
                    optimizer.learning_rate = treated.rate
                course = self._take(rows, [*taken, treated], whole, run)
                forms.append((treated.rate or 0.0, course))
                again()
        if not forms:
            return None
        best = max(_worth(course) for _, course in forms)
        # Of rates that do nearly as well, the lowest leaves room for the steps to come.
        good = [
            (rate, course)
            for rate, course in forms
            if _worth(course)[:-1] == best[:-1]
            and _worth(course)[-1] >= min(best[-1], best[-1] / FASTER)
        ]
        return min(good or forms, key=lambda form: form[0])[1]

    def _trainer(self, taken: list[Treated], patient: Patient) -> tuple[Callable, Any]:
        """The function that trains the treated model, and its optimiser."""
        optimizer = self.patient.model.optimizer
        for make in [t.optimizer for t in taken if t.optimizer] or [optimizer_twin]:
            optimizer = make(optimizer, patient.model.trainable_variables)
        same = not any(t.model or t.loss or t.retrace for t in taken)
        known = self.gradients if same else None
        return trainer(patient.model, optimizer, patient.loss, known), optimizer

    def _take(
        self, rows: tuple[Remedy, ...], taken: list[Treated], patient: Patient, run: Callable
    ) -> _Course:
        look = self.judge or any(row.treat is redraw for row in rows)
        before = probe(patient.model, patient.batch, loss=patient.loss) if look else None
        trial = run(patient.batch, self.steps)
        found = [check for check in self.wanted if any(_for(check, row) for row in rows)]
        helped, silent = rows[0].helped(self.untreated, trial), False
        left = tuple(self.judge(before, trial)) if self.judge and before else ()
        if self.judge and not helped and fall(trial) > LEAST_FALL:
            helped = silent = not set(found) & set(left)
        text = _text(rows, taken, self.untreated, trial, self.patient.seen, before)
        outcome = Outcome(
            remedy=" and ".join(_names(rows, taken)),
            checks=found,
            advice=" ".join(t.advice or row.advice for t, row in zip(taken, rows, strict=True)),
            helped=bool(helped),
            text=text + ("; nothing is found any more" if silent else ""),
            trial=trial,
            silenced=bool(silent),
        )
        return _Course(rows, outcome, before, left)


def _names(rows: tuple[Remedy, ...], taken: list[Treated]) -> list[str]:
    return [t.name or row.name for t, row in zip(taken, rows, strict=True)]


def _for(check: str, row: Remedy) -> bool:
    return check in row.checks or f"{check} outputs" in row.checks


def _longer(clinic: _Clinic, courses: list[_Course]) -> list[_Course]:
    """Add to what does best for a check what else the treated model calls for.

    That is what is still found, what wakes dead units where the outputs are a constant, and another
    rate where the loss hardly falls. A longer course stands in for the shorter one if its loss
    falls at least twice as fast, or its outputs are no constant any more.
    """
    if clinic.judge is None:
        return courses
    tried = 0
    for check in clinic.wanted:
        mine = [i for i, course in enumerate(courses) if check in course.outcome.checks]
        if not mine:
            continue
        place = max(mine, key=lambda i: _worth(courses[i]))
        course: _Course | None = courses[place]
        while course is not None and len(course.rows) < MOST_TOGETHER:
            best = None
            for row in _on_top(course):
                if tried == MOST_LONGER or (row.treat is other_rates and best is not None):
                    break
                tried += 1
                longer = clinic.best_form((*course.rows, row))
                if longer is not None and _improves(course, longer):
                    best = longer if best is None or _worth(longer) > _worth(best) else best
            if best is not None and best.outcome.helped:
                courses[place] = best
            course = best
    return courses


def _on_top(course: _Course) -> list[Remedy]:
    """The remedies that a treated model calls for, other than those that it has had.

    Another rate comes last, and only where the loss hardly falls.
    """
    if course.rows[-1].treat is other_rates:
        return []
    left = set(course.left) if _alive(course.outcome.trial) else {*course.left, "G20"}
    rows = _called_for(left, course.seen) if course.seen else []
    rows = [row for row in rows if row.treat is not other_rates and row not in course.rows]
    slow = fall(course.outcome.trial) < SLOW
    return rows + [row for row in REMEDIES if slow and row.treat is other_rates]


def _treated(patient: Patient, treated: Treated) -> Patient:
    """The patient with what a remedy changed beside the weights."""
    given = {name: getattr(treated, name) for name in ("model", "batch", "loss")}
    return patient._replace(**{name: value for name, value in given.items() if value is not None})


def _alive(trial: Trial) -> bool:
    """Whether the outputs differ from sample to sample in the end."""
    least = THRESHOLDS["constant output"].limit
    return bool(trial.output_spreads[1] >= least * trial.output_sizes[1])


def _improves(course: _Course, longer: _Course) -> bool:
    before, after = course.outcome.trial, longer.outcome.trial
    falls = fall(after) > 0
    if falls and (len(longer.left) < len(course.left) or _alive(after) > _alive(before)):
        return True
    return falls_faster(before, after)


def _worth(course: _Course) -> tuple[bool, bool, bool, float]:
    """Does it help, do the outputs differ, does the loss never rise above its start; the speed."""
    trial = course.outcome.trial
    steady = bool(trial.losses.max() <= trial.losses[0])
    return course.outcome.helped, _alive(trial), steady, speed(trial)


def _text(
    rows: tuple[Remedy, ...],
    taken: list[Treated],
    untreated: Trial,
    trial: Trial,
    seen: Probe,
    after: Probe | None,
) -> str:
    parts = []
    if after is not None:
        decades = over_layers(after), over_layers(seen)
        if abs(decades[1]) >= 1 and abs(decades[0] - decades[1]) >= 0.1:
            parts.append(
                f"the signal changes by {decades[0]:.1f} decades instead of {decades[1]:.1f}"
            )
    steps = len(trial.losses) - 1
    if rows[0].helped is closes_gap:
        now, before = (f"{t.inference_losses[1]:.3g}" for t in (trial, untreated))
        parts.append(f"loss in inference after {steps} steps {now} instead of {before}")
    elif any(treated.scale for treated in taken):
        parts.append(
            f"in {steps} steps the loss {_change(trial)}; without, it {_change(untreated)}"
        )
    else:
        now, before = (f"{t.losses[-1]:.3g}" for t in (trial, untreated))
        parts.append(f"loss after {steps} steps {now} instead of {before}")
    return f"with {' and '.join(_names(rows, taken))}: {'; '.join(parts)}"


def _change(trial: Trial) -> str:
    removed = fall(trial)
    if not np.isfinite(removed):
        return "ends in NaN or inf"
    if removed < -1:
        return f"grows {trial.losses[-1] / abs(trial.losses[0]):.1e} times"
    return f"{'falls' if removed >= 0 else 'grows'} by {abs(removed):.0%}"


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
    floats = [tf.as_dtype(spec.dtype).is_floating for spec in specs]
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
    """The learning rate over six decades; a negative one turned round first."""
    rate = float(as_float64(patient.model.optimizer.learning_rate))

    def fixed(optimizer: Any, weights: list[keras.Variable]) -> Any:
        return optimizer_twin(optimizer, weights, learning_rate=abs(rate) or 1e-3)

    for factor in RATES if rate <= 0 else RATES[1:]:
        new = factor * (abs(rate) or 1e-3)
        advice = f"{'Lower' if factor < 1 else 'Raise'} the learning rate to about {new:.0e}."
        if factor == 1:
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


#: The remedies that can be tried, in the order in which they are; `checks` names rows of
#: `gradutils.checks.CHECKS`, "G14 outputs" G14 only where the outputs of a layer are not finite.
REMEDIES = (
    Remedy("a sigmoid output", ("G01", "G02", "G04"), "Use a sigmoid output.",
           sigmoid_output, falls_faster),
    Remedy("a softmax output", ("G02",), "Use a softmax output.", softmax_output, falls_faster),
    Remedy("a linear output", ("G03", "G06", "G17"), "Use a linear output.",
           linear_output, falls_faster),
    Remedy("the other from_logits", ("G02", "G03", "G17"), "Change from_logits of the loss.",
           other_logits, falls_faster),
    Remedy("the loss's arguments exchanged", ("G05",), "Define the loss as loss(y_true, y_pred).",
           swap_arguments, falls_faster),
    Remedy("targets in the shape of the outputs", ("G08",),
           "Give the targets the shape of the outputs, as by y[:, None].",
           shape_targets, falls_faster),
    Remedy("the other sign of the loss", ("G09",), "Change the sign of the loss.",
           negated_loss, turns_round),
    Remedy("all layers trainable", ("G15",),
           "Set trainable = True on the layers that are to learn, then compile again.",
           unfreeze, falls_faster),
    Remedy("no regulariser", ("G12", "G31"),
           "Leave the regulariser out, or lower its factor, to 1e-4 for a start.",
           no_penalty, falls_faster),
    Remedy("class weights", ("G37",),
           "Weigh the classes, by class_weight or a sample_weight of 1 / (classes * share), and "
           "judge by a metric of the rare class.",
           class_weights, falls_faster),
    Remedy("drawn weights", ("G14 outputs", "G19", "G20", "G21", "G22", "G23", "G25", "G36"),
           "Draw the weights at random, for the activation: He for ReLU, Glorot for tanh, "
           "orthogonal for recurrent matrices; zeros suit biases only.",
           redraw, falls_faster),
    Remedy("ReLU and He weights", ("G21", "G22"),
           "Replace sigmoid and tanh by ReLU in the hidden layers, with He weights.",
           relu, falls_faster),
    Remedy("layer normalisation", ("G21", "G22", "G23"),
           "Put layer normalisation before each hidden activation.",
           layer_normalization, falls_faster),
    Remedy("leaky ReLU", ("G20",), "Use leaky ReLU in the hidden layers.",
           leaky_relu, falls_faster),
    Remedy("ReLU between the layers", ("G38",), "Put ReLU between the layers.",
           hidden_relu, falls_faster),
    Remedy("tanh in the hidden layers", ("G18",),
           "Use a smooth activation, such as tanh, in the hidden layers.",
           hidden_tanh, falls_faster),
    Remedy("tanh in the recurrent layer", ("G11",),
           "Use tanh, the default activation, in the recurrent layer.",
           recurrent_tanh, falls_faster),
    Remedy("scaled inputs", ("G14 outputs", "G17", "G20", "G21", "G27", "G28", "G29", "G33"),
           "Scale the inputs to mean 0 and variance 1: a Normalization layer adapts to them.",
           scale_inputs, falls_faster),
    Remedy("scaled targets", ("G06", "G14 outputs", "G30", "G33"),
           "Scale the targets to mean 0 and variance 1, and the predictions back.",
           scale_targets, falls_faster),
    Remedy("another learning rate", ("G14 outputs", "G20", "G32", "G33", "G34", "G36"),
           "Change the learning rate.", other_rates, falls_faster),
    Remedy("a forget bias of ln(steps)", ("G24", "G39"), "Raise the forget bias to ln(steps).",
           forget_bias, falls_faster),
    Remedy("clipping by global norm", ("G14 outputs", "G23", "G25", "G33"),
           "Clip by global norm: global_clipnorm=1.0.", clip, falls_faster),
    Remedy("float32", ("G10", "G14"), "Compute in float32.", float32, falls_faster),
    Remedy("an epsilon of 1e-3", ("G10",), "Set the optimiser's epsilon to 1e-3.",
           epsilon, falls_faster),
    Remedy("a loss scale", ("G10", "G14", "G22"),
           "Scale the loss: keras.optimizers.LossScaleOptimizer.", loss_scale, falls_faster),
    Remedy("the bad rows dropped", ("G13",), "Drop these rows.", drop_rows, falls_faster),
    Remedy("a momentum of 0.5 in batch normalisation", ("G35",),
           "Lower the momentum of the batch normalisation, to 0.9, or 0.5 for few steps.",
           less_momentum, closes_gap),
)  # fmt: skip
