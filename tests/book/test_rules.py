"""Every notebook keeps the rules of the book, and each rule is able to fail."""

import copy
import itertools
import re

import nbformat
import pytest

from tools import ROOT, rules
from tools.notebooks import normalise, problems

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURE = {
    "image": {"alt": "A line that falls from one to a millionth over fifty layers."},
    "figure": {"name": "fig-fall", "caption": "**It falls.**"},
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_rules(path):
    assert problems(path) == []


def test_figure_names_are_unique_in_the_book():
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert sorted(names) == sorted(set(names))


def text(source):
    return nbformat.v4.new_markdown_cell(source)


def code(source, outputs=(), **metadata):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


def picture():
    return nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})


NEXT = "**Next.** [Concepts](02_concepts.ipynb): what is it? Or the [paths](../book/paths.md)."


def exercise(number, difficulty):
    """The text of an exercise, and its solution."""
    hint = ":::{admonition} Hint\n:class: dropdown\nLook.\n:::"
    solution = {"tags": ["hide-cell"], "mystnb": {"code_prompt_show": f"Solution {number}"}}
    return (
        text(f"### Exercise {number}: why? ({difficulty})\n\nSay why.\n\n{hint}"),
        code(f"assert {number}", **solution),
    )


def lesson():
    """A lesson that keeps every rule."""
    cells = [
        text("# Title"),
        code("import numpy as np"),
        code("print(1)", [nbformat.v4.new_output("stream", name="stdout", text="1\n")]),
        code("ax = plot()", [picture()], mystnb=copy.deepcopy(FIGURE)),
        text("## Recap\n```python\n# a comment, not a title\n```"),
        text("## Exercises"),
        *itertools.chain(*[exercise(i, grade) for i, grade in enumerate(rules.DIFFICULTIES, 1)]),
        text("## In practice\n## Further reading\n\n" + NEXT),
    ]
    count = 0
    for cell in cells:
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
    return normalise(nbformat.v4.new_notebook(cells=cells))


def test_a_good_lesson_has_no_breaches():
    assert rules.breaches(lesson()) == []


def source(i, new):
    return lambda nb: nb.cells[i].update(source=new)


def output(new):
    return lambda nb: nb.cells[2].outputs.append(new)


def setting(*keys, value):
    def change(nb):
        node = nb.cells[3].metadata.mystnb
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return change


def replaced(i, old, new):
    return lambda nb: nb.cells[i].update(source=nb.cells[i].source.replace(old, new))


DEAD = "A [dead unit](../book/glossary.md#term-dead-unit)."
BREACHES = {
    "second title": source(4, "# Recap"),
    "no title": source(0, "## Title"),
    "no recap": source(4, "## Summary"),
    "three exercises": source(12, "Nothing."),
    "a number left out": replaced(12, "Exercise 4", "Exercise 5"),
    "another difficulty": replaced(6, "(easy)", "(simple)"),
    "no hint": replaced(6, "Hint", "Note"),
    "no solution": lambda nb: nb.cells[7].metadata.update(tags=[]),
    "a solution that checks nothing": source(7, "print(1)"),
    "nothing next": replaced(14, NEXT, "The end."),
    "one way only": replaced(14, "[paths](../book/paths.md)", "paths"),
    "a term that is not linked": source(4, "## Recap\nTwo [dead units](09_a.ipynb), dead\nunits."),
    "a term linked too late": source(4, f"## Recap\nDead units. {DEAD}"),
    "not executed": lambda nb: nb.cells[2].update(execution_count=None),
    "out of order": lambda nb: nb.cells[2].update(execution_count=7),
    "other kernel": lambda nb: nb.metadata.kernelspec.update(name="conda-env"),
    "error": output(nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])),
    "stderr": output(nbformat.v4.new_output("stream", name="stderr", text="warning")),
    "exempt by tag": lambda nb: nb.cells[2].metadata.update(tags=["nbval-ignore-output"]),
    "exempt by comment": source(2, "# NBVAL_IGNORE_OUTPUT\nprint(1)"),
    "long cell": source(2, "x = 1\n" * 16),
    "long folded cell": source(7, "assert 1\n" * 21),
    "magic": source(2, "%matplotlib inline"),
    "second import cell": source(2, "import os"),
    "star import": source(1, "from numpy import *"),
    "figsize": source(3, "ax = plot(figsize=(3, 2))"),
    "colour": source(3, "ax = plot(color='#ff0000')"),
    "no alt": setting("image", "alt", value="A line."),
    "no name": setting("figure", "name", value=""),
    "no caption": setting("figure", "caption", value=""),
    "two figures": lambda nb: nb.cells[3].outputs.append(picture()),
    "name twice": lambda nb: nb.cells[2].metadata.update(mystnb=copy.deepcopy(FIGURE)),
    "memory address": output(nbformat.v4.new_output("stream", text="<f at 0x7f3a2b1c>")),
    "machine path": output(nbformat.v4.new_output("stream", text="/home/me/x.py")),
    "unknown output": output(nbformat.v4.new_output("display_data", data={"image/gif": "AA"})),
    "too large": output(nbformat.v4.new_output("stream", text="x" * rules.MAX_BYTES)),
}


@pytest.mark.parametrize("name", BREACHES)
def test_each_breach_is_seen_once(name):
    notebook = lesson()
    BREACHES[name](notebook)
    assert len(rules.breaches(notebook)) == 1, rules.breaches(notebook)


@pytest.mark.parametrize(
    "source",
    [
        f"{DEAD} Dead units.",
        "### Dead units",
        "```python\ndead unit\n```",
        "`dead unit`",
        "$x$ and [dead units](09_activations.ipynb)",
        ":::{admonition} A dead unit\n:::",
        "deadunit, undead units",
    ],
)
def test_a_term_needs_no_link_after_its_link_nor_outside_running_text(source):
    notebook = lesson()
    notebook.cells[4].source = source
    assert list(rules.terms(notebook)) == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("vanishing gradients", "Vanishing gradient"),
        ("batch normalisation", "batch\nnormalization"),
        ("non-normal matrix", "non-normal matrices"),
        ("skip connection", "skip connections"),
        ("activation", "activations"),
    ],
)
def test_a_term_is_found_however_it_is_spelt(name, found):
    assert re.search(rules.spellings(name), f"the {found}, then")[0] == found
    assert not re.search(rules.spellings(name), f"pre-{found}")


def test_a_written_reason_exempts():
    notebook = lesson()
    notebook.cells[2].metadata.update(tags=["nbval-ignore-output"])
    notebook.cells[2].metadata.update(reason="It shows the time of day.")
    assert rules.breaches(notebook) == []


@pytest.mark.parametrize("tag", ["hide-cell", "hide-input"])
def test_a_folded_cell_may_be_longer(tag):
    notebook = lesson()
    notebook.cells[2].update(source="x = 1\n" * 20)
    notebook.cells[2].metadata.update(tags=[tag])
    assert rules.breaches(notebook) == []


def test_ids_are_stable_under_insertion():
    notebook = lesson()
    ids = [cell.id for cell in notebook.cells]
    notebook.cells.insert(1, text("Something in between."))
    assert [cell.id for cell in normalise(notebook).cells if cell.id in ids] == ids
