"""Keras on TensorFlow."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context as eager_context

from gradutils._backends import NO_GRADIENT, Seen, Watch, layer_of, loss_scale

__all__ = [
    "CANNOT_RECORD",
    "ERRORS",
    "LOSSES_TAKE_LOGITS",
    "REFUSES_NAN",
    "Recorder",
    "assign",
    "copy_of",
    "curvature",
    "differentiate",
    "differentiating_twice",
    "frozen",
    "generators_kept",
    "gradients_of",
    "observe",
    "other_state",
    "tensors",
    "undisturbed",
]

#: What an operation raises that cannot take its arguments.
ERRORS = (tf.errors.OpError,)
#: Keras' cross-entropies use the logits of a last sigmoid or softmax in place of its output.
LOSSES_TAKE_LOGITS = True
#: A cross-entropy raises where its inputs are NaN; the loss is NaN then.
REFUSES_NAN = False
#: Why training cannot be recorded; "" where it can.
CANNOT_RECORD = ""

_ROWS = 256  # The buffer in the graph holds this many steps between two readings.
# A float32 sum of squares outside these limits may have lost small terms or overflowed.
_SMALLEST_SQUARES, _LARGEST_SQUARES = 1e-30, 1e30

frozen = nullcontext  # Nothing has to be told that no gradient is wanted.


@contextmanager
def undisturbed() -> Iterator[None]:
    """Run every tf.function eagerly inside the block, so that none is traced with what is inside.

    Otherwise a function of the model would keep the hooks of a probe for ever.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the generator of unseeded operations back when the block ends."""
    rng = getattr(eager_context.context(), "_rng", None)
    state = rng and rng.getstate()
    try:
        yield
    finally:
        if rng is not None:
            rng.setstate(state)


def copy_of(variable: Any) -> tf.Tensor:
    """A variable's value now, which no later assignment changes."""
    return tf.identity(variable)


def assign(variable: Any, value: np.ndarray) -> None:
    """Give a variable a value of its own shape and type."""
    variable.value.assign(value, read_value=False)


def other_state(model: Any) -> Callable[[], None]:
    """A function that puts back what Keras does not count among a model's variables."""
    values = [
        (v, tf.identity(v))
        for layer in model._flatten_layers()
        for value in vars(layer).values()
        for v in (value if isinstance(value, list | tuple) else [value])
        if isinstance(v, tf.Variable)
    ]

    def restore() -> None:
        for variable, value in values:
            variable.assign(value)

    return restore


def tensors(data: Any) -> Any:
    """Data in the form in which a loss or model receives them: TensorFlow takes any."""
    return data


def differentiate(
    forward: Callable[[Watch], tuple[Any, Any]], variables: list
) -> tuple[Any, list[list[Seen]], list]:
    """Run a forward pass and differentiate its loss, at the places that it watches.

    Parameters
    ----------
    forward : callable
        watch -> the loss, and a nest of tensors to be returned.
    variables : list of keras.Variable

    Returns
    -------
    extra, seen, gradients
        The nest; for each call of watch what went through it, once for each time that the place
        was computed; the gradient at each variable, or None.
    """
    with tf.GradientTape() as tape:
        watched: list[tuple[Any, Any]] = []

        def watch(output: Any, argument: Any) -> Any:
            tape.watch(output)
            watched.append((argument, output))
            return output

        loss, extra = forward(watch)
    sources = [[output for _, output in watched], [v.value for v in variables]]
    at_outputs, at_weights = tape.gradient(loss, sources)
    seen = [[Seen(*pair, g)] for pair, g in zip(watched, at_outputs, strict=True)]
    return extra, seen, at_weights


def observe(forward: Callable[[Watch], Any]) -> tuple[Any, list[list[Seen]]]:
    """Run a forward pass; return its value and what went through the places that it watches."""
    watched: list[list[Seen]] = []

    def watch(output: Any, argument: Any) -> Any:
        watched.append([Seen(argument, output)])
        return output

    return forward(watch), watched


@contextmanager
def differentiating_twice() -> Iterator[list[bool]]:
    """Yield a list that is not empty at the end if a tape opens inside another one."""
    enter, leave = tf.GradientTape.__enter__, tf.GradientTape.__exit__
    twice: list[bool] = []
    tapes = 0

    def counted(tape: tf.GradientTape) -> tf.GradientTape:
        nonlocal tapes
        tapes += 1
        if tapes > 1:
            twice.append(True)
        return enter(tape)

    def uncounted(tape: tf.GradientTape, *error: object) -> None:
        nonlocal tapes
        tapes -= 1
        leave(tape, *error)

    tf.GradientTape.__enter__, tf.GradientTape.__exit__ = counted, uncounted
    try:
        yield twice
    finally:
        tf.GradientTape.__enter__, tf.GradientTape.__exit__ = enter, leave


