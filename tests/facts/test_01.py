"""The facts that chapter 01 shows: depth, with tolerances from the statistics of each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils import activations, datasets, networks
from gradutils.networks import MLP


@pytest.fixture(scope="module")
def digits():
    return datasets.digits(np.random.default_rng(0))


def trained_accuracy(data, depth, initializer, seed=0):
    """Return the test accuracy after 20 epochs of SGD at 0.01 with momentum 0.9."""
    net = MLP([64] * depth + [10], "relu", initializer, seed=seed)
    networks.train(
        net, data.x_train, data.y_train, loss=networks.cross_entropy, learning_rate=0.01,
        epochs=20, momentum=0.9, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return networks.accuracy(net, data.x_test, data.y_test)


def widened(low, high):
    """The row gives the range of a few draws; another draw may miss it by the range's length."""
    return low - (high - low), high + (high - low)


@pytest.mark.parametrize(
    ("depth", "initializer", "seen"),
    [
        (10, "glorot", (0.94, 0.97)),
        (22, "glorot", (0.16, 0.40)),
        (22, "he", (0.72, 0.94)),
        (30, "glorot", (0.08, 0.19)),
    ],
)
def test_xavier_against_he_on_digits(digits, depth, initializer, seen):
    low, high = widened(*seen)
    assert low <= trained_accuracy(digits, depth, initializer) <= high


def test_he_at_30_layers_lies_between_xavier_there_and_he_at_22(digits):
    """Rounding decides where one run ends: 24 of them, with three sets of BLAS kernels, gave 0.16
    to 0.83, of deviation 0.18. The mean of six stays three standard errors inside these bounds."""
    assert 0.19 < np.mean([trained_accuracy(digits, 30, "he", seed) for seed in range(6)]) < 0.72


@given(classes=st.integers(2, 50), batch=st.integers(1, 20), level=st.floats(-1e3, 1e3))
def test_guessing_costs_the_logarithm_of_the_classes(classes, batch, level):
    labels = np.arange(batch) % classes
    loss, _ = networks.cross_entropy(np.full((batch, classes), level), labels)
    assert loss == pytest.approx(np.log(classes), rel=1e-12)


def padded(activation, extra, seed):
    """Return a network of 3 layers, and the same with identity layers before its last one."""
    shallow = MLP([8, 16, 16, 4], activation, "glorot", seed=seed, bias_std=0.5)
    deep = MLP([8, 16, 16] + [16] * extra + [4], activation, "glorot", seed=seed)
    deep.weights = [*shallow.weights[:2], *[np.eye(16)] * extra, shallow.weights[2]]
    deep.biases = [*shallow.biases[:2], *[np.zeros(16)] * extra, shallow.biases[2]]
    return shallow, deep


@given(extra=st.integers(0, 40), seed=st.integers(0, 10**6))
def test_identity_layers_change_nothing_with_relu(extra, seed):
    x = np.random.default_rng(seed).standard_normal((5, 8))
    shallow, deep = padded("relu", extra, seed)
    assert np.array_equal(shallow.forward(x).output, deep.forward(x).output)
    deltas = [net.backward(net.forward(x), np.ones((5, 4))).delta[0] for net in (shallow, deep)]
    np.testing.assert_array_equal(*deltas)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "leaky_relu", "gelu"])
def test_identity_layers_are_no_identity_with_other_activations(activation):
    # Leaky ReLU fails too: it is linear only on numbers that are above zero already.
    x = np.random.default_rng(0).standard_normal((5, 8))
    shallow, deep = padded(activation, 10, seed=0)
    assert not np.allclose(shallow.forward(x).output, deep.forward(x).output, atol=1e-2)


@pytest.mark.parametrize("parameters", [10, 300, 5000])
def test_a_random_direction_is_less_steep_by_the_root_of_the_parameters(parameters):
    # 1,000 directions: the mean of squares of variance 2 has a relative standard error of
    # sqrt(2/1000) = 4.5 %; its root half of that; four of them are 9 %.
    rng = np.random.default_rng(parameters)
    g = rng.standard_normal(parameters) ** 3  # any gradient will do
    u = rng.standard_normal((1000, parameters))
    slopes = u @ g / np.linalg.norm(u, axis=1)
    ratio = np.linalg.norm(g) / np.sqrt(np.mean(slopes**2))
    assert ratio == pytest.approx(np.sqrt(parameters), rel=0.09)


@pytest.mark.parametrize("initializer, gain", [("glorot", 1.0), ("he", 2**0.5), (0.5, 0.5)])
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_each_layer_multiplies_the_backward_signal_by_one_factor(initializer, gain, activation):
    # One sample, width n: ln of the squared norm has per layer the mean ln(share gain^2) - c/(2n)
    # and the variance c/n, with c = 5 for ReLU (Hanin 2018) and 2 for linear layers. Four
    # standard errors over 30 draws; 0.2 for the terms of order 1/n^2.
    n, depth, draws = 64, 30, 30
    share, c = (0.5, 5) if activation == "relu" else (1.0, 2)
    logs = []
    for seed in range(draws):
        net = MLP([n] * (depth + 1), activation, initializer, seed=seed)
        rng = np.random.default_rng([seed, 1])
        signals = net.forward(rng.standard_normal((1, n)))
        delta = net.backward(signals, rng.standard_normal((1, n))).delta
        logs.append(2 * np.log(np.linalg.norm(delta[0]) / np.linalg.norm(delta[-1])))
    steps = depth - 1
    expected = steps * (np.log(share * gain**2) - c / (2 * n))
    assert np.mean(logs) == pytest.approx(expected, abs=0.2 + 4 * np.sqrt(c * steps / n / draws))


@pytest.mark.parametrize("activation", sorted(activations.ACTIVATIONS))
@pytest.mark.parametrize("w", [0.7, 1.2, -2.0])
def test_the_derivative_of_a_chain_is_the_product_of_its_links(activation, w):
    phi, derivative = activations.get(activation)

    def chain(x, depth=6):
        product = np.array(1.0)
        for _ in range(depth):
            h = w * x
            x, product = phi(h), product * w * derivative(h)
        return x, product

    # Central difference: truncation about step^2, rounding about 1e-16 / step.
    x, step = np.array(0.3), 1e-5
    difference = (chain(x + step)[0] - chain(x - step)[0]) / (2 * step)
    assert chain(x)[1] == pytest.approx(difference, rel=1e-6, abs=1e-9)
