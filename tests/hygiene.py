"""The rules that every notebook of the book keeps. Each rule yields what breaks it."""

import ast
import re
from collections import Counter
from pathlib import Path

import nbformat

from tests.nbval_figures import FIGURE_MIME

MAX_LINES = 20
MAX_BYTES = 2_000_000
MIN_ALT = 40
HEADINGS = ("Recap", "Exercises", "In practice", "Further reading")
#: What page, JupyterLab and plain viewers show, and the figures' data.
MIME_TYPES = {"text/plain", "text/html", "text/markdown", "text/latex", "image/png", FIGURE_MIME}
#: What would exempt a cell from execution or comparison.
EXEMPT_TAGS = {
    "nbval-ignore-output", "nbval-skip", "nbval-raises-exception", "raises-exception",
    "pytest-validate-ignore-output", "skip-execution", "remove-output",
}  # fmt: skip
EXEMPT_COMMENTS = re.compile(
    r"#\s*(NBVAL_IGNORE_OUTPUT|NBVAL_SKIP|NBVAL_RAISES_EXCEPTION|PYTEST_VALIDATE_IGNORE_OUTPUT)"
)
TRACE_OF_MACHINE = re.compile(
    r"\b0x[0-9a-f]{6,}\b|site-packages|ipykernel_|"
    r"(?<![\w.])/(?:home|root|tmp|usr|opt|var|mnt|Users)/|[A-Z]:\\|"
    + re.escape(str(Path(__file__).resolve().parent.parent))
)
HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}")


def breaches(notebook):
    """Return one line for each breach of a rule."""
    return [line for rule in RULES for line in rule(notebook)]


def title(notebook):
    """One first-level heading, in the first cell."""
    titles = [
        i for i, cell in enumerate(notebook.cells) for level, _ in headings(cell) if level == 1
    ]
    if titles != [0]:
        yield f"first-level headings in cells {titles}, where there is one, in cell 0"


def sections(notebook):
    """The parts of every lesson are there."""
    found = [text for cell in notebook.cells for _, text in headings(cell)]
    for wanted in HEADINGS:
        if not any(text.startswith(wanted) for text in found):
            yield f"no heading {wanted!r}"


def exercises(notebook):
    """At least three exercises, each with a solution that is folded away and runs."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    numbers = set(re.findall(r"\bExercise (\d+)\b", text))
    solutions = [cell for _, cell in code(notebook) if is_solution(cell)]
    if len(numbers) < 3:
        yield f"{len(numbers)} exercises named 'Exercise 1', 'Exercise 2', ..., at least 3 wanted"
    if len(solutions) < len(numbers):
        yield (
            f"{len(numbers)} exercises, {len(solutions)} solutions (code cells tagged 'hide-cell' "
            "whose mystnb.code_prompt_show starts with 'Solution')"
        )


def execution(notebook):
    """Every code cell was executed, in order, without error or warning."""
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"kernel {kernel!r}, where it is 'python3'"
    wrong = [i for n, (i, cell) in enumerate(code(notebook), 1) if cell.execution_count != n]
    if wrong:
        yield f"cells {wrong} are not executed, or not in order: run `make notebooks`"
    for i, cell in code(notebook):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"cell {i}: error or warning in the output"


def exemptions(notebook):
    """No cell is exempt from execution or comparison without a written reason."""
    for i, cell in code(notebook):
        exempt = EXEMPT_TAGS & {tag.lower() for tag in cell.metadata.get("tags", [])}
        if exempt or EXEMPT_COMMENTS.search(cell.source):
            reason = cell.metadata.get("reason", "")
            if len(reason) < 20:
                yield f"cell {i}: exempt from comparison, and no metadata.reason says why"


def style(notebook):
    """Short cells of plain Python; looks come from the style file; one import cell."""
    importing = []
    for i, cell in code(notebook):
        lines = cell.source.rstrip().count("\n") + 1
        if not cell.source.strip():
            yield f"cell {i}: empty"
        if lines > MAX_LINES:
            yield f"cell {i}: {lines} lines, at most {MAX_LINES}"
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:
            yield f"cell {i}: not plain Python (a magic?)"
            continue
        nodes = list(ast.walk(tree))
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes):
            importing.append(i)
        if any(isinstance(node, ast.alias) and node.name == "*" for node in nodes):
            yield f"cell {i}: star import"
        yield from (f"cell {i}: {line}" for line in looks(nodes))
    if len(importing) > 1:
        yield f"imports in cells {importing}, where one cell imports"


def looks(nodes):
    """No size and no colour literal in a notebook."""
    for node in nodes:
        if isinstance(node, ast.keyword) and node.arg == "figsize":
            yield "figsize, where sizes belong to the style file"
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str) and HEX_COLOUR.fullmatch(value):
            yield f"colour literal {value!r}, where colours belong to the style file"


def figures(notebook):
    """Every figure has a number, a name, a caption and a text that stands for it."""
    for i, cell in code(notebook):
        pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        if not pictures:
            continue
        if len(pictures) > 1:
            yield f"cell {i}: {len(pictures)} figures, where a cell draws one"
        settings = cell.metadata.get("mystnb", {})
        figure = settings.get("figure", {})
        alt = settings.get("image", {}).get("alt", "")
        if len(alt) < MIN_ALT:
            yield f"cell {i}: mystnb.image.alt has {len(alt)} characters, at least {MIN_ALT}"
        for key in ("name", "caption"):
            if not figure.get(key):
                yield f"cell {i}: no mystnb.figure.{key}"


def outputs(notebook):
    """No output tells where or when it was computed, and the notebook is no burden."""
    for i, cell in code(notebook):
        for output in cell.outputs:
            found = TRACE_OF_MACHINE.search(output_text(output))
            if found:
                yield f"cell {i}: {found[0]!r} in the output names the machine"
            for mime in sorted(output.get("data", {}).keys() - MIME_TYPES):
                yield f"cell {i}: output of type {mime}, which the book cannot show"
    size = len(nbformat.writes(notebook).encode())
    if size > MAX_BYTES:
        yield f"{size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.0f}"


def figure_names(notebook):
    """No two figures of a notebook share a name."""
    names = Counter(
        cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for _, cell in code(notebook)
    )
    for name, count in names.items():
        if name and count > 1:
            yield f"{count} figures are named {name!r}"


RULES = (
    title, sections, exercises, execution, exemptions, style, figures, figure_names, outputs,
)  # fmt: skip


def code(notebook):
    """Yield (number, cell) of each code cell, counting all cells from 0."""
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            yield i, cell


def is_solution(cell):
    """Tell whether a code cell is the folded solution of an exercise."""
    prompt = cell.metadata.get("mystnb", {}).get("code_prompt_show", "")
    return "hide-cell" in cell.metadata.get("tags", []) and prompt.startswith("Solution")


def headings(cell):
    """Yield (level, text) of the headings of a Markdown cell, code fences left out."""
    if cell.cell_type == "markdown":
        text = re.sub(r"^(```+|~~~+).*?^\1", "", cell.source, flags=re.M | re.S)
        for marks, words in re.findall(r"^(#{1,6})\s+(.+?)\s*#*$", text, flags=re.M):
            yield len(marks), words


def output_text(output):
    """Return what a reader can read of an output: streams and the text forms of data."""
    data = output.get("data", {})
    texts = [value for mime, value in data.items() if mime.startswith("text/")]
    return "\n".join([output.get("text", ""), *map(str, texts)])
