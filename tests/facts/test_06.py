"""The facts that chapter 06 shows: recurrence, with tolerances from the statistics of each."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import digamma, polygamma

from gradutils import datasets, initializers, recurrent
from gradutils.recurrent import LSTM, RNN

#: Largest slope of each activation, "gamma" in Pascanu, Mikolov and Bengio 2013.
GAMMA = {"tanh": 1.0, "sigmoid": 0.25, "linear": 1.0, "relu": 1.0, "softplus": 1.0, "elu": 1.0}


def norms_over_time(W, activation, noise, seed, steps=100):
    """Return the norms of dx_t/dx_0 in a network of matrix W, driven by white noise."""
    net = RNN(len(W), len(W), 1, activation, kernel=1.0, seed=seed)
    net.W = W
    u = noise * np.random.default_rng(seed).standard_normal((steps, len(W)))
    return np.linalg.norm(net.jacobians(u), 2, axis=(1, 2))


def of_radius(radius, n, seed):
    """Draw a Gaussian matrix and scale it to a spectral radius."""
    W = np.random.default_rng([seed, 1]).standard_normal((n, n))
    return W * radius / recurrent.spectral_radius(W)


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


@pytest.mark.parametrize(
    ("activation", "radius", "noise", "largest"),
    [
        ("tanh", 0.9, 0.1, 1),
        ("tanh", 1.1, 0.5, 1),
        ("sigmoid", 3.0, 0.1, 4),
        ("sigmoid", 4.5, 1.0, 4),
    ],
)
def test_a_singular_value_above_the_threshold_does_not_suffice_to_explode(
    activation, radius, noise, largest
):
    for seed in range(5):
        W = of_radius(radius, 64, seed)
        assert np.linalg.norm(W, 2) > largest
        assert norms_over_time(W, activation, noise, seed)[-1] < 1e-3


JACOBIAN_ROWS = [("tanh", 1.0, (2.4, 0.17, 8e-3)), ("linear", 1.1, (7.0, 240, 2.8e4))]


@pytest.mark.parametrize(("activation", "radius", "figures"), JACOBIAN_ROWS)
def test_jacobian_norms_over_time(activation, radius, figures):
    # The row is one draw (input noise 0.1 per unit), so it may lie three standard deviations of a
    # single draw from the mean logarithm, and the deviations are under a factor of 3 themselves.
    draws = [
        norms_over_time(of_radius(radius, 64, seed), activation, 0.1, seed)[[9, 49, 99]]
        for seed in range(40)
    ]
    logs = np.log(draws)
    assert (logs.std(axis=0) < np.log(3)).all()
    assert (np.abs(np.log(figures) - logs.mean(axis=0)) < 3 * logs.std(axis=0)).all()


def test_inputs_make_the_difference_at_spectral_radius_1():
    # At rest a tanh network is linear and holds its norm; stronger inputs forget sooner.
    ends = []
    for noise in (0.0, 0.1, 0.3, 1.0):
        norms = [norms_over_time(of_radius(1.0, 64, s), "tanh", noise, s)[-1] for s in range(6)]
        ends.append(np.log10(norms).mean())
    assert 0 < ends[0] < 1
    assert (np.diff(ends) < -1).all()


def non_normal():
    return 0.9 * (np.eye(50) + np.eye(50, k=1))


def test_the_non_normal_matrix_and_its_200th_power():
    W = non_normal()
    assert recurrent.spectral_radius(W) == pytest.approx(0.9)
    power = np.linalg.matrix_power(W, 200)
    for k in (0, 1, 20, 49):  # its k-th diagonal, from exact integers
        assert power[0, k] == pytest.approx(comb(200, k) * 0.9**200, rel=1e-11)
    assert np.linalg.norm(power, 2) == pytest.approx(1.2e38, rel=0.05)  # two digits


def test_gelfand_from_below_and_in_the_limit():
    # Scaled to radius 1, as many steps would leave the range of floats, the matrix is I + N with
    # ones above the diagonal, and (I + N)^t has C(t, k) on its k-th diagonal: an exact bound.
    W = non_normal()[:8, :8] / 0.9
    P = np.eye(8)
    for t in range(1, 20_001):
        P = P @ W
        if t in (1, 10, 100, 20_000):
            growth = np.linalg.norm(P, 2) ** (1 / t)
            bound = sum(comb(t, k) for k in range(8)) ** (1 / t)
            assert 1 - 1e-12 <= growth <= bound * (1 + 1e-12)
    assert bound < 1.004  # so at t = 20,000 it has come down to the radius


def test_two_nilpotent_matrices_whose_product_grows():
    A, B = np.array([[0.0, 2], [0, 0]]), np.array([[0.0, 0], [2, 0]])
    assert not (A @ A).any() and not (B @ B).any()
    assert np.linalg.norm(np.linalg.multi_dot([A, B] * 10), 2) == 2**20


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


def test_a_repeated_matrix_scatters_like_t_and_fresh_ones_like_the_root_of_t():
    # Fresh matrices: the log length is a sum of independent terms of known mean and variance.
    # With 100 trials a mean is known to 1/10 and a deviation to 1/14 of the deviation: 4 of each.
    rng, n, t, trials = np.random.default_rng(0), 64, 100, 100
    fresh, same = [], []
    for _ in range(trials):
        v = w = np.full(n, n**-0.5)
        W = rng.standard_normal((n, n)) / n**0.5
        for _ in range(t):
            v, w = v @ (rng.standard_normal((n, n)) / n**0.5), w @ W
        fresh.append(np.log(np.linalg.norm(v)))
        same.append(np.log(np.linalg.norm(w)))
    deviation = np.sqrt(t * polygamma(1, n / 2) / 4)
    mean = t * (np.log(2 / n) + digamma(n / 2)) / 2
    assert np.mean(fresh) == pytest.approx(mean, abs=4 * deviation / trials**0.5)
    assert np.std(fresh) == pytest.approx(deviation, rel=4 / (2 * trials) ** 0.5)
    assert np.std(same) > 2.5 * np.std(fresh)


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


@pytest.mark.parametrize("length", [2, 5, 100])
def test_guessing_the_mean_of_the_adding_problem_costs_a_sixth(length):
    # Standard error from the fourth moment of the sum of two uniforms about 1, which is 1/15.
    samples = 20_000
    _, y = datasets.adding_problem(samples, length, np.random.default_rng(length))
    deviation = np.sqrt((1 / 15 - 1 / 36) / samples)
    assert np.mean((y - 1) ** 2) == pytest.approx(1 / 6, abs=4 * deviation)
    assert np.mean(y) == pytest.approx(1, abs=4 * np.sqrt(1 / 6 / samples))


def cell_memory(bias, inputs=48, rule="glorot", draws=8):
    """Return log10 of the rms singular value of dc_100/dc_0, one number for each draw."""
    rng, logs = np.random.default_rng(1), []
    for _ in range(draws):
        net = LSTM(inputs, 64, forget_bias=bias, recurrent=rule, rng=rng)
        J = net.cell_jacobians(rng.standard_normal((100, inputs)))[-1]
        logs.append(np.log10(np.linalg.norm(J) / 8))
    return np.array(logs)


@pytest.mark.parametrize(("bias", "figure"), [(0, 7e-22), (1, 5e-9), (3, 1)])
def test_the_forget_bias_decides(bias, figure):
    # The row is one draw, so three standard deviations of a draw; its last entry says "about 1",
    # which we read as within a factor of 3.
    logs = cell_memory(bias)
    tolerance = max(3 * logs.std(ddof=1), np.log10(3))
    assert abs(np.log10(figure) - logs.mean()) < tolerance < 2


@pytest.mark.parametrize(
    ("inputs", "rule"), [(8, "glorot"), (48, "orthogonal"), (48, "uniform_third")]
)
def test_the_forget_bias_decides_with_other_weights_and_inputs_too(inputs, rule):
    means = [cell_memory(bias, inputs, rule, draws=3).mean() for bias in (0, 1, 3)]
    assert means[0] < -15 and -12 < means[1] < -4 and -1.5 < means[2] < 1.5


def test_orthogonal_matrices_hold_a_linear_gradient_and_lose_a_driven_one():
    Q = initializers.orthogonal((64, 64), np.random.default_rng(0))
    assert norms_over_time(Q, "linear", 1.0, 0) == pytest.approx(np.ones(100), rel=1e-10)
    assert norms_over_time(Q, "tanh", 1.0, 0)[-1] < 1e-3
