"""A few training steps in a sandbox: what comes next, with the model put back bit by bit.

Needs Keras 3, on TensorFlow (``pip install '.[keras]'``), torch or JAX.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gradutils import _checks
from gradutils._batches import Batch, one_batch
from gradutils._keras import backend, keras
from gradutils._keras_optimizers import optimizer_state, optimizer_twin
from gradutils._keras_probe import (
    Recorder,
    activation_of,
    as_float64,
    as_in_fit,
    batch_loss,
    check_usable,
    is_floating,
    own_weights,
    path_of,
)
from gradutils._keras_state import sandbox
from gradutils._measures import RECTIFYING, change, dead, spread_and_size
from gradutils._records import Trial

__all__ = ["Trial", "gradients_of", "look_ahead", "sandbox", "trainer"]


def look_ahead(
    model: keras.Model,
    x: Any,
    y: Any = None,
    loss: Callable | str | None = None,
    *,
    steps: int = 10,
    batch_size: int = 64,
) -> Trial | None:
    """Run a few training steps on one batch, then put everything back bit by bit.

    Each step is that of `fit`: the gradient of the loss in training mode, scaled as the optimiser
    scales it, and a copy of the optimiser with its present state and its schedule. Weights,
    statistics, seeds, metrics, optimiser, compiled functions and the random states of Keras,
    its backend, NumPy and Python are as before.

    Parameters
    ----------
    model, x, y, loss, batch_size
        As in `gradutils.probes.probe`; the same batch is used for every step.
    steps : int

    Returns
    -------
    Trial or None
        None if there is no optimiser or no trainable weight.

    Raises
    ------
    ValueError
        As `probe`. A loss that becomes NaN or inf is a result, not an error.

    Examples
    --------
    One weight, loss (w - 1)^2: each step of rate 1/4 halves the distance to 1.

    >>> import keras, numpy as np
    >>> options = {"use_bias": False, "kernel_initializer": "zeros"}
    >>> layer = keras.layers.Dense(1, **options)
    >>> model = keras.Sequential([keras.Input((1,)), layer])
    >>> model.compile(keras.optimizers.SGD(0.25), "mse")
    >>> one = np.ones((4, 1))
    >>> look_ahead(model, one, one, steps=3).losses.tolist()
    [1.0, 0.25, 0.0625, 0.015625]
    >>> float(np.squeeze(layer.kernel))
    0.0
    """
    _checks.positive_integers(steps=steps)
    batch = one_batch(x, y, batch_size)
    check_usable(model, batch, loss)
    if getattr(model, "optimizer", None) is None or not model.trainable_variables:
        return None
    with sandbox(model):
        return trainer(model, optimizer_twin(model.optimizer, model.trainable_variables), loss)(
            batch, steps
        )


def trainer(
    model: keras.Model,
    optimizer: Any,
    loss: Callable | str | None = None,
    gradients: Callable | None = None,
) -> Callable[[Batch, int], Trial]:
    """A function that trains a model for a few steps from the weights that it has then.

    Parameters
    ----------
    model : keras.Model
        Nothing of it is restored: that is for `sandbox`.
    optimizer : keras.optimizers.Optimizer
        Built for the model's trainable weights; it begins each run in the state that it has now,
        but for a learning rate that was set since.
    loss : callable or str, optional
        As in `gradutils.probes.probe`.
    gradients : callable, optional
        What `gradients_of` returned for this model and loss; made by default.

    Returns
    -------
    callable
        (batch, steps) -> Trial
    """
    begin = [(v, backend.copy_of(v)) for v in optimizer_state(optimizer)]
    owners = [(path_of(layer), own_weights(layer)) for layer in model._flatten_layers()]
    owners = [(name, own) for name, own in owners if own]
    slopes = gradients_of(model, loss) if gradients is None else gradients
    seeds = [s.state for layer in model._flatten_layers() for s in layer._seed_generators]

    def run(batch: Batch, steps: int) -> Trial:
        for variable, value in begin:
            variable.assign(value)
        seeded = [backend.copy_of(seed) for seed in seeds]
        ends = [_inference(model, batch, loss)]
        losses, ratios, rates = [], [], []
        before = [[as_float64(v) for v in own] for _, own in owners]
        stepper = None
        for _ in range(steps):
            value, found = slopes(batch, optimizer.scale_loss(keras.ops.ones(())))
            stepper = stepper or _stepper(optimizer, model.trainable_variables, found)
            losses.append(float(as_float64(value)))
            rates.append(float(as_float64(stepper.optimizer.learning_rate)))
            stepper.step(found)
            after = [[as_float64(v) for v in own] for _, own in owners]
            ratios.append([change(*pair) for pair in zip(before, after, strict=True)])
            before = after
        ends.append(_inference(model, batch, loss))
        for seed, value in zip(seeds, seeded, strict=True):
            seed.assign(value)
        losses.append(float(as_float64(slopes(batch, keras.ops.ones(()))[0])))
        inference, spreads, sizes, dead = np.array(ends).T
        return Trial(
            losses=np.array(losses),
            inference_losses=inference,
            layer_names=[name for name, _ in owners],
            update_ratios=np.array(ratios),
            learning_rates=np.array(rates),
            output_spreads=spreads,
            output_sizes=sizes,
            dead=dead,
        )

    return run


def gradients_of(
    model: keras.Model, loss: Callable | str | None = None
) -> Callable[[Batch, Any], tuple[Any, list]]:
    """A function for the loss of a batch in training mode, and its gradients as `fit` has them.

    The optimiser's own step stays out of it: to trace that takes longer than to run it ten times.

    Parameters
    ----------
    model, loss
        As in `gradutils.probes.probe`.

    Returns
    -------
    callable
        (batch, scale) -> the loss, and the gradients of the loss times the scale, None where there
        is none. On TensorFlow and JAX it is compiled at the first call; a model that no graph can
        hold is run eagerly, as it is if it was compiled with ``run_eagerly=True``.
    """
    found = backend.gradients_of(lambda *data: batch_loss(model, Batch(*data), loss)[0], model)
    return lambda batch, scale: found(tuple(as_in_fit(batch)[:3]), scale)


#: Optimisers that treat each number by itself, so that all weights can stand in one vector.
_ELEMENTWISE = {
    keras.optimizers.SGD, keras.optimizers.RMSprop, keras.optimizers.Adam, keras.optimizers.AdamW,
    keras.optimizers.Adagrad, keras.optimizers.Adadelta, keras.optimizers.Adamax,
    keras.optimizers.Nadam, keras.optimizers.Lion, keras.optimizers.Ftrl,
}  # fmt: skip
_MANY = 16  # Below so many weights, one vector saves nothing.


class _Stepper(NamedTuple):
    """An optimiser, and what takes its step: a function of the gradients, None where is none."""

    optimizer: Any
    step: Callable[[list], None]


def _stepper(optimizer: Any, weights: list[keras.Variable], gradients: list) -> _Stepper:
    def step(found: list) -> None:
        moved = [(g, v) for g, v in zip(found, weights, strict=True) if g is not None]
        if moved:
            with backend.frozen():
                optimizer.apply([g for g, _ in moved], [v for _, v in moved])

    dense = all(hasattr(g, "ndim") for g in gradients)  # Rows of an embedding alone have none.
    fits = dense and len(weights) >= _MANY and _is_elementwise(optimizer, weights)
    return _in_one_vector(optimizer, weights) if fits else _Stepper(optimizer, step)


def _is_elementwise(optimizer: Any, weights: list[keras.Variable]) -> bool:
    if type(optimizer) not in _ELEMENTWISE:
        return False
    by_weight = ["use_ema", "clipnorm", "gradient_accumulation_steps"]
    by_weight += ["_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"]
    alike = all(v.dtype == "float32" and v.constraint is None for v in weights)
    return alike and not any(getattr(optimizer, name, None) for name in by_weight)


def _in_one_vector(optimizer: Any, weights: list[keras.Variable]) -> _Stepper:
    """Take the steps on all weights as one vector.

    What a step costs is the dozen operations for each weight, not the numbers in it.
    """
    vector = keras.Variable(_flat(weights), name="weights")
    twin = optimizer_twin(optimizer, [vector])
    for name, theirs in vars(optimizer).items():
        mine = vars(twin).get(name)
        if isinstance(theirs, keras.Variable):
            mine.assign(theirs)
        elif isinstance(theirs, list) and len(theirs) == len(weights):
            mine[0].assign(_flat(theirs))
    ends = np.cumsum([np.prod(v.shape, dtype=int) for v in weights])[:-1]

    def step(gradients: list) -> None:
        with backend.frozen():
            twin.apply([keras.ops.convert_to_tensor(_flat(gradients))], [vector])
        moved = np.split(keras.ops.convert_to_numpy(vector), ends)
        for variable, part in zip(weights, moved, strict=True):
            backend.assign(variable, part.reshape(variable.shape))

    return _Stepper(twin, step)


def _flat(tensors: list) -> np.ndarray:
    """All numbers in one vector; NumPy does that at a fraction of what an operation each costs."""
    return np.concatenate([np.ravel(keras.ops.convert_to_numpy(t)) for t in tensors])


def _inference(model: keras.Model, batch: Batch, loss: Any) -> tuple[float, ...]:
    """Loss, spread and size of the outputs, and largest share of dead units, in inference mode."""
    with sandbox(model), Recorder(model) as recorder:
        value, outputs, calls = recorder.observe(as_in_fit(batch), loss)
    rows = [as_float64(a) for a in keras.tree.flatten(outputs) if is_floating(a) and a.ndim]
    rectified: dict[int, list[np.ndarray]] = {}
    for call in calls:
        if activation_of(call.layer) in RECTIFYING:
            rectified.setdefault(id(call.layer), []).append(as_float64(call.output))
    most = max(map(dead, rectified.values()), default=np.nan)
    return float(as_float64(value)), *spread_and_size(rows), most
