"""Sphinx extension: what the reference leaves out of Python's own words, and what it says instead.

The fields of a named tuple stand in its docstring, not once more below. Of a table in the package
the keys or the names of the rows are listed, not the functions and settings behind them.
"""

import sys
from collections import namedtuple

from sphinx.ext.autodoc.mock import MockFinder

FIELD = type(namedtuple("Pair", "first").first)


def setup(app):
    """Register."""
    # autodoc's own mock ends with the import, but autodoc comes back to read the source of base
    # classes and would load TensorFlow then. This one stays.
    sys.meta_path.insert(
        0, MockFinder(["gradutils._keras", "gradutils._torch", "keras", "tensorflow", "torch"])
    )
    app.connect("autodoc-skip-member", is_field)
    app.connect("autodoc-process-docstring", list_values)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def is_field(app, what, name, member, skip, options):
    """Return True for a field, and None, which decides nothing, for all else."""
    return True if isinstance(member, FIELD) else None


def list_values(app, what, path, value, options, lines):
    """Add a line with the keys of a table, the names of its rows, or the values of a tuple."""
    if what == "data" and isinstance(value, dict | tuple):
        kind = "Keys" if isinstance(value, dict) else "Values"
        names = [row[0] if isinstance(row, tuple) else row for row in value]
        lines += ["", f"{kind}: " + ", ".join(f"``{name!r}``" for name in names) + ".", ""]
