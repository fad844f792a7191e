"""The book on paper, as `make pdf` has made it; poppler's tools look at it."""

import re
import subprocess
from xml.etree import ElementTree

import pytest

from tests.book.built import CHAPTERS, TOC
from tools import ROOT
from tools.offline import NAME

PDF = ROOT / "dist" / f"{NAME}.pdf"
LOG = ROOT / "_build" / "paper" / "_build" / "latex" / f"{NAME}.log"
MAX_BYTES = 15_000_000

pytestmark = pytest.mark.built


def poppler(*command):
    """Return what one of poppler's tools says of the book."""
    result = subprocess.run([*command], capture_output=True, text=True, check=True)
    return result.stdout


@pytest.fixture(scope="module")
def pages():
    """The text of each page."""
    if not PDF.exists():
        pytest.skip("there is no PDF; `make pdf` makes it and runs these tests")
    return poppler("pdftotext", "-layout", str(PDF), "-").removesuffix("\f").split("\f")


@pytest.fixture(scope="module")
def outline(pages):
    """The titles of the outline, in order."""
    text = poppler("pdftohtml", "-xml", "-i", "-q", "-stdout", str(PDF))
    items = re.search(r"<outline>.*</outline>", text, flags=re.S)[0]
    return [item.text.strip() for item in ElementTree.fromstring(items).iter("item")]


def title(document):
    """Return the title of a page or notebook, without the signs of Markdown."""
    path = next(ROOT.glob(f"{document}.[im]*"))
    found = re.search(r'^[\s"]*# (.+?)(?:\\n",?|",)?$', path.read_text("utf-8"), flags=re.M)
    return found[1].replace("\\n", "")


def test_the_outline_names_every_part_and_chapter(outline):
    wanted = [part["caption"] for part in TOC["parts"]] + [title(name) for name in CHAPTERS]
    names = [re.sub(r"^\d+ +", "", name) for name in outline]
    assert [name for name in wanted if name not in names] == []


def test_every_reference_is_resolved(pages):
    assert [number for number, text in enumerate(pages, 1) if "??" in text] == []
    log = LOG.read_text("utf-8", errors="replace").replace("\n", "")
    assert (
        re.findall(r"(?:Reference|Citation|Hyper reference) `[^']*'[^.]{0,60}undefined", log) == []
    )


def test_figures_are_numbered_without_a_gap(pages):
    numbers = re.findall(r"^ *Fig\. (?:(\d+)\.)?(\d+):", "\n".join(pages), flags=re.M)
    chapters = {}
    for chapter, figure in numbers:
        chapters.setdefault(chapter, []).append(int(figure))
    assert len(numbers) > 100
    gaps = {
        name: seen for name, seen in chapters.items() if sorted(seen) != [*range(1, len(seen) + 1)]
    }
    assert gaps == {}


def test_every_sign_has_a_shape():
    assert "Missing character" not in LOG.read_text("utf-8", errors="replace")


def test_no_page_is_empty_and_the_file_is_small_enough(pages):
    assert [number for number, text in enumerate(pages, 1) if len(text.split()) < 5] == []
    assert PDF.stat().st_size < MAX_BYTES


def test_no_line_runs_over_the_margin():
    log = LOG.read_text("utf-8", errors="replace")
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide", log)]
    assert [points for points in wide if points > 5] == []
