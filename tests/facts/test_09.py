"""Facts of the chapter on activations: gains, factors and means."""

import numpy as np
import pytest

from gradutils import activations, networks, theory

SIGMOID = activations.get("sigmoid")
CENTRED = (lambda h: SIGMOID.phi(h) - 0.5, SIGMOID.derivative)


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_the_factor_is_at_least_the_share_without_the_mean(name):
    mean = theory.gaussian_average(activations.get(name).phi, 1.0)
    assert theory.backward_factor(name) >= 1 - (mean * theory.forward_gain(name)) ** 2 - 1e-9


@pytest.mark.parametrize("power", [1, 3, 5])
def test_the_factor_of_a_hermite_polynomial_is_its_degree(power):
    hermite = np.polynomial.hermite_e.HermiteE.basis(power)
    assert theory.backward_factor((hermite, hermite.deriv())) == pytest.approx(power, rel=1e-9)


def test_the_centred_sigmoid_is_critical_at_four_and_is_a_bias():
    assert theory.critical_sigma_w(CENTRED) == pytest.approx(4, abs=1e-6)
    biased = networks.MLP([8] * 6, "sigmoid", 4.0, seed=1)
    for W, b in zip(biased.weights[1:], biased.biases[1:], strict=True):
        b -= W.sum(axis=0) / 2
    twin = networks.MLP([8] * 6, CENTRED, 4.0, seed=1)
    x = np.random.default_rng(0).standard_normal((5, 8))
    assert np.allclose(biased.forward(x).output, twin.forward(x).output, atol=1e-12)
