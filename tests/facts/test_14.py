"""Facts of the chapter on normalization: factors at the start, and what scale invariance does."""

import numpy as np
import pytest

from gradutils import activations, datasets, networks, theory


def log_factors(normalization, activation, rule="he", width=256, batch=128, draws=4, first_seed=10):
    """Mean log growth of the squared backward signal per layer, over 20 layers; one per draw."""
    logs = []
    for seed in range(first_seed, first_seed + draws):
        rng = np.random.default_rng(seed)
        widths = [width] * 33
        net = networks.MLP(widths, activation, rule, rng=rng, normalization=normalization)
        noise = rng.standard_normal((2, batch, width))
        delta = net.backward(net.forward(noise[0]), noise[1]).delta
        norms = [np.sum(d**2) for d in delta]
        logs.append(np.log(norms[10] / norms[30]) / 20)
    return np.array(logs)


def variance(activation):
    phi = activations.get(activation).phi
    return theory.gaussian_average(lambda z: phi(z) ** 2) - theory.gaussian_average(phi) ** 2


def batch_factor(activation):
    return theory.chi(activation, 1.0, q=1.0) / variance(activation)


def test_batch_normalisation_with_relu_grows_by_pi_over_pi_minus_one():
    assert variance("relu") == pytest.approx(1 / 2 - 1 / (2 * np.pi), rel=1e-9)
    assert batch_factor("relu") == pytest.approx(np.pi / (np.pi - 1), rel=1e-9)
    # Finite batch and width add a term of the order 1/B + 1/N; with B = 128 it is about 1 %.
    logs = log_factors("batch", "relu")
    tolerance = 4 * logs.std(ddof=1) / len(logs) ** 0.5 + 1 / 128 + 1 / 256
    assert logs.mean() == pytest.approx(np.log(np.pi / (np.pi - 1)), abs=tolerance)


@pytest.mark.parametrize("name", sorted(activations.ACTIVATIONS))
def test_no_activation_brings_batch_normalisation_below_one(name):
    """Var phi <= E phi'^2 for a Gaussian, with equality for straight lines only."""
    factor = batch_factor(name)
    if name == "linear":
        assert factor == pytest.approx(1, abs=1e-12)
    else:
        assert factor > 1.01


@pytest.mark.parametrize("name", ["sigmoid", "relu"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_layer_and_rms_normalisation_put_a_network_at_unit_gain(name, kind):
    logs = log_factors(kind, name, rule=3.0)
    tolerance = 4 * logs.std(ddof=1) / len(logs) ** 0.5 + 4 / 256  # second term: finite width
    assert logs.mean() == pytest.approx(np.log(theory.backward_factor(name)), abs=tolerance)


@pytest.mark.parametrize("kind", ["batch", "layer", "rms"])
def test_the_gradient_is_orthogonal_to_weights_before_a_normalisation(kind):
    data = datasets.digits(np.random.default_rng(0))
    x, y = data.x_train[:64], data.y_train[:64]
    net = networks.MLP([64] * 6 + [10], "tanh", "he", seed=1, normalization=kind)

    def gradient(net):
        signals = net.forward(x)
        return net.backward(signals, networks.cross_entropy(signals.output, y)[1]).weights[2]

    G = gradient(net)
    inner = np.vdot(net.weights[2], G) / np.linalg.norm(net.weights[2]) / np.linalg.norm(G)
    assert abs(inner) < 1e-9
    net.weights[2] *= 7.0
    np.testing.assert_allclose(gradient(net), G / 7, rtol=1e-7, atol=1e-12)
