"""Facts of the chapter on the learning rate: the limit of stability, schedules of Keras."""

import keras
import numpy as np
import pytest

from gradutils import networks


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


def test_keras_schedules_follow_the_formulas():
    cosine = keras.optimizers.schedules.CosineDecay(0.5, decay_steps=200)
    steps = np.arange(0, 200, 17)
    expected = 0.25 * (1 + np.cos(np.pi * steps / 200))
    got = [float(cosine(int(t))) for t in steps]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)  # float32
