"""Watch the gradient of every layer through `fit`, where the training step already has it.

Needs Keras 3 on TensorFlow (``pip install '.[keras]'``).
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradutils import _checks, plots
from gradutils.probes import Probe, probe

_ROWS = 256  # steps that the buffer in the graph holds between two readings
_NO_GRADIENT = -1.0  # what the buffer holds where a layer had no gradient; no norm is negative
_SMALLEST, _LARGEST = 1e-30, 1e30  # float32 sums of squares outside are taken again in float64

Alarm = str | Callable[[str, int, float], None]


class _Recorder:
    """Hooks one optimiser's `apply` and keeps the norms of its gradients in a variable."""

    def __init__(self, optimizer: keras.Optimizer, model: keras.Model, updates: bool) -> None:
        self.optimizer, self.updates = optimizer, updates
        self.densify = bool(model.jit_compile)  # XLA has no tf.unique
        self.layers: list[str] = []
        self.rows = max(_ROWS, 2 * model.steps_per_execution)
        self.kept = np.empty((0, 0))
        if model.built:
            with model.distribute_strategy.scope():
                self._allocate({_owner(v) for v in model.trainable_variables})

    def _allocate(self, owners: Collection[str]) -> None:
        options = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        width = 2 * len(owners)
        self.buffer = tf.Variable(tf.zeros((self.rows, width), tf.float64), **options)
        self.count = tf.Variable(0, dtype=tf.int64, **options)
        self.kept = np.empty((0, width))

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Record every call of `apply` that is made, or traced, inside the block."""
        apply = self.optimizer.apply

        def recording_apply(grads: Any, trainable_variables: Any = None) -> Any:
            variables = trainable_variables or self.optimizer._trainable_variables
            grads, variables = list(grads), list(variables)
            if all(g is None for g in grads):
                return apply(grads, variables)  # Keras says what it makes of no gradient at all
            self.layers = list(dict.fromkeys(_owner(v) for v in variables))
            if not self.kept.shape[1]:  # the model was built by this step
                with tf.init_scope():
                    self._allocate(self.layers)
            norms = self._gradient_norms(grads, variables)
            before = [tf.identity(v.value) for v in variables] if self.updates else []
            result = apply(grads, variables)
            self._write(tf.concat([norms, self._update_ratios(before, variables)], axis=0))
            return result

        self.optimizer.__dict__["apply"] = recording_apply
        try:
            yield
        finally:
            del self.optimizer.__dict__["apply"]

    def _gradient_norms(self, grads: list, variables: list) -> tf.Tensor:
        pairs = [(_owner(v), g) for v, g in zip(variables, grads, strict=True) if g is not None]
        owners, present = [owner for owner, _ in pairs], [g for _, g in pairs]
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            present = tf.distribute.get_replica_context().all_reduce("sum", present)
        dense = [_without_repeats(g, self.densify) for g in present]
        norms = tf.sqrt(self._by_layer(owners, _sums_of_squares(dense)))
        norms /= tf.cast(_loss_scale(self.optimizer), tf.float64)
        has_gradient = [layer in owners for layer in self.layers]
        return tf.where(has_gradient, norms, tf.constant(_NO_GRADIENT, tf.float64))

    def _update_ratios(self, before: list, variables: list) -> tf.Tensor:
        if not self.updates:
            return tf.fill([len(self.layers)], tf.constant(np.nan, tf.float64))
        change = [v.value - b for v, b in zip(variables, before, strict=True)]
        owners = [_owner(v) for v in variables]
        squares = self._by_layer(owners, _sums_of_squares(change))
        return tf.sqrt(squares / self._by_layer(owners, _sums_of_squares(before)))

    def _by_layer(self, owners: list[str], squares: tf.Tensor) -> tf.Tensor:
        """Sums over each layer's variables, shape (layers,); 0 for a layer that has none."""
        rows = [self.layers.index(owner) for owner in owners]
        return tf.math.unsorted_segment_sum(squares, rows, len(self.layers))

    def _write(self, row: tf.Tensor) -> None:
        row = tf.pad(row, [[0, self.kept.shape[1] - 2 * len(self.layers)]])
        place = tf.reshape(self.count.read_value() % self.rows, (1, 1))
        rows = tf.tensor_scatter_nd_update(self.buffer.read_value(), place, row[None])
        self.buffer.assign(rows)
        self.count.assign_add(1)

    def read(self) -> np.ndarray:
        """Move the rows written since the last reading out of the graph, and return them all."""
        new = int(self.count.read_value()) if self.kept.shape[1] else 0
        if new:
            self.kept = np.concatenate([self.kept, self.buffer.read_value().numpy()[:new]])
            self.count.assign(0)
        return self.kept


def _owner(variable: keras.Variable) -> str:
    return variable.path.rsplit("/", 1)[0]


