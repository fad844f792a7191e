import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad

from gradutils import theory
from gradutils.activations import ACTIVATIONS

scales = st.floats(0.2, 4)
biases = st.floats(0, 1)


def normal_mean(f, q):
    """The same average by adaptive integration, split where tanh-like functions turn."""
    width = min(10 / np.sqrt(q), 11)

    def integrand(z):
        return float(f(np.array(np.sqrt(q) * z))) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)

    pieces = [(-12, -width), (-width, 0), (0, width), (width, 12)]
    return sum(quad(integrand, a, b, epsabs=1e-14, epsrel=1e-12, limit=200)[0] for a, b in pieces)


# Exact special cases


@pytest.mark.parametrize("q", [0.0, 0.3, 7.0])
def test_moments_of_relu_and_linear(q):
    assert theory.second_moment_map("linear", q, 1.5, 0.5) == pytest.approx(2.25 * q + 0.25)
    assert theory.second_moment_map("relu", q, 2**0.5, 0.5) == pytest.approx(q + 0.25)


@pytest.mark.parametrize(
    ("activation", "sigma_w"),
    [("linear", 1), ("relu", 2**0.5), ("leaky_relu", (2 / 1.04) ** 0.5), ("tanh", 1)],
)
def test_critical_scale_without_bias(activation, sigma_w):
    # Near 1, tanh's q* is about sigma_w^2 - 1; a q* below 1e-12 counts as 0.
    assert theory.critical_sigma_w(activation) == pytest.approx(sigma_w, rel=1e-7)


def test_polynomials_on_each_half_are_integrated_exactly():
    """E[z^4; z > 0] = 3/2 and E|z|^3 = 2 sqrt(2 / pi)."""
    assert theory.gaussian_average(lambda h: np.maximum(h, 0) ** 4) == pytest.approx(1.5, rel=1e-13)
    third = theory.gaussian_average(lambda h: np.abs(h) ** 3)
    assert third == pytest.approx(2 * np.sqrt(2 / np.pi), rel=1e-13)


@pytest.mark.parametrize("c", [-1, -0.6, 0, 0.3, 0.99, 1])
def test_relu_correlation_is_the_arc_cosine_kernel(c):
    """Cho and Saul 2009: (sqrt(1 - c^2) + c (pi - arccos c)) / pi."""
    expected = (np.sqrt(1 - c * c) + c * (np.pi - np.arccos(c))) / np.pi
    assert theory.correlation_map("relu", c, 2**0.5) == pytest.approx(expected, abs=1e-13)


def test_error_function_kernel():
    """Williams 1997: E[erf(u) erf(v)] = (2/pi) arcsin(2 q c / (1 + 2 q))."""
    from scipy.special import erf

    pair = (erf, lambda h: 2 / np.sqrt(np.pi) * np.exp(-h * h))
    q = theory.fixed_point(pair, 1.5, 0.3)
    for c in (-0.5, 0.2, 0.9):
        inner = 2 / np.pi * np.arcsin(2 * q * c / (1 + 2 * q))
        expected = (1.5**2 * inner + 0.3**2) / q
        assert theory.correlation_map(pair, c, 1.5, 0.3) == pytest.approx(expected, rel=1e-10)


def test_limits_of_the_fixed_point():
    assert theory.fixed_point("tanh", 1.0) == 0
    assert theory.fixed_point("tanh", 0.5) == 0
    assert theory.fixed_point("relu", 1.5) == np.inf
    assert theory.fixed_point("relu", 2**0.5) == 1  # every q stays; it starts at 1
    assert theory.fixed_point("selu", 1.0) == pytest.approx(1, abs=1e-12)
    assert theory.fixed_point("relu", 1.0, 0.5) == pytest.approx(0.5)  # 0.25 / (1 - 1/2)


def test_chi_of_a_dead_and_of_an_unbounded_signal_is_the_limit():
    assert theory.chi("tanh", 0.7) == pytest.approx(0.49, rel=1e-12)
    assert theory.chi("relu", 1.0) == pytest.approx(0.5)  # q* = 0, slopes 0 and 1 beside zero
    assert theory.chi("relu", 2.0) == pytest.approx(2.0)  # q* = inf


# References


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("q", [1e-3, 1.0, 100.0])
def test_averages_against_adaptive_integration(name, q):
    phi, derivative = ACTIVATIONS[name]
    for f in (lambda h: phi(h) ** 2, lambda h: derivative(h) ** 2):
        assert theory.gaussian_average(f, q) == pytest.approx(normal_mean(f, q), rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "selu", "relu"])
def test_correlation_map_against_a_double_integral(name):
    phi = ACTIVATIONS[name].phi
    c, sigma_w, sigma_b = 0.4, 1.0, 0.3
    q = theory.fixed_point(name, sigma_w, sigma_b)

    def integrand(w, z):
        u, v = np.sqrt(q) * z, np.sqrt(q) * (c * z + np.sqrt(1 - c * c) * w)
        density = np.exp(-(z * z + w * w) / 2) / (2 * np.pi)
        return float(phi(np.array(u))) * float(phi(np.array(v))) * density

    average = dblquad(integrand, -7, 7, -7, 7, epsabs=1e-7)[0]
    expected = (sigma_w**2 * average + sigma_b**2) / q
    assert theory.correlation_map(name, c, sigma_w, sigma_b) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_moment_map_against_a_wide_layer(name):
    """A million units: the mean square's relative error is sqrt((kurtosis) / 1e6), below 0.5 %."""
    h = np.sqrt(1.7) * np.random.default_rng(0).standard_normal(1_000_000)
    measured = 1.2**2 * np.mean(ACTIVATIONS[name].phi(h) ** 2) + 0.2**2
    assert theory.second_moment_map(name, 1.7, 1.2, 0.2) == pytest.approx(measured, rel=0.01)


