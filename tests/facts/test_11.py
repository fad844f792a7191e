"""Facts of the chapter on regularization: decay, dropout, and penalties on singular values."""

import keras
import numpy as np
import pytest

from gradutils import networks, theory


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear"])
def test_scaling_all_weights_of_a_homogeneous_network_is_a_power_law(activation):
    c, x = 0.8, np.random.default_rng(0).standard_normal((16, 32))
    net = networks.MLP([32] * 11, activation, "he", seed=1)
    grad = np.ones((16, 32))
    before = net.forward(x)
    deltas = net.backward(before, grad).delta
    net.weights = [c * W for W in net.weights]
    after = net.forward(x)
    np.testing.assert_allclose(after.output, c**10 * before.output, rtol=1e-10)
    for layer, (old, new) in enumerate(zip(deltas, net.backward(after, grad).delta, strict=True)):
        np.testing.assert_allclose(new, c ** (9 - layer) * old, rtol=1e-10, atol=1e-300)


def test_a_network_with_another_activation_is_not_homogeneous():
    x = np.random.default_rng(0).standard_normal((16, 32))
    net = networks.MLP([32] * 4, "tanh", "glorot", seed=1)
    before = net.forward(x).output
    net.weights = [0.8 * W for W in net.weights]
    assert not np.allclose(net.forward(x).output, 0.8**3 * before, rtol=1e-3)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_decay_multiplies_chi_by_its_square_at_given_second_moment(activation):
    chi = theory.chi(activation, 1.3, q=0.7)
    assert theory.chi(activation, 0.9 * 1.3, q=0.7) == pytest.approx(0.81 * chi, rel=1e-12)


def dropout_pass(activation, slope, keep, sigma_w, depth, n, seed):
    """Second moments of the last pre-activation and, from 1 at the end, of the first delta."""
    rng = np.random.default_rng(seed)
    h, slopes, weights = rng.standard_normal((200, n)), [], []
    for _ in range(depth):
        mask = (rng.random(h.shape) < keep) / keep
        slopes.append(slope(h) * mask)
        weights.append(sigma_w / n**0.5 * rng.standard_normal((n, n)))
        h = (activation(h) * mask) @ weights[-1]
    delta = rng.standard_normal(h.shape)
    for W, s in zip(weights[::-1], slopes[::-1], strict=True):
        delta = (delta @ W.T) * s
    return np.mean(h**2), np.mean(delta**2)


@pytest.mark.parametrize("keep", [0.5, 0.8, 1.0])
def test_dropout_multiplies_both_signals_of_a_relu_network_by_one_over_rho(keep):
    depth, n = 8, 400
    runs = np.log([
        dropout_pass(lambda h: np.maximum(h, 0), lambda h: h > 0, keep, 2**0.5, depth, n, seed)
        for seed in range(6)
    ])  # fmt: skip
    error = runs.std(axis=0, ddof=1) / 6**0.5
    # The mean of a logarithm lies below the logarithm of the mean by half of the variance, which
    # is of the order depth (2 / rho + 1) / n.
    bias = depth * (2 / keep + 1) / n
    np.testing.assert_array_less(np.abs(runs.mean(axis=0) + depth * np.log(keep)), 4 * error + bias)


def test_dropout_leaves_no_fixed_point_at_correlation_one():
    """On the critical line xi is infinite without dropout, and 14.5 with one percent of it."""
    sigma_b = 0.05**0.5
    sigma_w = theory.critical_sigma_w("tanh", sigma_b)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    u, w = np.meshgrid(nodes, nodes)

    def pair(f, q, c):
        return weights @ (f(q**0.5 * u) * f(q**0.5 * (c * u + (1 - c * c) ** 0.5 * w))) @ weights

    for keep, expected in ((0.99, 14.5), (0.9, 4.67)):
        q, c = theory.fixed_point("tanh", sigma_w / keep**0.5, sigma_b), 1.0
        first = (sigma_w**2 * pair(np.tanh, q, 1.0) + sigma_b**2) / q
        assert first < 1 - 1e-4
        for _ in range(400):
            c = (sigma_w**2 * pair(np.tanh, q, c) + sigma_b**2) / q
        slope = sigma_w**2 * pair(lambda h: 1 / np.cosh(h) ** 2, q, c)
        assert -1 / np.log(slope) == pytest.approx(expected, rel=0.01)


def test_the_orthogonal_pull_moves_singular_values_only():
    W = np.random.default_rng(0).standard_normal((20, 20)) / 20**0.5
    left, s, right = np.linalg.svd(W)
    pulled = W - 0.1 * W @ (W.T @ W - np.eye(20))
    np.testing.assert_allclose(left.T @ pulled @ right.T, np.diag(s - 0.1 * (s**3 - s)), atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_with_spectral_norm_one_the_backward_signal_never_grows(activation):
    for seed in range(3):
        net = networks.MLP([48] * 12, activation, 2.0, seed=seed)
        net.weights = [W / np.linalg.norm(W, 2) for W in net.weights]
        x = np.random.default_rng(seed).standard_normal((1, 48))
        delta = net.backward(net.forward(x), np.ones((1, 48))).delta
        norms = np.array([np.linalg.norm(d) for d in delta])
        assert (np.diff(norms) >= -1e-12).all()


def test_keras_l2_has_twice_its_argument_as_decay():
    W = keras.Variable(np.array([3.0, -1.0], "float32"))
    steps = []
    for options, gradient in (({}, 2 * 0.05 * W.numpy()), ({"weight_decay": 0.1}, 0 * W.numpy())):
        variable = keras.Variable(W.numpy())
        sgd = keras.optimizers.SGD(0.1, **options)
        sgd.build([variable])
        sgd.apply([gradient], [variable])
        steps.append(variable.numpy())
    np.testing.assert_allclose(*steps, rtol=1e-6)
    penalty = float(keras.regularizers.L2(0.05)(W))
    assert penalty == pytest.approx(0.1 / 2 * 10)
