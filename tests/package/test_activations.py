import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf, expit

from gradutils import activations
from gradutils.activations import ACTIVATIONS

KINKED = {"relu", "leaky_relu", "elu", "selu"}
EPS = np.finfo(np.float64).eps
points = st.floats(-30, 30).filter(lambda x: abs(x) > 1e-3)


@pytest.mark.parametrize(
    ("name", "x", "value", "slope"),
    [
        ("linear", 3.0, 3.0, 1.0),
        ("sigmoid", 0.0, 0.5, 0.25),
        ("tanh", 0.0, 0.0, 1.0),
        ("relu", 2.0, 2.0, 1.0),
        ("relu", 0.0, 0.0, 0.0),
        ("leaky_relu", -10.0, -2.0, 0.2),
        ("elu", np.log(0.5), -0.5, 0.5),
        ("gelu", 0.0, 0.0, 0.5),
        ("silu", 0.0, 0.0, 0.5),
        ("softplus", 0.0, np.log(2), 0.5),
    ],
)
def test_exact_values(name, x, value, slope):
    phi, derivative = ACTIVATIONS[name]
    assert phi(np.array([x]))[0] == pytest.approx(value, rel=4 * EPS, abs=0)
    assert derivative(np.array([x]))[0] == pytest.approx(slope, rel=4 * EPS, abs=0)


def test_selu_keeps_mean_zero_and_variance_one():
    """Klambauer et al. 2017 choose scale and alpha so that (0, 1) is a fixed point."""
    z, weights = np.polynomial.legendre.leggauss(400)
    total = np.zeros(2)
    for low, high in [(-12, 0), (0, 12)]:
        h = (high - low) / 2 * z + (high + low) / 2
        density = np.exp(-h * h / 2) / np.sqrt(2 * np.pi) * weights * (high - low) / 2
        value = ACTIVATIONS["selu"].phi(h)
        total += [(density * value).sum(), (density * value**2).sum()]
    assert total == pytest.approx([0, 1], abs=1e-12)


def test_against_scipy():
    x = np.linspace(-30, 30, 601)
    assert ACTIVATIONS["sigmoid"].phi(x) == pytest.approx(expit(x), rel=1e-14)
    gelu = x * (1 + erf(x / np.sqrt(2))) / 2
    assert ACTIVATIONS["gelu"].phi(x) == pytest.approx(gelu, rel=1e-13, abs=30 * EPS)


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(x=points)
def test_derivative_is_the_central_difference(name, x):
    phi, derivative = ACTIVATIONS[name]
    step = 1e-4 * (1e-1 if name in KINKED else 1)
    at = np.array([x - step, x, x + step])
    low, _, high = phi(at)
    # Truncation is below step^2 (third derivatives are below 2), rounding below |phi| eps / step.
    tolerance = 2 * step**2 + 8 * EPS * max(1, abs(x)) / step
    assert derivative(at)[1] == pytest.approx((high - low) / (2 * step), abs=tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_shape_are_kept(name, dtype):
    x = np.linspace(-3, 3, 12, dtype=dtype).reshape(3, 4)
    for function in ACTIVATIONS[name]:
        assert function(x).dtype == dtype
        assert function(x).shape == x.shape


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_overflow_far_out(name):
    x = np.array([-1e4, 1e4])
    with np.errstate(over="raise", invalid="raise"):
        phi, derivative = ACTIVATIONS[name]
        assert np.isfinite(phi(x)).all()
        assert np.isfinite(derivative(x)).all()


def test_sigmoid_slope_keeps_its_relative_size_in_the_tails():
    x = np.array([-600.0, -40.0])
    assert ACTIVATIONS["sigmoid"].derivative(x) == pytest.approx(np.exp(x), rel=1e-12)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"activation must be one of .*relu.*; received 'rleu'"):
        activations.get("rleu")


@pytest.mark.parametrize("bad", [3, None, (np.sin,), (np.sin, 3), [np.sin, np.cos, np.tan]])
def test_neither_name_nor_pair(bad):
    with pytest.raises(TypeError, match="activation must be a name or a pair of callables"):
        activations.get(bad)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_at_zero_is_the_one_from_the_left(name):
    phi, derivative = ACTIVATIONS[name]
    zero, left = np.zeros(1), np.array([-1e-7])
    from_the_left = (phi(zero) - phi(left)) / 1e-7
    assert derivative(zero) == pytest.approx(from_the_left, abs=1e-6)
