import itertools
import json
import re
import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from gradutils import plots

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def style():
    with plt.style.context("gradutils.gradutils"):
        yield
    plt.close("all")


def test_layer_profile_draws_values_theory_and_labels():
    ax = plots.layer_profile(
        {"a": [1, 2, 4], "b": [1, 0, np.nan]},
        ylabel="norm",
        theory={"a": [1, 3, 9]},
        regimes={"a": "exploding", "b": "vanishing"},
    )
    drawn = {line.get_label(): line for line in ax.lines}
    assert drawn["a"].get_ydata().tolist() == [1, 2, 4]
    assert drawn["theory, a"].get_ydata().tolist() == [1, 3, 9]
    assert drawn["a"].get_xdata().tolist() == [1, 2, 3]
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("layer", "norm")
    # The label stands at the last value that a log axis can show.
    places = {text.get_text().strip(): text.xy for text in ax.texts}
    assert places == {"a": (3, 4), "b": (1, 1)}


def test_labels_of_lines_that_end_together_do_not_overlap():
    series = {name: [1.0, end] for name, end in zip("abcd", (2.0, 2.0, 2.01, 50.0), strict=True)}
    ax = plots.layer_profile(series, ylabel="norm")
    ax.figure.canvas.draw()
    boxes = sorted((t.get_window_extent() for t in ax.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 2 for low, high in itertools.pairwise(boxes))  # 2 pixels


def test_regimes_differ_without_colour():
    looks = {(look["marker"], look["linestyle"]) for look in plots.REGIMES.values()}
    assert len(looks) == len({look["color"] for look in plots.REGIMES.values()}) == 3


def test_every_activation_has_a_look_of_its_own():
    looks = {tuple(look.values()) for look in plots.ACTIVATION_STYLES.values()}
    assert len(looks) == len(plots.ACTIVATION_STYLES)


def test_panels_share_colour_and_dashes_and_skip_gaps():
    panels = {"loss": {"a": [2, 1], "b": [3, np.nan]}, "norm": {"b": [1.0, 10.0]}}
    axes = plots.side_by_side(
        panels, xlabel="step", colors={"a": "C0", "b": "C1"}, log=["norm"], start=1
    )
    assert [(ax.get_ylabel(), ax.get_yscale()) for ax in axes] == [
        ("loss", "linear"), ("norm", "log"),
    ]  # fmt: skip
    a, b = axes[0].lines
    (again,) = axes[1].lines
    assert a.get_xdata().tolist() == [1, 2]
    assert (b.get_color(), b.get_linestyle()) == (again.get_color(), again.get_linestyle())
    assert a.get_linestyle() != b.get_linestyle()
    places = {text.get_text().strip(): text.xy for text in axes[0].texts}
    assert places == {"a": (2, 1), "b": (1, 3)}


def test_step_heatmap_shows_layers_upwards_and_masks_what_has_no_logarithm():
    ax = plots.step_heatmap([[1, 10, 0], [100, np.nan, np.inf]], limits=(-3, 3))
    (image,) = ax.images
    drawn = image.get_array()  # (layers, steps)
    assert drawn.mask.tolist() == [[False, False], [False, True], [True, True]]
    assert drawn.compressed().tolist() == [0, 2, 1]
    assert image.get_clim() == (-3, 3)
    assert image.get_extent() == [0, 2, 0.5, 3.5]
    assert image.origin == "lower"


def test_activation_gallery_draws_function_and_slope():
    first, second = plots.activation_gallery(["tanh", "relu"], limit=2)
    function, slope = (line.get_ydata() for line in first.lines)
    x = np.linspace(-2, 2, 401)
    assert function == pytest.approx(np.tanh(x))
    assert slope == pytest.approx(1 / np.cosh(x) ** 2)
    assert second.texts[0].get_text() == "relu"


def test_a_gallery_of_four_has_two_rows_and_two_empty_places():
    axes = plots.activation_gallery(["tanh", "relu", "elu", "silu"])
    places = axes[0].figure.axes
    assert [ax.axison for ax in places] == [True] * 4 + [False] * 2
    assert [ax.texts[0].get_text() for ax in axes] == ["tanh", "relu", "elu", "silu"]
    axes[0].set(xlim=(-1, 1), ylim=(0, 1))
    assert {ax.get_xlim() + ax.get_ylim() for ax in axes} == {(-1, 1, 0, 1)}


@pytest.mark.parametrize(("layers", "every"), [(1, 1), (12, 1), (23, 1), (24, 2), (100, 8)])
def test_a_profile_has_at_most_two_dozen_marks(layers, every):
    ax = plots.layer_profile({"a": np.ones(layers)}, ylabel="norm")
    assert ax.lines[0].get_markevery() == every


def test_histogram_row_draws_shares_on_one_range():
    axes = plots.histogram_row({"a": [0.0, 0.0, 1.0, 1.0], "b": [2.0]}, xlabel="value", bins=2)
    heights = [[bar.get_height() for bar in ax.patches] for ax in axes]
    assert heights == [[0.5, 0.5], [0, 1]]
    assert {ax.get_xlim() for ax in axes} == {axes[0].get_xlim()}


def test_layer_histograms_stand_one_above_another_each_as_high_as_its_row():
    ax = plots.layer_histograms({"a": [0.0, 0.0, 1.0], "b": [2.0]}, xlabel="value", bins=2)
    shapes = [np.max(patch.get_path().vertices[:, 1]) for patch in ax.patches]
    assert shapes == pytest.approx([0.9, 1.9])
    left, right = (patch.get_path().vertices[:, 0].max() for patch in ax.patches)
    assert (left, right) == (2, 2)  # Both have the range of all values.
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


def arrows(ax):
    """Return {(place of the start, place of the end): width of the line} of a diagram."""
    found = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    return {(t.xyann, t.xy): t.arrow_patch.get_linewidth() for t in found}


def test_a_diagram_shows_its_texts_and_its_arrows():
    ax = plots.diagram(
        {"w": (0, 0), "x": (1, 1), "corner": (2, 1)}, [("w", "x", "0.5"), ("x", "corner", "")],
        texts={"x": "tanh", "corner": ""}, boxes=["w"], thick=[("w", "x")],
    )  # fmt: skip
    assert {text.get_text(): text.get_position() for text in ax.texts if text.get_text()} == {
        "w": (0, 0), "tanh": (1, 1), "0.5": (0.5, 0.5),
    }  # fmt: skip
    drawn = arrows(ax)
    assert drawn.keys() == {((0, 0), (1, 1)), ((1, 1), (2, 1))}
    assert drawn[(0, 0), (1, 1)] > drawn[(1, 1), (2, 1)]
    frames = {t.get_text(): t.get_bbox_patch() for t in ax.texts[:3]}
    assert type(frames["w"].get_boxstyle()) is not type(frames["tanh"].get_boxstyle())
    assert frames[""] is None


def test_the_heavy_line_of_an_lstm_runs_from_cell_to_cell_through_a_product_and_a_sum():
    ax = plots.lstm_cell()
    texts = {text.get_position(): text.get_text() for text in ax.texts if text.get_text()}
    widths = arrows(ax)
    heavy = dict(step for step, width in widths.items() if width == max(widths.values()))
    place = next(place for place, text in texts.items() if text == "$c_{t-1}$")
    met = [texts[place]]
    while place in heavy:
        place = heavy[place]
        met.append(texts.get(place, ""))
    assert met == ["$c_{t-1}$", "×", "+", "", "$c_t$"]
    assert {text[:3] for text in texts.values()} >= {"$f$", "$i$", "$g$", "$o$"}


def test_phase_diagram_centres_its_colours_and_draws_the_critical_line():
    sigma_w = np.linspace(0.5, 2, 31)
    ax = plots.phase_diagram(sigma_w, [0.0, 0.5, 1.0], np.tile(sigma_w**2, (3, 1)))
    mesh, line = ax.collections
    assert mesh.get_clim() == pytest.approx((-np.log10(4), np.log10(4)))
    assert line.get_paths()[0].vertices[:, 0] == pytest.approx(1, abs=1e-6)


def test_fingerprint_holds_what_is_drawn_and_is_json():
    ax = plots.layer_profile({"a": [1, np.inf]}, ylabel="norm")
    ax.scatter([1, 2], [3, 4])
    (content,) = plots._fingerprint(ax.figure)
    assert json.loads(json.dumps(content)) == content
    assert content["labels"] == ["", "layer", "norm"]
    assert content["lines"][0]["y"] == [1, None]
    assert content["collections"][0]["offsets"] == [1, 3, 2, 4]


def test_fingerprint_thins_long_arrays_and_keeps_the_ends():
    figure, ax = plt.subplots()
    ax.plot(np.arange(10_001))
    kept = plots._fingerprint(figure)[0]["lines"][0]["y"]
    assert len(kept) == 200
    assert (kept[0], kept[-1]) == (0, 10_000)


def test_fingerprint_tells_a_sine_from_a_cosine():
    prints = []
    for f in (np.sin, np.cos):
        figure, ax = plt.subplots()
        ax.plot(f(np.linspace(0, 6, 50)))
        ax.set_ylim(-1, 1)
        prints.append(plots._fingerprint(figure))
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.layer_profile({"a": [[1.0]]}, ylabel="norm"),
         "series['a'] must hold numbers along 1 axes; received shape (1, 1)"),
        (lambda: plots.layer_profile({"a": [1.0]}, ylabel="norm", theory={"a": [1.0, 2.0]}),
         "theory['a'] must hold shape (1,); received shape (2,)"),
        (lambda: plots.layer_profile({"a": [1.0]}, ylabel="norm", regimes={"a": "ill"}),
         "regimes['a'] must be one of vanishing, healthy, exploding; received 'ill'"),
        (lambda: plots.side_by_side({}, xlabel="x", colors={}), "panels must hold one or more"),
        (lambda: plots.side_by_side({"y": {"a": [[1]]}}, xlabel="x", colors={"a": "C0"}),
         "panels['y']['a'] must hold numbers along 1 axes"),
        (lambda: plots.side_by_side({"y": {"a": [1]}}, xlabel="x", colors={}),
         "colors must hold every label; received none for 'a'"),
        (lambda: plots.step_heatmap([1.0]), "norms must hold numbers along 2 axes"),
        (lambda: plots.step_heatmap(np.ones((0, 3))), "received shape (0, 3)"),
        (lambda: plots.activation_gallery([]), "names must hold one or more activations"),
        (lambda: plots.activation_gallery(["relu"], limit=0), "limit must be > 0; received 0"),
        (lambda: plots.activation_gallery(["relu"], limit=np.inf), "limit must be a finite number"),
        (lambda: plots.histogram_row({}, xlabel="x"), "samples must hold one or more arrays"),
        (lambda: plots.histogram_row({"a": []}, xlabel="x"), "samples['a'] must hold numbers"),
        (lambda: plots.histogram_row({"a": [np.nan]}, xlabel="x"), "samples['a'] must be finite"),
        (lambda: plots.histogram_row({"a": [1]}, xlabel="x", bins=0), "bins must be a positive"),
        (lambda: plots.histogram_row({"a": [1]}, xlabel="x", limits=(1, 0)),
         "limits must be finite and in order; received (1, 0)"),
        (lambda: plots.layer_histograms({}, xlabel="x"), "samples must hold one or more arrays"),
        (lambda: plots.diagram({}, []), "nodes must hold one or more places; received {}"),
        (lambda: plots.diagram({"a": (0, 0)}, [("a", "b", "")]), "['a']; received ['b']"),
        (lambda: plots.diagram({"a": (0, 0)}, [], boxes=["c"]), "['a']; received ['c']"),
        (lambda: plots.phase_diagram([1, 2], [0, 1], [[1.0, 1.0]]),
         "chi must hold shape (2, 2); received shape (1, 2)"),
        (lambda: plots.phase_diagram([1, 2], [0, 1], [[1.0, 0.0], [1.0, 1.0]]),
         "chi must be a table of positive numbers"),
        (lambda: plots.phase_diagram([1, 2], [0], [[1.0, 1.0]]), "chi must be a table"),
        (lambda: plots.phase_diagram([1, 2], [0, 1], [[1.0, 1.0], [1.0, -1.0]]), "chi must be"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_opens_no_figure(call, message):
    open_before = plt.get_fignums()
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
    assert plt.get_fignums() == open_before


def test_a_profile_without_positive_values_is_drawn_on_a_linear_axis():
    assert plots.layer_profile({"a": [0.0, 0.0]}, ylabel="norm").get_yscale() == "linear"


def test_use_style_outside_ipython_sets_the_style():
    code = (
        "import matplotlib; matplotlib.use('agg'); from gradutils import plots;"
        "plots.use_style(); print(matplotlib.rcParams['image.cmap'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "cividis"
