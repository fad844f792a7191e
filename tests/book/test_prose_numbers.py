"""Numbers in the text agree with the code and the outputs beside them.

nbval recomputes outputs, not sentences. Here every number of two digits or more in the running text
of a notebook is looked up: a number of the code or the outputs must round to it. Three digits may
come from anywhere in the notebook; two must come from near by, as they are easily met by chance.
"""

import math
import re
from decimal import Decimal
from itertools import chain
from typing import NamedTuple

import nbformat
import numpy as np
import pytest
from scipy.special import digamma
from scipy.stats import norm

from gradutils import datasets
from gradutils.theory import chi, critical_sigma_w, fixed_point
from tools import ROOT, rules
from tools.figures import figure_data

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def mean_log_chi(n):
    """Mean logarithm of the length of a vector of n standard normal numbers."""
    return (math.log(2) + digamma(n / 2)) / 2


X0 = sigmoid(0.5)
NOTEBOOK, FIGURE = "printed in another section", "read off a figure's data"
#: Numbers that no code or output near by holds, by chapter: where they are, or what they are.
ELSEWHERE = {
    "01": {
        "0.71": 1 / math.sqrt(2), "0.98": NOTEBOOK,
        "0.69": math.log(2), "4.61": math.log(100), "6.91": math.log(1000),
    },
    "02": {"0.0625": 1 / 16, "3.4e38": 2.0**128, "1.5": NOTEBOOK},
    "03": {
        "0.693": math.log(2), r"2.2 \cdot 10^{-16}": 2.0**-52, "1024": FIGURE,
        "10.5": 10 * 1024**2 / 1e6, "0.0066": sigmoid(5) * (1 - sigmoid(5)),
    },
    "04": {
        r"1.7 \times 10^{24}": math.exp(100 * 0.558),
        "2.298": mean_log_chi(100), "9.95": math.exp(mean_log_chi(100)),
        "2.93": mean_log_chi(100) - mean_log_chi(1),
        "18.8": math.exp(mean_log_chi(100) - mean_log_chi(1)),
        "1.84": 2.60 / math.sqrt(2), "2.89": -2 / math.log(0.5),
        "0.61": math.exp(-0.5), "0.075": math.exp(-2.587), "148": 2 * 74, "126": 2 * 63,
        r"3.4 \times 10^{38}": 2.0**128,
    },
    "05": {"4.5 %": math.sqrt(2 / 1000)},
    "06": {
        r"3.4 \cdot 10^{38}": 2.0**128, r"1.4 \cdot 10^4": 1.1**100, "2.6": 1.1**10,
        "0.6225": X0, "0.2350": X0 * (1 - X0), "4.26": 1 / (X0 * (1 - X0)),
        "0.00025": 2e-4 + 5e-5, "7.8": 0.01 * 7.8e2,
        r"3.5 \cdot 10^{45}": NOTEBOOK, "0.95": NOTEBOOK,
    },
    "07": {
        "4.2": chi("sigmoid", 1.0) ** -0.5, "1.4": chi("relu", 1.0) ** -0.5,
        "0.42": FIGURE, "0.028": FIGURE, "2.7e-4": NOTEBOOK,
    },
    "08": {"0.33": FIGURE, "2.3": math.log(10)},
    "09": {"1.4": NOTEBOOK},
    "10": {
        "1,348": len(datasets.digits(np.random.default_rng(0))[0]),
        "6.8": math.sqrt(fixed_point("sigmoid", critical_sigma_w("sigmoid"))),
        "0.77": 1.24**2 / 2, "2.3": 29 * 5 / 64,
    },
    "11": {"0.9999": 1 - 1e-3 * 0.1},
    "12": {"2.303": math.log(10), "485": 3.4445**5},
    "13": {},
    "14": {"65,504": 65504, "0.15": NOTEBOOK},
    "15": {},
    "16": {
        "0.158": math.sqrt(0.4) / 4, "0.842": 1 - math.sqrt(0.4) / 4,
        "1.67": math.log((1 - math.sqrt(0.4) / 4) / (math.sqrt(0.4) / 4)),
        "1.08": sigmoid(3) + 1 / 8,
        "781": 26 * (2 + 26 + 1) + 27, "733": 4 * 12 * (2 + 12 + 1) + 13,
    },
    "17": {"2.6": NOTEBOOK, "0.37": NOTEBOOK, "0.81": NOTEBOOK, "4.2": NOTEBOOK, "3.9": NOTEBOOK},
    "18": {
        "0.73": sigmoid(1), "0.993": sigmoid(5), "0.37": sigmoid(5) ** 150, "65,504": 65504,
        "0.15": math.log10(2) / 2, "1.4": math.sqrt(2),
    },
    "19": {
        "485": 3.4445**5, "2.3": FIGURE, "1.65": math.sqrt(math.e), "0.1667": 1 / 6,
        "0.0023 %": 100 * norm.cdf((math.log(2.0**-25) - math.log(1024e-7)) / 2), "0.93": NOTEBOOK,
    },
    "20": {},
}  # fmt: skip
#: Sections that look back over the whole chapter.
WHOLE = ("Recap", "In practice", "Further reading")
FORMATTED = re.compile(
    r"(?<![\w.^_{\\/])(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+)"  # the digits
    r"(?:e([+-]?\d+)|\s*(?:\\cdot|\\times|×)\s*10\^(?:(\d)|\{(-?\d+)\}))?"  # a power of ten
    r"(?!\w)(?:\s*\\?%)?"
)
PLAIN = re.compile(r"(?<![A-Za-wyz_])(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?")
#: Years, parts of works, identifiers of preprints.
NAMES = re.compile(
    r"\b(?:19|20)\d\d\b(?!\.\d)|\bsections? [\d.]+\d|arXiv:[\d.]+|notebook, [\d.]+\d"
)


