"""The one style sheet of the book: what stays, what goes, and that its pictures are found."""

import re

import pytest
import sheets

from tools import ROOT

HTML = ROOT / "_build" / "html"


@pytest.mark.parametrize(
    ("css", "expected"),
    [
        ("p{color:red}", "p{color:red}"),
        (".used{color:red}", ".used{color:red}"),
        (".unknown{color:red}", ""),
        ("#unknown p{color:red}", ""),
        (".used .unknown, p > .used:hover{color:red}", "p > .used:hover{color:red}"),
        ("p:not(.unknown){color:red}", "p:not(.unknown){color:red}"),
        ("p[class*=unknown]{color:red}", "p[class*=unknown]{color:red}"),
        (".bs-tooltip-start{color:red}", ".bs-tooltip-start{color:red}"),
        ("@media print{.unknown{color:red}}", ""),
        ("@media print{.unknown{top:0}p{top:0}}", "@media print{p{top:0}}"),
        ("@font-face{font-family:a}", "@font-face{font-family:a}"),
        (":root{--a:#fff}", ":root{--a:#fff}"),
    ],
)
def test_rules_for_unknown_names_go_and_all_others_stay(css, expected):
    assert sheets.reduced(css, {"used"}) == expected


def test_addresses_are_those_seen_from_the_new_place(tmp_path):
    path = tmp_path / "styles" / "a.css"
    path.parent.mkdir()
    path.write_text(
        """@import "../b.css"; p{background:url("c.png")} q{background:url(data:x)}""", "utf-8"
    )
    assert sheets.with_imports(path) == [tmp_path / "b.css", path]
    assert sheets.rebased(path, tmp_path) == (
        """ p{background:url("styles/c.png")} q{background:url(data:x)}"""
    )


def test_a_sheet_that_stands_apart_is_named(tmp_path):
    a, b, c = (tmp_path / f"{name}.css" for name in "abc")
    assert sheets.in_order([[a, c], [a, b, c]]) == [a, b, c]
    with pytest.raises(ValueError, match="c.css"):
        sheets.in_order([[a, b], [c]])


@pytest.mark.built
def test_every_page_has_one_sheet_and_what_that_names_is_there():
    pages = set(HTML.rglob("*.html")) - set((HTML / "_static").rglob("*.html"))
    found = {path: re.findall(r'rel="stylesheet"', path.read_text("utf-8")) for path in pages}
    leading_on = {path for path in pages if "location.replace(" in path.read_text("utf-8")}
    without = {path for path, links in found.items() if len(links) != 1}
    assert without == {HTML / "index.html", *leading_on}
    css = (HTML / "_static" / "book.css").read_text("utf-8")
    names = re.findall(r"""url\(["']?(?!data:|#)([^"')?#]+)""", css)
    assert "latin-modern-math.woff2" in names
    assert [name for name in names if not (HTML / "_static" / name).is_file()] == []
