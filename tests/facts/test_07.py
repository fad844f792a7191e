"""Facts of the worked example: the article's model, its data, its deepening and its mending."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from gradutils import datasets, networks, probes, theory
from tools import ROOT

NOTEBOOK = ROOT / "notebooks" / "07_worked_example.ipynb"


@pytest.fixture(scope="module")
def taught():
    """The functions and the layer that the notebook defines, by name."""
    cells = [
        c for c in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if c["cell_type"] == "code"
    ]
    space = {"keras": keras, "np": np, "tf": tf}
    for wanted in ("network", "draw", "gradient_norms", "backward_norms", "Skip"):
        for cell in cells:
            source = "".join(cell["source"])
            if source.startswith((f"def {wanted}(", f"class {wanted}(")):
                exec(source.split("\n\n\n")[0], space)
    return space


@pytest.fixture(scope="module")
def data():
    x, y = datasets.spirals(400, np.random.default_rng(0))
    return x, y[:, None].astype(float)


def test_as_given_the_model_has_no_weights_and_numpy_no_name():
    model = keras.Sequential(
        [keras.layers.Dense(10, "relu"), keras.layers.Dense(10, "relu"), keras.layers.Dense(1)]
    )
    assert model.weights == []
    with pytest.raises(ValueError, match="build"):
        model.count_params()
    with pytest.raises(NameError):
        eval("np.random.rand(1000)", {})


@pytest.mark.parametrize("depth, parameters", [(2, 151), (20, 30 + 19 * 110 + 11)])
def test_parameters_with_two_features(taught, depth, parameters):
    assert taught["network"](depth, "relu").count_params() == parameters


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_accuracy_on_noise_is_zero_whatever_the_predictions(seed):
    rng = np.random.default_rng(seed)
    targets, predictions = rng.uniform(0.01, 0.99, (2, 200, 1))
    accuracy = keras.metrics.binary_accuracy
    assert np.mean(accuracy(targets, predictions)) == 0
    assert np.mean(accuracy((targets > 0.5).astype(float), targets)) == 1  # classes: it counts


def mean_cross_entropy(p, mean):
    return -mean * np.log(p) - (1 - mean) * np.log(1 - p)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.999))
def test_no_answer_to_noise_beats_the_entropy_of_its_mean(low, high, p):
    # Targets uniform between low and high: the average is linear in the target, so exact.
    mean = (low + high) / 2
    best = 0.0 if mean in (0, 1) else mean_cross_entropy(mean, mean)
    assert mean_cross_entropy(p, mean) >= best - 1e-12
    if {low, high} == {0, 1}:
        assert best == pytest.approx(np.log(2))


def test_keras_scores_ln_2_for_one_half_on_any_targets():
    targets = np.random.default_rng(0).uniform(size=(1000, 1))
    half = np.full_like(targets, 0.5)
    assert np.mean(keras.losses.binary_crossentropy(targets, half)) == pytest.approx(np.log(2))


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_taught_norms_equal_the_probe(taught, data, activation):
    # Without biases: the probe counts them into a layer's gradient, the notebook does not.
    model = keras.Sequential(
        [keras.Input((2,))]
        + [keras.layers.Dense(10, activation, use_bias=False) for _ in range(6)]
        + [keras.layers.Dense(1, "sigmoid", use_bias=False)]
    )
    model.compile(loss="binary_crossentropy")
    taught["draw"](model, seed=3)
    layers = probes.probe(model, *data, batch_size=400).layers
    assert taught["gradient_norms"](model, *data) == pytest.approx(
        [layer.gradient_norm for layer in layers], rel=1e-4
    )
    assert taught["backward_norms"](model, *data) == pytest.approx(
        [layer.backward for layer in layers[:-1]], rel=1e-4
    )


def slopes(taught, data, draws, **design):
    """log10 of the backward signal per layer, one for each draw of 20 layers of width 10."""
    model = taught["network"](20, **design)
    found = []
    for seed in range(draws):
        norms = taught["backward_norms"](taught["draw"](model, seed), *data)
        found.append(np.log10(norms[0] / norms[-1]) / 19)
    return np.array(found)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_default_weights_lose_what_theory_says(taught, data, activation):
    # Log squared norm of 19 layers of width n = 10: variance about 5 beta = 9.5 (Hanin 2018), and
    # mean below the log of the mean by half of that or less. So the slope of one draw scatters by
    # sqrt(9.5) / 2 / ln(10) / 19 = 0.035, and is biased by at most 0.054 downwards per layer.
    measured = slopes(taught, data, 4, activation=activation).mean()
    expected = np.log10(theory.chi(activation, 1.0)) / 2
    assert expected - 0.054 - 4 * 0.035 / 2 < measured < expected + 4 * 0.035 / 2


def test_skips_keep_the_signal_and_sigmoids_lose_it(taught, data):
    # In every draw, with a margin of an order of magnitude on both verdicts.
    assert np.all(np.abs(slopes(taught, data, 4, activation="relu", wrap=taught["Skip"])) < 1 / 19)
    assert np.all(slopes(taught, data, 4, activation="sigmoid") < -9 / 19)
    loud = slopes(taught, data, 2, activation="relu", wrap=lambda h: taught["Skip"](h, 1.0))
    assert np.all(loud > 1 / 19)


def test_relu_with_default_weights_hides_its_loss_from_the_weight_gradients():
    # 30 layers of width 64: weight gradients are level, the signal loses 2^-14.5 = 4e-5. One draw
    # of either log ratio scatters by about sqrt(5 * 29 / 64) / 2 = 0.75; 16 draws, 4 errors: 0.75.
    rng = np.random.default_rng(0)
    weights, signal = [], []
    for _ in range(16):
        net = networks.MLP([64] * 31, "relu", "glorot", rng=rng)
        signals = net.forward(rng.standard_normal((16, 64)))
        back = net.backward(signals, rng.standard_normal((16, 64)))
        weights.append(np.linalg.norm(back.weights[0]) / np.linalg.norm(back.weights[-1]))
        signal.append(np.linalg.norm(back.delta[0]) / np.linalg.norm(back.delta[-1]))
    assert abs(np.mean(np.log(weights))) < 1.5
    assert np.mean(np.log(signal)) == pytest.approx(-14.5 * np.log(2), abs=0.75 + 5 * 29 / 64 / 4)