class Number(NamedTuple):
    """A number of the text: as it is written, its value, half a unit of its last digit."""

    written: str
    value: float
    half: float
    digits: int


def prose_numbers(source):
    """Yield the numbers in the running text and the formulas of Markdown."""
    text = rules.prose(re.sub(r"\$([^$]*)\$", r" \1 ", source))
    text = text.replace("{,}", ",").replace("−", "-").replace(r"\,", " ")
    for match in FORMATTED.finditer(NAMES.sub(lambda name: " " * len(name[0]), text)):
        digits = match[1].replace(",", "")
        whole = "." not in digits
        if whole:
            kept = digits.rstrip("0")
            power = len(digits) - len(kept)
        else:
            kept, power = digits.replace(".", "").lstrip("0"), -len(digits.partition(".")[2])
        if len(kept) < (3 if whole else 2):
            continue
        exponent = int(match[2] or match[3] or match[4] or 0)
        half = Decimal(5).scaleb(exponent + power - 1)
        value = float(Decimal(digits).scaleb(exponent))
        yield Number(match[0].strip(), value, float(half), len(kept))


def numbers(text):
    """Return the absolute values of all numbers in code or in an output."""
    return [abs(float(n)) for n in PLAIN.findall(re.sub(r"(?<=\d)[,_](?=\d{3})", "", text))]


def leaves(data):
    """Yield the numbers and texts in the data of a figure."""
    if isinstance(data, dict | list):
        values = data.values() if isinstance(data, dict) else data
        yield from chain.from_iterable(map(leaves, values))
    elif data is not None:
        yield data


def computed(cells):
    """Return (numbers of code, outputs and figures' texts, numbers that figures draw)."""
    printed, drawn = [], []
    for cell in cells:
        if cell.cell_type == "code":
            printed += numbers(cell.source)
            for output in cell.outputs:
                printed += numbers(rules.output_text(output))
                for leaf in leaves(figure_data(output.get("data", {}))):
                    if isinstance(leaf, str):
                        printed += numbers(leaf)
                    else:
                        drawn.append(abs(leaf))
    return printed, drawn


