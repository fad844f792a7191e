"""Predictions: how a notebook writes one, and that the right option is nearest to the measured."""

import json
import re
from hashlib import sha256
from types import SimpleNamespace

import learning
import nbformat
import predictions
import pytest
import stored
from lists import text

from tools import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def test_the_script_is_built_from_its_sources():
    folder, digest = ROOT / "book" / "learning", sha256()
    for path in [*sorted((folder / "src").iterdir()), folder / "package-lock.json"]:
        digest.update(path.read_bytes())
    banner = (ROOT / "book" / "_static" / "learning.js").read_text("utf-8").partition("\n")[0]
    assert digest.hexdigest() in banner, "run `make learning`"


@pytest.mark.parametrize(
    "table",
    [{"right": 1, "between": [0, 1, 0.1]}, {"measured": "cell:text"}, {"right": 1, "wrong": 2}],
)
def test_a_prediction_has_a_right_option_or_a_range(table):
    with pytest.raises(predictions.ExtensionError, match="`right`, or `between`"):
        predictions.outcome(None, "01", table, options=3)


def test_the_right_option_is_one_of_those_given():
    with pytest.raises(predictions.ExtensionError, match="1 to 3.*received 4"):
        predictions.outcome(None, "01", {"right": 4}, options=3)


def test_a_number_is_read_from_the_stored_output():
    app = SimpleNamespace(srcdir=ROOT)
    table = {"right": 2, "measured": "for-layers-net-in-small-items:1 layer(s): share right"}
    measured = predictions.outcome(app, "01", table, options=3)["data-measured"]
    assert 0.5 < float(measured) < 0.9


@pytest.mark.parametrize(
    ("printed", "measured", "value"),
    [
        ("x 4.0e-13", "4.0 × 10⁻¹³", "4.0e-13"),
        ("x 29 of 80 steps", "29 of 80", "29"),
        ("x 1,024", "1,024", "1024"),
    ],
)
def test_a_number_is_shown_as_text_and_compared_as_a_number(tmp_path, printed, measured, value):
    cell = {"id": "cell", "cell_type": "code", "outputs": [{"text": [printed]}]}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_x.ipynb").write_text(json.dumps({"cells": [cell]}), "utf-8")
    table = {"measured": "cell:x", "between": [0, 100, 1]}
    attributes = predictions.outcome(SimpleNamespace(srcdir=tmp_path), "01", table, options=0)
    assert attributes == {"data-measured": measured, "data-value": value}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_prediction_of_a_chapter_has_a_name_of_its_own(path):
    ids = [p["id"] for p in learning.counts(path.name, nbformat.read(path, 4).cells)["predictions"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_right_option_is_the_nearest_where_options_are_numbers(path):
    words = text(nbformat.read(path, 4).cells, "markdown")
    for question, table in predictions.written(words):
        options = [NUMBER.fullmatch(o) for o in re.findall(r"^- (.+)$", question, flags=re.M)]
        if "measured" in table and options and all(options):
            _, number = stored.look_up(path.parent, f"{path.name[:2]}:{table['measured']}")
            measured = float(number[0].split(" of ")[0].replace(",", "").replace("^", "e"))
            off = [abs(float(option[0].replace(",", "")) - measured) for option in options]
            assert off[table["right"] - 1] == min(off), question


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_option_has_no_link_since_it_becomes_a_button(path):
    words = text(nbformat.read(path, 4).cells, "markdown")
    for question, _ in predictions.written(words):
        assert not [o for o in re.findall(r"^- (.+)$", question, flags=re.M) if "](" in o]
