"""Make the font of the book's formulas: Latin Modern Math, with what formulas need.

Run it as `python -m tools.math_font` where Debian's package fonts-lmodern is installed. It writes
book/_static/latin-modern-math.woff2, and needs the extra `test` for the format.
"""

from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

SOURCE = Path("/usr/share/texmf/fonts/opentype/public/lm-math/latinmodern-math.otf")
TARGET = Path(__file__).parents[1] / "book" / "_static" / "latin-modern-math.woff2"
#: Ranges of code points, with their last one.
KEPT = (
    (0x20, 0x7E), (0xAF, 0xAF), (0xB1, 0xB1), (0xB7, 0xB7), (0xD7, 0xD7), (0x131, 0x131),  # Latin
    (0x305, 0x305), (0x2C6, 0x2DC), (0x391, 0x3F6),  # overline, accents; Greek
    (0x2016, 0x2016), (0x2032, 0x2034), (0x203E, 0x203E), (0x2061, 0x2061),  # marks, primes
    (0x210E, 0x2113), (0x2190, 0x2194), (0x21A6, 0x21A6), (0x21D0, 0x21D4),  # letters, arrows
    (0x2200, 0x221E), (0x2223, 0x222B), (0x223C, 0x2248), (0x2260, 0x226B),  # operators
    (0x2295, 0x2299), (0x22A4, 0x22A5), (0x22C5, 0x22C5), (0x22EE, 0x22F1), (0x25A1, 0x25A1),
    (0x2308, 0x230B), (0x27E8, 0x27E9), (0x27F5, 0x27FA),  # brackets, long arrows
    (0x1D434, 0x1D467), (0x1D6E2, 0x1D71B),  # italic
    (0x1D4A9, 0x1D4A9), (0x1D53C, 0x1D53C), (0x1D5B3, 0x1D5B3),  # the normal law, mean, transpose
    (0x1D7CE, 0x1D7D7), (0xFE00, 0xFE00),  # bold digits; the choice of a form
)  # fmt: skip
#: Browsers raise a prime as a superscript, so it must look like one that is still to be raised;
#: Firefox takes that form by itself, Chromium does not.
PRIMES = (0x2032, 0x2033, 0x2034)
OVERLINE, COMBINING_OVERLINE = 0x203E, 0x305  # only the second grows with what is under it
NOTE = "A subset of Latin Modern Math 1.959 for the web; primes and overline take other glyphs."


def main():
    """Write the font."""
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
    subsetter.populate(unicodes=[code for first, last in KEPT for code in range(first, last + 1)])
    subsetter.subset(font)
    font.flavor = "woff2"
    font.save(TARGET)


if __name__ == "__main__":
    main()
