"""The book's pages: their sources, and (marked `built`) what `make book` has made of them."""

import gzip
import html
import importlib
import re
import unicodedata
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import nbformat
import pytest
import yaml
from fontTools.ttLib import TTFont

from tools import ROOT

HTML = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
CHAPTERS = [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
DOCUMENTS = [TOC["root"], *CHAPTERS]
#: Attributes from which a browser fetches without being asked.
FETCHED = {
    "script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"),
    "video": ("src", "poster"), "audio": ("src",), "embed": ("src",), "object": ("data",),
    "input": ("src",),
}  # fmt: skip
FETCHED_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect"}
EXTERNAL = re.compile(r"^\s*(?:[a-z]+:)?//|@import|url\(\s*['\"]?(?:[a-z]+:)?//", re.I)


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


def test_links_to_the_web_are_encrypted():
    plain = [
        f"{name}: {link}"
        for name, text in markdown_sources()
        for link in re.findall(r"http://[^\s)>\"]+", without_code(text))
        if urlsplit(link).hostname not in ("localhost", "127.0.0.1")
    ]
    assert plain == []


def bibliography():
    """Return the keys of the bibliography, with repetitions."""
    text = (ROOT / "book" / "references.bib").read_text("utf-8")
    return re.findall(r"^\s*@\w+\s*\{\s*([^,\s]+)", text, flags=re.M)


def test_every_citation_is_in_the_bibliography_and_every_entry_is_listed():
    keys = bibliography()
    assert len(keys) == len(set(keys)), "a key is there twice"
    cited, listed = set(), False
    for name, text in markdown_sources():
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text):
            used = {key.strip() for key in group.split(",")}
            assert used <= set(keys), f"{name}: {used - set(keys)}"
            cited |= used
        listed = listed or bool(re.search(r"\{bibliography\}[^`]*:(?:all|filter): ?", text))
    assert listed or set(keys) <= cited, f"never cited: {set(keys) - cited}"


class Loads(HTMLParser):
    """Collects what a page fetches, the targets of its links, and its pictures without a text."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.links, self.ids, self.mute = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given.get("id"), given.get("name")}
        self.fetched += [given[name] for name in FETCHED.get(tag, ()) if given.get(name)]
        if tag == "link" and FETCHED_RELATIONS & set(given.get("rel", "").split()):
            self.fetched.append(given.get("href", ""))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img" and not given.get("alt"):
            self.mute.append(given.get("src"))
        if EXTERNAL.search(given.get("style") or ""):
            self.fetched.append(given["style"])


@pytest.fixture(scope="module")
def pages():
    """Every built page, parsed: path -> Loads."""
    if not HTML.is_dir():
        pytest.skip("the book is not built; `make book` builds it and runs these tests")
    paths = sorted(set(HTML.rglob("*.html")) - set((HTML / "_static").rglob("*.html")))
    return {path: Loads(path.read_text("utf-8")) for path in paths}


@pytest.mark.built
def test_every_page_exists_and_has_a_title(pages):
    for document in DOCUMENTS:
        text = (HTML / f"{document}.html").read_text("utf-8")
        assert re.search(r"<h1>\s*\S", text), document
    assert DOCUMENTS[0] in (HTML / "index.html").read_text("utf-8")


@pytest.mark.built
def test_no_page_fetches_anything_from_another_host(pages):
    outside = {
        str(path.relative_to(HTML)): [url for url in page.fetched if EXTERNAL.search(url)]
        for path, page in pages.items()
    }
    assert {name: urls for name, urls in outside.items() if urls} == {}
    for path in HTML.rglob("*.css"):
        found = re.search(r"(?:@import\s|url\()[^;)]*//[^;)]*", path.read_text("utf-8"))
        assert not found, f"{path.name}: {found[0]}"


@pytest.mark.built
def test_all_that_a_page_fetches_or_links_to_is_there(pages):
    broken = []
    for path, page in pages.items():
        for target in {*page.fetched, *page.links}:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages.get(file)
            if not file.exists() or (
                known and parts.fragment and unquote(parts.fragment) not in known.ids
            ):
                broken.append(f"{path.relative_to(HTML)}: {target}")
    assert broken == []


@pytest.fixture
def formulas(monkeypatch):
    """The extension."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    return importlib.import_module("formulas")


