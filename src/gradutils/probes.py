"""One batch through a Keras model: what every layer passes forward, and what comes back.

Needs Keras 3 on TensorFlow (``pip install '.[keras]'``). The model is left as it was.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gradutils import _checks
from gradutils._keras import keras, tf

SATURATION = 0.97  # |tanh| above it; Glorot and Bengio 2010 look at the same tails
_SQUASHING = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
_RECTIFYING = {"relu", "relu6"}
_NOTHING = np.empty(0)


def _nothing() -> np.ndarray:
    return _NOTHING


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
    equal_weights : bool
        Whether a weight matrix gives all of several units the same column, whatever the gradient.
    feature_means, feature_stds : ndarray, shape (features,)
        Mean and standard deviation of each feature (the last axis) of what the layer receives, at
        its first call; empty if that is not floating.
    weight_dtype : str
        Type of the trainable weights; "" without them.
    units : int
        Size of the last axis of the outputs.
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
    equal_weights: bool = False
    feature_means: np.ndarray = field(default_factory=_nothing)
    feature_stds: np.ndarray = field(default_factory=_nothing)
    weight_dtype: str = ""
    units: int = 0


@dataclass(frozen=True)
class Head:
    """One array that the model returns, with its targets and its loss.

    Attributes
    ----------
    outputs : ndarray, shape (samples, ...)
        In training mode.
    targets : ndarray, shape (samples, ...), or None
        None if they cannot be told.
    loss : str
        Keras' name of the loss, such as "mean_squared_error"; "" for one's own or for none.
    from_logits : bool
        Whether that loss takes logits.
    activation : str
        Of the layer that returns the array: "linear" if it has none, "" if it cannot be told.
    layer : str
        Path of that layer; "" if it cannot be told.
    has_logits : bool
        Whether Keras keeps the logits of a last sigmoid or softmax, and takes them for the loss.
    sample_losses : ndarray, shape (samples,)
        Loss of each sample; empty if the loss gives one number for the batch.
    masked_losses : float
        Share of the losses that are not finite which stand at masked (padded) steps; NaN without
        a mask, or where all are finite.
    class_shares : ndarray, shape (classes,)
        Share of each class among all targets given; empty unless the loss is a cross-entropy.
    """

    outputs: np.ndarray
    targets: np.ndarray | None = None
    loss: str = ""
    from_logits: bool = False
    activation: str = ""
    layer: str = ""
    has_logits: bool = False
    sample_losses: np.ndarray = field(default_factory=_nothing)
    masked_losses: float = np.nan
    class_shares: np.ndarray = field(default_factory=_nothing)


@dataclass(frozen=True)
class OwnLoss:
    """What a loss that Keras does not know says at outputs of our choice; NaN where it fails.

    Attributes
    ----------
    rows, pairs, together : float
        Of two or three samples with different targets: the mean loss of each alone, of each target
        with each output, and the loss of all as one batch. Where there are as many targets as
        outputs, the outputs are made up: near the targets, so that the pairs differ.
    at_targets : float
        Where the outputs equal the targets.
    beside_targets : tuple of float
        Where the outputs lie half a standard deviation below and above the targets.
    at_logits : float
        Where the outputs are -20 for targets of 0 and 20 for targets of 1; NaN for other targets.
    against : tuple of float
        Where the outputs are opposite to targets of 0 and 1, and then further off: logits of 20 and
        200, or, from a sigmoid or softmax, probabilities of 1e-3 and 1e-6; NaN for other targets.
    clipped : float
        Where the outputs are clipped to [0.01, 0.99].
    swapped : float
        With outputs and targets exchanged.
    """

    rows: float = np.nan
    pairs: float = np.nan
    together: float = np.nan
    at_targets: float = np.nan
    beside_targets: tuple[float, float] = (np.nan, np.nan)
    at_logits: float = np.nan
    against: tuple[float, float] = (np.nan, np.nan)
    clipped: float = np.nan
    swapped: float = np.nan


@dataclass(frozen=True)
class OptimizerRecord:
    """What is known of the optimiser without a step.

    Attributes
    ----------
    kind : str
        Its class, without a loss scale around it.
    iterations : int
        Steps taken so far.
    rate, later_rate : float
        The learning rate now, and the largest one that its schedule reaches 10 to 10,000 steps
        later.
    epsilon : float
        NaN if the optimiser has none.
    """

    kind: str
    iterations: int
    rate: float
    later_rate: float
    epsilon: float = np.nan


@dataclass(frozen=True)
class Probe:
    """What one batch showed.

    Attributes
    ----------
    loss : float
        In training mode, penalties included.
    layers : list of LayerRecord
        In the order of their first call.
    outputs : int
        Number of arrays that the model returns.
    inference_loss : float
        Loss of the same batch with ``training=False``.
    heads : list of Head
        One for each array that the model returns.
    own_loss : OwnLoss or None
        None where Keras knows the loss.
    penalties : dict of str to float
        Layer path -> sum of what its regularisers and its `add_loss` add to the loss.
    regularization : float
        The part of the penalties that comes from weight regularisers.
    optimizer : OptimizerRecord or None
    curvature : float
        Largest absolute second derivative of the outputs with respect to the inputs; NaN unless
        the loss itself differentiates twice.
    affine : bool
        Whether the outputs (their logits, where Keras keeps them) are an affine function of the
        inputs.
    row_sizes : ndarray, shape (samples,)
        Root mean square of each sample's inputs; empty unless the inputs are one floating array.
    """

    loss: float
    layers: list[LayerRecord]
    outputs: int
    inference_loss: float = np.nan
    heads: list[Head] = field(default_factory=list)
    own_loss: OwnLoss | None = None
    penalties: dict[str, float] = field(default_factory=dict)
    regularization: float = 0.0
    optimizer: OptimizerRecord | None = None
    curvature: float = np.nan
    affine: bool = False
    row_sizes: np.ndarray = field(default_factory=_nothing)

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
        Of arrays, `batch_size` evenly spaced samples are used; of a dataset, the first batch. What
        `one_batch` returned is taken as it is.
    y : array, list or dict of arrays, optional
        Targets; None if `x` is a dataset.
    loss : callable or str, optional
        (y, predictions) -> loss of each sample or of the batch, or a name that Keras knows; the
        compiled loss by default. Sample weights of a dataset count, as in `fit`.
    batch_size : int
    loss_scale : float, optional
        Factor on the loss during the backward pass, divided out of all results. That of the
        optimiser by default, 1 if it has none.

    Returns
    -------
    Probe

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
    batch = one_batch(x, y, batch_size)
    _check(model, batch, loss)
    with _Recorder(model) as recorder:
        predictions, value, scaled, factor = recorder.forward(batch, loss, loss_scale)
        backward, gradients = recorder.backward(scaled)
        calls = recorder.calls
        penalties, regularization = _penalties(model)
        heads = _heads(model, batch, loss, predictions, calls)
        inference = float(_array(_batch_loss(model, batch, loss, training=False)[0]))
        own_loss = _own_loss(model, batch, loss, predictions, heads)
        curvature = _curvature(model, batch) if recorder.differentiates_twice else np.nan
        affine = _is_affine(model, batch)
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
    return Probe(
        loss=float(_array(value)),
        layers=[_record(_connected(pairs, factor), measured, cut) for pairs in layers.values()],
        outputs=len(heads),
        inference_loss=inference,
        heads=heads,
        own_loss=own_loss,
        penalties=penalties,
        regularization=regularization,
        optimizer=_optimizer(model),
        curvature=curvature,
        affine=affine,
        row_sizes=_row_sizes(batch.x),
    )


class Batch(NamedTuple):
    """One batch, and the targets of all samples from which it was taken."""

    x: Any
    y: Any = None
    sample_weight: Any = None
    all_targets: Any = None


def one_batch(x: Any, y: Any = None, batch_size: int = 64) -> Batch:
    """Take the batch that `probe` measures, so that several functions can measure the same one.

    Parameters
    ----------
    x, y, batch_size
        As in `probe`.

    Returns
    -------
    Batch

    Raises
    ------
    ValueError
        If the data are empty or hold NaN or inf.

    Examples
    --------
    >>> one_batch(np.arange(8.0)[:, None], batch_size=3).x.ravel().tolist()
    [0.0, 3.0, 7.0]
    """
    if isinstance(x, Batch):
        return x
    _checks.positive_integers(batch_size=batch_size)
    if isinstance(x, keras.utils.PyDataset | tf.data.Dataset):
        if y is not None:
            raise ValueError("y must be None where x is a dataset: it yields both")
        first = next(iter(x), None) if isinstance(x, tf.data.Dataset) else x[0] if len(x) else None
        if first is None:
            raise ValueError("x must yield a batch; received an empty dataset")
        batch = Batch(*keras.utils.unpack_x_y_sample_weight(first))
        _check_finite(batch)
        return batch._replace(all_targets=batch.y)
    arrays = [a for a in keras.tree.flatten((x, y)) if a is not None]
    if not all(np.ndim(a) for a in arrays):
        kind = type(x).__name__
        raise ValueError(f"x and y must be arrays, or lists or dicts of them; received {kind}")
    sizes = {len(a) for a in arrays}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(f"x and y must hold as many samples, one or more; received {sizes}")
    _check_finite(Batch(x, y))  # all rows, not those of the batch alone
    (samples,) = sizes
    chosen = np.unique(np.linspace(0, samples - 1, min(batch_size, samples)).astype(int))

    def part(data: Any) -> Any:
        return keras.tree.map_structure(
            lambda a: None if a is None else np.asarray(a)[chosen], data
        )

    return Batch(part(x), part(y), all_targets=y)


def _check_finite(batch: Batch) -> None:
    for name, data in (("x", batch.x), ("y", batch.y), ("sample_weight", batch.sample_weight)):
        for array in map(np.asarray, keras.tree.flatten(data)):
            for what, is_bad in (("NaN", np.isnan), ("inf", np.isinf)):
                if array.dtype.kind == "f" and is_bad(array).any():
                    count = is_bad(array).sum()
                    raise ValueError(f"{name} must hold no {what}; received {count} of them")


def _check(model: keras.Model, batch: Batch, loss: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model; received {type(model).__name__}")
    if not model.built:
        raise ValueError(
            "model must be built: give it a keras.Input, or call it once on a batch of data"
        )
    if loss is None and not model.compiled:
        raise ValueError("loss must be given, or the model compiled with one; received neither")


def _batch_loss(
    model: keras.Model, batch: Batch, loss: Any, *, training: bool = True
) -> tuple[tf.Tensor, Any]:
    """The loss and the predictions."""
    try:
        predictions = model(batch.x, training=training)
    except Exception as error:
        raise ValueError(
            f"x must fit the model; received shapes {_shapes(batch.x)}: {error}"
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
            f"y must fit the loss and the predictions; received shapes {_shapes(batch.y)} and "
            f"{_shapes(predictions)}, labels {_range(batch.y)}: {error}"
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
        scale = 1.0 if optimizer is None else float(_array(optimizer.scale_loss(tf.ones(()))))
    return value * scale, scale


def _next_updates(model: keras.Model, gradients: list[np.ndarray]) -> list[np.ndarray | None]:
    """What the optimiser would add to each weight, from a copy of it on copies of the weights."""
    optimizer = _inner_optimizer(model)
    if optimizer is None:
        return [None] * len(gradients)
    variables = model.trainable_variables
    copies = [
        keras.Variable(keras.ops.convert_to_numpy(v), name=v.name, dtype=v.dtype) for v in variables
    ]
    twin = optimizer_twin(optimizer, copies)
    twin.apply([tf.cast(g, v.dtype) for g, v in zip(gradients, variables, strict=True)], copies)
    return [_array(c) - _array(v) for c, v in zip(copies, variables, strict=True)]


def _inner_optimizer(model: keras.Model) -> Any:
    """The model's optimiser without a loss scale around it; None if there is none."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def optimizer_twin(optimizer: Any, variables: list[keras.Variable], **changes: Any) -> Any:
    """A copy of an optimiser, with its state if that was built for weights of the same shapes.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Built or not; it stays as it is.
    variables : list of keras.Variable
        The weights that the copy moves.
    **changes
        Arguments of the optimiser that differ in the copy, such as ``epsilon=1e-3``.

    Returns
    -------
    keras.optimizers.Optimizer
        Built.
    """
    twin = _unbuilt_twin(optimizer, changes)
    twin.build(variables)
    mine, theirs = optimizer_state(twin), optimizer_state(optimizer) if optimizer.built else []
    if [v.shape for v in mine] == [v.shape for v in theirs]:
        for variable, value in zip(mine, theirs, strict=True):
            variable.assign(value.value)
    return twin


