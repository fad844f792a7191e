"""Facts of the chapter on transformers: softmax, norms, collapse, gates, spikes, rounding."""

import keras
import ml_dtypes
import numpy as np
import pytest
from scipy.special import softmax

from gradutils import datasets, networks, theory
from gradutils.monitor import GradientMonitor
from gradutils.transformers import Attention, FeedForward, Transformer
from tools.chapters import definitions


def differences(h):
    return h - h.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("right", [0, 1])
def test_a_row_that_looks_at_one_token_passes_no_gradient(right):
    """|dL/dz_k| is at most epsilon times the spread of g, whichever token the loss wants."""
    rng = np.random.default_rng(right)
    for gap in (5.0, 10.0, 20.0):
        a = softmax(np.array([gap, 0.0, 0.0, 0.0]))
        g = rng.standard_normal(4)
        g[right] -= 10
        gradient = a * (g - a @ g)
        assert np.abs(gradient).max() <= (1 - a[0]) * np.ptp(g)


def test_a_step_of_sgd_on_the_readout_keeps_the_mean_logit_and_adam_does_not():
    rng = np.random.default_rng(0)
    h, labels = rng.standard_normal((32, 8)), rng.integers(3, size=32)
    start = rng.standard_normal((8, 20))
    _, g = networks.cross_entropy(h @ start, labels)
    moved = {}
    for name, step in networks.OPTIMIZERS.items():
        W = start.copy()
        step(W, h.T @ g, 0 * W, 0 * W, learning_rate=0.1, momentum=0, step=1)
        moved[name] = np.abs(W.mean(axis=1) - start.mean(axis=1)).max()
    assert moved["sgd"] < 1e-16
    assert moved["adam"] > 1e-3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tokens", [2, 16])
def test_differences_of_nearly_equal_tokens_are_cubed(seed, tokens):
    """The ratio of what is left at two sizes is the cube of theirs, up to a relative r^2."""
    layer, rng = Attention(32, seed=seed), np.random.default_rng(seed)
    m, r = rng.standard_normal((1, 1, 32)), rng.standard_normal((1, tokens, 32))
    left = [np.linalg.norm(differences(layer.forward(m + s * r).output)) for s in (0.02, 0.01)]
    assert left[0] / left[1] == pytest.approx(8, rel=0.02)


def test_with_two_heads_the_differences_are_cubed_as_well():
    layer, rng = Attention(32, 2, seed=0), np.random.default_rng(1)
    m, r = rng.standard_normal((1, 1, 32)), rng.standard_normal((1, 8, 32))
    left = [np.linalg.norm(differences(layer.forward(m + s * r).output)) for s in (0.02, 0.01)]
    assert left[0] / left[1] == pytest.approx(8, rel=0.02)


def test_the_sandwich_does_not_see_the_scale_of_its_weights():
    ends = []
    for factor in (1.0, 7.0):
        net = Transformer(32, 4, 2, placement="sandwich", seed=0)
        for branch in net.branches:
            branch.weights[-1] *= factor
        x = np.random.default_rng(1).standard_normal((2, 6, 32))
        run = net.forward(x)
        back = net.backward(run, np.random.default_rng(2).standard_normal(x.shape))
        ends.append((run.stream[-1], back.delta[0]))
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-9)
    np.testing.assert_allclose(ends[0][1], ends[1][1], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "sigmoid"])
def test_a_gated_net_has_the_gain_of_its_activation_and_one_more_in_the_backward_factor(name):
    gain, forward, backward = theory.forward_gain(name), [], []
    for seed in range(20, 28):
        rng = np.random.default_rng(seed)
        net = FeedForward(200, 600, name, gated=True, gain=gain, rng=rng)
        x = rng.standard_normal((1, 32, 200))
        x /= np.sqrt(np.mean(x**2, axis=-1, keepdims=True))
        run, g = net.forward(x), rng.standard_normal(x.shape)
        forward.append(np.mean(run.output**2))
        backward.append(np.mean(net.backward(run, g)[0] ** 2) / np.mean(g**2))
    for found, derived in ((forward, 1), (backward, 1 + theory.backward_factor(name))):
        # Independence of g and the weights costs a few percent at this width.
        tolerance = 4 * np.std(found, ddof=1) / 8**0.5 + 0.03 * derived
        assert np.mean(found) == pytest.approx(derived, abs=tolerance)


@pytest.mark.parametrize("beta_2", [0.95, 0.999])
@pytest.mark.parametrize("size", [1e-3, 1e6])
def test_one_outlier_moves_a_weight_by_a_length_that_does_not_depend_on_its_size(beta_2, size):
    m = v = way = 0.0
    for step in range(3000):
        g = size if step == 0 else 0.0
        m, v = 0.9 * m + 0.1 * g, beta_2 * v + (1 - beta_2) * g**2
        way += m / np.sqrt(v)
    derived = 0.1 / np.sqrt(1 - beta_2) / (1 - 0.9 / np.sqrt(beta_2))
    assert way == pytest.approx(derived, rel=1e-9)


def test_an_update_below_half_a_spacing_is_lost_in_bfloat16():
    for weight in (1.0, 1.5, 1.99):
        w = np.array(weight).astype(ml_dtypes.bfloat16)
        assert w + np.array(0.99 * 2**-8).astype(ml_dtypes.bfloat16) == w
        assert w + np.array(1.01 * 2**-8).astype(ml_dtypes.bfloat16) > w


def test_the_monitor_shows_a_bad_batch_at_its_step():
    """One batch of wrong labels in a Keras run: the norm jumps at its step, the ratio follows."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = datasets.recall(16 * 420, rng)
    bad = 16 * 400
    y[bad : bad + 16] = (y[bad : bad + 16] + 1) % 6
    inputs = keras.Input((7, 12))
    h = keras.layers.Dense(24, use_bias=False)(inputs)
    unit = keras.layers.RMSNormalization()(h)
    h = h + keras.layers.MultiHeadAttention(1, 24, use_bias=False)(unit, unit)
    last = keras.layers.RMSNormalization()(h)[:, -1]
    model = keras.Model(inputs, keras.layers.Dense(6)(last))
    model.compile(
        keras.optimizers.Adam(0.005, beta_2=0.99),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    monitor = GradientMonitor(update_ratio=True)
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[monitor])
    norms = np.linalg.norm(monitor.norms, axis=1)
    ratios = np.nanmax(monitor.update_ratios, axis=1)
    assert norms[400] > 5 * np.sqrt(np.mean(norms[350:400] ** 2))
    assert ratios[400:406].max() > 2 * np.median(ratios[350:400])


def test_the_way_back_of_sigma_reparam_is_its_derivative():
    reparam = definitions("16_transformers").reparam
    rng = np.random.default_rng(0)
    V, G = rng.standard_normal((2, 5, 4))
    gamma, step = np.array([1.3]), 1e-6

    def value(V, gamma):
        return np.sum(G * reparam(V, gamma)[0])

    def slope(change, of_gamma=0.0):
        ends = [value(V + s * change, gamma + s * of_gamma) for s in (step, -step)]
        return (ends[0] - ends[1]) / (2 * step)

    assert np.linalg.norm(reparam(V, gamma)[0], 2) == pytest.approx(1.3, rel=1e-12)
    grad, of_gamma = reparam(V, gamma)[1](G)
    change = rng.standard_normal(V.shape)
    assert np.sum(grad * change) == pytest.approx(slope(change), rel=1e-6)
    assert of_gamma == pytest.approx(slope(0 * V, 1.0), rel=1e-6)
    assert np.sum(grad * V) == pytest.approx(0, abs=1e-12)  # The scale of V does not matter.
