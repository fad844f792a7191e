"""The judge is judged: a notebook that draws or prints something else must fail."""

import copy
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from gradutils.plots import FIGURE_MIME
from tools import ROOT
from tools.figures import figure_data, figure_differences
from tools.notebooks import normalise, problems, refresh, serialise

X = np.linspace(0, 6, 50)


def figure(y, scale="linear", **changes):
    line = {"label": "He", "style": ["C0", "-"], "x": list(X), "y": list(y), **changes}
    return [{"labels": ["", "x", "y"], "scales": ["linear", scale], "lines": [line]}]


def test_equal_figures_do_not_differ():
    assert figure_differences(figure(np.sin(X)), figure(np.sin(X) + 1e-4)) == []


def test_a_message_names_axes_artist_and_size():
    (message,) = figure_differences(figure(np.sin(X)), figure(np.cos(X)))
    assert re.match(r"axes 1, lines 1 \('He'\), y: \d+ of 50 numbers differ", message)


@pytest.mark.parametrize(
    "drawn",
    [
        figure(np.sin(X), label="Xavier"),
        figure(np.sin(X), style=["C1", "-"]),
        figure(np.sin(X)[:-1]),
        figure(np.sin(X), scale="log"),
        figure([None, *np.sin(X)[1:]]),
        figure(np.sin(X) + 2.1e-3),
        figure(np.sin(X)) * 2,
        [],
    ],
)
def test_every_kind_of_difference_is_seen(drawn):
    assert figure_differences(figure(np.sin(X)), drawn)


def test_missing_numbers_agree_only_with_missing_numbers():
    with_gap = figure([None, *np.sin(X)[1:]])
    assert figure_differences(with_gap, with_gap) == []
    assert figure_differences(with_gap, figure(np.sin(X)))


def test_on_a_logarithmic_axis_the_smallest_number_counts_too():
    decay = 10.0 ** -np.arange(50)
    other = decay.copy()
    other[-1] *= 2
    assert figure_differences(figure(decay, "log"), figure(decay * 1.005, "log")) == []
    assert figure_differences(figure(decay, "log"), figure(other, "log"))


def test_a_constant_is_compared_by_its_magnitude():
    assert figure_differences(figure([7.0] * 50), figure([7.005] * 50)) == []
    assert figure_differences(figure([7.0] * 50), figure([7.02] * 50))


def run_nbval(folder, *options):
    command = [
        sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), str(folder), "-q",
        "-rA", "--nbval", "--nbval-current-env", "--color=no", "-p", "no:cacheprovider", *options,
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def change_curve(data, change):
    """Replace the ordinates y of the first curve in a figure's data by change(y)."""
    figures = figure_data(data)
    line = figures[0]["lines"][0]
    line["y"] = change(line["y"])
    data[FIGURE_MIME] = json.dumps(figures, sort_keys=True, ensure_ascii=False)


def mutants(executed):
    """Yield cells of the sine notebook whose stored outputs are not what their code yields."""
    number, sine = executed.cells[1:]
    wrong_number = copy.deepcopy(number)
    wrong_number.outputs[0].text = "0.1235\n"
    yield wrong_number
    cosine = copy.deepcopy(sine)
    change_curve(cosine.outputs[0].data, lambda y: np.cos(X).tolist())
    yield cosine
    bare = copy.deepcopy(sine)
    del bare.outputs[0].data[FIGURE_MIME]
    yield bare
    missing = copy.deepcopy(sine)
    missing.outputs = []
    yield missing


def test_mutated_cells_fail_and_the_true_ones_pass(executed, tmp_path):
    executed.cells += list(mutants(executed))
    (tmp_path / "sine.ipynb").write_text(serialise(normalise(executed)), "utf-8")
    result = run_nbval(tmp_path)
    assert re.findall(r"^PASSED .*::Cell (\d)", result.stdout, flags=re.M) == ["0", "1", "2"]
    assert re.findall(r"^FAILED .*::Cell (\d)", result.stdout, flags=re.M) == ["3", "4", "5", "6"]
    assert "lines 1 ('sine'), y: " in result.stdout
    assert "the stored picture carries no data" in result.stdout


def test_executing_again_writes_nothing_and_a_new_number_is_written(executed, tmp_path):
    path = tmp_path / "good.ipynb"
    drifted = copy.deepcopy(executed)
    drifted.cells[2].outputs[0].data["image/png"] = "AAAA"
    change_curve(drifted.cells[2].outputs[0].data, lambda y: [y[0], y[1] + 1e-5, *y[2:]])
    path.write_text(serialise(drifted), "utf-8")
    assert refresh(path)
    assert path.read_text("utf-8") == serialise(drifted)
    drifted.cells[1].outputs[0].text = "0.1235\n"
    path.write_text(serialise(drifted), "utf-8")
    assert not any("normal form" in line for line in problems(path))
    assert refresh(path)
    assert "0.1235" not in path.read_text("utf-8")
