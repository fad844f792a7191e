"""Facts about Jacobian products: growth at finite width, and what number formats can hold.

Statistical tolerances are multiples of the standard error that the claim itself implies: 4 of them
fail by chance once in 16,000 runs, and the seeds are fixed.
"""

import ml_dtypes
import numpy as np
import pytest

from gradutils.networks import MLP


def one_layer_variance(slope):
    """Variance of n X, X = mean of s^2 g^2 over units, s = sigma or sigma * slope with equal odds.

    sigma^2 = 2 / (1 + slope^2) makes the mean 1. It is 5 for ReLU (slope 0), 2 if linear (1).
    """
    return 6 * (1 + slope**4) / (1 + slope**2) ** 2 - 1


def log_gains(activation, sigma_w, width, depth, nets, rng):
    gains = np.empty(nets)
    for i in range(nets):
        net = MLP([width] * (depth + 2), activation, sigma_w, rng=rng)
        signals = net.forward(rng.standard_normal((1, width)))
        delta = net.backward(signals, rng.standard_normal((1, width))).delta
        gains[i] = np.log(np.sum(delta[0] ** 2) / np.sum(delta[-1] ** 2))
    return gains


@pytest.mark.parametrize(
    ("activation", "slope", "width", "depth"),
    [("relu", 0.0, 50, 50), ("linear", 1.0, 40, 20), ("leaky_relu", 0.2, 50, 25)],
)
def test_log_gradients_have_the_mean_and_variance_of_finite_width(activation, slope, width, depth):
    nets, v = 150, one_layer_variance(slope)
    sigma_w = np.sqrt(2 / (1 + slope**2))
    gains = log_gains(activation, sigma_w, width, depth, nets, np.random.default_rng(6))
    beta = depth / width
    mean, variance = -v / 2 * beta, v * beta  # leading order: -2.5 beta and 5 beta for ReLU
    # The next order is a share of at most v / n (1.6/n and 4/n for ReLU); 4 standard errors on top.
    assert abs(gains.mean() - mean) < v / width * abs(mean) + 4 * np.sqrt(variance / nets)
    assert abs(gains.var() / variance - 1) < v / width + 4 * np.sqrt(2 / nets)


@pytest.mark.parametrize(
    ("kind", "survives"),
    [
        (ml_dtypes.float8_e4m3fn, 4),
        (ml_dtypes.float8_e5m2, 8),
        (np.float16, 12),
        (ml_dtypes.bfloat16, 66),
        (np.float32, 74),
        (np.float64, 537),
    ],
)
def test_how_many_sigmoid_layers_a_number_format_survives(kind, survives):
    gradient = kind(1)
    for _ in range(survives):
        gradient = gradient * kind(0.25)
    assert gradient == kind(2.0 ** (-2 * survives)) > 0
    assert gradient * kind(0.25) == 0


@pytest.mark.parametrize(
    ("storage", "layers", "alive"),
    [(np.float16, 12, True), (np.float16, 13, False), (np.float32, 13, True)],
)
def test_sigmoid_layers_at_their_steepest(storage, layers, alive):
    net = MLP([1] * (layers + 2), "sigmoid", 1.0, seed=0, storage=storage)
    net.weights = [np.ones((1, 1))] * (layers + 1)
    net.biases = [np.zeros(1)] + [np.full(1, -0.5)] * layers  # every pre-activation is 0
    delta = net.backward(net.forward(np.zeros((1, 1))), np.ones((1, 1))).delta
    assert (delta[0].item() > 0) == alive
