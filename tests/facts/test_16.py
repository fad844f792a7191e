"""The facts that chapter 16 shows: gates and the forget bias, with tolerances from statistics."""

import numpy as np
import pytest
from scipy.special import expit

from gradutils import datasets, recurrent
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


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_bias_decides_at_every_size_of_input(scale):
    logs = [log10_memory(bias, 12, scale) for bias in (0.0, 1.0, 3.0)]
    assert logs[0] + 5 < logs[1] < logs[2] - 5


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


def test_the_resting_lstm_of_keras_is_critical_at_ln_7():
    # The spectral radius of a Gaussian matrix scatters by O(n^-1/2) at most: a quarter of
    # 0.5 * 256^-1/2 is 0.008; three of these.
    W_g = np.split(LSTM(1, 256, seed=3).W, 4, axis=1)[2]
    radius = recurrent.spectral_radius(expit(np.log(7)) * np.eye(256) + W_g.T / 4)
    assert radius == pytest.approx(1, abs=0.024)


def test_without_forgetting_the_cells_grow_and_saturate():
    u = np.random.default_rng(4).standard_normal((4, 1000, 8))
    c = {bias: LSTM(8, 32, forget_bias=bias, seed=5).forward(u).c for bias in (1.0, 40.0)}
    late = {bias: np.sqrt((cells[:, -1] ** 2).mean()) for bias, cells in c.items()}
    # With f = 1 and |i g| < 1, a cell can reach 1000; with bias 1 the geometric series bounds
    # the mean drift: cells stay below 1 / (1 - f).
    assert late[40.0] > 10
    assert late[1.0] < 1 / (1 - expit(1.0))
    assert (1 - np.tanh(c[40.0][:, -1]) ** 2).mean() < 0.3


@pytest.mark.parametrize("length", [10, 30, 100])
def test_the_baseline_of_the_adding_problem_is_a_sixth(length):
    _, y = datasets.adding_problem(50_000, length, np.random.default_rng(6))
    error = (y - 1) ** 2
    assert abs(error.mean() - 1 / 6) < 4 * error.std() / np.sqrt(len(y))


@pytest.mark.parametrize("largest", [0.5, 1.9])
@pytest.mark.parametrize("z", [0.1, 0.5, 0.95])
def test_a_resting_gru_with_a_radius_below_2_does_not_explode(largest, z):
    G = np.random.default_rng(7).standard_normal((30, 30))
    G *= largest / recurrent.spectral_radius(G)
    assert recurrent.spectral_radius(z * np.eye(30) + (1 - z) / 2 * G) < 1


def test_chrono_biases_have_the_time_constants_of_the_task():
    u = np.array([1.0, 10.0, 99.0])
    assert expit(np.log(u)) == pytest.approx(1 - 1 / (1 + u), rel=1e-12)