def test_a_formula_that_cannot_be_set_is_an_error_that_names_it_and_its_page(formulas):
    with pytest.raises(formulas.ExtensionError, match=r"book/index: .*nope.*Unknown command"):
        formulas.mathml(r"x + \nope", False, "book/index")


@pytest.mark.parametrize("tex", ["x'", r"a < b", r"\overline{g n}", r"\left(\tfrac12\right)\ln x"])
def test_a_formula_is_mathml_with_its_tex(formulas, tex):
    formula = ElementTree.fromstring(formulas.mathml(tex, True, "page"))
    namespace = "{http://www.w3.org/1998/Math/MathML}"
    assert (formula.tag, formula.get("display")) == (f"{namespace}math", "block")
    (annotation,) = formula.iter(f"{namespace}annotation")
    assert (annotation.text, annotation.get("encoding")) == (tex, "application/x-tex")


def test_only_brackets_of_left_and_right_are_stretched(formulas):
    assert 'class="stretched"' not in formulas.mathml("f(x) = [y]", False, "page")
    stretched = formulas.mathml(r"\left[\tfrac12\right)", False, "page")
    assert re.findall(r'<mo class="stretched"[^>]*>(.)</mo>', stretched) == ["[", ")"]


FORMULA = re.compile(r"<math .*?</math>", re.DOTALL)
TEX = re.compile(r'<annotation encoding="application/x-tex">[^<]+</annotation></semantics></math>$')


@pytest.mark.built
def test_every_formula_is_mathml_with_its_tex_before_any_script_runs(texts):
    count = 0
    for name, text in texts.items():
        found = FORMULA.findall(text)
        assert [formula for formula in found if not TEX.search(formula)] == [], name
        places = re.findall(r'<span class="math[^"]*">|<div class="math-scroll"[^>]*>', text)
        assert len(places) == len(found), name
        assert not re.search(r"<script[^>]*(?:katex|mathjax)", text, re.I), name
        count += len(found)
    assert count > 1000


@pytest.fixture(scope="module")
def font():
    with TTFont(ROOT / "book" / "_static" / "latin-modern-math.woff2") as font:
        yield font


def test_the_font_of_the_formulas_has_sizes_and_distances_for_them(font):
    table = font["MATH"].table
    assert table.MathConstants.AxisHeight.Value > 0
    stretched = set(table.MathVariants.VertGlyphCoverage.glyphs)
    glyphs = font.getBestCmap()
    assert {glyphs[ord(bracket)] for bracket in "()[]{}|‖"} <= stretched


@pytest.mark.built
def test_the_font_has_every_character_of_the_formulas(texts, font):
    """Among them the italic ones that a browser takes for a single letter."""
    without_tex = re.compile(r"<annotation.*?</annotation>", re.DOTALL)
    formulas = [without_tex.sub("", f) for text in texts.values() for f in FORMULA.findall(text)]
    letters = {letter for f in formulas for letter in re.findall(r"<mi>(.)</mi>", f)}
    shown = {sign for f in formulas for sign in html.unescape(re.sub("<[^>]+>", "", f))}
    italic = {
        letter: chr(code)
        for code in (0x210E, *range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C))
        if (letter := unicodedata.normalize("NFKC", chr(code))) in letters
    }
    assert {"x", "W", "φ", "σ"} <= set(italic)
    needed = {ord(sign) for sign in shown | set(italic.values()) if not sign.isspace()}
    known = set(font.getBestCmap()) | {0xFE00}  # the last one chooses a form of a letter
    assert {hex(code) for code in needed - known} == set()


@pytest.mark.built
def test_the_heaviest_chapter_is_light(texts):
    """All that a chapter fetches, compressed, with the font of the formulas."""
    weights = {}
    for name, text in texts.items():
        if not name.startswith("notebooks/"):
            continue
        fetched = Loads(text).fetched
        files = {(HTML / name).parent / url.split("?")[0] for url in fetched if "//" not in url}
        weights[name] = len(gzip.compress(text.encode())) + sum(map(compressed_size, files))
    assert max(weights.values()) < 450_000, sorted(weights.items(), key=lambda item: item[1])[-3:]


def compressed_size(path):
    data = path.read_bytes()
    return len(data if path.suffix in (".png", ".woff2") else gzip.compress(data))


