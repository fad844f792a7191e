"""Make the font of the book's formulas: Latin Modern Math, with the characters that they show.

Run it as `python -m tools.math_font` after `make book`, where Debian's package fonts-lmodern is
installed. It writes book/_static/latin-modern-math.woff2, and needs the extra `test` for it.
"""

import html
import re
import unicodedata
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

from tools import ROOT

SOURCE = Path("/usr/share/texmf/fonts/opentype/public/lm-math/latinmodern-math.otf")
TARGET = ROOT / "book" / "_static" / "latin-modern-math.woff2"
FORMULA = re.compile(r"<math .*?</math>", re.DOTALL)
ANNOTATION = re.compile(r"<annotation.*?</annotation>", re.DOTALL)
#: A browser shows an <mi> of one letter as one of these, which are italic.
ITALIC = (0x210E, *range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C))
#: Browsers raise a prime as a superscript, so it must look like one that is still to be raised;
#: Firefox takes that form by itself, Chromium does not.
PRIMES = (0x2032, 0x2033, 0x2034)
ROOT_SIGN = 0x221A  # Browsers draw it for <msqrt>, where it stands nowhere in the text.
OVERLINE, COMBINING_OVERLINE = 0x203E, 0x305  # only the second grows with what is under it
NOTE = "A subset of Latin Modern Math 1.959 for the web; primes and overline take other glyphs."


def characters(text):
    """Return the code points that the formulas of a page show.

    >>> sorted(map(chr, characters("<math ><mi>x</mi><mo>&lt;</mo><mi>ln</mi></math>")))
    ['<', 'l', 'n', 'x', '𝑥']
    """
    formulas = [ANNOTATION.sub("", formula) for formula in FORMULA.findall(text)]
    letters = {letter for formula in formulas for letter in re.findall("<mi>(.)</mi>", formula)}
    italic = {code for code in ITALIC if unicodedata.normalize("NFKC", chr(code)) in letters}
    shown = html.unescape(re.sub("<[^>]+>", "", "".join(formulas)))
    return italic | {ord(sign) for sign in shown if not sign.isspace()}


def main():
    """Write the font."""
    pages = (ROOT / "_build" / "html").rglob("*.html")
    kept = set().union(*[characters(page.read_text("utf-8")) for page in pages])
    if not kept:
        raise SystemExit("There are no built pages with formulas. Build them with: make book")
    font = TTFont(SOURCE, recalcTimestamp=False)
    glyphs = dict(font.getBestCmap())
    moved = {prime: f"{glyphs[prime]}.st" for prime in PRIMES}
    moved[OVERLINE] = glyphs[COMBINING_OVERLINE]
    for table in font["cmap"].tables:
        if table.isUnicode() and table.format != 14:
            table.cmap.update(moved)
    font["name"].setName(NOTE, 10, 3, 1, 0x409)
    options = subset.Options(layout_features=["ssty"], name_IDs=["*"], hinting=False)
    options.drop_tables += ["FFTM"]
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=kept | {ord(" "), ROOT_SIGN})
    subsetter.subset(font)
    font.flavor = "woff2"
    font.save(TARGET)


if __name__ == "__main__":
    main()