def sections(notebook):
    """Return (title, texts, code cells) of each section of the second level."""
    found = [("start", [], [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found[-1][2].append(cell)
            continue
        first, *others = re.split(r"^## (?=\S)", cell.source, flags=re.M)
        found[-1][1].append(first)
        for text in others:
            title, _, rest = text.partition("\n")
            found.append((title, [rest], []))
    return found


def looked_up(notebook):
    """Yield (title of the section, number of the text, numbers that may support it)."""
    parts = sections(notebook)
    pools = [computed(cells)[0] for *_, cells in parts]
    everywhere = [*chain(*pools)]
    for i, (title, texts, _) in enumerate(parts):
        near = everywhere if title.startswith(WHOLE) else [*chain(*pools[max(0, i - 1) : i + 1])]
        for number in chain.from_iterable(map(prose_numbers, texts)):
            yield title, number, near if number.digits < 3 else everywhere


def rounds(number, pool):
    """Tell whether a number of the pool, or a hundred times it for a share, rounds to `number`."""
    scales = (1, 100) if number.written.endswith("%") else (1,)
    most = number.half * (1 + 1e-9)
    return any(abs(n * scale - number.value) <= most for n in pool for scale in scales)


def unsupported(notebook, elsewhere):
    """Return (numbers of the text that nothing supports, keys of `elsewhere` that were needed)."""
    everywhere, drawn = computed(notebook.cells)
    pools = {NOTEBOOK: everywhere, FIGURE: drawn, None: []}
    strays, needed = [], set()
    for title, number, pool in looked_up(notebook):
        if not rounds(number, pool):
            needed.add(number.written)
            source = elsewhere.get(number.written)
            if not rounds(number, pools.get(source, [source])):
                strays.append(f"{title}: {number.written}")
    return strays, needed & elsewhere.keys()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_number_of_the_text_is_computed(path):
    elsewhere = ELSEWHERE.get(path.name[:2], {})
    strays, needed = unsupported(nbformat.read(path, as_version=4), elsewhere)
    assert not strays
    assert needed == elsewhere.keys(), "exceptions that no number needs"


def lesson(text, code="x = 1", output="", title="## Part"):
    """Return the cells of one section: a text, and code that prints something."""
    stream = nbformat.v4.new_output("stream", name="stdout", text=output)
    return [
        nbformat.v4.new_markdown_cell(f"{title}\n\n{text}"),
        nbformat.v4.new_code_cell(code, outputs=[stream]),
    ]


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("It falls by 0.72.", "0.7183"),
        ("a share of 72 %, or $71.8\\,\\%$", "0.7183"),
        ("It grows to $1.7 \\cdot 10^{24}$.", "1.66e+24"),
        ("17,000 times smaller", "16981.2"),
        ("of $-0.635$ and −0.635", "-0.6352"),
        ("In 2010 [5.5 times](there.md), see section 2.1, about 90 or 9, `0.333`.", ""),
    ],
)
def test_a_number_that_rounds_is_supported(text, output):
    assert unsupported(nbformat.v4.new_notebook(cells=lesson(text, output=output)), {}) == (
        [],
        set(),
    )


@pytest.mark.parametrize(
    ("text", "output", "stray"),
    [
        ("It falls by 0.73.", "0.7183", "0.73"),
        ("It falls by 0.718.", "0.7193", "0.718"),
        ("a share of 73 %", "0.7183", None),  # two digits without a point are beneath notice
        ("a share of 73.1 %", "0.7183", "73.1 %"),
        ("a factor of 71.8", "0.7183", "71.8"),
        (r"It grows to $1.7 \cdot 10^{25}$.", "1.66e+24", r"1.7 \cdot 10^{25}"),
        ("18,000 times smaller", "16981.2", None),
        ("18,100 times smaller", "16981.2", "18,100"),
    ],
)
def test_a_number_that_drifted_is_found(text, output, stray):
    strays, _ = unsupported(nbformat.v4.new_notebook(cells=lesson(text, output=output)), {})
    assert strays == ([f"Part: {stray}"] if stray else [])


def test_two_digits_come_from_near_by_and_three_from_anywhere():
    far = lesson("", output="0.12 0.345", title="## First") + lesson("", title="## Second")
    cells = far + lesson("0.12 and 0.345", title="## Third") + lesson("0.12", title="## Recap")
    assert unsupported(nbformat.v4.new_notebook(cells=cells), {})[0] == ["Third: 0.12"]
    book = nbformat.v4.new_notebook(cells=cells)
    assert unsupported(book, {"0.12": NOTEBOOK}) == ([], {"0.12"})
    assert unsupported(book, {"0.12": 0.124}) == ([], {"0.12"})
    assert unsupported(book, {"0.12": 0.126})[0] == ["Third: 0.12"]


def test_most_slips_are_caught():
    """Of all numbers of the text, moved by one to seven units of their last digit, 80 % stray."""
    caught = [
        not rounds(number._replace(value=number.value + 2 * units * number.half), pool)
        for path in NOTEBOOKS
        for _, number, pool in looked_up(nbformat.read(path, as_version=4))
        for units in (-7, -5, -3, -2, -1, 1, 2, 3, 5, 7)
    ]
    assert np.mean(caught) > 0.8
