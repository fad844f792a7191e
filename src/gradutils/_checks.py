"""Checks that several modules share."""

import operator


def positive_integers(**values: object) -> None:
    """Raise a ValueError that names the first argument which is no positive integer."""
    for name, value in values.items():
        try:
            valid = not isinstance(value, bool) and operator.index(value) >= 1  # type: ignore[arg-type]
        except TypeError:
            valid = False
        if not valid:
            raise ValueError(f"{name} must be a positive integer; received {value!r}")