def _unbuilt_twin(optimizer: Any, changes: dict[str, Any]) -> Any:
    if hasattr(optimizer, "inner_optimizer"):
        inner = _unbuilt_twin(optimizer.inner_optimizer, changes)
        config = {key: getattr(optimizer, key) for key in ("initial_scale", "dynamic_growth_steps")}
        return type(optimizer)(inner, name=optimizer.name, **config)
    rate = optimizer._learning_rate
    # A schedule is handed over as it is, since one's own need not know how to describe itself.
    optimizer.__dict__["_learning_rate"] = None
    try:
        config = optimizer.get_config()
    finally:
        optimizer.__dict__["_learning_rate"] = rate
    rate = float(rate.numpy()) if isinstance(rate, keras.Variable) else rate
    twin = type(optimizer).from_config(config | {"learning_rate": rate} | changes)
    for kept in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if hasattr(optimizer, kept):
            twin.__dict__[kept] = getattr(optimizer, kept)
    return twin


def optimizer_state(optimizer: Any) -> list[keras.Variable]:
    """An optimiser's variables without its learning rate.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer

    Returns
    -------
    list of keras.Variable
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return [v for v in optimizer.variables if v is not inner._learning_rate]


class _Call(NamedTuple):
    layer: keras.Layer
    argument: Any
    output: tf.Tensor
    logits: tf.Tensor  # what a cross-entropy uses instead of a last sigmoid's or softmax' output


class _Recorder:
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

    def __enter__(self) -> "_Recorder":
        model = self.model
        self._eager = tf.config.functions_run_eagerly()
        self._before = [(v, tf.identity(v)) for v in _state(model)]
        self._attributes: list[tuple[Any, str, Any]] = []
        tf.config.run_functions_eagerly(True)
        for layer in model._flatten_layers():
            self._set(layer, "_remat_mode", None)
            if hasattr(layer, "use_cudnn"):
                self._set(layer, "use_cudnn", False)
            is_input = isinstance(layer, keras.layers.InputLayer)
            if not is_input and (_own(layer) or not layer._layers):
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
                value, predictions = _batch_loss(self.model, batch, loss)
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


def _state(model: keras.Model) -> list[Any]:
    """Every variable of a model, those that Keras does not count among its variables included.

    Keras leaves out the states of a stateful recurrent layer, and a tf.Variable of one's own.
    """
    found = [*model.variables, *model.metrics_variables]
    for layer in model._flatten_layers():
        for value in vars(layer).values():
            values = value if isinstance(value, list | tuple) else [value]
            found += [v for v in values if isinstance(v, keras.Variable | tf.Variable)]
    return list({id(v): v for v in found}.values())


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
    activation = _activation(layer)
    flat = np.concatenate([a.ravel() for a in outputs])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        means, stds = _features(calls[0][0].argument)
        return LayerRecord(
            name=_path(layer),
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
            equal_weights=any(_alike(w) for w in values),
            feature_means=means,
            feature_stds=stds,
            weight_dtype=_own(layer)[0].dtype if values else "",
            units=outputs[0].shape[-1] if outputs[0].ndim else 0,
        )


def _path(layer: keras.Layer) -> str:
    """The layer's place in the model; its name before Keras has told it its place."""
    return layer.path or layer.name


