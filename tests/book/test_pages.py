"""The built pages (tests marked `built`), and the small modules that make them what they are."""

import gzip
import html
import re
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import address
import code_blocks
import moved
import pytest
from pygments import highlight
from pygments.lexers import PythonLexer

from gradutils.checks import CHECKS
from tests.book.built import DOCUMENTS, EXTERNAL, HTML, pages
from tools import ROOT


@pytest.mark.built
def test_every_page_exists_and_has_a_title():
    for document in DOCUMENTS:
        assert re.search(r"<h1>\s*\S", pages()[f"{document}.html"].text), document
    assert DOCUMENTS[0] in pages()["index.html"].text


@pytest.mark.built
def test_no_page_fetches_anything_from_another_host():
    outside = {
        name: [url for url in page.fetched if EXTERNAL.search(url)]
        for name, page in pages().items()
    }
    assert {name: urls for name, urls in outside.items() if urls} == {}
    for path in HTML.rglob("*.css"):
        found = re.search(r"(?:@import\s|url\()[^;)]*//[^;)]*", path.read_text("utf-8"))
        assert not found, f"{path.name}: {found[0]}"


@pytest.mark.built
def test_all_that_a_page_fetches_or_links_to_is_there():
    known, broken = {HTML / name: page for name, page in pages().items()}, []
    for path, page in known.items():
        refreshed = re.findall(r'http-equiv="refresh"[^>]*url=([^"\s]+)', page.text, re.I)
        for target in {*page.fetched, *page.links, *refreshed}:
            parts = urlsplit(target)
            if parts.scheme in ("https", "mailto", "data"):
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            lost = (
                parts.fragment and file in known and unquote(parts.fragment) not in known[file].ids
            )
            if lost or not (file.is_file() and file.is_relative_to(HTML)):
                broken.append(f"{path.relative_to(HTML)}: {target}")
    assert broken == []


@pytest.mark.built
def test_the_heaviest_chapter_is_light():
    """All that a chapter fetches, compressed, with the font of the formulas."""
    weights = {}
    for name, page in pages().items():
        if name.startswith("notebooks/"):
            files = {(HTML / name).parent / url.split("?")[0] for url in page.fetched}
            weights[name] = len(gzip.compress(page.text.encode())) + sum(map(weight, files))
    assert max(weights.values()) < 450_000, sorted(weights.items(), key=lambda item: item[1])[-3:]


def weight(path):
    """Return how many bytes of a file a web host sends."""
    data = path.read_bytes()
    return len(data if path.suffix in (".png", ".woff2") else gzip.compress(data))


@pytest.mark.built
def test_every_picture_has_a_text_that_stands_for_it_and_keeps_its_place_free():
    assert {name: page.mute for name, page in pages().items() if page.mute} == {}
    for name, page in pages().items():
        for tag in re.findall(r"<img [^>]*\.png[^>]*>", page.text):
            assert re.search(r'width="\d+" height="\d+"', tag), f"{name}: {tag[:80]}"


@pytest.mark.built
def test_directives_are_shown_as_what_they_are():
    for document in DOCUMENTS:
        text = pages()[f"{document}.html"].text
        article = re.sub(r"<pre>.*?</pre>|<code.*?</code>", "", text, flags=re.S)
        found = re.search(r":::|\{(?:numref|cite|doc|ref|eq|term)[\w:]*\}`?|```\{", article)
        assert not found, f"{document}: {found[0]}"


@pytest.mark.built
def test_the_reference_lists_the_keys_of_a_table_and_not_what_python_says_of_it():
    shown = html.unescape(re.sub("<[^>]+>", "", pages()["book/api.html"].text))
    assert "<function" not in shown and "Alias for field" not in shown
    assert "Keys: 'linear', 'sigmoid', 'tanh', 'relu'" in shown
    assert "Values: 'lecun', 'glorot', 'he'" in shown


@pytest.mark.built
def test_no_page_names_the_machine_that_built_it():
    assert [name for name, page in pages().items() if str(ROOT) in page.text] == []


@pytest.mark.built
def test_no_script_holds_up_a_page():
    waiting = re.compile(r"<script (?![^>]*\b(?:defer|async)\b)[^>]*src=")
    assert [name for name, page in pages().items() if waiting.search(page.text)] == []


@pytest.mark.built
def test_icons_are_drawn_in_the_page():
    assert not (HTML / "_static" / "scripts" / "fontawesome.js").exists()
    for document in DOCUMENTS:
        text = pages()[f"{document}.html"].text
        assert not re.search(r'fontawesome\.js|<(?:i|span) class="[^"]*\bfa-', text), document
        assert '<svg class="svg-inline--fa' in text, document


@pytest.mark.built
def test_every_document_describes_itself():
    found = {}
    for document in DOCUMENTS:
        text = pages()[f"{document}.html"].text
        (description,) = re.findall(r'<meta name="description" content="([^"]+)"', text)
        assert len(re.findall(r'<meta name="viewport"', text)) == 1
        assert 'property="og:title"' in text
        found.setdefault(description, []).append(document)
    assert [names for names in found.values() if len(names) > 1] == []


@pytest.mark.built
def test_old_addresses_and_those_that_stay_lead_to_the_chapters():
    """Among those that stay are all that gradutils names."""
    leading = {name: page for name, page in pages().items() if 'name="robots"' in page.text}
    assert {f"notebooks/{old}.html" for old in moved.OLD} <= leading.keys()
    assert {f"chapters/{check.chapter}.html" for check in CHECKS} <= leading.keys()
    for name, page in leading.items():
        (place,) = page.links
        chapter = re.sub(r"^\w+/(\d\d_)?", "", name)
        assert re.fullmatch(rf"\.\./notebooks/\d\d_{chapter}", place)


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("", ""),
        ("Ada/gradients", "https://ada.github.io/gradients/"),
        ("ada/ada.github.io", "https://ada.github.io/"),
    ],
)
def test_the_address_is_that_of_the_repository_that_publishes(monkeypatch, repository, expected):
    monkeypatch.setenv("GITHUB_REPOSITORY", repository)
    assert address.address() == expected


@pytest.mark.parametrize("place", ["", "https://ada.github.io/gradients/"])
def test_the_links_of_the_page_for_lost_readers_hold_at_any_address(place):
    ((name, context, _),) = address.page_for_the_lost(None)
    app = SimpleNamespace(config=SimpleNamespace(html_baseurl=place))
    address.anchor_links(app, name, "page.html", context, None)
    assert context.get("metatags", "") == (place and f'<base href="{place}"/>')
    assert re.findall('href="([^"]+)"', context["body"])[:2] == ["book/index.html", "search.html"]


def test_code_keeps_its_text_and_an_element_only_for_what_is_coloured():
    source = "def f(x):\n    return np.tanh(x[0], 2.5)  # squashed\n"
    shown = highlight(source, PythonLexer(), code_blocks.Formatter(nowrap=True))
    assert html.unescape(re.sub("<[^>]+>", "", shown)) == source
    assert re.findall('class="(\\w+)"', shown) == ["k", "nf", "k", "o", "mi", "mf", "c1"]
