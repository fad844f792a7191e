"""What chapter 10 states, through the functions that it uses, and for cases that it leaves out."""

import numpy as np
import pytest
from scipy.stats import truncnorm

from gradutils import datasets, initializers, networks, theory


def train(depth, rule, seed=5):
    """The recipe of He et al.'s comparison: all digits, one rate for all, 20 epochs."""
    data = datasets.digits(np.random.default_rng(0))
    net = networks.MLP([64] * depth + [10], "relu", rule, seed=seed)
    losses = networks.train(
        net, data.x_train, data.y_train, loss=networks.cross_entropy, learning_rate=0.01,
        momentum=0.9, epochs=20, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return losses, networks.accuracy(net, data.x_test, data.y_test)


def test_ten_layers_learn_with_xavier():
    assert train(10, "glorot")[1] > 0.9


def test_xavier_against_he_at_22_layers():
    """With Xavier the first ten epochs are spent near guessing, with He they are not. The mean over
    epochs, not the accuracy at the end: the path jumps at this rate, and its end is chance."""
    xavier, he = (train(22, rule)[0][:10].mean() for rule in ("glorot", "he"))
    assert xavier > 0.9 * np.log(10)
    assert he < 0.8 * np.log(10)


def test_xavier_against_he_at_30_layers():
    """With Xavier the loss stays at guessing; with He at least a fifth of ln 10 is learned, even if
    the run ends in NaN, as one of 12 with noise in the last place did."""
    losses, accuracy = train(30, "glorot")
    assert losses == pytest.approx(np.full(20, np.log(10)), rel=0.01)
    assert accuracy < 0.2
    assert np.nanmin(train(30, "he")[0]) < 0.8 * np.log(10)


def test_the_leaky_default_is_a_third():
    """He's rule for a leaky ReLU of slope sqrt(5): bound g sqrt(3 / n), g^2 = 2 / (1 + 5)."""
    bound = np.sqrt(2 / (1 + 5)) * np.sqrt(3 / 200)
    assert bound == pytest.approx(1 / np.sqrt(200), rel=1e-12)
    assert initializers._standard_deviation("uniform_third", (200, 50)) == pytest.approx(
        bound / np.sqrt(3), rel=1e-12
    )


def test_a_normal_cut_at_two_deviations():
    assert truncnorm(-2, 2).std() == pytest.approx(0.8796, abs=5e-5)


@pytest.mark.parametrize(("activation", "factor"), [("relu", 1), ("gelu", 0.5), ("silu", 0.5)])
def test_factor_of_hes_rule(activation, factor):
    assert theory.chi(activation, 2**0.5) == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize(
    ("rule", "exact"), [("lecun", lambda n: 5 / n), ("orthogonal", lambda n: 3 / (n + 2))]
)
@pytest.mark.parametrize("n", [8, 24])
def test_spread_of_a_relu_layer(rule, exact, n):
    """Other widths than the chapter's. A variance of N draws has a relative error of
    sqrt((kurtosis - 1) / N), and the kurtosis is below 6: 0.035 for N = 4000; four of these."""
    rng = np.random.default_rng(0)
    v = np.ones(n) / np.sqrt(n)
    h = np.array([v @ initializers.draw(rule, (n, n), rng) for _ in range(4000)])
    factors = 2 * np.sum(np.maximum(h, 0) ** 2, axis=1)
    assert np.mean(factors) == pytest.approx(1, abs=4 * np.sqrt(exact(n) / 4000))
    assert np.var(factors) == pytest.approx(exact(n), rel=0.14)


def mirrored(V, first=False, last=False):
    H = V if last else np.hstack([V, -V])
    return H if first else np.vstack([H, -H])


def test_mirrored_weights_make_a_relu_network_an_isometry():
    """The Jacobian is the product of the V alone, at any input, and so is orthogonal."""
    rng = np.random.default_rng(0)
    net = networks.MLP([6, 12, 12, 12, 6], "relu", "he", seed=0)
    V = [initializers.orthogonal((6, 6), rng) for _ in net.weights]
    net.weights = [mirrored(v, first=i == 0, last=i == 3) for i, v in enumerate(V)]
    for x in rng.standard_normal((3, 6)):
        jacobian = net.jacobian(x)
        assert jacobian == pytest.approx(np.linalg.multi_dot(V).T, abs=1e-12)
        assert np.linalg.svd(jacobian, compute_uv=False) == pytest.approx(np.ones(6), abs=1e-12)


@pytest.mark.parametrize("activation", ["elu", "softplus"])
def test_lsuv_finds_the_forward_gain(activation):
    """In layers of width n the scale scatters by half of sqrt(Var phi^2 / n) / E phi^2, below 0.08
    at n = 400, and the mean over 12 of them by 0.025; three of these."""
    rng = np.random.default_rng(0)
    net = networks.MLP([400] * 14, activation, "orthogonal", rng=rng)
    signal, scales = rng.standard_normal((400, 400)), []
    for W in net.weights:
        scales.append(1 / np.std(signal @ W))
        signal = net.activation.phi(scales[-1] * (signal @ W))
    found = np.exp(np.mean(np.log(scales[1:])))
    assert found == pytest.approx(theory.forward_gain(activation), rel=0.075)


def test_he_merges_inputs():
    """The correlation of two inputs follows the map; one of width 1000 scatters by about
    1 / sqrt(1000) = 0.03 in each layer, and the map damps it."""
    rng = np.random.default_rng(0)
    net = networks.MLP([1000] * 11, "relu", "he", rng=rng)
    h = np.array(net.forward(rng.standard_normal((2, 1000))).pre)
    h /= np.linalg.norm(h, axis=2, keepdims=True)
    measured = np.sum(h[:, 0] * h[:, 1], axis=1)
    c = measured[0]
    for _ in range(9):
        c = theory.correlation_map("relu", c, 2**0.5)
    assert measured[-1] == pytest.approx(c, abs=0.09)
    assert measured[-1] > 0.7


@pytest.mark.parametrize(("narrow", "wide"), [(64, 256), (50, 100)])
def test_glorots_compromise_loses_where_widths_alternate(narrow, wide):
    """A pair of linear layers changes both second moments by 4ab / (a + b)^2."""
    pair = 1.0
    for shape in ((narrow, wide), (wide, narrow)):
        pair *= shape[0] * initializers._standard_deviation("glorot", shape) ** 2
    assert pair == pytest.approx(4 * narrow * wide / (narrow + wide) ** 2, rel=1e-12)
