"""Watch the gradient of every layer during training, where the training step already has it.

Needs Keras 3, on TensorFlow (``pip install '.[keras]'``) or on torch.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from gradutils import _checks
from gradutils._backends import NO_GRADIENT
from gradutils._batches import Batch, check_finite
from gradutils._keras import backend, keras
from gradutils._keras_probe import as_float64
from gradutils.diagnosis import Diagnosis, diagnose
from gradutils.probes import Probe, probe
from gradutils.trials import sandbox

_ROWS = 128  # So many steps are recorded before they are read.
_ROWS_TOLD = 5  # An alarm names this many rows at most.

Alarm = str | Callable[[str, int, float], None]


class _BadBatch(NamedTuple):
    """Hold a batch by the names of its parts, and the values that all variables had then."""

    data: dict[str, Any]
    values: list[np.ndarray]


class _Witness:
    """Keeps the first batch whose gradient is not finite.

    It learns of a batch where `compute_loss` is called, and is asked before the weights change. A
    step copies nothing as long as all its gradients are finite.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model, self.batch = model, dict[str, Any]()
        self.kept: _BadBatch | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Learn the batch of every loss that is computed, or traced, inside the block."""
        compute_loss, own = self.model.compute_loss, self.model.__dict__.get("compute_loss")
        signature = inspect.signature(compute_loss)

        def learning(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            parts = {name: given.get(name) for name in ("x", "y", "sample_weight")}
            self.batch = {name: part for name, part in parts.items() if part is not None}
            return compute_loss(*args, **kwargs)

        self.model.__dict__["compute_loss"] = learning
        try:
            yield
        finally:
            self.batch = {}
            del self.model.__dict__["compute_loss"]
            if own is not None:
                self.model.__dict__["compute_loss"] = own

    def keep(self, batch: dict[str, Any]) -> None:
        """Keep this batch, in NumPy arrays, and the variables as they are; the first one only."""
        if self.kept is None and batch:
            values = [keras.ops.convert_to_numpy(v) for v in self.model.variables]
            self.kept = _BadBatch(batch, values)


class GradientMonitor(keras.callbacks.Callback):
    """Record the norm of every layer's weight gradient at every training step.

    The norms are taken inside the training step, of the gradients that the optimiser receives: no
    second backward pass. They are the raw ones: before clipping, with the loss scale divided out,
    summed over replicas. The trained weights are those of a run without the monitor: bit by bit in
    eager mode, to rounding where TensorFlow or XLA compiles the two runs to different arithmetic.

    Give it to `fit` as a callback. Where `train_on_batch` or a loop of your own trains the model,
    put every step into ``with monitor.training_step(model):``.

    Parameters
    ----------
    every : int
        Record the steps whose numbers are multiples of `every`: 1 records all, 50 records steps 0,
        50, 100 and so on. The other steps run the model's own training function.
    update_ratio : bool
        Also record the norm of each layer's update over the norm of its weights.
    probe_every : int
        Every `probe_every` steps, `gradutils.probes.probe` the model on `probe_data`; 0 for never.
        A recurrent layer's record there holds the gradient of every time step.
    probe_data : tuple, optional
        (x, y) for these probes.
    on_alarm : "warn", "stop", "raise" or callable, optional
        What to do at the first norm that is not finite or exceeds `limit`: warn; warn and stop
        training after this step; raise FloatingPointError; or call with the layer's name, the step
        and the norm. Checked after every recorded step, done once in a monitor's life. A layer
        without a gradient, such as a head without a loss, raises no alarm. A norm that is not
        finite is looked into: see Notes.
    limit : float
        Norm above which `on_alarm` acts.
    live : bool
        In a notebook, redraw the heat map after every epoch.
    log_layers : bool
        Also write each layer's norm into `logs` (see Notes).
    optimizers : sequence of keras.Optimizer, optional
        Those to watch; by default all that are attributes of the model.

    Attributes
    ----------
    steps : ndarray of int, shape (recorded,)
        Numbers of the recorded steps, from 0, over all epochs.
    layer_names : list of str
        Paths of the layers that have trainable weights.
    norms : ndarray, shape (recorded, layers)
        NaN where a layer had no gradient.
    update_ratios : ndarray, shape (recorded, layers)
    probes : dict of int to gradutils.probes.Probe
        The probes, by the number of steps done before.
    diagnosis : gradutils.diagnosis.Diagnosis or None
        That of the first batch whose gradient was not finite, with `on_alarm`.

    Raises
    ------
    ValueError
        If an argument is not one of the above.
    NotImplementedError
        With Keras on JAX.

    Notes
    -----
    At every epoch's end `logs` receives means over the epoch's recorded steps: `grad/norm`, the
    norm over all layers; `grad/first` and `grad/last`, those of the first and the last layer with
    a gradient; with `log_layers`, `grad/layers/NAME` for every layer, NaN for one without a
    gradient. List the monitor before the callbacks that read them: CSVLogger, TensorBoard.

    With `on_alarm`, the first batch whose gradient is not finite is kept, with the weights before
    the step that it spoils. The alarm names the rows of the batch that give it alone, and the
    first layer and operation where a number is not finite; `diagnosis` has the rest. This needs a
    model that calls `compute_loss` in its step, dense data, one replica, and no XLA; elsewhere
    the alarm names the layer and the step only. XLA may simplify an undefined derivative away, as
    that of a root of ReLU at 0: such a run has no NaN, and the monitor has nothing to ring for.

    A step that raises ends `fit` without `on_train_end`; the optimiser is as it was all the same,
    because it is changed during the training function's calls only.

    Examples
    --------
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> monitor = GradientMonitor()
    >>> x, y = np.ones((64, 3)), np.zeros((64, 1))
    >>> options = {"epochs": 2, "batch_size": 16, "verbose": 0}
    >>> _ = model.fit(x, y, callbacks=[monitor], **options)
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
        log_layers: bool = False,
        optimizers: Sequence[keras.Optimizer] | None = None,
    ) -> None:
        super().__init__()
        if backend.CANNOT_RECORD:
            raise NotImplementedError(backend.CANNOT_RECORD)
        _check_options(every, probe_every, probe_data, on_alarm, limit, optimizers)
        self.every, self.update_ratio = every, update_ratio
        self.probe_every, self.probe_data = probe_every, probe_data
        self.on_alarm, self.limit = on_alarm, limit
        self.live, self.log_layers = live, log_layers
        self.optimizers = optimizers
        self.probes: dict[int, Probe] = {}
        self._recorders: list[Any] = []
        self._steps: list[int] = []
        self._step = self._unread = self._epoch_start = 0
        self._alarm_given = self._silence_told = False
        self._witness: _Witness | None = None
        self.diagnosis: Diagnosis | None = None
        self._plain_function: Any = None
        self._recording_function: Any = None
        self._display: Any = None

    @property
    def steps(self) -> np.ndarray:
        """Numbers of the recorded steps, shape (recorded,)."""
        return np.array(self._steps, dtype=int)

    @property
    def layer_names(self) -> list[str]:
        """Paths of the layers that the optimisers train."""
        return [name for recorder in self._recorders for name in recorder.layer_names]

    @property
    def norms(self) -> np.ndarray:
        """Gradient norms, shape (recorded, layers); NaN where a layer had no gradient."""
        norms = self._columns(0)
        return np.where(norms == NO_GRADIENT, np.nan, norms)

    @property
    def update_ratios(self) -> np.ndarray:
        """Norm of each update over the norm of the weights, shape (recorded, layers).

        Raises
        ------
        ValueError
            If the monitor was made without `update_ratio=True`.
        """
        if not self.update_ratio:
            raise ValueError("update_ratio must be True to record update ratios; received False")
        ratios = self._columns(1)
        return np.where(ratios == NO_GRADIENT, np.nan, ratios)

    def _columns(self, half: int) -> np.ndarray:
        """Return all norms (half 0) or update ratios (half 1), `NO_GRADIENT` where none is."""
        if self._unread:
            self._read()
        blocks = [np.empty((len(self._steps), 0))]
        for recorder in self._recorders:
            rows, width = recorder.rows_read(), len(recorder.layer_names)
            # An optimiser that is called less than once a step fills fewer rows.
            block = np.full((len(self._steps), width), NO_GRADIENT)
            block[: len(rows)] = rows[: len(block), half * width : (half + 1) * width]
            blocks.append(block)
        return np.concatenate(blocks, axis=1)

    def _read(self) -> list[np.ndarray]:
        """Empty every recorder's buffer, and return the rows that were in it."""
        self._unread = 0
        return [recorder.read() for recorder in self._recorders]

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Prepare a second training function, the one that records.

        Raises
        ------
        ValueError
            If the monitor has recorded another optimiser before.
        """
        attributes = {id(value): value for value in vars(self.model).values()}.values()
        found = self.optimizers or [v for v in attributes if isinstance(v, keras.Optimizer)]
        if not self._recorders:
            self._witness = _Witness(self.model) if self.on_alarm else None
            self._recorders = [
                backend.Recorder(o, self.model, self.update_ratio, self._witness) for o in found
            ]
        if [r.optimizer for r in self._recorders] != list(found):
            raise ValueError(
                "the monitor has recorded another optimiser: make a new GradientMonitor"
            )
        if self.model.train_function is not self._plain_function:  # It was made anew.
            self._plain_function = self.model.train_function
            self.model.make_train_function(force=True)
            self._recording_function = self.model.train_function
            self.model.train_function = self._plain_function
        if self._unread:
            self._read()
        for recorder in self._recorders:
            recorder.forget()  # These rows were written outside the blocks of `training_step`.

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remember where the epoch's rows begin."""
        self._epoch_start = len(self._steps)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Put the recording function in place if one of the coming steps is to be recorded."""
        self._first_batch = batch
        self._recorded = self._is_due(self.model.steps_per_execution)
        if self._recorded:
            self.model.train_function = self._record

    def _is_due(self, coming: int) -> bool:
        """Tell whether one of the coming steps is to be recorded."""
        next_due = -(-self._step // self.every) * self.every
        return next_due < self._step + coming

    def _record(self, iterator: Any) -> Any:
        self.model.train_function = self._plain_function
        with self._hooked():
            return self._recording_function(iterator)

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        """Record every call of a watched optimiser's `apply` inside the block."""
        with ExitStack() as hooks:
            for recorder in self._recorders:
                hooks.enter_context(recorder.hooked())
            if self._witness:
                hooks.enter_context(self._witness.watching())
            yield

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Take note of the steps that were done."""
        done = batch - self._first_batch + 1
        if self._recorded and done > 1:
            # The last execution of an epoch may hold fewer steps than it reports.
            done = self._rows_written() - self._unread
        self._finish(done, self._recorded)

    @contextmanager
    def training_step(self, model: keras.Model) -> Iterator[None]:
        """Record one training step that is not made by `fit`, for use in a `with` statement.

        The step may be a call of `train_on_batch`, or a tape and an optimiser of your own. A
        `tf.function` records if it is called for the first time inside the block, because it is
        traced then. Norms, `every`, probes and alarms are as in `fit`; only "stop" cannot end a
        loop that is not Keras' own: it sets `model.stop_training`, for the loop to look at. There
        are no epochs, so nothing is written into `logs`.

        Parameters
        ----------
        model : keras.Model
            The model that is trained. Its optimisers are found among its attributes; others are
            given as `optimizers` when the monitor is made.

        Returns
        -------
        context manager

        Raises
        ------
        ValueError
            If the monitor has recorded another model's optimiser before.
        FloatingPointError
            At the first alarm, with `on_alarm="raise"`.

        Examples
        --------
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> monitor = GradientMonitor()
        >>> for step in range(5):
        ...     with monitor.training_step(model):
        ...         _ = model.train_on_batch(np.ones((16, 3)), np.zeros((16, 1)))
        >>> monitor.norms.shape
        (5, 1)
        """
        self.set_model(model)
        model.make_train_function()
        self.on_train_begin()
        due = self._is_due(1)
        with ExitStack() as block:
            if due:
                block.enter_context(self._hooked())
                block.callback(setattr, model, "train_function", self._plain_function)
                model.train_function = self._recording_function
            yield
        done = self._rows_written() if due else 0
        if due and not done:
            self._tell_silence(
                "the block made no call of a watched optimiser's apply, or made it in a function "
                "that was traced before"
            )
        self._finish(max(done, 1), recorded=done > 0)
        if due:  # Read now: a function traced in the block also writes when it is called outside.
            self._read()

    def _rows_written(self) -> int:
        return max((recorder.written() for recorder in self._recorders), default=0)

    def _finish(self, done: int, recorded: bool) -> None:
        """Count steps that were done; then read, check and probe, each if it is time to."""
        before, self._step = self._step, self._step + done
        if recorded:
            self._steps += range(before, self._step)
            self._unread += done
        if self.on_alarm and self._unread:
            self._check_alarm(self._read())
        if self._unread > _ROWS:
            self._read()
        self._probe_if_due(before)

    def _probe_if_due(self, before: int) -> None:
        """Probe the model if a multiple of `probe_every` lies between the old and the new step."""
        if not self.probe_every or self.probe_data is None:
            return
        if before // self.probe_every != self._step // self.probe_every:
            self.probes[self._step] = probe(self.model, *self.probe_data)

    def _check_alarm(self, blocks: list[np.ndarray]) -> None:
        """Give the alarm, if it was not given before, for the first bad norm of the rows."""
        bad = []
        for recorder, block in zip(self._recorders, blocks, strict=True):
            norms = block[:, : len(recorder.layer_names)]
            for row, column in np.argwhere(~(norms <= self.limit))[:1]:
                steps = self._steps[-len(block) :]  # An optimiser may be called twice a step.
                step = steps[min(row, len(steps) - 1)]
                bad.append((step, recorder.layer_names[column], float(norms[row, column])))
        if bad and not self._alarm_given:
            self._alarm_given = True
            step, layer, norm = min(bad, key=lambda found: found[0])
            self._give_alarm(layer, step, norm)

    def _give_alarm(self, layer: str, step: int, norm: float) -> None:
        message = f"gradient norm {norm:.3g} in layer {layer} at step {step}"
        if not np.isfinite(norm):
            message += f"; {self._where_numbers_end()}"
        if callable(self.on_alarm):
            self.on_alarm(layer, step, norm)
        elif self.on_alarm == "raise":
            raise FloatingPointError(message)
        else:
            warnings.warn(message, stacklevel=2)
        self.model.stop_training |= self.on_alarm == "stop"

    def _where_numbers_end(self) -> str:
        """Put the weights before the bad step back for a moment, and diagnose its batch."""
        kept = self._witness.kept if self._witness else None
        if kept is None:
            return "its batch could not be kept, but gradutils.diagnosis.diagnose looks into one"
        with sandbox(self.model):
            for variable, value in zip(self.model.variables, kept.values, strict=True):
                variable.assign(value)
            try:
                x, y, weight = (kept.data.get(name) for name in ("x", "y", "sample_weight"))
                batch = Batch(x, y, weight, all_targets=y)
                check_finite(batch)
                self.diagnosis = diagnose(self.model, batch, look_ahead=0, try_remedies=False)
            except ValueError as error:  # The data themselves are not finite.
                return str(error)
            rows = _rows_that_are_bad_alone(self.model, kept)
        found = [f for f in self.diagnosis.findings if f.kind == "non-finite"]
        places = [f"{f.evidence}. {f.remedy}" for f in found[:1]]
        return "; ".join([*rows, *places])

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write the epoch's means into `logs`; redraw the live picture."""
        norms = self._columns(0)[self._epoch_start :]
        if logs is not None and (norms != NO_GRADIENT).any():
            logs |= self._epoch_means(norms)
        if self.live and norms.size:
            self._show()

    def _epoch_means(self, norms: np.ndarray) -> dict[str, float]:
        """Return the means over steps: of the joint norm, of the first, last and each layer's."""
        has_gradient = norms != NO_GRADIENT
        counts = has_gradient.sum(axis=0)  # (layers,)
        norms = np.where(has_gradient, norms, 0.0)
        means = np.where(counts > 0, norms.sum(axis=0) / np.maximum(counts, 1), np.nan)
        first, last = np.flatnonzero(counts)[[0, -1]]
        result = {
            "grad/norm": np.sqrt((norms**2).sum(axis=1)).mean(),
            "grad/first": means[first],
            "grad/last": means[last],
        }
        if self.log_layers:
            names = [f"grad/layers/{name}" for name in self.layer_names]
            result |= dict(zip(names, means, strict=True))
        return {name: float(value) for name, value in result.items()}

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warn, once, if nothing was recorded of an optimiser that should have been."""
        if self._unread:
            self._read()
        idle = [r.optimizer.name for r in self._recorders if not len(r.rows_read())]
        nothing = len(idle) == len(self._recorders)
        if self._step and idle and (self.optimizers or nothing):
            names = ", ".join(map(repr, idle))
            self._tell_silence(f"optimiser {names} was never called")
        elif self._step and nothing:
            self._tell_silence("the model has no optimiser among its attributes")

    def _tell_silence(self, reason: str) -> None:
        if not self._silence_told:
            self._silence_told = True
            warnings.warn(
                f"{reason}: nothing recorded. Pass the optimisers that train the model as "
                "GradientMonitor(optimizers=[...])",
                stacklevel=3,
            )

    def _show(self) -> None:
        from IPython.display import display

        from gradutils import plots

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

        Raises
        ------
        ValueError
            If nothing was recorded.
        """
        from gradutils import plots

        if not self.norms.size:
            raise ValueError("the monitor has recorded nothing to plot: train the model first")
        return plots.step_heatmap(self.norms, xlabel="recorded step", ax=ax)


