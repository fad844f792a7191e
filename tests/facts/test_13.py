"""Facts of the chapter on clipping: what keeps the direction, and what a few shortened steps do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils import datasets, networks, patients


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def test_signs_of_gaussian_entries_keep_a_cosine_of_root_two_over_pi():
    # The mean of |z| over n draws has a standard error of sqrt(1 - 2 / pi) / sqrt(n); 4 of them,
    # and as much again for the root mean square below it.
    n = 40_000
    g = np.random.default_rng(0).standard_normal(n)
    tolerance = 8 * np.sqrt((1 - 2 / np.pi) / n)
    assert cosine(g, np.sign(g)) == pytest.approx(np.sqrt(2 / np.pi), abs=tolerance)


@given(st.integers(0, 10_000), st.floats(1e-6, 1e6))
def test_the_global_norm_keeps_direction_and_bounds_the_length(seed, limit):
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal(shape) * 10 ** rng.uniform(-3, 3) for shape in ((3, 4), (5,))]
    before = np.concatenate([g.ravel() for g in parts])
    after = np.concatenate([g.ravel() for g in networks.clip(parts, limit)])
    assert cosine(before, after) == pytest.approx(1, abs=1e-12)
    expected = min(np.linalg.norm(before), limit)
    assert np.linalg.norm(after) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3, 6))
def test_clipping_separates_training_from_nan_in_other_draws(seed):
    data = datasets.digits(np.random.default_rng(0))
    x, y = data.x_train[:512], np.eye(10)[data.y_train[:512]]
    losses = {}
    for limit in (np.inf, 3.0):
        net = networks.MLP([64] * 16 + [10], "relu", "he", branch_scale=0.5, seed=seed)
        losses[limit] = networks.train(
            net, x, y, loss=networks.squared_error, learning_rate=0.3, epochs=3,
            rng=np.random.default_rng(seed), clip_norm=limit,
        )[-1]  # fmt: skip
    assert np.isnan(losses[np.inf])
    assert losses[3.0] < 0.2  # about 100 at the start


def test_clipping_does_not_reach_a_gradient_that_vanishes():
    data = datasets.digits(np.random.default_rng(0))
    x, y = data.x_train[:64], data.y_train[:64]
    net = patients.patient("deep sigmoid", seed=1)
    signals = net.forward(x)
    gradients = net.backward(signals, networks.cross_entropy(signals.output, y)[1])
    clipped = networks.clip(gradients.weights[:10], 1.0)
    assert all((a == b).all() for a, b in zip(clipped, gradients.weights, strict=False))
