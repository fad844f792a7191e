"""The ledger and the reproductions: figures come from the chapters, verdicts from a fixed list."""

import json
import re

import pytest
import stored

from tools import ROOT

LEDGER_VERDICTS = {"true", "false", "true with conditions"}
VERDICTS = {"reproduced", "reproduced in kind", "reproduced in part", "mechanism shown"}
#: What may hold digits: roles, links, code, what the entry rests on, the paper's own claim.
NO_FIGURE = re.compile(
    r"\{\w+\}`[^`]*`|`[^`]*`|\[[^\]]*\]\([^)]*\)|^\*Rests on.*?\*$|^See .*?(?=^$|\Z)|"
    r"^\*\*Claim\.\*\*.*?(?=^$)",
    flags=re.M | re.S,
)
#: What needs no number of seeds.
ARGUMENT = re.compile(
    r"theorem|derivation|argument|algebra|counterexample|computed|series|rule|exact|recursion|"
    r"algorithm|program"
)
FORMULA = re.compile(r"\$[^$]*\$")
IN_RECAP = re.compile(r"^- In the \[ledger\]\(\.\./book/ledger\.md\): (.+)$", flags=re.M)


def entries(page, level):
    """Return heading -> text of the entries of a page."""
    text = (ROOT / "book" / f"{page}.md").read_text("utf-8")
    parts = re.split(rf"^{level} (?=\S)", text, flags=re.M)[1:]
    found = dict(part.partition("\n")[::2] for part in parts)
    return {heading: re.split(r"^## ", body, flags=re.M)[0] for heading, body in found.items()}


LEDGER, REPRODUCTIONS = entries("ledger", "###"), entries("reproductions", "##")
ALL = [*LEDGER.items(), *REPRODUCTIONS.items()]


def named(chapter):
    """Return the headings and the names of the figures of a chapter."""
    notebook = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text("utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    figures = [cell["metadata"].get("mystnb", {}).get("figure", {}) for cell in notebook["cells"]]
    headings = re.findall(r"^#+ (.+?)(?: \(\w+\))?$", text, flags=re.M)
    return {re.sub(r"[`*$]", "", heading) for heading in headings}, {f.get("name") for f in figures}


def verdicts(text, words):
    """Return the words in bold that are verdicts."""
    bold = {
        " ".join(found.lower().split()).rstrip(".:")
        for found in re.findall(r"\*\*([^*]+)\*\*", text)
    }
    return bold & words


@pytest.mark.parametrize(("heading", "text"), ALL, ids=[heading for heading, _ in ALL])
def test_an_entry_has_its_cell_what_it_rests_on_and_no_typed_figure(heading, text):
    for reference in re.findall(r"\{stored\}`([^`]*)`", text):
        stored.look_up(ROOT / "notebooks", reference)  # a LookupError says what is missing
    see = re.search(r"^See .*", text, flags=re.M | re.S)[0]
    chapters = re.findall(r"\.\./notebooks/(\w+)\.ipynb", see)
    headings, figures = (set().union(*sets) for sets in zip(*map(named, chapters), strict=True))
    cells = re.findall(r"\{numref\}`([^`]*)`", see)
    assert set(cells) <= figures
    sections = [" ".join(name.split()) for name in re.findall(r"(?<!\*)\*([^*]+)\*", see)]
    assert {name.rstrip(".") for name in sections} <= {name.rstrip(".") for name in headings}
    assert cells or sections or "{stored}" in text, "no cell"
    rests = re.search(r"^\*Rests on: (.+)\.\*$", text, flags=re.M)
    assert rests and (re.search(r"\d", rests[1]) or ARGUMENT.search(rests[1])), "how many seeds?"
    plain = FORMULA.sub(lambda f: f[0] if "." in f[0] or "10^" in f[0] else "", text)
    assert not re.findall(r"(?<![A-Za-z\d])\d[\d.,]*", NO_FIGURE.sub("", plain)), "a typed figure"


@pytest.mark.parametrize("heading", LEDGER)
def test_the_ledger_has_one_verdict_which_is_that_of_the_chapter(heading):
    words = verdicts(LEDGER[heading], LEDGER_VERDICTS)
    assert len(words) == 1, words
    chapter = re.search(r"^See .*?\.\./notebooks/(\w+)\.ipynb", LEDGER[heading], re.M | re.S)[1]
    notebook = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text("utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    recap = IN_RECAP.search(text)
    assert recap, f"the recap of {chapter} has no line about the ledger"
    said = dict(re.findall(r"\[([^\]]+)\]\([^)]*\), ([a-z ]+)[;.]", recap[1]))
    assert said.get(heading) == words.pop()


def test_no_recap_has_a_verdict_that_the_ledger_lacks():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = "\n".join("".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"])
        recap = IN_RECAP.search(text)
        said = re.findall(r"\[([^\]]+)\]\([^)]*\), ", recap[1]) if recap else []
        assert set(said) <= LEDGER.keys(), path.name


@pytest.mark.parametrize("heading", REPRODUCTIONS)
def test_a_reproduction_has_one_verdict_and_no_difference_means_none(heading):
    words = verdicts(REPRODUCTIONS[heading], VERDICTS)
    assert len(words) == 1, words
    after = re.search(
        r"^\*\*(?:Repro|Mecha)[^*]*\*\*(.*?)(?=^$)", REPRODUCTIONS[heading], re.M | re.S
    )
    assert (words == {"reproduced"}) == (not after[1].strip())


def notebook(folder, printed):
    """Write a chapter of one cell that printed something."""
    output = {"output_type": "stream", "name": "stdout", "text": printed}
    cell = {"cell_type": "code", "id": "for-bias", "outputs": [output], "source": ""}
    (folder / "17_gates.ipynb").write_text(json.dumps({"cells": [cell]}), "utf-8")


@pytest.mark.parametrize(
    ("printed", "before", "shown"),
    [
        ("bias 0: 10^-22\nbias 1: 10^-9\n", "bias 1:", "10−9"),
        ("rate 4.4e-12, last 8.1e-01", "last", "0.81"),
        ("rate 4.4e-12, last 8.1e-01", "rate", "4.4 × 10−12"),
        ("above 1e4, then 2e+02", "above", "104"),
        ("above 1e4, then 2e+02", "then", "200"),
        ("learned in 7 of 8 seeds, failed", "learned in", "7 of 8"),
        ("width 50, 3.1\nwidth 50, rest 1,024, and", "rest", "1,024"),
        ("a b 3\na c 4", "a…c", "4"),
    ],
)
def test_a_figure_changes_with_the_stored_output(tmp_path, printed, before, shown):
    notebook(tmp_path, printed)
    _, number = stored.look_up(tmp_path, f"17:for-bias:{before}")
    assert "".join(node.astext() for node in stored.shown(number)) == shown
    notebook(tmp_path, printed.replace("7 of", "6 of").replace("3.1", "3.2"))
    if "7 of" in printed:
        assert stored.look_up(tmp_path, f"17:for-bias:{before}")[1][1] == "6"


@pytest.mark.parametrize(
    ("reference", "missing"),
    [("17:for-bias:bias 2:", "no number follows 'bias 2:'"), ("17:other:bias", "no code cell")],
)
def test_a_reference_without_a_number_says_what_is_missing(tmp_path, reference, missing):
    notebook(tmp_path, "bias 0: 1")
    with pytest.raises(LookupError, match=missing):
        stored.look_up(tmp_path, reference)
