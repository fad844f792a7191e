"""The facts that chapter 19 shows: steps, widths, number formats and gated recurrences."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from gradutils import datasets, networks
from gradutils.patients import FAINT_LOSS_WEIGHT, patient


def digits(samples=128):
    data = datasets.digits(np.random.default_rng(0))
    return data.x_train[:samples], data.y_train[:samples]


@pytest.mark.parametrize(
    ("scale", "share"), [(1, 0.27), (8, 0.05), (128, 0.0012), (1024, 0.000023)]
)
def test_share_of_gradients_that_loss_scaling_saves(scale, share):
    # Half a unit of the last digit of each figure; 4 standard errors of the draws for the rest.
    exact = norm.cdf(np.log(2.0**-25 / scale / 1e-7) / 2)
    assert exact == pytest.approx(share, abs=10 ** np.floor(np.log10(share)) / 2)
    g = 1e-7 * np.exp(2 * np.random.default_rng(0).standard_normal(1_000_000))
    drawn = np.mean((scale * g).astype(np.float16) == 0)
    assert abs(drawn - exact) < 4 * np.sqrt(exact / 1e6) + 1e-6


@pytest.mark.parametrize(
    ("dtype", "layers"),
    [(np.float16, 13), (ml_dtypes.float8_e5m2, 9), (ml_dtypes.float8_e4m3fn, 5)],
)
def test_sigmoid_layers_until_zero(dtype, layers):
    powers = (0.25 ** np.arange(30.0)).astype(dtype).astype(float)
    assert np.argmax(powers == 0) == layers


def gradient_norms(storage, power):
    x, y = digits()
    net = patient("float16", seed=0, storage=storage)
    signals = net.forward(x)
    gradient = FAINT_LOSS_WEIGHT * 2.0**power * networks.cross_entropy(signals.output, y)[1]
    return np.array([np.linalg.norm(g) for g in net.backward(signals, gradient).weights])


@pytest.mark.parametrize("storage", [np.float16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn])
def test_a_faint_loss_is_lost_and_scaling_restores_it(storage):
    # The faintest gradients are 2^-24 to 2^-35: below every one of these formats unscaled. Scaled
    # by 2^24 they differ from the exact ones by rounding: at most 2^-3 for each of the 10 layers.
    exact = gradient_norms(None, 24)
    assert (gradient_norms(storage, 0) == 0).any()
    assert np.allclose(gradient_norms(storage, 24), exact, rtol=0.5)
    assert (gradient_norms(ml_dtypes.bfloat16, 0) > 0).all()


def orthogonalise(G, coefficients, steps):
    a, b, c = coefficients
    X = G / np.linalg.norm(G)
    for _ in range(steps):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X


@given(st.integers(0, 10**6), st.sampled_from([1.0, 1e-12, 1e12]))
def test_newton_schulz_acts_on_the_singular_values_alone(seed, scale):
    # An odd polynomial of X is U p(S) V^T. Five steps of slope 3.4445 amplify rounding by 485.
    G = np.random.default_rng(seed).standard_normal((6, 6))
    U, s, Vt = np.linalg.svd(G / np.linalg.norm(G))
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    step = orthogonalise(scale * G, (3.4445, -4.775, 2.0315), 5)
    assert np.allclose(step, (U * s) @ Vt, atol=1e-9)


def test_the_classical_polynomial_ends_at_an_orthogonal_matrix():
    # Quadratic convergence: 40 steps leave rounding only.
    step = orthogonalise(np.random.default_rng(0).standard_normal((5, 5)), (1.5, -0.5, 0.0), 40)
    assert np.allclose(step @ step.T, np.eye(5), atol=1e-9)


def sign_step_change(n, rate, seed=0):
    """Return how far one sample's pre-activations move after a step of the size of Adam's first."""
    rng = np.random.default_rng(seed)
    x, delta = rng.standard_normal(n), rng.standard_normal(10)
    return x @ (-rate * np.sign(np.outer(x, delta)))


def test_the_first_step_of_adam_grows_with_the_fan_in():
    # Exactly rate * n * mean|x|; mean|x| of a Gaussian is 0.798, its error 0.6 / sqrt(n).
    for n in (64, 1024):
        change = np.abs(sign_step_change(n, rate=1.0))
        assert np.ptp(change) < 1e-9 * n
        assert change[0] / n == pytest.approx(np.sqrt(2 / np.pi), abs=4 * 0.61 / np.sqrt(n))


def gates(seed, time=30, units=5):
    rng = np.random.default_rng(seed)
    return 1 / (1 + np.exp(-3 * rng.standard_normal((time, units)))), rng.standard_normal(
        (time, units)
    )


def recur(a, b, h):
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
    return h


@given(st.integers(0, 10**6))
def test_a_gated_linear_recurrence_cannot_explode(seed):
    # Linear in the state, so a difference quotient of any width is exact up to rounding.
    a, b = gates(seed)
    for unit in range(5):
        derivative = recur(a, b, np.eye(5)[unit]) - recur(a, b, np.zeros(5))
        assert np.allclose(derivative, np.eye(5)[unit] * a.prod(axis=0), atol=1e-12)
    assert (a.prod(axis=0) < 1).all()


@pytest.mark.parametrize("T", [10, 100, 10_000])
def test_a_bias_of_ln_T_leaves_1_over_e(T):
    # (1 + 1/T)^-T = exp(-1 + 1/(2T) - ...), so the error is at most 1 / (2 T) of 1/e.
    a = 1 / (1 + np.exp(-np.log(T)))
    assert np.exp(-1) < a**T < np.exp(-1) * (1 + 0.52 / T)


@pytest.mark.parametrize(
    ("dtype", "memory"), [(ml_dtypes.bfloat16, 2**8), (np.float16, 2**11), (np.float32, 2**24)]
)
def test_longest_memory_of_a_stored_gate(dtype, memory):
    assert float(np.array(1 - 1 / memory).astype(dtype)) == 1 - 1 / memory
    assert float(np.array(1 - 0.49 / memory).astype(dtype)) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"normalization": "rms", "branch_scale": 1.0}, 100**0.5), ({"branch_scale": 0.1}, np.e**0.5)],
)
def test_backward_growth_of_a_hundred_residual_layers(options, expected):
    # Pre-norm: sqrt(L); branches of 1/sqrt(L): sqrt(e). The logarithm of the norm scatters by
    # about sqrt(5 / width) / 2 per unit of log-growth (Hanin 2018): three times 0.14 is 50 %.
    net = networks.MLP([64] * 100 + [10], "relu", "he", seed=0, **options)
    backward = networks.layer_norms(net, *digits()).backward[:-1]
    assert backward[0] / backward[-1] == pytest.approx(expected, rel=0.5)
