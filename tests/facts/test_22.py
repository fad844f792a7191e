"""Facts of the FAQ: Adam's first step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils import networks


@given(st.floats(-12, 3), st.sampled_from([-1.0, 1.0]))
def test_the_packages_first_adam_step_obeys_the_formula(log_g, sign):
    # The loss w g has the gradient g. Keras' epsilon, 1e-7, enters before the correction of the
    # bias: it counts 1 / sqrt(1 - 0.999) times as much.
    g = sign * 10**log_g
    net = networks.MLP([1, 1], "linear", 0.0, seed=0)
    networks.train(
        net, np.ones((1, 1)), np.zeros(1), loss=lambda h, y: (0.0, np.full_like(h, g)),
        learning_rate=0.01, epochs=1, rng=np.random.default_rng(0), optimizer="adam",
    )  # fmt: skip
    epsilon = 1e-7 / np.sqrt(1 - 0.999)
    assert net.weights[0].item() == pytest.approx(-0.01 * g / (abs(g) + epsilon), rel=1e-6)
