"""A number of three digits or more in a chapter's text is one that the chapter computes.

nbval recomputes outputs, not sentences. Here every such number of the text is looked for among the
numbers of the chapter's code, outputs and figures, one of which must round to it. So a number that
was left behind by a change of the code is found; a number that is right by chance is not. What a
reader can work out, and what another place of the book computes, stands below.
"""

import json
import re

import nbformat
import pytest

from gradutils.plots import FIGURE_MIME
from tools import ROOT, rules

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Chapter -> numbers that are in its text and nowhere in its code, outputs and figures.
WORKED_OUT = {
    "01": {"4.61", "6.91"},
    "03": {"0.693", "10.5", "1.209", "1024"},
    "04": {"2.298", "9.95", "18.8", "126", "148"},
    "05": {"112", "133", "139"},
    "06": {"0.6225", "0.2350"},
    "10": {"1,348"},
    "11": {"0.9999"},
    "12": {"2.303", "485"},
    "14": {"65,504"},
    "17": {"0.158", "0.842", "1.67", "781"},
    "19": {"0.993", "1.46", "199", "65,504"},
    "21": {"485"},
}
NUMBER = re.compile(
    r"(?<![\w.^_{\\/])(\d{1,3}(?:,\d{3})+|\d*\.\d+|\d+)"  # the digits
    r"(?:e([+-]?\d+)|\s*(?:\\cdot|\\times|×)\s*10\^(?:(\d)|\{(-?\d+)\}))?"  # a power of ten
    r"(?!\w)(\s*\\?%)?"
)
PLAIN = re.compile(r"(?<![A-Za-z_])(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?")
#: Years, parts of works, identifiers of preprints.
NAMES = re.compile(
    r"\b(?:19|20)\d\d\b(?!\.\d)|\bsections? [\d.]+\d|arXiv:[\d.]+|notebook, [\d.]+\d"
)


def numbers_of_the_text(notebook):
    """Yield (as it is written, value, half a unit of its last digit) of each long number."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    text = rules.prose(re.sub(r"\$([^$]*)\$", r" \1 ", "\n\n".join(texts)))
    text = NAMES.sub(" ", text.replace("{,}", ",").replace(r"\,", " "))
    for match in NUMBER.finditer(text):
        digits = match[1].replace(",", "")
        decimals = len(digits.partition(".")[2])
        significant = digits.replace(".", "").lstrip("0") if decimals else digits.rstrip("0")
        if len(significant) >= 3:
            unit = 10.0 ** (-decimals if decimals else len(digits) - len(significant))
            scale = 10.0 ** int(match[2] or match[3] or match[4] or 0)
            scale *= 0.01 if match[5] else 1
            yield match[0].strip(), float(digits) * scale, unit * scale / 2


def numbers_of_the_code(notebook):
    """Return the absolute values of the numbers in code, outputs and figures."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            drawn = [output.get("data", {}).get(FIGURE_MIME, "") for output in cell.outputs]
            drawn = [text if isinstance(text, str) else json.dumps(text) for text in drawn]
            texts = [cell.source, *map(rules.output_text, cell.outputs), *drawn]
            found += re.findall(PLAIN, re.sub(r"(?<=\d)[,_](?=\d{3})", "", "\n".join(texts)))
    return [float(number) for number in found]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_long_number_of_the_text_is_computed(path):
    notebook = nbformat.read(path, as_version=4)
    computed = numbers_of_the_code(notebook)
    strays = {
        written
        for written, value, half in numbers_of_the_text(notebook)
        if not any(abs(number - value) <= half * (1 + 1e-9) for number in computed)
    }
    assert strays <= WORKED_OUT.get(path.stem[:2], set())
