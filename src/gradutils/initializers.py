"""How wide to draw the weights: the named rules, their standard deviations, and draws from them."""

import numpy as np

from gradutils import _checks

#: Name -> variance of one weight, from the fan-in and the fan-out of its layer.
RULES = {
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "uniform_third": lambda fan_in, fan_out: 1 / (3 * fan_in),  # Uniform on +-1/sqrt(fan_in).
}
#: What `draw` knows by name.
DRAWS = (*RULES, "orthogonal")


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return fan-in and fan-out of a kernel of that shape.

    A kernel has the shape (..., inputs, outputs), as in Keras; the leading axes of a convolution
    count into both fans.

    Parameters
    ----------
    shape : tuple of int
        At least two axes, all positive.

    Examples
    --------
    >>> _fans((784, 100))
    (784, 100)
    >>> _fans((3, 3, 16, 32))
    (144, 288)
    """
    if len(shape) < 2 or not all(map(_checks.is_positive_integer, shape)):
        raise ValueError(f"shape must have two or more positive sizes; received {shape!r}")
    receptive_field = int(np.prod(shape[:-2]))
    return receptive_field * shape[-2], receptive_field * shape[-1]


def _standard_deviation(rule: str | float, shape: tuple[int, ...]) -> float:
    """Return the standard deviation of one weight of a kernel of that shape.

    Parameters
    ----------
    rule : str or float
        A name from `RULES`, or sigma_w, which means sigma_w / sqrt(fan_in).
    shape : tuple of int
        Shape of the kernel, (..., inputs, outputs).

    Raises
    ------
    ValueError
        If the name is unknown, or sigma_w is negative or not finite.

    References
    ----------
    LeCun et al. 1998 ("lecun"), Glorot and Bengio 2010 ("glorot"), He et al. 2015 ("he").

    Examples
    --------
    >>> _standard_deviation("he", (200, 50))
    0.1
    >>> _standard_deviation(2.0, (100, 50))
    0.2
    """
    fan_in, fan_out = _fans(shape)
    _checks.rules(RULES, rule=rule)
    if isinstance(rule, str):
        return float(np.sqrt(RULES[rule](fan_in, fan_out)))
    return float(rule) / float(np.sqrt(fan_in))


def orthogonal(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw a matrix with orthonormal rows or columns, uniform over all such matrices.

    Every singular value is 1. The signs of the QR factorisation are fixed by the diagonal of R;
    without that the draw is not uniform (Mezzadri 2007).

    Parameters
    ----------
    shape : (int, int)
        Rows and columns; the shorter side is orthonormal.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape `shape`

    Raises
    ------
    ValueError
        If `shape` is not two positive sizes.

    Examples
    --------
    >>> import numpy as np
    >>> W = orthogonal((4, 3), np.random.default_rng(0))
    >>> bool(np.allclose(W.T @ W, np.eye(3)))
    True
    """
    fan_in, fan_out = _fans(shape)
    if len(shape) != 2:
        raise ValueError(f"shape must have two sizes, rows and columns; received {shape!r}")
    _checks.generators(rng=rng)
    long, short = max(fan_in, fan_out), min(fan_in, fan_out)
    Q, R = np.linalg.qr(rng.standard_normal((long, short)))
    Q = Q * np.sign(np.diag(R))
    return Q if fan_in >= fan_out else Q.T


def draw(rule: str | float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw a weight matrix: Gaussian of the rule's standard deviation, or orthogonal.

    Parameters
    ----------
    rule : str or float
        A name from `RULES`, "orthogonal", or sigma_w.
    shape : (int, int)
        (fan_in, fan_out).
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape `shape`, float64

    Raises
    ------
    ValueError
        If the rule is unknown, sigma_w is negative or not finite, the shape is not one of positive
        sizes, or `rng` is no generator.

    Examples
    --------
    >>> import numpy as np
    >>> W = draw("he", (1000, 1000), np.random.default_rng(0))
    >>> f"{W.std():.3f}"
    '0.045'
    """
    _checks.rules(DRAWS, rule=rule)
    if rule == "orthogonal":
        return orthogonal(shape, rng)
    _checks.generators(rng=rng)
    return _standard_deviation(rule, shape) * rng.standard_normal(shape)
