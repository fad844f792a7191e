"""The book for e-book readers, as `make epub` has written it."""

import posixpath
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from zipfile import ZipFile

import pytest

from tests.book.built import DOCUMENTS
from tools import ROOT
from tools.offline import NAME

BOOK = ROOT / "dist" / f"{NAME}.epub"
XHTML = "{http://www.w3.org/1999/xhtml}"
MATHML = "{http://www.w3.org/1998/Math/MathML}"
SVG = "{http://www.w3.org/2000/svg}"
OPF = "{http://www.idpf.org/2007/opf}"

pytestmark = pytest.mark.built


@pytest.fixture(scope="module")
def packed():
    if not BOOK.exists():
        pytest.skip("there is no e-book; `make epub` writes it and runs these tests")
    with ZipFile(BOOK) as archive:
        yield archive


@pytest.fixture(scope="module")
def pages(packed):
    """Every page, parsed as the XML that readers want: path -> root element."""
    names = [name for name in packed.namelist() if name.endswith(".xhtml")]
    return {name: ElementTree.fromstring(packed.read(name)) for name in names}


@pytest.fixture(scope="module")
def package(packed):
    """The list of what is in the book, and in which order."""
    return ElementTree.fromstring(packed.read("content.opf"))


def test_the_list_of_contents_names_every_file_and_no_other(packed, package):
    listed = {item.get("href") for item in package.iter(f"{OPF}item")}
    outside = {"mimetype", "META-INF/container.xml", "content.opf"}
    assert listed == set(packed.namelist()) - outside


def test_the_chapters_come_in_the_order_of_the_book(package):
    files = {item.get("id"): item.get("href") for item in package.iter(f"{OPF}item")}
    order = [files[item.get("idref")] for item in package.iter(f"{OPF}itemref")]
    assert [name for name in order if name.removesuffix(".xhtml") in DOCUMENTS] == [
        f"{name}.xhtml" for name in DOCUMENTS
    ]


def test_pages_with_formulas_and_drawings_are_listed_as_such(pages, package):
    listed = {item.get("href"): item.get("properties", "") for item in package.iter(f"{OPF}item")}
    for name, page in pages.items():
        kinds = (("mathml", f"{MATHML}math"), ("svg", f"{SVG}svg"))
        present = [kind for kind, tag in kinds if page.find(f".//{tag}") is not None]
        if name != "nav.xhtml":
            assert listed[name].split() == present, name


def test_every_link_and_picture_leads_somewhere(packed, pages):
    files, lost = set(packed.namelist()), []
    ids = {name: {part.get("id") for part in page.iter()} for name, page in pages.items()}
    for name, page in pages.items():
        for part in page.iter():
            for target in filter(None, (part.get("href"), part.get("src"))):
                url = urlsplit(target)
                if url.scheme:
                    continue
                path = posixpath.normpath(posixpath.join(posixpath.dirname(name), url.path))
                path = unquote(path) if url.path else name
                if path not in files or (url.fragment and unquote(url.fragment) not in ids[path]):
                    lost.append(f"{name}: {target}")
    assert lost == []


def test_a_chapter_is_dressed_for_reading(pages):
    links = pages["notebooks/05_signal_propagation.xhtml"].iter(f"{XHTML}link")
    sheets = [posixpath.basename(link.get("href")) for link in links]
    assert sheets == ["pygments.css", "epub.css", "explorables.css", "reader.css"]


def test_nothing_needs_a_script_and_formulas_are_mathml(pages):
    kinds = {part.tag.removeprefix(XHTML) for page in pages.values() for part in page.iter()}
    assert kinds.isdisjoint({"script", "input", "select", "button", "fieldset", "iframe"})
    formulas = [part for page in pages.values() for part in page.iter(f"{MATHML}math")]
    assert len(formulas) > 1000
    annotations = [[*part.iter(f"{MATHML}annotation")] for part in formulas]
    assert {part.get("encoding") for (part,) in annotations} == {"application/x-tex"}


def test_live_figures_are_drawn(pages):
    playground = pages["book/playground.xhtml"]
    figures = [part for part in playground.iter() if part.get("data-explorable")]
    assert len(figures) == 5
    assert all(figure.find(f".//{SVG}svg//{SVG}path") is not None for figure in figures)


def test_every_picture_is_described(pages):
    for name, page in pages.items():
        assert [
            part.get("src") for part in page.iter(f"{XHTML}img") if not part.get("alt")
        ] == [], name
