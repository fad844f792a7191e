"""Facts of the FAQ: the limit of the learning rate, Adam's first step, what moves a slope."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils import networks, patients, theory


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


def slope(net, x, y):
    signals = net.forward(x)
    delta = net.backward(signals, networks.cross_entropy(signals.output, y)[1]).delta[:-1]
    norms = [np.linalg.norm(d) for d in delta]
    return np.log10(norms[0] / norms[-1]) / (len(norms) - 1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_which_changes_move_the_slope_of_the_sick_network(seed):
    # 19 layers of width 64: one draw scatters by about sqrt(5 * 19 / 64) / 2 / ln(10) / 19 = 0.014.
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((64, 64)), rng.integers(0, 10, 64)

    def sick(**changes):
        return patients.patient("deep sigmoid", seed=seed, **changes)

    before = slope(sick(), x, y)
    assert before == pytest.approx(np.log10(theory.chi("sigmoid", 1.0)) / 2, abs=4 * 0.014)
    shrunk = sick()
    for W in shrunk.weights:
        W *= 0.9
    assert slope(shrunk, x, y) < before + np.log10(0.9) / 2
    for settings in ({"learning_rate": 1.0}, {"learning_rate": 0.001, "optimizer": "adam"}):
        net = sick()
        networks.train(net, x, y, loss=networks.cross_entropy, epochs=3, rng=rng, **settings)
        assert slope(net, x, y) == pytest.approx(before, abs=0.05)
    assert slope(sick(activation="linear"), x, y) == pytest.approx(0, abs=4 * 0.014)
    assert slope(sick(activation="relu", initializer="he"), x, y) == pytest.approx(0, abs=4 * 0.014)
    assert slope(sick(branch_scale=20**-0.5), x, y) == pytest.approx(0, abs=4 * 0.014)
    assert slope(sick(normalization="layer"), x, y) < -0.3
