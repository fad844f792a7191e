"""Sphinx extension: a figure of a page is read from the stored output of a notebook.

    {stored}`17:for-bias-in-0-0-1:bias 0…10^`

is the number after "bias 0…10^" in what that cell of chapter 17 printed, where "…" is anything on
the same line. So the page changes with the notebook; a reference that finds nothing is a warning.
"""

import json
import re
from decimal import Decimal
from pathlib import Path

from docutils import nodes

NUMBER = re.compile(r"\s*([-+]?\d+(?:,\d{3})*(?:\.\d+)?)(?:e([-+]?\d+)|\^(-?\d+))?( of \d+)?")


def setup(app):
    """Register."""
    app.add_role("stored", role)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def role(name, rawtext, text, lineno, inliner, options=None, content=()):
    """Return the number as text."""
    env = inliner.document.settings.env
    folder = Path(env.srcdir) / "notebooks"
    try:
        path, number = look_up(folder, text)
    except LookupError as error:
        message = inliner.reporter.warning(f"stored: {error.args[0]}", line=lineno)
        return [nodes.Text("?")], [message]
    env.note_dependency(str(path))
    return list(shown(number)), []


def look_up(folder, reference):
    """Return (notebook, match of `NUMBER`); LookupError says what is missing."""
    chapter, cell_id, before = reference.split(":", 2)
    for path in folder.glob(f"{chapter}_*.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["id"] == cell_id and cell["cell_type"] == "code":
                printed = "".join(text for o in cell["outputs"] for text in o.get("text", ()))
                start = r"[^\n]*?".join(map(re.escape, before.split("…")))
                found = re.search(f"(?m:{start})({NUMBER.pattern})", printed)
                if found:
                    return path, NUMBER.match(found[1])
                raise LookupError(f"no number follows {before!r} in {chapter}:{cell_id}")
    raise LookupError(f"there is no code cell {chapter}:{cell_id}")


def shown(number):
    """Yield a number as nodes: 4.4e-12 as 4.4 times ten to the power of -12, 8.1e-01 as 0.81."""
    digits, exponent, power, rest = number.groups()
    if exponent and abs(int(exponent)) < 4:
        digits, exponent = f"{Decimal(f'{digits}e{exponent}'):f}", None
    digits = "10" if digits == "1" and exponent else digits + " × 10" * bool(exponent)
    yield nodes.Text(digits.replace("-", "−"))
    if exponent or power:
        yield nodes.superscript("", str(int(exponent or power)).replace("-", "−"))
    yield nodes.Text(rest or "")