def _loss_scale(optimizer: keras.Optimizer) -> Any:
    """What the gradients that `apply` receives have been multiplied by."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.dynamic_scale.value if optimizer.built else optimizer.initial_scale
    return optimizer.loss_scale_factor or 1.0


def _sums_of_squares(tensors: list) -> tf.Tensor:
    """Float64 sums of squares, shape (tensors,); a float32 pass, and a second one if it fails."""
    double = any(t.dtype == tf.float64 for t in tensors)
    halves = [tf.nn.l2_loss(tf.cast(t, tf.float64 if double else tf.float32)) for t in tensors]
    fast = 2 * tf.cast(tf.stack(halves), tf.float64)

    def exact() -> tf.Tensor:
        return tf.stack([2 * tf.nn.l2_loss(tf.cast(t, tf.float64)) for t in tensors])

    in_range = tf.reduce_all((fast > _SMALLEST) & (fast < _LARGEST))
    return tf.cond(in_range, lambda: fast, exact)


def _without_repeats(gradient: Any, densify: bool) -> tf.Tensor:
    """A gradient's values; the rows of a sparse one that belong together are summed."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    if densify:
        return tf.convert_to_tensor(gradient)
    rows, place = tf.unique(gradient.indices)
    return tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))


class GradientMonitor(keras.callbacks.Callback):
    """Record the norm of every layer's weight gradient at every step of `fit`.

    The norms are taken inside the training step, of the gradients that the optimiser receives: no
    second backward pass. They are the raw ones: before clipping, with the loss scale divided out,
    summed over replicas. The trained weights are those of a run without the monitor, bit by bit
    (with XLA, which compiles two programs, to rounding).

    Parameters
    ----------
    every : int
        Record one step in so many. The other steps run the model's own training function.
    update_ratio : bool
        Also record the norm of each layer's update over the norm of its weights.
    probe_every : int
        Every so many steps, `gradutils.probes.probe` the model on `probe_data`; 0 for never. A
        recurrent layer's record there holds the gradient of every time step.
    probe_data : tuple, optional
        (x, y) for these probes.
    on_alarm : "warn", "stop" or callable, optional
        What to do at the first norm that is not finite or exceeds `limit`; a callable receives
        the layer's name, the step and the norm. Checked after every recorded step. A layer
        without a gradient, such as a head without a loss, raises no alarm.
    limit : float
        Norm above which `on_alarm` is called.
    live : bool
        In a notebook, redraw the heat map after every epoch.
    optimizers : sequence of keras.Optimizer, optional
        Those to watch; by default all that are attributes of the model.

    Attributes
    ----------
    steps : ndarray of int, shape (recorded,)
        Numbers of the recorded steps, from 0, over all epochs.
    layers : list of str
        Paths of the layers that have trainable weights.
    norms : ndarray, shape (recorded, layers)
        NaN where a layer had no gradient.
    update_ratios : ndarray, shape (recorded, layers)
    probes : dict of int to gradutils.probes.Probe

    Notes
    -----
    `logs` receives `grad/norm`, the norm over all layers, and `grad/first` and `grad/last`, those
    of the first and the last layer with a gradient, at every epoch's end (mean over the epoch's
    recorded steps): list the monitor before CSVLogger or TensorBoard. A step that raises ends
    `fit` without `on_train_end`; the optimiser is as it was all the same, because it is hooked
    during the training function's calls only.

    Examples
    --------
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> monitor = GradientMonitor()
    >>> x, y = np.ones((64, 3)), np.zeros((64, 1))
    >>> _ = model.fit(x, y, epochs=2, batch_size=16, verbose=0, callbacks=[monitor])
    >>> monitor.norms.shape
    (8, 1)
    """

    def __init__(
        self,
        every: int = 1,
        *,
        update_ratio: bool = False,
        probe_every: int = 0,
        probe_data: tuple[Any, Any] | None = None,
        on_alarm: Alarm | None = None,
        limit: float = 1e6,
        live: bool = False,
        optimizers: Sequence[keras.Optimizer] | None = None,
    ) -> None:
        super().__init__()
        _checks.positive_integers(every=every)
        if probe_every != 0:
            _checks.positive_integers(probe_every=probe_every)
        _checks.positive(limit=limit)
        if probe_every and probe_data is None:
            raise ValueError(
                "probe_data must be a pair (x, y) where probe_every is set; received None"
            )
        if not (on_alarm in (None, "warn", "stop") or callable(on_alarm)):
            raise ValueError(
                f"on_alarm must be 'warn', 'stop' or a callable; received {on_alarm!r}"
            )
        self.every, self.update_ratio = every, update_ratio
        self.probe_every, self.probe_data = probe_every, probe_data
        self.on_alarm, self.limit, self.live = on_alarm, limit, live
        self.optimizers = optimizers
        self.probes: dict[int, Probe] = {}
        self._recorders: list[_Recorder] = []
        self._steps: list[int] = []
        self._step = self._unread = self._epoch_start = 0
        self._rung = False
        self._own: Any = None
        self._display: Any = None

    @property
    def steps(self) -> np.ndarray:
        """Numbers of the recorded steps, shape (recorded,)."""
        return np.array(self._steps, dtype=int)

    @property
    def layers(self) -> list[str]:
        """Paths of the layers that the optimisers train."""
        return [layer for recorder in self._recorders for layer in recorder.layers]

    @property
    def norms(self) -> np.ndarray:
        """Gradient norms, shape (recorded, layers)."""
        norms = self._columns(0)
        return np.where(norms < 0, np.nan, norms)

    @property
    def update_ratios(self) -> np.ndarray:
        """Norm of each update over the norm of the weights, shape (recorded, layers)."""
        if not self.update_ratio:
            raise ValueError("update_ratio must be True to record update ratios; received False")
        ratios = self._columns(1)
        return np.where(ratios < 0, np.nan, ratios)

    def _columns(self, half: int) -> np.ndarray:
        blocks = [np.empty((len(self._steps), 0))]
        for recorder in self._recorders:
            rows, width = recorder.read(), len(recorder.layers)
            # An optimiser that is called less than once a step fills fewer rows.
            block = np.full((len(self._steps), width), _NO_GRADIENT)
            block[: len(rows)] = rows[: len(block), half * width : (half + 1) * width]
            blocks.append(block)
        return np.concatenate(blocks, axis=1)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Prepare a second training function, the one that records."""
        attributes = {id(value): value for value in vars(self.model).values()}.values()
        found = self.optimizers or [v for v in attributes if isinstance(v, keras.Optimizer)]
        if not self._recorders:
            self._recorders = [_Recorder(o, self.model, self.update_ratio) for o in found]
        if [r.optimizer for r in self._recorders] != list(found):
            raise ValueError(
                "the monitor has recorded another optimiser: make a new GradientMonitor"
            )
        if self.model.train_function is not self._own:  # a first fit, or compiled anew
            self._own = self.model.train_function
            self.model.make_train_function(force=True)
            self._recording, self.model.train_function = self.model.train_function, self._own

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remember where the epoch's rows begin."""
        self._epoch_start = len(self._steps)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Put the recording function in place where one of the coming steps is due."""
        self._begin = batch
        due = -(-self._step // self.every) * self.every
        self._records = due < self._step + self.model.steps_per_execution
        if self._records:
            self.model.train_function = self._record

    def _record(self, iterator: Any) -> Any:
        self.model.train_function = self._own
        with ExitStack() as hooks:
            for recorder in self._recorders:
                hooks.enter_context(recorder.hooked())
            return self._recording(iterator)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count the steps; read the buffer before it is full, or to see whether to ring."""
        done = batch - self._begin + 1
        if self._records:
            if done > 1:  # the last execution of an epoch may hold fewer steps than it reports
                done = max(len(r.read()) for r in self._recorders) - len(self._steps)
            self._steps += range(self._step, self._step + done)
            self._unread += done
        before, self._step = self._step, self._step + done
        if self.on_alarm and self._records:
            self._ring(self._columns(0)[-done:])
        elif self._unread > _ROWS // 2:
            self._read()
        if self.probe_every and before // self.probe_every != self._step // self.probe_every:
            self.probes[self._step] = probe(self.model, *self.probe_data)

    def _read(self) -> None:
        for recorder in self._recorders:
            recorder.read()
        self._unread = 0

    def _ring(self, norms: np.ndarray) -> None:
        self._unread = 0
        bad = ~(norms <= self.limit)
        if not bad.any() or self._rung:
            return
        self._rung = True
        row, column = np.argwhere(bad)[0]
        layer, step = self.layers[column], self._steps[row - len(norms)]
        message = f"gradient norm {norms[row, column]:.3g} in layer {layer} at step {step}"
        if callable(self.on_alarm):
            self.on_alarm(layer, step, float(norms[row, column]))
        else:
            warnings.warn(message, stacklevel=2)
        self.model.stop_training |= self.on_alarm == "stop"

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write the epoch's means into `logs`; redraw the live picture."""
        norms = self._columns(0)[self._epoch_start :]
        self._unread = 0
        has_gradient = ~(norms < 0)
        present = np.where(has_gradient, norms, 0.0)
        counts = has_gradient.sum(axis=0)
        if logs is not None and counts.any():
            means = present.sum(axis=0)[counts > 0] / counts[counts > 0]
            logs["grad/norm"] = float(np.sqrt((present**2).sum(axis=1)).mean())
            logs["grad/first"], logs["grad/last"] = float(means[0]), float(means[-1])
        if self.live:
            self._show()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warn of an optimiser that was asked for and never called."""
        for recorder in self._recorders:
            if not len(recorder.read()) and (self.optimizers or len(self._recorders) == 1):
                name = recorder.optimizer.name
                warnings.warn(
                    f"optimiser {name!r} was never called: nothing recorded", stacklevel=2
                )

    def _show(self) -> None:
        from IPython.display import display

        ax = self.plot()
        if self._display is None:
            self._display = display(ax.figure, display_id=True)
        else:
            self._display.update(ax.figure)
        plots.plt.close(ax.figure)

    def plot(self, ax: Any = None) -> Any:
        """Draw the recorded norms as a heat map of layer by step.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        matplotlib Axes
        """
        return plots.step_heatmap(self.norms, xlabel="recorded step", ax=ax)