# Properties


@given(sigma_w=scales, sigma_b=st.floats(0.05, 1))
def test_the_fixed_point_is_fixed(sigma_w, sigma_b):
    q = theory.fixed_point("tanh", sigma_w, sigma_b)
    assert theory.second_moment_map("tanh", q, sigma_w, sigma_b) == pytest.approx(q, rel=1e-9)


@given(sigma_b=biases)
@pytest.mark.parametrize("name", ["tanh", "elu", "sigmoid", "selu"])
def test_chi_is_one_on_the_critical_line(name, sigma_b):
    sigma_w = theory.critical_sigma_w(name, sigma_b)
    assert (
        theory.chi(name, 0.999 * sigma_w, sigma_b) < 1 < theory.chi(name, 1.001 * sigma_w, sigma_b)
    )


@given(sigma_w=st.floats(0.5, 2.5), sigma_b=st.floats(0.1, 1))
def test_chi_is_the_slope_of_the_correlation_map_at_one(sigma_w, sigma_b):
    step = 1e-5
    slope = (1 - theory.correlation_map("tanh", 1 - step, sigma_w, sigma_b)) / step
    # The curvature at 1 is of order chi q*, and rounding of order 1e-15 / step.
    assert slope == pytest.approx(theory.chi("tanh", sigma_w, sigma_b), rel=2e-3)


@given(sigma_w=st.floats(1.6, 3), sigma_b=st.floats(0.05, 0.3))
def test_the_correlation_settles_at_its_fixed_point(sigma_w, sigma_b):
    c_star = theory.correlation_fixed_point("tanh", sigma_w, sigma_b)
    assert 0 <= c_star < 1
    assert theory.correlation_map("tanh", c_star, sigma_w, sigma_b) == pytest.approx(c_star)


@given(sigma_w=scales, sigma_b=biases)
def test_depth_scale_of_the_ordered_phase(sigma_w, sigma_b):
    chi = theory.chi("tanh", sigma_w, sigma_b)
    if chi < 0.999:
        expected = -1 / np.log(chi)
        assert theory.depth_scale("tanh", sigma_w, sigma_b) == pytest.approx(expected)


def test_the_depth_scale_diverges_on_the_critical_line_from_both_sides():
    critical = theory.critical_sigma_w("tanh", 0.2)
    for side in (-1, 1):
        far, near = (
            theory.depth_scale("tanh", critical * (1 + side * d), 0.2) for d in (0.1, 1e-3)
        )
        assert near > 50 * far
    assert theory.depth_scale("relu", 2**0.5) == np.inf
    assert theory.depth_scale("relu", 2.0) == np.inf


def test_gelu_jumps_over_the_critical_line():
    """Without bias q* leaps from 0 to inf, and chi from below 1 to above it."""
    sigma_w = theory.critical_sigma_w("gelu")
    assert sigma_w == pytest.approx(theory.forward_gain("gelu"), rel=1e-6)
    below, above = (theory.chi("gelu", sigma_w * (1 + d)) for d in (-1e-4, 1e-4))
    assert below == pytest.approx(sigma_w**2 / 4, rel=1e-3)
    assert above == pytest.approx(sigma_w**2 / 2, rel=1e-3)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "linear"])
def test_scale_invariant_activations_have_equal_gains(name):
    assert theory.backward_factor(name) == pytest.approx(1, rel=1e-12)


# Errors


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (theory.chi, ("swiish", 1.0), "activation must be one of .*; received 'swiish'"),
        (theory.chi, ("tanh", -1.0), r"sigma_w must be .* 0 to 1e\+06; received -1.0"),
        (theory.chi, ("tanh", np.nan), "sigma_w must be .*; received nan"),
        (theory.fixed_point, ("tanh", np.inf), r"sigma_w must be a number from 0 to 1e\+06"),
        (theory.fixed_point, ("tanh", 1.0, -0.1), r"sigma_b must be .* 0 to 1e\+06"),
        (theory.second_moment_map, ("tanh", -1.0, 1.0), "q must be a finite number >= 0"),
        (theory.gaussian_average, (np.cos, np.nan), "q must be a finite number >= 0"),
        (theory.correlation_map, ("tanh", 1.5, 1.5), "c must be a number from -1 to 1"),
        (theory.correlation_map, ("tanh", 0.5, 0.5), r"finite q\* > 0; received .* q\* = 0.0"),
        (theory.correlation_fixed_point, ("relu", 2.0), r"finite q\* > 0; .* q\* = inf"),
        (theory.critical_sigma_w, ((np.zeros_like, np.zeros_like),), "has no critical sigma_w"),
    ],
)
def test_bad_input(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
