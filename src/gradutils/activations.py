"""Activation functions and their derivatives, one row of a table each."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr

from gradutils import _checks

Function = Callable[[np.ndarray], np.ndarray]

LEAKY_SLOPE = 0.2  # keras.activations.leaky_relu
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017


class Activation(NamedTuple):
    """An activation function and its derivative, both elementwise."""

    phi: Function
    derivative: Function


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _elu_derivative(x: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(x, 0))


def _normal_density(x: np.ndarray) -> np.ndarray:
    return np.exp(-x * x / 2) / float(np.sqrt(2 * np.pi))


def _sigmoid_derivative(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))  # The derivative is even, and this form never overflows.
    return small / (1 + small) ** 2


def _silu_derivative(x: np.ndarray) -> np.ndarray:
    gate = expit(x)
    return gate * (1 + x * (1 - gate))


#: Name -> (phi, derivative). At a kink the derivative is the one from the left.
ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x: 1 * x, np.ones_like),
    "sigmoid": Activation(expit, _sigmoid_derivative),
    "tanh": Activation(np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "relu": Activation(lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(x.dtype)),
    "leaky_relu": Activation(
        lambda x: np.where(x > 0, x, LEAKY_SLOPE * x),
        lambda x: np.where(x > 0, 1, LEAKY_SLOPE).astype(x.dtype),
    ),
    "elu": Activation(_elu, _elu_derivative),
    "selu": Activation(
        lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * _elu(x)),
        lambda x: SELU_SCALE * np.where(x > 0, 1, SELU_ALPHA * _elu_derivative(x)),
    ),
    "gelu": Activation(
        lambda x: x * ndtr(x),
        lambda x: ndtr(x) + x * _normal_density(x),
    ),
    "silu": Activation(lambda x: x * expit(x), _silu_derivative),
    "softplus": Activation(lambda x: np.logaddexp(0, x), expit),
}


def get(activation: str | tuple[Function, Function]) -> Activation:
    """Return the activation of that name, or the given pair of callables as one.

    Parameters
    ----------
    activation : str or (callable, callable)
        A key of `ACTIVATIONS`, or the pair (phi, its derivative). Both callables map an
        ndarray to an ndarray of the same shape.

    Returns
    -------
    Activation
        The pair (phi, derivative).

    Raises
    ------
    ValueError
        If the name is not in the table.
    TypeError
        If it is neither a name nor a pair of callables.

    Examples
    --------
    >>> import numpy as np
    >>> phi, derivative = get("sigmoid")
    >>> float(derivative(np.array(0.0)))
    0.25
    """
    if isinstance(activation, str):
        _checks.names(ACTIVATIONS, activation=activation)
        return ACTIVATIONS[activation]
    pair = activation if isinstance(activation, tuple | list) else ()
    if len(pair) != 2 or not all(map(callable, pair)):
        raise TypeError(
            "activation must be a name or a pair of callables (phi, derivative); "
            f"received {activation!r}"
        )
    return Activation(*pair)
