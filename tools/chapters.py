"""The definitions of a chapter, for tests and benchmarks that use its own code."""

import ast
import builtins
from types import ModuleType

import nbformat

from tools import ROOT

IMPORTS = ast.Import | ast.ImportFrom
DEFINITIONS = ast.FunctionDef | ast.ClassDef


def definitions(chapter):
    """Return a module with what a chapter imports and defines; none of its experiments runs.

    Defined are functions, classes, methods that are assigned to a class (`Cell.backward = ...`) and
    constants in capitals that need no result. The functions use a constant as it is set on the
    module, so a larger experiment sets other values there.
    """
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    module = ModuleType(chapter)
    for node in ast.parse(code).body:
        if isinstance(node, IMPORTS | DEFINITIONS) or _is_constant(node, vars(module)):
            exec(compile(ast.Module([node], []), chapter, "exec"), vars(module))
    return module


def _is_constant(node, known):
    """Tell whether a statement assigns a constant or a method, made of known things alone."""
    if not isinstance(node, ast.Assign):
        return False
    target = node.targets[0]
    named = isinstance(target, ast.Attribute) or (
        isinstance(target, ast.Name) and target.id.isupper()
    )
    names = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
    made_here = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    used = {name.id for name in names} - made_here
    return named and used <= known.keys() | set(dir(builtins))
