"""Sphinx extension: a cell that judges an answer is followed by fields that judge it in the page.

They stand in place of the cell's output, which says only that nothing is answered yet.
The page holds what `gradutils.exercises` expects, masked so that nobody reads it by chance.
"""

import base64
import html
import json
import re
from itertools import cycle

from docutils import nodes

from gradutils import exercises
from tools.lessons import CHECK


def setup(app):
    """Register."""
    app.connect("doctree-resolved", add_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_fields(app, doctree, docname):
    """Put the fields behind each such cell."""
    if app.builder.name != "html":
        return
    for cell in list(doctree.findall(nodes.container)):
        found = cell.get("nb_element") == "cell_code" and CHECK.search(cell.astext())
        if found:
            place = cell.parent.index(cell) + 1
            for output in [part for part in cell if part.get("nb_element") == "cell_code_output"]:
                cell.remove(output)
            names = re.findall(r"(\w+)=None", found[2])
            cell.parent.insert(place, nodes.raw("", form(found[1], names), format="html"))


def form(exercise, names):
    """Return the fields for the answers to an exercise."""
    table = exercises.exported(exercise)
    fields = "".join(field(name, table.get(name)) for name in names)
    button = '<button type="submit">Check</button>' if table else ""
    return (
        f'<form class="answer" aria-label="Your answer to exercise {exercise}" '
        f'data-exercise="{exercise}" data-expected="{masked(table, exercise)}" '
        f'data-tolerance="{exercises.TOLERANCE}">'
        f"{fields}{button}</form>"
    )


def field(name, expected):
    """Return the field for one answer."""
    if expected is None:
        return f"<p><code>{name}</code> is judged in the notebook: its answer works on arrays.</p>"
    parameters = ", ".join(expected.get("parameters", []))
    numbers = len(expected["looks"][0][1])
    hint = (
        f"a formula in {parameters}" if parameters
        else f"{numbers} numbers, with commas" if numbers > 1 else "a number or a formula"
    )  # fmt: skip
    return (
        f'<p><label><code>{name}</code> <input name="{name}" placeholder="{html.escape(hint)}" '
        'autocomplete="off" autocapitalize="off" spellcheck="false"/></label> '
        "<output></output></p>"
    )


def masked(table, key):
    """Return a table as text that its key makes readable again.

    >>> masked({}, "key")
    'EBg='
    """
    data = json.dumps(table, separators=(",", ":"), allow_nan=False).encode()
    return base64.b64encode(bytes(a ^ b for a, b in zip(data, cycle(key.encode())))).decode()