def curvature(outputs_of: Callable[[Any], list], x: Any) -> float:
    """Largest absolute derivative of the summed first derivatives of the outputs."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            outputs = outputs_of(x)
        first = inner.gradient(outputs, x)
    second = None if first is None else outer.gradient(first, x)
    return 0.0 if second is None else float(np.abs(np.asarray(second, float)).max())


def gradients_of(
    loss_of: Callable[..., Any], model: Any
) -> Callable[[tuple, Any], tuple[Any, list]]:
    """A function for a model's loss and its gradients, compiled where the model can be.

    Parameters
    ----------
    loss_of : callable
        (x, y, sample_weight) -> the loss, in training mode.
    model : keras.Model

    Returns
    -------
    callable
        ((x, y, sample_weight), scale) -> the loss, and the gradients of the loss times the scale.
    """

    def eager(data: tuple, scale: Any) -> tuple[Any, list]:
        with tf.GradientTape() as tape:
            value = loss_of(*data)
            scaled = value * tf.cast(scale, value.dtype)
        return value, tape.gradient(scaled, [v.value for v in model.trainable_variables])

    modes: list[Callable] = (
        [eager] if model.run_eagerly else [tf.function(eager, autograph=False), eager]
    )

    def gradients(data: tuple, scale: Any) -> tuple[Any, list]:
        data = tf.nest.map_structure(_tensor, data)
        if len(modes) > 1:
            try:
                return modes[0](data, scale)
            except Exception:  # whatever is wrong, the eager function will say it better
                del modes[0]
        return modes[0](data, scale)

    return gradients


def _tensor(array: Any) -> Any:
    return None if array is None else tf.convert_to_tensor(array)


class Recorder:
    """Stands in for one optimiser's `apply`, and keeps the norms of its gradients in a variable.

    The variable has one row for every call of `apply`: a norm for each layer, then an update ratio
    for each layer.

    Parameters
    ----------
    optimizer : keras.Optimizer
    model : keras.Model
    update_ratio : bool
        Whether the norm of each layer's update over that of its weights is kept too.
    witness : object, optional
        Its `batch` is the nest of tensors that the step computes its loss of, and its `keep` takes
        the same nest in NumPy arrays at the first gradient that is not finite, before the update.
    """

    def __init__(self, optimizer: Any, model: Any, update_ratio: bool, witness: Any = None) -> None:
        self.optimizer, self.update_ratio, self.witness = optimizer, update_ratio, witness
        self.compiled_by_xla = bool(model.jit_compile)
        self.layer_names: list[str] = []
        self.rows = max(_ROWS, 2 * model.steps_per_execution)
        self.width = 0  # The buffer has no columns before the model is built.
        self.blocks: list[np.ndarray] = []
        if model.built:
            with model.distribute_strategy.scope():
                self._allocate({layer_of(v) for v in model.trainable_variables})

    def _allocate(self, layer_names: Collection[str]) -> None:
        options = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        self.width = 2 * len(layer_names)
        self.buffer = tf.Variable(tf.zeros((self.rows, self.width), tf.float64), **options)
        self.count = tf.Variable(0, dtype=tf.int64, **options)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Record every call of `apply` that is made, or traced, inside the block."""
        apply, own = self.optimizer.apply, self.optimizer.__dict__.get("apply")

        def recording_apply(grads: Any, trainable_variables: Any = None) -> Any:
            variables = trainable_variables or self.optimizer._trainable_variables
            grads, variables = list(grads), list(variables)
            if all(g is None for g in grads):
                return apply(grads, variables)  # Keras explains what is wrong.
            self.layer_names = list(dict.fromkeys(layer_of(v) for v in variables))
            if not self.width:  # This very step has built the model.
                with tf.init_scope():
                    self._allocate(self.layer_names)
            norms = self._gradient_norms(grads, variables)
            before = [tf.identity(v.value) for v in variables] if self.update_ratio else []
            with tf.control_dependencies(self._keep_if_bad(norms)):
                result = apply(grads, variables)
            self._write(tf.concat([norms, self._update_ratios(before, variables)], axis=0))
            return result

        self.optimizer.__dict__["apply"] = recording_apply
        try:
            yield
        finally:
            del self.optimizer.__dict__["apply"]
            if own is not None:
                self.optimizer.__dict__["apply"] = own

    def _keep_if_bad(self, norms: tf.Tensor) -> list[tf.Tensor]:
        """Keep the batch if a norm is not finite; return what must be done before the update.

        Nothing is kept where XLA compiles the step, which cannot call back; of several replicas,
        each of which sees a part of the batch; and of sparse or ragged data.
        """
        if self.witness is None:
            return []
        batch = self.witness.batch
        parts = tf.nest.flatten(batch)
        dense = all(tf.is_tensor(part) and hasattr(part, "shape") for part in parts)
        dense &= not any(isinstance(p, tf.SparseTensor | tf.RaggedTensor) for p in parts)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if not parts or not dense or replicas > 1 or self.compiled_by_xla:
            return []

        def keep(*arrays: tf.Tensor) -> np.int32:
            self.witness.keep(tf.nest.pack_sequence_as(batch, [a.numpy() for a in arrays]))
            return np.int32(0)

        bad = ~tf.reduce_all(tf.math.is_finite(norms))
        zero = tf.constant(0)
        return [tf.cond(bad, lambda: tf.py_function(keep, parts, tf.int32), lambda: zero)]

    def _gradient_norms(self, grads: list, variables: list) -> tf.Tensor:
        pairs = [(layer_of(v), g) for v, g in zip(variables, grads, strict=True) if g is not None]
        owners, present = [owner for owner, _ in pairs], [g for _, g in pairs]
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            present = tf.distribute.get_replica_context().all_reduce("sum", present)
        dense = [_without_repeats(g, self.compiled_by_xla) for g in present]
        norms = tf.sqrt(self._by_layer(owners, _sums_of_squares(dense)))
        norms /= tf.cast(loss_scale(self.optimizer), tf.float64)
        has_gradient = [name in owners for name in self.layer_names]
        return tf.where(has_gradient, norms, tf.constant(NO_GRADIENT, tf.float64))

    def _update_ratios(self, before: list, variables: list) -> tf.Tensor:
        if not self.update_ratio:
            return tf.fill([len(self.layer_names)], tf.constant(np.nan, tf.float64))
        change = [v.value - b for v, b in zip(variables, before, strict=True)]
        owners = [layer_of(v) for v in variables]
        squares = self._by_layer(owners, _sums_of_squares(change))
        return tf.sqrt(squares / self._by_layer(owners, _sums_of_squares(before)))

    def _by_layer(self, owners: list[str], squares: tf.Tensor) -> tf.Tensor:
        """Return the sums over each layer's variables, shape (layers,); 0 where it has none."""
        rows = [self.layer_names.index(owner) for owner in owners]
        return tf.math.unsorted_segment_sum(squares, rows, len(self.layer_names))

    def _write(self, row: tf.Tensor) -> None:
        row = tf.pad(row, [[0, self.width - 2 * len(self.layer_names)]])
        place = tf.reshape(self.count.read_value() % self.rows, (1, 1))
        rows = tf.tensor_scatter_nd_update(self.buffer.read_value(), place, row[None])
        self.buffer.assign(rows)
        self.count.assign_add(1)

    def written(self) -> int:
        """Return how many rows were written since the last reading."""
        return int(self.count.read_value()) if self.width else 0

    def forget(self) -> None:
        """Forget the rows that were written since the last reading."""
        if self.width:
            self.count.assign(0)

    def read(self) -> np.ndarray:
        """Move the rows written since the last reading out of the graph, and return them."""
        new = self.written()
        if not new:
            return np.empty((0, self.width))
        self.blocks.append(self.buffer.read_value().numpy()[:new].copy())
        self.count.assign(0)
        return self.blocks[-1]

    def rows_read(self) -> np.ndarray:
        """Return all rows that were ever read."""
        self.blocks = [np.concatenate([np.empty((0, self.width)), *self.blocks])]
        return self.blocks[0]


def _sums_of_squares(tensors: list) -> tf.Tensor:
    """Return each tensor's sum of squares in float64, shape (tensors,).

    They are computed in float32, which is fast, and once more in float64 if one of them lies
    outside the range in which float32 can be trusted.
    """
    double = any(t.dtype == tf.float64 for t in tensors)
    halves = [tf.nn.l2_loss(tf.cast(t, tf.float64 if double else tf.float32)) for t in tensors]
    fast = 2 * tf.cast(tf.stack(halves), tf.float64)

    def exact() -> tf.Tensor:
        return tf.stack([2 * tf.nn.l2_loss(tf.cast(t, tf.float64)) for t in tensors])

    in_range = tf.reduce_all((fast > _SMALLEST_SQUARES) & (fast < _LARGEST_SQUARES))
    return tf.cond(in_range, lambda: fast, exact)


def _without_repeats(gradient: Any, densify: bool) -> tf.Tensor:
    """Return a gradient's values, with the repeated rows of a sparse gradient summed up.

    XLA cannot compile the search for repeated rows; there the gradient is made dense.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    if densify:
        return tf.convert_to_tensor(gradient)
    rows, place = tf.unique(gradient.indices)
    return tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))
