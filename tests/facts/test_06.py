"""The facts that chapter 06 shows: recurrence, with tolerances from the statistics of each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils import initializers
from gradutils.recurrent import RNN

#: Largest slope of each activation, "gamma" in Pascanu, Mikolov and Bengio 2013.
GAMMA = {"tanh": 1.0, "sigmoid": 0.25, "linear": 1.0, "relu": 1.0, "softplus": 1.0, "elu": 1.0}


def norms_over_time(W, activation, noise, seed, steps=100):
    """Return the norms of dx_t/dx_0 in a network of matrix W, driven by white noise."""
    net = RNN(len(W), len(W), 1, activation, kernel=1.0, seed=seed)
    net.W = W
    u = noise * np.random.default_rng(seed).standard_normal((steps, len(W)))
    return np.linalg.norm(net.jacobians(u), 2, axis=(1, 2))


@given(
    activation=st.sampled_from(sorted(GAMMA)),
    bound=st.floats(0.3, 3),
    noise=st.floats(0, 2),
    seed=st.integers(0, 10**6),
)
def test_the_largest_singular_value_bounds_the_jacobian(activation, bound, noise, seed):
    # The theorem holds for every draw; 1e-12 a step is room for rounding.
    W = np.random.default_rng([seed, 2]).standard_normal((6, 6))
    W *= bound / GAMMA[activation] / np.linalg.norm(W, 2)
    norms = norms_over_time(W, activation, noise, seed, steps=20)
    assert (norms <= (bound * (1 + 1e-12)) ** np.arange(1, 21)).all()


@pytest.mark.parametrize("activation", ["linear", "relu", "elu"])
def test_the_bound_is_sharp(activation):
    # Positive states have slope 1, and a multiple of a permutation stretches all directions alike.
    net = RNN(1, 3, 1, activation, seed=0)
    net.W = 0.9 * np.roll(np.eye(3), 1, axis=0)
    J = net.jacobians(np.zeros((30, 1)), np.ones(3))
    assert np.linalg.norm(J[-1], 2) == pytest.approx(0.9**30, rel=1e-12)


@pytest.mark.parametrize("rate", [1.5, 2.0, 3.0])
def test_a_tanh_network_of_spectral_radius_0_explodes(rate):
    # W = a [[1, 1], [-1, -1]] at the state (0, s): the Jacobian has the eigenvalue a s^2.
    s = 0.8
    net = RNN(1, 2, 1, "tanh", seed=0)
    net.W = rate / s**2 * np.array([[1.0, 1.0], [-1.0, -1.0]])
    resting = np.array([0, s])
    net.b = np.arctanh(resting) - resting @ net.W
    assert np.abs(net.W @ net.W).max() < 1e-13  # a^2 - a^2, where a fused product may round
    norms = np.linalg.norm(net.jacobians(np.zeros((20, 1)), resting), 2, axis=(1, 2))
    # The fixed point is unstable: rounding grows by the same rate, to 3^20 * 1e-16 at worst.
    assert norms[-1] / norms[0] == pytest.approx(rate**19, rel=1e-5)


def cliff_gradient(w, steps, target=0.7):
    """Return dL/d(w, b) of the unit of Pascanu et al. on the line where its state never moves."""
    x0 = 1 / (1 + np.exp(-0.5))
    net = RNN(1, 1, 1, "sigmoid", seed=0)
    net.W[:], net.b[:], net.V[:] = w, 0.5 - w * x0, 1
    run = net.forward(np.zeros((1, steps, 1)), [[x0]])
    gradients = net.backward(run, 2 * (run.output - target))
    growth = w * x0 * (1 - x0)
    dL_db = 2 * (x0 - target) * x0 * (1 - x0) * (growth**steps - 1) / (growth - 1)
    return [gradients.weights[1].item(), gradients.biases[0].item()], [x0 * dL_db, dL_db]


@pytest.mark.parametrize("w", [2.0, 4.0, 5.0, 6.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_the_cliff_in_closed_form(w, steps):
    # The state stays only to rounding, which grows like the gradient: up to 3e7 * 1e-16.
    through_time, by_hand = cliff_gradient(w, steps)
    assert through_time == pytest.approx(by_hand, rel=1e-6)


def test_orthogonal_matrices_hold_a_linear_gradient_and_lose_a_driven_one():
    Q = initializers.orthogonal((64, 64), np.random.default_rng(0))
    assert norms_over_time(Q, "linear", 1.0, 0) == pytest.approx(np.ones(100), rel=1e-10)
    assert norms_over_time(Q, "tanh", 1.0, 0)[-1] < 1e-3
