"""What differs between Keras' backends; one module for each, which loads its framework.

A backend supplies the names that `gradutils._backends.tensorflow` lists in `__all__`. What they
share stands here, and needs no framework.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

NO_GRADIENT = -1.0  # This stands in a row of norms where a layer had no gradient.


class Seen(NamedTuple):
    """What went through a watched place at one time; the gradient is None if the loss has none."""

    argument: Any
    output: Any
    gradient: Any = None


#: Takes an output and the argument that it was computed from; returns the output to go on with.
Watch = Callable[[Any, Any], Any]


def layer_of(variable: Any) -> str:
    """The path of the layer that a variable belongs to."""
    return variable.path.rsplit("/", 1)[0]


def loss_scale(optimizer: Any) -> Any:
    """The factor that the gradients which an optimiser's `apply` receives are multiplied by."""
    if hasattr(optimizer, "inner_optimizer"):
        return optimizer.dynamic_scale.value if optimizer.built else optimizer.initial_scale
    return optimizer.loss_scale_factor or 1.0
