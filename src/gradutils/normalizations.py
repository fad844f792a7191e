"""Normalisations without gain and shift, and how a gradient passes back through them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

EPSILON = 1e-12  # It keeps 0 / 0 away, far below any variance that the lessons meet.


class Normalization(NamedTuple):
    """A forward map h -> (n, scale), and its backward map (dL/dn, n, scale) -> dL/dh.

    scale is the deviation that h was divided by, with the reduced axis kept.
    """

    forward: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    backward: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _standardize(axis: int) -> Normalization:
    """Subtract the mean and divide by the standard deviation along an axis.

    With n = (h - mean) / s: dL/dh = (g - mean(g) - n mean(g n)) / s, where g = dL/dn.
    """

    def forward(h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centred = h - h.mean(axis=axis, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=axis, keepdims=True) + EPSILON)
        return centred / scale, scale

    def backward(g: np.ndarray, n: np.ndarray, scale: np.ndarray) -> np.ndarray:
        along = (g * n).mean(axis=axis, keepdims=True)
        return (g - g.mean(axis=axis, keepdims=True) - n * along) / scale

    return Normalization(forward, backward)


def _divide_by_rms() -> Normalization:
    """Divide by the root mean square over the units: dL/dh = (g - n mean(g n)) / s."""

    def forward(h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = np.sqrt((h**2).mean(axis=-1, keepdims=True) + EPSILON)
        return h / scale, scale

    def backward(g: np.ndarray, n: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return (g - n * (g * n).mean(axis=-1, keepdims=True)) / scale

    return Normalization(forward, backward)


#: Name -> normalisation of an array of shape (batch, units). Batch: over the samples, by unit
#: (Ioffe and Szegedy 2015); layer: over the units, by sample (Ba et al. 2016); rms: the same
#: without centring (Zhang and Sennrich 2019). The last two take any axes before the units.
NORMALIZATIONS = {
    "batch": _standardize(axis=0),
    "layer": _standardize(axis=-1),
    "rms": _divide_by_rms(),
}
