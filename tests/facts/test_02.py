"""The facts that chapter 02 shows, with tolerances from the statistics of each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils import activations, networks, theory
from gradutils.networks import MLP


def rms(a):
    return float(np.sqrt(np.mean(np.square(a))))


def factor(n, depth, activation, sigma_w, bias_std=0.0, seed=0, **kwargs):
    """Return the factor per layer of the squared backward signal, at a random output error."""
    rng = np.random.default_rng([seed, 1])
    net = MLP([n] * (depth + 1), activation, sigma_w, seed=seed, bias_std=bias_std, **kwargs)
    signals = net.forward(rng.standard_normal((32, n)))
    delta = net.backward(signals, rng.standard_normal((32, n))).delta
    return (rms(delta[0]) / rms(delta[-1])) ** (2 / (depth - 1))


def predicted_factor(depth, activation, sigma_w, sigma_b):
    """The same from the mean-field recursion, layer by layer, with the transient of q."""
    q, logs = sigma_w**2 + sigma_b**2, []  # layer 1, inputs of variance 1
    for _ in range(depth - 1):
        logs.append(np.log(theory.chi(activation, sigma_w, sigma_b, q=q)))
        q = theory.second_moment_map(activation, q, sigma_w, sigma_b)
    return np.exp(np.mean(logs))


@pytest.mark.parametrize(
    ("activation", "sigma_w", "sigma_b"),
    [
        ("relu", 1.0, 0.0), ("relu", 2**0.5, 0.0), ("relu", 2.0, 0.0), ("relu", 1.0, 0.3),
        ("leaky_relu", 1.0, 0.0), ("linear", 1.2, 0.0), ("tanh", 1.2, 0.0), ("tanh", 1.0, 0.5),
        ("tanh", 2.0, 20.0), ("sigmoid", 1.2, 0.0), ("sigmoid", 8.0, 0.0), ("elu", 1.1, 0.1),
        ("gelu", 1.0, 0.2),
    ],
)  # fmt: skip
def test_measured_factor_agrees_with_theory(activation, sigma_w, sigma_b):
    # ln of the squared norm of one sample's signal strays by sqrt(c/n) per layer, c = 5 for ReLU;
    # saturated slopes are sparse, c = E[s^4]/E[s^2]^2 - 1 + 2. Three deviations, and 5/n of bias.
    n, depth = 256, 24
    q = theory.fixed_point(activation, sigma_w, sigma_b)
    q = float(np.clip(q, 1e-6, 1e6))
    slope = activations.get(activation).derivative
    fourth = theory.gaussian_average(lambda h: slope(h) ** 4, q)
    c = 2 + 3 * fourth / theory.gaussian_average(lambda h: slope(h) ** 2, q) ** 2
    tolerance = 3 * np.sqrt(c / n / (depth - 1)) + 5 / n + c / n
    measured = factor(n, depth, activation, sigma_w, sigma_b)
    expected = predicted_factor(depth, activation, sigma_w, sigma_b)
    assert np.log(measured) == pytest.approx(np.log(expected), abs=tolerance)


@given(seed=st.integers(0, 10**6), sigma_w=st.floats(0.1, 30))
def test_a_sigmoid_layer_is_bounded_by_a_quarter_of_the_largest_singular_value(seed, sigma_w):
    net = MLP([6] * 5, "sigmoid", sigma_w, seed=seed, bias_std=1.0)
    rng = np.random.default_rng(seed)
    signals = net.forward(rng.standard_normal((1, 6)))
    delta = net.backward(signals, rng.standard_normal((1, 6))).delta
    for layer in range(1, 4):
        bound = np.linalg.norm(net.weights[layer], 2) / 4 * np.linalg.norm(delta[layer])
        assert np.linalg.norm(delta[layer - 1]) <= bound * (1 + 1e-12)


def test_a_chain_of_sigmoids_explodes():
    net = MLP([1] * 31, "sigmoid", 6.894, seed=0)
    net.weights = [np.array([[6.894]])] * 30
    net.biases = [np.array([-6.894 / 2])] * 30
    jacobian = net.jacobian(np.array([0.5])).item()
    assert jacobian == pytest.approx(6.894 * (6.894 / 4) ** 29, rel=1e-9)  # first layer has no phi


@given(
    seed=st.integers(0, 10**6), kinds=st.integers(1, 4),
    activation=st.sampled_from(["tanh", "elu"]),
    optimizer=st.sampled_from(["sgd", "adam"]),
)  # fmt: skip
def test_units_that_start_alike_stay_alike(seed, kinds, activation, optimizer):
    """As many units are left as there are kinds of them, in weights, biases and activations."""
    rng = np.random.default_rng(seed)
    kind = np.r_[np.arange(kinds), rng.integers(kinds, size=8 - kinds)]  # of each of 8 units
    net = MLP([5, 8, 3], activation, "glorot", rng=rng, bias_std=0.3)
    net.weights = [net.weights[0][:, kind], net.weights[1][kind]]
    net.biases[0] = net.biases[0][kind]
    x, y = rng.standard_normal((12, 5)), rng.integers(3, size=12)
    networks.train(net, x, y, loss=networks.cross_entropy, learning_rate=0.01, epochs=5,
                   batch_size=4, optimizer=optimizer, rng=rng)  # fmt: skip
    first = [np.flatnonzero(kind == k)[0] for k in kind]
    np.testing.assert_allclose(net.weights[0], net.weights[0][:, first], rtol=0, atol=1e-12)
    np.testing.assert_allclose(net.weights[1], net.weights[1][first], rtol=0, atol=1e-12)
    assert np.linalg.matrix_rank(net.weights[0], tol=1e-9) <= kinds


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_from_zeros_only_the_last_biases_learn(activation):
    net = MLP([5, 8, 8, 3], activation, "glorot", seed=0)
    net.weights = [0 * W for W in net.weights]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 5)), rng.integers(3, size=12)
    networks.train(net, x, y, loss=networks.cross_entropy, learning_rate=0.1, epochs=3, rng=rng)
    assert [np.count_nonzero(p) for p in net.weights + net.biases] == [0, 0, 0, 0, 0, 3]
