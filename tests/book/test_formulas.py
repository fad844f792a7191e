"""Formulas: MathML with its TeX, brackets that grow, and a font that has every character."""

import re
from xml.etree import ElementTree

import formulas
import pytest
from fontTools.ttLib import TTFont

from tests.book.built import pages
from tools import ROOT, math_font

TEX = re.compile(r'<annotation encoding="application/x-tex">[^<]+</annotation></semantics></math>$')


def test_a_formula_that_cannot_be_set_is_an_error_that_names_it_and_its_page():
    with pytest.raises(formulas.ExtensionError, match=r"book/index: .*nope.*Unknown command"):
        formulas.mathml(r"x + \nope", False, "book/index")


@pytest.mark.parametrize("tex", ["x'", r"a < b", r"\overline{g n}", r"\left(\tfrac12\right)\ln x"])
def test_a_formula_is_mathml_with_its_tex(tex):
    formula = ElementTree.fromstring(formulas.mathml(tex, True, "page"))
    namespace = "{http://www.w3.org/1998/Math/MathML}"
    assert (formula.tag, formula.get("display")) == (f"{namespace}math", "block")
    (annotation,) = formula.iter(f"{namespace}annotation")
    assert (annotation.text, annotation.get("encoding")) == (tex, "application/x-tex")


def test_only_brackets_of_left_and_right_are_stretched():
    assert 'class="stretched"' not in formulas.mathml("f(x) = [y]", False, "page")
    stretched = formulas.mathml(r"\left[\tfrac12\right)", False, "page")
    assert re.findall(r'<mo class="stretched"[^>]*>(.)</mo>', stretched) == ["[", ")"]


@pytest.mark.built
def test_every_formula_is_mathml_with_its_tex_before_any_script_runs():
    count = 0
    for name, page in pages().items():
        found = math_font.FORMULA.findall(page.text)
        assert [formula for formula in found if not TEX.search(formula)] == [], name
        places = re.findall(r'<span class="math[^"]*">|<div class="math-scroll"[^>]*>', page.text)
        assert len(places) == len(found), name
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
    assert {glyphs[ord(bracket)] for bracket in "()[]{}|‖√"} <= stretched


@pytest.mark.built
def test_the_font_has_every_character_of_the_formulas(font):
    """`python -m tools.math_font` adds one that is missing."""
    shown = set().union(*[math_font.characters(page.text) for page in pages().values()])
    assert set(map(ord, "xWσ𝑥𝜎=∑")) <= shown
    known = set(font.getBestCmap()) | {0xFE00}  # the last one chooses a form of a letter
    assert {chr(code) for code in shown - known} == set()