def _rows_that_are_bad_alone(model: keras.Model, bad: _BadBatch) -> list[str]:
    """Tell which rows of a batch have a gradient that is not finite, each taken alone."""
    samples, rows = len(keras.tree.flatten(bad.data)[0]), []
    for i in range(samples):
        row = keras.tree.map_structure(lambda part, i=i: part[i : i + 1], bad.data)
        x, y, weight = (backend.tensors(row.get(n)) for n in ("x", "y", "sample_weight"))

        def loss_of(_: Any, x: Any = x, y: Any = y, weight: Any = weight) -> tuple[Any, list]:
            return model.compute_loss(x, y, model(x, training=True), weight), []

        _, _, gradients = backend.differentiate(loss_of, model.trainable_variables)
        if not all(bool(np.isfinite(as_float64(g)).all()) for g in gradients if g is not None):
            rows.append(i)
    if len(rows) == samples:
        return [f"each of the batch's {samples} rows alone gives it"]
    named = ", ".join(map(str, rows[:_ROWS_TOLD])) + (" and more" * (len(rows) > _ROWS_TOLD))
    return [f"of the batch's {samples} rows, alone give it: {named}"] if rows else []


def _check_options(
    every: Any, probe_every: Any, probe_data: Any, on_alarm: Any, limit: Any, optimizers: Any
) -> None:
    """Raise a ValueError that names the first argument that a monitor cannot use."""
    _checks.positive_integers(every=every)
    if probe_every != 0:
        _checks.positive_integers(probe_every=probe_every)
    _checks.positive(limit=limit)
    if probe_every and probe_data is None:
        raise ValueError("probe_data must be a pair (x, y) where probe_every is set; received None")
    _checks.alarm(on_alarm)
    is_sequence = isinstance(optimizers, Sequence) and not isinstance(optimizers, str)
    if optimizers is not None and not (
        is_sequence and optimizers and all(isinstance(o, keras.Optimizer) for o in optimizers)
    ):
        raise ValueError(
            f"optimizers must be a sequence of keras.Optimizer; received {optimizers!r}"
        )
