"""The rules that every notebook of the book keeps. Each rule yields what breaks it."""

import ast
import re
from collections import Counter
from functools import cache

import nbformat

from gradutils.plots import FIGURE_MIME
from tools import ROOT
from tools.lessons import EXERCISE, term_anchor, without_code

MAX_LINES = 15
MAX_LINES_FOLDED = 20
MAX_BYTES = 2_000_000
MIN_ALT = 40
MIN_EXERCISES = 4
DIFFICULTIES = ("easy", "medium", "hard", "open")
GLOSSARY = ROOT / "book" / "glossary.md"
GLOSSARY_LINK = r"\]\(\.\./book/glossary\.md#"
#: Terms that are spelt in other ways than by their name.
_RULE = r"(?:['’]s)?[ \n](?:weights|rule|initiali[sz]ation)\b"
SPELLINGS = {
    "Glorot initialisation": rf"\b(?:Glorot|Xavier){_RULE}",
    "He initialisation": rf"\bHe{_RULE}",
    "LeCun initialisation": rf"\bLeCun{_RULE}",
    "orthogonal initialisation": rf"\b[oO]rthogonal{_RULE}",
    "dead unit": r"\b[dD]ead[ \n](?:ReLU[ \n])?units?\b",
    "depth scale": r"\b(?:[dD]epth[ \n]scale|[cC]orrelation[ \n]depth)s?\b",
    "chaotic phase": r"\b[cC]haotic[ \n](?:phase|side)\b",
    "ordered phase": r"\b[oO]rdered[ \n](?:phase|side)\b",
    "non-normal matrix": r"\b[nN]on-normal(?:ity)?\b",
    "saturation": r"\b[sS]aturat(?:ion|e|es|ed)\b",
    "subnormal number": r"\b[sS]ubnormals?\b(?:[ \n]numbers?\b)?",
}
#: Code, headings, lines of directives, links, formulas, roles: what is not running text.
NO_PROSE = re.compile(
    r"^(```+|~~~+).*?^\1|^#.*?$|^:.*?$|!?\[[^\]]*\]\([^)]*\)|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`",
    flags=re.M | re.S,
)
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
    r"(?<![\w.])/(?:home|root|tmp|usr|opt|var|mnt|Users)/|[A-Z]:\\|" + re.escape(str(ROOT))
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
    """Four exercises or more, numbered, graded, with a hint and a solution that checks itself."""
    found = list(parts_of_exercises(notebook))
    if len(found) < MIN_EXERCISES:
        yield f"{len(found)} headings '### Exercise 1: title (easy)', at least {MIN_EXERCISES}"
    numbers = [number for number, *_ in found]
    if numbers != list(range(1, len(found) + 1)):
        yield f"exercises are numbered {numbers}"
    for number, difficulty, text, solutions in found:
        if difficulty not in DIFFICULTIES:
            yield f"exercise {number}: {difficulty!r} is none of {', '.join(DIFFICULTIES)}"
        if ":::{admonition} Hint\n:class: dropdown\n" not in text:
            yield f"exercise {number}: no hint"
        if not solutions:
            yield (
                f"exercise {number}: no solution (a code cell tagged 'hide-cell' whose "
                "mystnb.code_prompt_show starts with 'Solution')"
            )
        elif not any("assert " in solution for solution in solutions):
            yield f"exercise {number}: no solution has an assert"


def parts_of_exercises(notebook):
    """Yield (number, difficulty, text, sources of the solutions) of each exercise."""
    part = None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            first, *later = re.split(r"^(?=### Exercise \d|## )", cell.source, flags=re.M)
            if part:
                part[2] += first
            for text in later:
                if part:
                    yield tuple(part)
                match = EXERCISE.match(text)
                part = [int(match[1]), match[3], text, []] if match else None
        elif part and is_solution(cell):
            part[3].append(cell.source)
    if part:
        yield tuple(part)


def what_next(notebook):
    """The last paragraph says which question comes next, and which other way there is."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    last = texts[-1].split("\n\n")[-1] if texts else ""
    links = re.findall(r"\]\((?:\d\d_\w+\.ipynb|\.\./book/[\w-]+\.md)\)", last)
    if not last.startswith("**Next.** ") or len(links) < 2:
        yield "the last paragraph is not '**Next.** ...' with links to two pages"


def terms(notebook):
    """A term of the glossary is linked to it where it is used first."""
    linked = set()
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        for names, slugs, pattern in glossary():
            if names in linked:
                continue
            link = re.search(rf"{GLOSSARY_LINK}(?:{'|'.join(slugs)})\)", cell.source)
            use = re.search(pattern, prose(cell.source))
            if use and (link is None or use.start() < link.start()):
                wanted = f"[{use[0]}](../book/glossary.md#{slugs[0]})"
                yield f"cell {i}: {use[0]!r} is not linked where it is used first: {wanted}"
            if use or link:
                linked.add(names)


@cache
def glossary():
    """Return (names, anchors, pattern of their spellings) of each entry of the glossary."""
    body = re.search(r":::\{glossary\}\n(.*?)\n:::", GLOSSARY.read_text("utf-8"), flags=re.S)[1]
    heads = re.findall(r"((?:^\S.*\n)+)(?=^ )", body, flags=re.M)
    entries = [tuple(head.split("\n")[:-1]) for head in heads]
    return [
        (
            names,
            [term_anchor(name) for name in names],
            "|".join(SPELLINGS.get(name, spellings(name)) for name in names),
        )
        for name, names in ((names[0], names) for names in entries)
    ]


def spellings(name):
    """Return the pattern of a term: capital or small, singular or plural, -is- or -iz-."""
    stem = re.escape(name.removesuffix("s")).replace("isation", "i[sz]ation")
    stem = re.sub(r"matrix$", "matri(?:x|ce)", stem).replace(r"\ ", r"[ \n]").replace(r"\-", "-")
    first = f"[{name[0]}{name[0].upper()}]"
    return rf"(?<![\w-]){first}{stem[1:]}(?:e?s)?(?![\w-])"


def prose(source):
    """Return Markdown with all that is not running text blanked out, at its old length."""
    return NO_PROSE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), source)


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
        limit = MAX_LINES_FOLDED if is_folded(cell) else MAX_LINES
        if not cell.source.strip():
            yield f"cell {i}: empty"
        if lines > limit:
            yield f"cell {i}: {lines} lines, at most {limit}"
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
    title, sections, exercises, what_next, terms, execution, exemptions, style, figures,
    figure_names, outputs,
)  # fmt: skip


def code(notebook):
    """Yield (number, cell) of each code cell, counting all cells from 0."""
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            yield i, cell


def is_folded(cell):
    """Tell whether a page shows the code of a cell only when it is asked for."""
    return bool({"hide-cell", "hide-input"} & set(cell.metadata.get("tags", [])))


def is_solution(cell):
    """Tell whether a code cell is the folded solution of an exercise."""
    prompt = cell.metadata.get("mystnb", {}).get("code_prompt_show", "")
    return "hide-cell" in cell.metadata.get("tags", []) and prompt.startswith("Solution")


def headings(cell):
    """Yield (level, text) of the headings of a Markdown cell, code fences left out."""
    if cell.cell_type == "markdown":
        text = without_code(cell.source)
        for marks, words in re.findall(r"^(#{1,6})\s+(.+?)\s*#*$", text, flags=re.M):
            yield len(marks), words


def output_text(output):
    """Return what a reader can read of an output: streams and the text forms of data."""
    data = output.get("data", {})
    texts = [value for mime, value in data.items() if mime.startswith("text/")]
    return "\n".join([output.get("text", ""), *map(str, texts)])
