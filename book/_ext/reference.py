"""Sphinx extension: the fields of a named tuple stand in its own docstring, not once more below."""

from collections import namedtuple

FIELD = type(namedtuple("Pair", "first").first)


def setup(app):
    """Register."""
    app.connect("autodoc-skip-member", is_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def is_field(app, what, name, member, skip, options):
    """Return True for a field, and None, which decides nothing, for all else."""
    return True if isinstance(member, FIELD) else None
