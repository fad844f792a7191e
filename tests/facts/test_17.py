"""The facts that chapter 17 shows: gates and the forget bias, with tolerances from statistics."""

import numpy as np
import pytest
from scipy.special import expit

from gradutils.recurrent import LSTM


def log10_memory(bias, seed, scale=1.0, units=64, rule="glorot"):
    """Return log10 of the rms singular value of dc_100/dc_0 of one untrained LSTM."""
    rng = np.random.default_rng(seed)
    net = LSTM(48, units, forget_bias=bias, recurrent=rule, rng=rng)
    J = net.cell_jacobians(scale * rng.standard_normal((100, 48)))[-1]
    return np.log10(np.linalg.norm(J) / np.sqrt(units))


@pytest.mark.parametrize(("bias", "fact"), [(0.0, 7e-22), (1.0, 5e-9), (3.0, 1.0)])
def test_memory_over_100_steps(bias, fact):
    # Draws differ by a factor of about 2 (0.3 decades) each; one decade is more than three
    # standard deviations of a single draw, and here two are averaged.
    logs = [log10_memory(bias, seed) for seed in (10, 11)]
    assert np.mean(logs) == pytest.approx(np.log10(fact), abs=1)


@pytest.mark.parametrize("bias", [-1.0, 0.0, 2.0, 5.0])
def test_gates_alone_are_the_sigmoid_of_the_bias(bias):
    net = LSTM(2, 5, forget_bias=bias, recurrent=0.0, kernel=0.0, seed=0)
    J = net.cell_jacobians(np.random.default_rng(0).standard_normal((100, 2)))
    assert J[-1] == pytest.approx(expit(bias) ** 100 * np.eye(5), rel=1e-10)


@pytest.mark.parametrize("rule", ["glorot", "orthogonal", 2.0])
@pytest.mark.parametrize("bias", [0.0, 1.0, 3.0])
def test_at_rest_the_cell_is_multiplied_by_one_matrix(bias, rule):
    net = LSTM(3, 20, forget_bias=bias, recurrent=rule, seed=1)
    W_g = np.split(net.W, 4, axis=1)[2]
    M = expit(bias) * np.eye(20) + W_g.T / 4
    expected = expit(bias) * np.linalg.matrix_power(M, 29)
    found = net.cell_jacobians(np.zeros((30, 3)))[-1]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12 * np.abs(expected).max())
