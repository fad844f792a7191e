"""What ails a model, and what mends it, on every backend."""

import keras
import numpy as np
import pytest
from keras import layers

from gradutils.diagnosis import diagnose
from gradutils.remedies import try_remedies


def data(units=1):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 8)).astype("float32")
    return x, (x[:, :units] + 0.1 * rng.standard_normal((64, units))).astype("float32")


def compiled(*parts, optimizer="adam", loss="mse"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), *parts])
    model.compile(optimizer, loss)
    return model


def deep_sigmoid():
    return compiled(*[layers.Dense(16, "sigmoid") for _ in range(8)], layers.Dense(1))


def equal_units():
    return compiled(
        layers.Dense(8, "relu", kernel_initializer=keras.initializers.Constant(0.1)),
        layers.Dense(8, "relu", kernel_initializer=keras.initializers.Constant(0.1)),
        layers.Dense(1, kernel_initializer=keras.initializers.Constant(0.1)),
    )


def too_fast():
    return compiled(layers.Dense(16, "relu"), layers.Dense(1), optimizer=keras.optimizers.SGD(10.0))


def wrong_sign():
    def loss(y, p):
        return -keras.ops.mean((y - p) ** 2, axis=-1)

    return compiled(layers.Dense(16, "relu"), layers.Dense(1), loss=loss)


@pytest.mark.parametrize(
    ("make", "verdict", "remedy"),
    [
        (deep_sigmoid, "vanishing", "ReLU and He weights"),
        (equal_units, "equal units", "drawn weights"),
        (too_fast, "step too large", "a learning rate of"),
        (wrong_sign, "wrong sign", "the other sign of the loss"),
    ],
)
def test_a_sick_model_is_named_and_mended(make, verdict, remedy):
    x, y = data()
    found = diagnose(make(), x, y)
    assert found.verdict == verdict
    assert any(remedy in line for line in found.findings[0].tried), str(found)


def test_a_sound_model_is_healthy():
    x, y = data()
    found = diagnose(compiled(layers.Dense(16, "relu"), layers.Dense(1)), x, y)
    assert found.verdict == "healthy", str(found)


def test_what_is_tried_leaves_no_trace():
    model, (x, y) = equal_units(), data()
    before = [w.copy() for w in model.get_weights()]
    names = [layer.activation.__name__ for layer in model.layers]
    tried = try_remedies(["G19", "G20", "G22", "G33"], model, x, y)
    assert len(tried) > 5 and any(outcome.helped for outcome in tried)
    assert [layer.activation.__name__ for layer in model.layers] == names
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
