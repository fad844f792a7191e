"""Checks that several modules share. Each raises a ValueError that names the first bad argument."""

import numbers as abstract
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


def is_positive_integer(value: Any) -> bool:
    """Tell whether a value is 1, 2, 3, ... of any integer type; a bool is not."""
    return _is_integer(value, at_least=1)


def _is_integer(value: Any, at_least: int) -> bool:
    try:
        return not isinstance(value, bool) and operator.index(value) >= at_least
    except TypeError:
        return False


def is_real(value: Any) -> bool:
    """Tell whether a value is one real number, NaN and inf included; a bool is not."""
    return isinstance(value, abstract.Real) and not isinstance(value, bool)


def _require(wanted: str, valid: Callable[[Any], Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not valid(value):
            raise ValueError(f"{name} must be {wanted}; received {value!r}")


def positive_integers(**values: Any) -> None:
    """Refuse a value that is not a whole number of 1 or more."""
    _require("a positive integer", is_positive_integer, values)


def finite(**values: Any) -> None:
    """Refuse a value that is not a finite real number."""
    _require("a finite number", lambda v: is_real(v) and np.isfinite(v), values)


def nonnegative(**values: Any) -> None:
    """Refuse a value that is not a finite real number of 0 or more."""
    _require("a finite number >= 0", lambda v: is_real(v) and 0 <= v < np.inf, values)


def positive(**values: Any) -> None:
    """Refuse a value that is not a real number above 0; inf is one."""
    _require("> 0", lambda v: is_real(v) and v > 0, values)


def within(low: float, high: float, **values: Any) -> None:
    """Refuse a value that is not a real number from low to high, both included."""
    wanted = f"a number from {low:g} to {high:g}"
    _require(wanted, lambda v: is_real(v) and low <= v <= high, values)


def names(known: Collection[str], *, or_none: bool = False, **values: Any) -> None:
    """Refuse a value that is not a name of the table, or None where that is allowed."""
    wanted = f"{'None or ' if or_none else ''}one of {', '.join(known)}"

    def valid(value: Any) -> bool:
        return value in known if isinstance(value, str) else or_none and value is None

    _require(wanted, valid, values)


def rules(known: Collection[str], **values: Any) -> None:
    """Refuse a value that is no rule for the scale of weights: a known name, or sigma_w."""
    wanted = f"one of {', '.join(known)}, or a finite sigma_w >= 0"

    def valid(value: Any) -> bool:
        return value in known if isinstance(value, str) else is_real(value) and 0 <= value < np.inf

    _require(wanted, valid, values)


def generators(**values: Any) -> None:
    """Refuse a value that is not a random generator of NumPy."""
    _require("a numpy.random.Generator", lambda v: isinstance(v, np.random.Generator), values)


def generator(seed: int | None, rng: np.random.Generator | None) -> np.random.Generator:
    """Return `rng`, or a new generator from `seed`; exactly one of them must be given."""
    if (seed is None) == (rng is None):
        raise ValueError(f"either seed or rng must be given; received {seed!r} and {rng!r}")
    if rng is None:
        _require("an integer >= 0", lambda v: _is_integer(v, at_least=0), {"seed": seed})
        return np.random.default_rng(seed)
    generators(rng=rng)
    return rng


def callables(**values: Any) -> None:
    """Refuse a value that cannot be called."""
    _require("callable", callable, values)


def numbers(name: str, value: Any, dtype: DTypeLike | None = None) -> np.ndarray:
    """Return a value as an array of numbers, of its own type or of a given one."""
    try:
        array = np.asarray(value, dtype)
        if array.dtype.kind not in "biufV":  # NumPy gives ml_dtypes' formats the kind V.
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be an array of numbers; received {value!r}") from None
    return array


def gradient(
    name: str, value: Any, output: np.ndarray, dtype: DTypeLike | None = float
) -> np.ndarray:
    """Return the derivative with respect to an output as an array, which has the output's shape."""
    array = numbers(name, value, dtype)
    if array.shape != output.shape:
        raise ValueError(
            f"{name} must have the output's shape {output.shape}; received {array.shape}"
        )
    return array


def finite_arrays(**arrays: np.ndarray) -> None:
    """Refuse an array that holds NaN or inf."""
    for name, array in arrays.items():
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise ValueError(f"{name} must be finite; received {bad} NaN or inf")


def alarm(on_alarm: object) -> None:
    """Raise a ValueError unless a monitor knows what to do at an alarm, or is to do nothing."""
    if not (on_alarm in (None, "warn", "stop", "raise") or callable(on_alarm)):
        raise ValueError(
            f"on_alarm must be 'warn', 'stop', 'raise' or a callable; received {on_alarm!r}"
        )
