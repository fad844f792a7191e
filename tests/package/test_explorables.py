import hashlib
import json
import re

import pytest
import traitlets

from gradutils.activations import ACTIVATIONS
from gradutils.diagnosis import THRESHOLDS
from gradutils.explorables import EXPLORABLES, Explorable
from tools import ROOT

BUILT = ROOT / "src" / "gradutils" / "explorables" / "explorables.js"
SOURCES = ROOT / "book" / "explorables"
SPECIFICATION = json.loads(BUILT.with_suffix(".json").read_text("utf-8"))


# The built script and its sources


def test_the_script_was_built_from_these_sources():
    paths = sorted((SOURCES / "src").iterdir(), key=lambda path: path.name)
    paths += [SOURCES / "explorables.json", SOURCES / "package-lock.json", SOURCES / "build.mjs"]
    limits = {kind: THRESHOLDS[kind].limit for kind in ("vanishing", "exploding")}
    tables = json.dumps({"activations": list(ACTIVATIONS), "limits": limits}).encode()
    stills = sorted((SOURCES / "static").iterdir())
    banner = BUILT.read_text("utf-8").split("*/")[0]
    for what, data in {
        "sources": b"".join(path.read_bytes() for path in paths) + tables,
        "stills": b"".join(path.read_bytes() for path in stills),
    }.items():
        digest = hashlib.sha256(data).hexdigest()
        assert f"{what} {digest}" in banner, f"the {what} have changed: run `make explorables`"


def test_style_and_controls_were_built_from_these_sources():
    style, controls = (SOURCES / f"explorables.{ending}" for ending in ("css", "json"))
    assert BUILT.with_suffix(".css").read_text("utf-8").endswith(style.read_text("utf-8"))
    activations = f'"options": {json.dumps(list(ACTIVATIONS))}'
    written_out = controls.read_text("utf-8").replace('"options": "activations"', activations)
    assert json.loads(written_out) == SPECIFICATION


def test_each_figure_has_a_picture_for_pages_without_script():
    assert {path.stem for path in (SOURCES / "static").iterdir()} == set(EXPLORABLES)


def test_the_lock_names_no_address():
    assert "://" not in (SOURCES / "package-lock.json").read_text("utf-8")


def test_the_script_asks_no_other_host():
    addresses = set(re.findall(r"https?://[\w./]+", BUILT.read_text("utf-8")))
    assert addresses <= {"http://www.w3.org/2000/svg"}


# The controls


@pytest.mark.parametrize("name", EXPLORABLES)
def test_controls_are_complete(name):
    for control in SPECIFICATION[name]["controls"]:
        figure = Explorable(name)
        assert getattr(figure, control["name"]) == control["default"]
        for bound in ("min", "max"):
            if bound in control:
                setattr(figure, control["name"], control[bound])
        for option in control.get("options", []):
            setattr(figure, control["name"], option)
        assert getattr(figure, control["name"]) == (
            control["max"] if "max" in control else control.get("options", [control["default"]])[-1]
        )


@pytest.mark.parametrize("name", ["depth", "order"])
def test_activations_are_all_of_the_package(name):
    (options,) = (
        c["options"] for c in SPECIFICATION[name]["controls"] if c["name"] == "activation"
    )
    assert options == list(ACTIVATIONS)


def test_page_and_figures_have_the_same_colours_of_the_regimes():
    sheets = (
        (ROOT / "book" / "_static" / "gradutils.css").read_text("utf-8"),
        (BUILT.with_suffix(".css")).read_text("utf-8"),
    )
    for regime in ("vanishing", "healthy", "exploding"):
        page, figure = (re.findall(rf"--book-{regime}: (#\w+);", sheet) for sheet in sheets)
        assert len(page) == 2
        assert figure == page


# The widget


def test_what_the_page_is_given():
    data, _ = Explorable("depth", depth=60)._repr_mimebundle_()
    assert data["text/plain"] == "Explorable('depth', depth=60)"
    assert 'data-explorable="depth" data-settings="{&quot;depth&quot;: 60}"' in data["text/html"]
    assert repr(Explorable("depth", depth=9, residual=True)) == (
        "Explorable('depth', depth=9, residual=True)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "dept"}, ValueError, "name must be one of depth.*; received .dept."),
        ({"name": "depth", "gain": 1}, ValueError, "must be one of depth, .*; received 'gain'"),
        ({"name": "depth", "depth": 500}, traitlets.TraitError, "'depth' .* than 100, .* 500"),
        ({"name": "depth", "width": 33}, traitlets.TraitError, r"'width' .* any of \[16, .* 33"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        Explorable(**arguments)
