"""Facts of the chapter on the learning rate: stability limits, noise floors, sick networks."""

import keras
import numpy as np
import pytest

from gradutils import datasets, networks


@pytest.fixture(scope="module")
def digits():
    data = datasets.digits(np.random.default_rng(0))
    return data.x_train[:256], data.y_train[:256]


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("curvature", [2.5, 7.0])
def test_heavy_ball_is_stable_up_to_two_times_one_plus_m_over_lambda(momentum, curvature):
    """The trainer itself, on one linear unit: (w x + b)^2 has the curvature 2 (x^2 + 1)."""
    x = np.array([[np.sqrt(curvature / 2 - 1)]])
    limit = 2 * (1 + momentum) / curvature
    ends = {}
    for share in (0.97, 1.03):
        net = networks.MLP([1, 1], "linear", 1.0, seed=0)
        history = networks.train(
            net, x, np.zeros((1, 1)), loss=networks.squared_error, learning_rate=share * limit,
            epochs=400, rng=np.random.default_rng(0), momentum=momentum,
        )  # fmt: skip
        ends[share] = history[-1] / history[0]
    # The dominant root differs from 1 by 3 % or more; 400 steps raise it to the 800th power.
    assert ends[0.97] < 0.1 and ends[1.03] > 10


def test_the_gradient_at_step_zero_does_not_depend_on_the_rate(digits):
    x, y = digits
    movements = {}
    for rate in (1e-3, 10.0):
        net = networks.MLP([64, 32, 10], "tanh", "glorot", seed=0)
        start = [W.copy() for W in net.weights]
        networks.train(
            net, x, y, loss=networks.cross_entropy, learning_rate=rate, epochs=1,
            batch_size=len(x), rng=np.random.default_rng(0),
        )  # fmt: skip
        movements[rate] = [(W - W0) / rate for W, W0 in zip(net.weights, start, strict=True)]
    for small, large in zip(*movements.values(), strict=True):
        np.testing.assert_allclose(small, large, rtol=1e-9, atol=1e-12)


def test_keras_schedules_follow_the_formulas():
    cosine = keras.optimizers.schedules.CosineDecay(0.5, decay_steps=200)
    steps = np.arange(0, 200, 17)
    expected = 0.25 * (1 + np.cos(np.pi * steps / 200))
    got = [float(cosine(int(t))) for t in steps]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)  # float32
