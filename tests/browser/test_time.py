"""Jacobians over time in the page against gradutils.recurrent.

The bound. Both sides compute in double precision, in another order: a step brings relative errors
of about (n + 10) u, u = 2^-53. How much of that reaches a norm at step t is measured on
gradutils' network: a relative change of 1e-9 in every weight and input changes the norm by 1e-9
times a growth, below 1e6 in every setting tried here. So 10 t (n + 10) u growth.
"""

import itertools

import numpy as np
import pytest

from gradutils.recurrent import LSTM, RNN
from tests.browser.draws import normals, stream

U, UNITS, STEPS = 2.0**-53, 16, 200
T = np.arange(1, STEPS + 1)


def norms(jacobians):
    return np.linalg.norm(jacobians, 2, axis=(1, 2))


def rnn_norms(W, u, activation):
    net = RNN(UNITS, UNITS, 1, activation, seed=0)
    net.W, net.U = W, np.eye(UNITS)
    return norms(net.jacobians(u))


def lstm_norms(weights, u, forget_bias):
    net = LSTM(UNITS, UNITS, forget_bias=forget_bias, seed=0)
    net.W, net.U = weights
    return norms(net.cell_jacobians(u))


def compare(ours, reference, arguments):
    theirs = reference(*arguments)
    rng = np.random.default_rng(0)
    shaken = [a * (1 + 1e-9 * rng.standard_normal(np.shape(a))) for a in arguments[:2]]
    growth = np.maximum.accumulate(np.abs(reference(*shaken, *arguments[2:]) / theirs - 1) / 1e-9)
    assert growth[-1] < 1e6
    bound = 10 * T * (UNITS + 10) * U * np.maximum(1, growth)
    assert np.all(np.abs(ours / theirs - 1) <= bound)


def matrix(script, state):
    return np.array(script("(s) => [...G.recurrent.recurrentMatrix(s)]", state)).reshape(16, 16)


# The matrix


@pytest.mark.parametrize(("radius", "seed"), itertools.product((0.5, 1.0, 1.5), (0, 99)))
def test_without_shear_the_matrix_is_a_multiple_of_an_orthogonal_one(script, radius, seed):
    W = matrix(script, {"radius": radius, "shear": 0, "seed": seed})
    np.testing.assert_allclose(W @ W.T, radius**2 * np.eye(UNITS), atol=100 * U)


@pytest.mark.parametrize("radius", [0.5, 0.9, 1.5])
@pytest.mark.parametrize("shear", [0.05, 0.5, 1.0, 2.0])
def test_shear_moves_no_eigenvalue(script, radius, shear):
    for seed in (0, 35, 82, 99):
        W = matrix(script, {"radius": radius, "shear": shear, "seed": seed})
        # Bauer and Fike: an eigenvalue moves by at most the condition of the eigenvectors times the
        # norm of the rounding, 3 n u ||W||: two products of matrices, and the eigenvalues' own.
        values, right = np.linalg.eig(W)
        bound = 3 * UNITS * U * np.linalg.norm(W) * np.linalg.cond(right)
        assert np.abs(np.abs(values) - radius).max() <= bound
        # No basis changes the sum of squares: that of the rotations and that of the entries above.
        above = np.kron(np.triu(np.ones((8, 8)), 1), np.ones((2, 2)))
        entries = shear / 4 * above * normals((UNITS, UNITS), stream(seed, 0))
        squares = UNITS * radius**2 + (entries**2).sum()
        np.testing.assert_allclose((W**2).sum(), squares, rtol=10 * UNITS * U)


# Norms


def test_spectral_norm_is_numpys(script):
    rng = np.random.default_rng(0)
    for scale in (1e-180, 1.0, 1e150):
        A = scale * rng.standard_normal((UNITS, UNITS))
        found = script("(A) => G.recurrent.spectralNorm(Float64Array.from(A))", A.ravel().tolist())
        # The square root of an eigenvalue of A^T A: UNITS^2 operations, halved by the root.
        assert found == pytest.approx(np.linalg.norm(A, 2), rel=UNITS**2 * U)


def test_spectral_norm_of_special_matrices(script):
    norm = "(A) => G.recurrent.spectralNorm(Float64Array.from(A))"
    assert script(norm, np.zeros(256).tolist()) == 0
    assert script(norm, np.eye(16).ravel().tolist()) == pytest.approx(1, rel=U * 100)
    assert script(norm, np.diag(np.arange(16.0)).ravel().tolist()) == pytest.approx(15, rel=U * 256)
    assert np.isnan(script("() => G.recurrent.spectralNorm(new Float64Array(256).fill(NaN))"))


# Jacobians


def shown(script, **changes):
    state = {
        "radius": 0.95, "shear": 0.0, "activation": "tanh", "input_scale": 0.1,
        "forget_bias": 1.0, "seed": 0,
    } | changes  # fmt: skip
    found = script("(s) => G.time.compute(s)", state)
    return state, {key: np.array(value, float) for key, value in found.items()}


def test_a_linear_network_without_shear_is_the_radius_to_the_power(script):
    for radius in (0.5, 0.95, 1.0, 1.5):
        _, found = shown(script, radius=radius, activation="linear")
        np.testing.assert_allclose(found["rnn"], radius**T, rtol=10 * STEPS * (UNITS + 10) * U)


def lstm_weights(script, seed):
    found = script("(s) => Object.values(G.recurrent.lstmWeights(s)).map((a) => [...a])", seed)
    return [np.array(w).reshape(UNITS, 4 * UNITS) for w in found]


def corners_and_draws():
    """Yield settings: all corners of the range of the controls, and forty points in it."""
    names = ("radius", "shear", "input_scale", "forget_bias", "activation")
    ends = ((0.5, 1.5), (0.0, 2.0), (0.0, 1.0), (-2.0, 8.0), ("linear", "tanh"))
    for values in itertools.product(*ends):
        yield {**dict(zip(names, values, strict=True)), "seed": 7}
    rng = np.random.default_rng(0)
    for _ in range(40):
        yield {
            "radius": rng.integers(50, 151) / 100,
            "shear": rng.integers(41) / 20,
            "activation": str(rng.choice(["linear", "tanh"])),
            "input_scale": rng.integers(21) / 20,
            "forget_bias": rng.integers(-20, 81) / 10,
            "seed": int(rng.integers(100)),
        }


def test_anywhere_in_the_range_of_the_controls(script):
    for changes in corners_and_draws():
        state, found = shown(script, **changes)
        u = state["input_scale"] * normals((STEPS, UNITS), stream(state["seed"], 3))
        compare(found["rnn"], rnn_norms, (matrix(script, state), u, state["activation"]))
        weights = lstm_weights(script, state["seed"])
        compare(found["lstm"], lstm_norms, (weights, u, state["forget_bias"]))


def test_the_weights_of_the_lstm_are_drawn_as_keras_draws_them(script):
    recurrent, kernel = lstm_weights(script, 7)
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(UNITS), atol=100 * U)
    expected = np.sqrt(2 / (5 * UNITS)) * normals((UNITS, 4 * UNITS), stream(7, 5))
    np.testing.assert_allclose(kernel, expected, rtol=1e-12, atol=1e-15)
