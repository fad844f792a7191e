"""The notebooks for students: no solution, an attempt for each, and all else as it is."""

import ast
import builtins

import nbformat
import pytest

from tools import ROOT
from tools.lessons import EXERCISE
from tools.student import without_solutions

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def is_solution(cell):
    return cell.metadata.get("mystnb", {}).get("code_prompt_show", "").startswith("Solution")


def nodes(cells):
    return [n for c in cells if c.cell_type == "code" for n in ast.walk(ast.parse(c.source))]


def bound(cells):
    """Return the names that code gives to something."""
    found = set()
    for node in nodes(cells):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.ExceptHandler(name=str(name)):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name.partition(".")[0])
    return found


def read(cells):
    """Return the names that code reads."""
    return {n.id for n in nodes(cells) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_solution_gives_way_to_an_attempt_and_no_other_cell_changes(path):
    original, student = nbformat.read(path, 4), without_solutions(nbformat.read(path, 4))
    for ours, theirs in zip(original.cells, student.cells, strict=True):
        if is_solution(ours):
            assert theirs.source.startswith("# Your attempt at exercise ")
            assert theirs.outputs == []
        elif "} Solution" in ours.source:
            assert ours.source.endswith(theirs.source)
            assert theirs.source.startswith("##")
        else:
            assert theirs == ours
    exercises = EXERCISE.findall("\n".join(c.source for c in original.cells))
    attempts = [c for c in student.cells if c.source.startswith("# Your attempt")]
    assert len(attempts) == len(exercises)
    nbformat.validate(student)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_needs_what_a_solution_has_made(path):
    cells = nbformat.read(path, 4).cells
    rest = [cell for cell in cells if not is_solution(cell)]
    solutions = [cell for cell in cells if is_solution(cell)]
    assert (read(rest) & bound(solutions)) - bound(rest) - set(dir(builtins)) == set()
