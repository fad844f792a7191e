"""Small data sets that need no download, each drawn from a seeded generator."""

from functools import cache
from typing import NamedTuple

import numpy as np

from gradutils import _checks


class Split(NamedTuple):
    """Training and test data: inputs, shape (samples, features), and integer labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def spirals(
    samples: int, rng: np.random.Generator, *, turns: float = 1.0, noise: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points from two interleaved spirals.

    Parameters
    ----------
    samples : int
        Number of points; labels alternate, so the classes differ by one point at most.
    rng : numpy.random.Generator
    turns : float
        Turns that each arm makes around the origin.
    noise : float
        Standard deviation of the Gaussian noise on both coordinates; arms end at radius 1.

    Returns
    -------
    x : ndarray, shape (samples, 2)
    y : ndarray of int, shape (samples,)
        0 or 1.

    Raises
    ------
    ValueError
        If `samples` is not a positive integer, `turns` or `noise` is not finite, `noise` is
        negative, or `rng` is no generator.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = spirals(200, np.random.default_rng(0))
    >>> x.shape, int(y.sum())
    ((200, 2), 100)
    """
    _checks.positive_integers(samples=samples)
    _checks.finite(turns=turns)
    _checks.nonnegative(noise=noise)
    _checks.generators(rng=rng)
    y = np.arange(samples) % 2
    radius = np.sqrt(rng.uniform(0.01, 1, samples))  # The root keeps the density even.
    angle = 2 * np.pi * turns * radius + np.pi * y
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return x + noise * rng.standard_normal((samples, 2)), y


def digits(rng: np.random.Generator, *, test_share: float = 0.25) -> Split:
    """Return the 1,797 handwritten digits of scikit-learn, shuffled and split.

    Every pixel is scaled by the mean and the standard deviation of its training values; the
    pixels that never vary are left at zero. Eight by eight pixels, ten classes.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the shuffle.
    test_share : float
        Share of the samples that is kept for testing, between 0 and 1.

    Returns
    -------
    Split
        Inputs of shape (samples, 64), float64; labels 0 to 9.

    Raises
    ------
    ValueError
        If `test_share` does not leave samples on both sides, or `rng` is no generator.

    References
    ----------
    Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI.

    Examples
    --------
    >>> import numpy as np
    >>> data = digits(np.random.default_rng(0))
    >>> data.x_train.shape, data.x_test.shape
    ((1348, 64), (449, 64))
    """
    if not (_checks.is_real(test_share) and 0 < test_share < 1):
        raise ValueError(f"test_share must lie between 0 and 1; received {test_share!r}")
    _checks.generators(rng=rng)
    x, y = _load_digits()
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    cut = round(len(x) * (1 - test_share))
    if not 0 < cut < len(x):
        raise ValueError(
            f"test_share must leave samples on both sides of {len(x)}; received {test_share!r}"
        )
    mean, std = x[:cut].mean(axis=0), x[:cut].std(axis=0)
    x = (x - mean) / np.where(std > 0, std, 1)
    x[:, std == 0] = 0
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


@cache
def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # This import is slow, and needed only here.

    return load_digits(return_X_y=True)


def adding_problem(
    samples: int, length: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw sequences of the adding problem: two marked numbers, whose sum is the target.

    Each step carries a number uniform on [0, 1] and a marker. One marker is set in the first half
    of the sequence and one in the second. Predicting the mean, 1, has an expected squared error
    of exactly 1/6.

    Parameters
    ----------
    samples, length : int
        Number of sequences, and steps in each (at least 2).
    rng : numpy.random.Generator

    Returns
    -------
    x : ndarray, shape (samples, length, 2)
        Number and marker of each step.
    y : ndarray, shape (samples,)

    Raises
    ------
    ValueError
        If `samples` is not a positive integer, `length` not an integer of 2 or more, or `rng` no
        generator.

    References
    ----------
    Hochreiter and Schmidhuber 1997, experiment 4; markers as in Le, Jaitly and Hinton 2015.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = adding_problem(5, 100, np.random.default_rng(0))
    >>> bool(np.allclose((x[..., 0] * x[..., 1]).sum(axis=1), y))
    True
    """
    _checks.positive_integers(samples=samples, length=length)
    if length < 2:
        raise ValueError(f"length must be at least 2; received {length!r}")
    _checks.generators(rng=rng)
    numbers = rng.uniform(size=(samples, length))
    markers = np.zeros((samples, length))
    rows = np.arange(samples)
    markers[rows, rng.integers(0, length // 2, samples)] = 1
    markers[rows, rng.integers(length // 2, length, samples)] = 1
    return np.stack([numbers, markers], axis=-1), (numbers * markers).sum(axis=1)


def recall(
    samples: int, rng: np.random.Generator, *, pairs: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    """Draw sequences of associative recall: pairs of a key and a value, then one of the keys.

    Each token holds a key and a value as two one-hot vectors times 2. The keys of a sequence are
    all different; the last token has a key and no value. The target is the value that stood beside
    that key. Whoever ignores the keys does best to answer with the most frequent value.

    Parameters
    ----------
    samples : int
    rng : numpy.random.Generator
    pairs : int
        Number of pairs, of different keys, and of different values.

    Returns
    -------
    x : ndarray, shape (samples, pairs + 1, 2 * pairs)
    y : ndarray of int, shape (samples,)

    Raises
    ------
    ValueError
        If `samples` or `pairs` is not a positive integer, or `rng` no generator.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = recall(4, np.random.default_rng(0), pairs=3)
    >>> keys, asked = x[0, :3, :3].argmax(axis=1), x[0, 3, :3].argmax()
    >>> bool(x[0, :3][keys == asked, 3:].argmax() == y[0])
    True
    """
    _checks.positive_integers(samples=samples, pairs=pairs)
    _checks.generators(rng=rng)
    keys = rng.permuted(np.tile(np.arange(pairs), (samples, 1)), axis=1)
    values = rng.integers(pairs, size=(samples, pairs))
    asked, rows = rng.integers(pairs, size=samples), np.arange(samples)
    x = np.zeros((samples, pairs + 1, 2 * pairs))
    x[:, :pairs, :pairs] = 2 * np.eye(pairs)[keys]
    x[:, :pairs, pairs:] = 2 * np.eye(pairs)[values]
    x[rows, pairs, keys[rows, asked]] = 2
    return x, values[rows, asked]
