"""Sphinx extension: lists that are read from the notebooks whenever the book is built.

`exercise-list` is a table of all exercises. `concept-index` adds to each line of its content,
`term: [section](link)`, the sections in which the chapters use that term of the glossary first.
"""

import re

import nbformat
from docutils import nodes
from docutils.statemachine import StringList
from myst_parser.mdit_to_docutils.base import default_slugify
from sphinx.util.docutils import SphinxDirective

from tools import ROOT
from tools.lessons import CHECK, EXERCISE, term_anchor, without_code

HEADING = re.compile(r"^(#{1,3}) (.+)$", flags=re.M)
TERM = r"\]\(\.\./book/glossary\.md#(term-[\w.-]+)\)"


def setup(app):
    """Register."""
    app.add_directive("exercise-list", ExerciseList)
    app.add_directive("concept-index", ConceptIndex)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class FromNotebooks(SphinxDirective):
    """A directive whose Markdown is made from the notebooks."""

    has_content = True

    def run(self):
        """Return the parsed Markdown."""
        chapters = {}
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            self.env.note_dependency(str(path))
            chapters[path.name] = nbformat.read(path, as_version=4).cells
        place, parent = self.get_source_info()[0], nodes.container()
        lines = StringList(list(self.markdown(chapters)), source=place)
        self.state.nested_parse(lines, self.content_offset, parent)
        return parent.children


class ExerciseList(FromNotebooks):
    """All exercises, chapter by chapter."""

    def markdown(self, chapters):
        """Yield the lines of one table per chapter."""
        for file, cells in chapters.items():
            checks = [key.split(".")[1] for key, _ in CHECK.findall(text(cells, "code"))]
            title = HEADING.search(text(cells, "markdown"))[2]
            yield from (
                f"**{int(file[:2])}** [{title}](../notebooks/{file})",
                "",
                "| number | exercise | difficulty | attempt |",
                "|---|---|---|---|",
            )
            for match in EXERCISE.finditer(text(cells, "markdown")):
                number, name, difficulty = match.groups()
                anchor = default_slugify(match[0].removeprefix("### "))
                link = f"[{name}](../notebooks/{file}#{anchor})"
                judged = "checks your answer" if number in checks else ""
                yield f"| {int(file[:2])}.{number} | {link} | {difficulty} | {judged} |"
            yield ""


class ConceptIndex(FromNotebooks):
    """The concepts in order, with the places that explain and that use them."""

    def markdown(self, chapters):
        """Yield one line per concept."""
        known = (ROOT / "book" / "glossary.md").read_text("utf-8").split("\n")
        uses = {}
        for file, cells in chapters.items():
            for term, link in first_uses(file, text(cells, "markdown")).items():
                uses.setdefault(term, {})[file] = link
        concepts = [line.split(": ", 1) for line in self.content]
        for name, explained in sorted(concepts, key=lambda concept: concept[0].lower()):
            term = term_anchor(name)
            linked = f"[{name}](glossary.md#{term})" if name in known else name
            others = [link for file, link in uses.get(term, {}).items() if file not in explained]
            used = f"; used in {', '.join(others)}" if others else ""
            yield f"- {linked}: {explained}{used}"


def first_uses(file, source):
    """Return term -> link to the section of a chapter in which it is linked first."""
    links, section = {}, ""
    for part in re.split(r"^(?=#{1,3} )", source, flags=re.M):
        heading = HEADING.match(part)
        if heading:
            words = re.sub(r"\$.*?\$", "", heading[2])  # an anchor has no formulas
            section = "" if heading[1] == "#" else f"#{default_slugify(words)}"
        if heading and heading[2] == "Further reading":
            continue
        for term in re.findall(TERM, part):
            links.setdefault(term, f"[{chapter_name(file)}](../notebooks/{file}{section})")
    return links


def chapter_name(file):
    """Return a short name of a chapter: `12_optimizers.ipynb` is Optimisers, as the text spells."""
    words = file.removesuffix(".ipynb")[3:].replace("_", " ").replace("iz", "is")
    return "FAQ" if words == "faq" else words.capitalize()


def text(cells, kind):
    """Return the joined sources of the cells of one kind, code blocks in Markdown left out."""
    return without_code("\n\n".join(cell.source for cell in cells if cell.cell_type == kind))
