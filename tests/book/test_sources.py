"""The sources of the pages: links, spelling, and the table of contents."""

import re
from urllib.parse import unquote, urlsplit

import nbformat

from tests.book.built import CHAPTERS, DOCUMENTS
from tools import ROOT


def markdown_sources():
    """Yield (name, text) of every Markdown page and of every notebook's Markdown cells."""
    for path in [*sorted((ROOT / "book").glob("*.md")), *sorted(ROOT.glob("*.md"))]:
        yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
        captions = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in cells]
        texts += [figure.get("caption", "") for figure in captions]
        yield str(path.relative_to(ROOT)), "\n\n".join(texts)


def without_code(text):
    """Return Markdown without code blocks; directives stay."""
    return re.sub(r"^(```+)(?!\{)[^\n]*\n.*?^\1", "", text, flags=re.M | re.S)


def test_every_source_is_in_the_table_of_contents_and_the_other_way_round():
    sources = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert sorted(DOCUMENTS) == sorted(
        str(path.relative_to(ROOT).with_suffix("")) for path in sources
    )


def test_chapters_stand_in_reading_order():
    notebooks = [file for file in CHAPTERS if file.startswith("notebooks/")]
    assert notebooks == sorted(notebooks)


def test_relative_links_lead_somewhere():
    broken = []
    for name, text in markdown_sources():
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
            parts = urlsplit(target)
            if parts.scheme or not parts.path:
                continue
            path = (ROOT / name).parent / unquote(parts.path)
            if not any(path.with_name(path.name + end).exists() for end in ("", ".md", ".ipynb")):
                broken.append(f"{name}: {target}")
    assert broken == []


def test_the_text_spells_ise_where_code_spells_ize():
    """Code has -ize, as Keras and NumPy do: code blocks, words in backquotes, names of files."""
    no_text = r"`[^`]*`|\]\([^)]*\)|\"[^\"\n]*\"|\w*_\w*"
    stems = "(?:initi|norm|gener|re|pen)al|regular|optim|minim|maxim|metr|standard|recogn|summar"
    found = {
        name: re.findall(
            rf"(?i)\b\w*(?:{stems})iz[aei]\w*", re.sub(no_text, "", without_code(text))
        )
        for name, text in markdown_sources()
    }
    assert {name: words for name, words in found.items() if words} == {}
