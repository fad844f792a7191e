"""Facts of the worked example: the article's model, its data, the chapter's norms."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils import datasets, probes
from tools.chapters import definitions

HERE = definitions("07_worked_example")


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
def test_parameters_with_two_features(depth, parameters):
    assert HERE.network(depth, "relu").count_params() == parameters


@given(st.integers(0, 2**32 - 1))
def test_accuracy_on_noise_is_zero_whatever_the_predictions(seed):
    rng = np.random.default_rng(seed)
    targets, predictions = rng.uniform(0.01, 0.99, (2, 200, 1))
    accuracy = keras.metrics.binary_accuracy
    assert np.mean(accuracy(targets, predictions)) == 0
    assert np.mean(accuracy((targets > 0.5).astype(float), targets)) == 1  # classes: it counts


def test_keras_scores_ln_2_for_one_half_on_any_targets():
    targets = np.random.default_rng(0).uniform(size=(1000, 1))
    half = np.full_like(targets, 0.5)
    assert np.mean(keras.losses.binary_crossentropy(targets, half)) == pytest.approx(np.log(2))


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_taught_norms_equal_the_probe(data, activation):
    # Without biases: the probe counts them into a layer's gradient, the notebook does not.
    model = keras.Sequential(
        [keras.Input((2,))]
        + [keras.layers.Dense(10, activation, use_bias=False) for _ in range(6)]
        + [keras.layers.Dense(1, "sigmoid", use_bias=False)]
    )
    model.compile(loss="binary_crossentropy")
    HERE.draw(model, seed=3)
    layers = probes.probe(model, *data, batch_size=400).layers
    assert HERE.gradient_norms(model, *data) == pytest.approx(
        [layer.gradient_norm for layer in layers], rel=1e-4
    )
    assert HERE.backward_norms(model, *data) == pytest.approx(
        [layer.backward for layer in layers[:-1]], rel=1e-4
    )