def _activation(layer: keras.Layer) -> str:
    kinds = {"ReLU": "relu", "Softmax": "softmax", "LeakyReLU": "leaky_relu", "ELU": "elu"}
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return kinds.get(type(layer).__name__, name)


def _features(argument: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation along the last axis."""
    if not (tf.is_tensor(argument) and argument.dtype.is_floating and argument.shape.rank):
        return _NOTHING, _NOTHING
    columns = _array(argument).reshape(-1, argument.shape[-1])
    return columns.mean(axis=0), columns.std(axis=0)


def _optimizer(model: keras.Model) -> OptimizerRecord | None:
    optimizer = _inner_optimizer(model)
    if optimizer is None:
        return None
    now = int(_array(optimizer.iterations))
    schedule = getattr(optimizer, "_learning_rate", None)
    rate = float(_array(optimizer.learning_rate))
    later = [rate]
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        later = [float(_array(schedule(now + k))) for k in (10, 100, 1000, 10_000)]
    epsilon = float(getattr(optimizer, "epsilon", None) or np.nan)
    return OptimizerRecord(type(optimizer).__name__, now, rate, max(later), epsilon)


def _penalties(model: keras.Model) -> tuple[dict[str, float], float]:
    """What regularisers and `add_loss` add, by layer, and the weight regularisers' part of it."""
    penalties: dict[str, float] = {}
    of_weights = 0.0
    for layer in model._flatten_layers():
        added = [float(_array(value)) for value in layer._losses]
        decay = [float(_array(v.regularizer(v))) for v in _own(layer) if v.regularizer]
        of_weights += sum(decay)
        if added or decay:
            penalties[_path(layer)] = sum(added) + sum(decay)
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
                outputs=_array(output),
                targets=None if target is None else np.asarray(target, np.float64),
                loss=name,
                from_logits=from_logits,
                activation=_activation(layer) if layer is not None else "",
                layer=layer.path if layer is not None else "",
                has_logits=hasattr(output, "_keras_logits"),
                sample_losses=_by_sample(values, len(output)),
                masked_losses=_masked(values, output),
                class_shares=_class_shares(name, given, output),
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
    if loss is None and _overrides(model, "compute_loss"):
        return [None] * len(names)
    given = loss if loss is not None else model.loss
    if isinstance(given, str) or callable(given):
        given = [given] * len(names)
    return [None if g is None else keras.losses.get(g) for g in _aligned(given, predictions, names)]


def _overrides(model: keras.Model, method: str) -> bool:
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
        return _NOTHING
    try:
        if output.dtype.is_floating and np.asarray(target).dtype.kind == "f":
            target = tf.cast(target, output.dtype)
        return _array(_values(function, target, output))
    except Exception:  # a loss of one's own that cannot be called alone is not measured
        return _NOTHING


def _by_sample(values: np.ndarray, samples: int) -> np.ndarray:
    if not values.ndim or len(values) != samples or not values.size:
        return _NOTHING
    return values.reshape(samples, -1).mean(axis=1)


def _masked(values: np.ndarray, output: Any) -> float:
    mask = getattr(output, "_keras_mask", None)
    bad = ~np.isfinite(values)
    if mask is None or not bad.any() or bad.shape != tuple(mask.shape):
        return np.nan
    return float((bad & ~np.asarray(mask, bool)).sum() / bad.sum())


def _class_shares(loss: str, target: Any, output: Any) -> np.ndarray:
    if target is None or "crossentropy" not in loss:
        return _NOTHING
    array = np.asarray(target, np.float64)
    if loss.startswith("sparse"):
        if (array != array.astype(int)).any() or array.min() < 0:
            return _NOTHING
        return np.bincount(array.astype(int).ravel(), minlength=output.shape[-1]) / array.size
    if loss.startswith("binary"):
        positive = float(array.mean())
        return np.array([1 - positive, positive]) if output.shape[-1] == 1 else _NOTHING
    return array.reshape(-1, array.shape[-1]).mean(axis=0)


def _own_loss(
    model: keras.Model, batch: Batch, loss: Any, predictions: Any, heads: list[Head]
) -> OwnLoss | None:
    overridden = loss is None and _overrides(model, "compute_loss")
    if len(heads) != 1 or heads[0].targets is None or not (overridden or not heads[0].loss):
        return None
    y, p = np.asarray(keras.tree.flatten(batch.y)[0]), _output(predictions)
    y = y.astype(p.dtype) if y.dtype.kind == "f" else y
    function = None if overridden else _losses(model, loss, predictions, [0])[0]

    def at(targets: Any, outputs: Any, rows: Any = slice(None)) -> float:
        try:
            if overridden:
                x = keras.tree.map_structure(lambda a: np.asarray(a)[rows], batch.x)
                return float(_array(model.compute_loss(x, targets, tf.constant(outputs))))
            return float(_array(_values(function, targets, tf.constant(outputs))).mean())
        except Exception:  # a loss may refuse what we make up: then it is not measured
            return np.nan

    distinct = np.unique(y.reshape(len(y), -1), axis=0, return_index=True)[1]
    three = distinct[np.unique([0, len(distinct) // 2, len(distinct) - 1])]
    near = p if y.size != p.size else (0.9 * y + 0.1 * y.mean()).reshape(p.shape).astype(p.dtype)
    rows = [at(y[i : i + 1], near[i : i + 1], slice(i, i + 1)) for i in three]
    pairs = [at(y[i : i + 1], near[j : j + 1], slice(j, j + 1)) for i in three for j in three]
    together = at(y[three], near[three], three)
    if overridden or y.size != p.size:
        return OwnLoss(float(np.mean(rows)), float(np.mean(pairs)), together)
    same = y.reshape(p.shape).astype(p.dtype)
    half = same.std() / 2
    binary = bool(np.isin(same, (0, 1)).all())
    bounded = heads[0].activation in ("sigmoid", "softmax")
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
    return 0.0 if second is None else float(np.abs(_array(second)).max())


def _is_affine(model: keras.Model, batch: Batch) -> bool:
    """Whether the outputs at the middle of two samples are the middle of their outputs."""
    parts = keras.tree.flatten(batch.x)
    if len(parts) > 1 or np.asarray(parts[0]).dtype.kind != "f" or len(parts[0]) < 3:
        return False
    x = np.asarray(parts[0], np.float32)
    middle = (x + np.roll(x, 1, axis=0)) / 2
    outputs = keras.tree.flatten(model(np.concatenate([x, middle]), training=False))
    if len(outputs) > 1 or not outputs[0].dtype.is_floating:
        return False
    at_samples, at_middles = np.split(_array(getattr(outputs[0], "_keras_logits", outputs[0])), 2)
    expected = (at_samples + np.roll(at_samples, 1, axis=0)) / 2
    if at_samples.std() == 0 or not np.isfinite(at_samples).all():
        return False
    return bool(np.abs(at_middles - expected).max() < 1e-4 * at_samples.std())


def _row_sizes(x: Any) -> np.ndarray:
    parts = [np.asarray(a) for a in keras.tree.flatten(x)]
    if len(parts) != 1 or parts[0].dtype.kind != "f":
        return _NOTHING
    rows = parts[0].reshape(len(parts[0]), -1).astype(float)
    return np.sqrt(np.mean(rows**2, axis=1))


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
    return ", ".join(f"{a.min()} to {a.max()}" if a.size else "none" for a in arrays)