@pytest.mark.built
def test_every_picture_has_a_text_that_stands_for_it(pages):
    mute = {str(path.relative_to(HTML)): page.mute for path, page in pages.items() if page.mute}
    assert mute == {}


@pytest.mark.built
def test_directives_are_shown_as_what_they_are(pages):
    for document in DOCUMENTS:
        text = (HTML / f"{document}.html").read_text("utf-8")
        article = re.sub(r"<pre>.*?</pre>|<code.*?</code>", "", text, flags=re.S)
        found = re.search(r":::|\{(?:numref|cite|doc|ref|eq|term)[\w:]*\}`?|```\{", article)
        assert not found, f"{document}: {found[0]}"


@pytest.mark.built
def test_the_reference_says_nothing_of_fields_that_python_made_up(texts):
    assert "Alias for field" not in texts["book/api.html"]


@pytest.mark.built
def test_the_reference_lists_the_keys_of_a_table_and_not_what_is_behind_them(texts):
    shown = html.unescape(re.sub("<[^>]+>", "", texts["book/api.html"]))
    assert "<function" not in shown
    assert "Keys: 'linear', 'sigmoid', 'tanh', 'relu'" in shown
    assert "Values: 'lecun', 'glorot', 'he'" in shown


@pytest.mark.built
def test_no_page_names_the_machine_that_built_it(pages):
    for path in pages:
        assert str(ROOT) not in path.read_text("utf-8"), path


# Weight, descriptions and addresses


@pytest.fixture(scope="module")
def texts():
    """Return path -> text of every built page."""
    return {str(path.relative_to(HTML)): path.read_text("utf-8") for path in HTML.rglob("*.html")}


@pytest.mark.built
def test_no_script_holds_up_a_page(texts):
    waiting = re.compile(r"<script (?![^>]*\b(?:defer|async)\b)[^>]*src=")
    assert [name for name, text in texts.items() if waiting.search(text)] == []


def test_a_change_of_the_themes_script_is_noticed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    lean = importlib.import_module("lean")
    start = '"complete"===document.readyState?O():window.addEventListener("load",O)'
    script = "function O(){}" + start + ";\n//# sourceMappingURL=x.js.map"
    assert lean.without_measuring(script) == "function O(){}0;\n"
    with pytest.raises(lean.ExtensionError, match="the theme's script has changed"):
        lean.without_measuring("other")


@pytest.mark.built
def test_icons_are_drawn_in_the_page(texts):
    assert not (HTML / "_static" / "scripts" / "fontawesome.js").exists()
    for document in DOCUMENTS:
        text = texts[f"{document}.html"]
        assert "fontawesome.js" not in text, document
        assert not re.search(r'<(?:i|span) class="[^"]*\bfa-', text), document
        assert '<svg class="svg-inline--fa' in text, document


@pytest.mark.built
def test_pictures_keep_their_place_free(texts):
    for name, text in texts.items():
        for tag in re.findall(r"<img [^>]*\.png[^>]*>", text):
            assert re.search(r'width="\d+" height="\d+"', tag), f"{name}: {tag[:80]}"


@pytest.mark.built
def test_every_document_describes_itself(texts):
    found = {}
    for document in DOCUMENTS:
        text = texts[f"{document}.html"]
        (description,) = re.findall(r'<meta name="description" content="([^"]+)"', text)
        assert len(re.findall(r'<meta name="viewport"', text)) == 1
        assert 'property="og:title"' in text
        found.setdefault(description, []).append(document)
    assert [names for names in found.values() if len(names) > 1] == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"GITHUB_REPOSITORY": "Ada/gradients"}, "https://ada.github.io/gradients/"),
        ({"GITHUB_REPOSITORY": "ada/ada.github.io"}, "https://ada.github.io/"),
    ],
)
def test_the_address_is_that_of_the_repository_that_publishes(monkeypatch, variables, expected):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    lean = importlib.import_module("lean")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert lean.address() == expected


def test_the_page_for_lost_readers_has_links_that_hold_at_any_address(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    monkeypatch.setenv("GITHUB_REPOSITORY", "ada/gradients")
    lean = importlib.import_module("lean")
    ((name, context, _),) = lean.lost(None)
    assert name == "404" and "search.html" in context["body"]
    assert lean.grounded("<head><title>") == (
        '<head>\n<base href="https://ada.github.io/gradients/"/><title>'
    )
