"""Everything of a Keras model that a pass or a training step changes, and how it is put back."""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from gradutils._keras import backend, global_state, keras

_GLOBAL_SEEDS = "global_seed_generator"  # Keras' names for the parts of its global state
_NAME_COUNTERS = "object_name_uids"
_NAME_SCOPES = "name_scope_stack"


@contextmanager
def sandbox(model: keras.Model) -> Iterator[Callable[[], None]]:
    """Put the model back when the block ends, and whenever what it yields is called.

    Parameters
    ----------
    model : keras.Model
        Built.

    Returns
    -------
    context manager
        It yields a function without arguments that puts the model back at once.
    """
    values = [(v, backend.copy_of(v)) for v in _variables(model)]
    known = {id(v) for v, _ in values}
    restore_others = backend.other_state(model)
    layers = model._flatten_layers()
    losses = [(layer, layer._losses[:], set(layer._loss_ids)) for layer in layers]

    def restore() -> None:
        for variable, value in values:
            variable.assign(value)
        restore_others()

    with _random_states_kept():
        try:
            yield restore
        finally:
            restore()
            for metric in model.metrics:
                if not {id(v) for v in metric.variables} <= known:
                    metric.reset_state()  # it was made by the first call of the loss
            for layer, own, ids in losses:
                layer._losses[:] = own
                layer._loss_ids = ids


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Every variable of a model; Keras leaves out the states of a stateful recurrent layer."""
    found = [*model.variables, *model.metrics_variables]
    for layer in model._flatten_layers():
        for value in vars(layer).values():
            values = value if isinstance(value, list | tuple) else [value]
            found += [v for v in values if isinstance(v, keras.Variable)]
    return list({id(v): v for v in found}.values())


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Keep the random states of Python, NumPy, Keras and its backend, and Keras' names.

    Keras leaves the name of a loss on its stack of scopes where TensorFlow refuses that name, such
    as that of a function that begins with an underscore.
    """
    seeds = global_state.get_global_attribute(_GLOBAL_SEEDS)
    seed = None if seeds is None else backend.copy_of(seeds.state)
    counters = copy.copy(global_state.get_global_attribute(_NAME_COUNTERS))
    scopes = list(global_state.get_global_attribute(_NAME_SCOPES) or [])
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with backend.generators_kept():
            yield
    finally:
        global_state.set_global_attribute(_GLOBAL_SEEDS, seeds)
        if seeds is not None:
            seeds.state.assign(seed)
        global_state.set_global_attribute(_NAME_COUNTERS, counters)
        global_state.set_global_attribute(_NAME_SCOPES, scopes)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
