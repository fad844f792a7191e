"""One batch of data, of whatever kind they are; no framework is needed."""

import sys
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from gradutils import _checks

#: Framework -> its kind of dataset, which yields x, (x, y) or (x, y, sample_weight).
_DATASETS = {
    "keras": "utils.PyDataset",
    "tensorflow": "data.Dataset",
    "torch": "utils.data.DataLoader",
}


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
    if _is_dataset(x):
        if y is not None:
            raise ValueError("y must be None where x is a dataset: it yields both")
        batch = Batch(*_first(x))
        check_finite(batch)
        return batch._replace(all_targets=batch.y)
    arrays = [a for a in leaves((x, y)) if a is not None]
    if not all(np.ndim(a) for a in arrays):
        kind = type(x).__name__
        raise ValueError(f"x and y must be arrays, or lists or dicts of them; received {kind}")
    sizes = {len(a) for a in arrays}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(f"x and y must hold as many samples, one or more; received {sizes}")
    check_finite(Batch(x, y))  # all rows, not those of the batch alone
    (samples,) = sizes
    chosen = np.unique(np.linspace(0, samples - 1, min(batch_size, samples)).astype(int))
    return Batch(rows(x, chosen), rows(y, chosen), all_targets=y)


def _is_dataset(x: Any) -> bool:
    """Whether x is a dataset of a framework; a framework that is not loaded made none."""
    return any(
        isinstance(x, attrgetter(name)(sys.modules[framework]))
        for framework, name in _DATASETS.items()
        if framework in sys.modules
    )


def _first(dataset: Any) -> tuple:
    """The first batch of a dataset: x, and y and sample_weight if it yields them."""
    if hasattr(dataset, "__getitem__"):
        first = dataset[0] if len(dataset) else None
    else:
        first = next(iter(dataset), None)
    if first is None:
        raise ValueError("x must yield a batch; received an empty dataset")
    parts = tuple(first) if isinstance(first, list | tuple) else (first,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"x must yield x, (x, y) or (x, y, sample_weight); received {len(parts)} parts"
        )
    return parts


def leaves(data: Any) -> list:
    """The arrays in nested lists, tuples and dicts, those of a dict in the order of its keys."""
    if isinstance(data, dict):
        data = [data[key] for key in sorted(data)]
    elif not isinstance(data, list | tuple):
        return [data]
    return [leaf for part in data for leaf in leaves(part)]


def map_leaves(function: Callable[[Any], Any], data: Any) -> Any:
    """The same nest of lists, tuples and dicts, with a function's value for each array."""
    if isinstance(data, dict):
        return {key: map_leaves(function, part) for key, part in data.items()}
    if isinstance(data, list | tuple):
        parts = [map_leaves(function, part) for part in data]
        return type(data)(*parts) if hasattr(data, "_fields") else type(data)(parts)
    return function(data)


def rows(data: Any, chosen: Any) -> Any:
    """These rows of every array in a nest; a tensor of torch stays one, on its device."""

    def take(array: Any) -> Any:
        if array is None or hasattr(array, "detach"):
            return None if array is None else array[chosen]
        return np.asarray(array)[chosen]

    return map_leaves(take, data)


def as_array(data: Any) -> np.ndarray:
    """An array or tensor of any framework as a NumPy array; bfloat16 of torch as float64."""
    if hasattr(data, "detach"):
        data = data.detach().cpu()
        data = data.double() if str(data.dtype) == "torch.bfloat16" else data
    return np.asarray(data)


def check_finite(batch: Batch) -> None:
    """Refuse a batch that holds NaN or inf."""
    for name, data in (("x", batch.x), ("y", batch.y), ("sample_weight", batch.sample_weight)):
        for array in map(as_array, leaves(data)):
            for what, is_bad in (("NaN", np.isnan), ("inf", np.isinf)):
                if array.dtype.kind == "f" and is_bad(array).any():
                    count = is_bad(array).sum()
                    raise ValueError(f"{name} must hold no {what}; received {count} of them")


def shapes(data: Any) -> list[tuple[int, ...]]:
    """The shape of every array in a nest."""
    return [tuple(np.shape(a)) for a in leaves(data)]


def ranges(data: Any) -> str:
    """The smallest and the largest number of every array in a nest, in words."""
    arrays = [as_array(a) for a in leaves(data) if a is not None]
    return ", ".join(f"{a.min()} to {a.max()}" if a.size else "none" for a in arrays)
