"""The facts that chapter 17 shows: what gates and the forget bias do to the memory of a cell."""

import numpy as np
import pytest
from scipy.special import expit

from gradutils.recurrent import LSTM


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
