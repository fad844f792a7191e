"""The facts that chapter 02 shows: concepts and number formats, with tolerances from statistics."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from gradutils import activations, networks, theory
from gradutils.networks import MLP


def rms(a):
    return float(np.sqrt(np.mean(np.square(a))))


def factor(n, depth, activation, sigma_w, bias_std=0.0, seed=0, **kwargs):
    """Return the factor per layer of the squared backward signal, at a random output error."""
    rng = np.random.default_rng([seed, 1])
    net = MLP([n] * (depth + 1), activation, sigma_w, seed=seed, bias_std=bias_std, **kwargs)
    signals = net.forward(rng.standard_normal((32, n)))
    delta = net.backward(signals, rng.standard_normal((32, n))).delta
    return (rms(delta[0]) / rms(delta[-1])) ** (2 / (depth - 1))


def predicted_factor(depth, activation, sigma_w, sigma_b):
    """The same from the mean-field recursion, layer by layer, with the transient of q."""
    q, logs = sigma_w**2 + sigma_b**2, []  # layer 1, inputs of variance 1
    for _ in range(depth - 1):
        logs.append(np.log(theory.chi(activation, sigma_w, sigma_b, q=q)))
        q = theory.second_moment_map(activation, q, sigma_w, sigma_b)
    return np.exp(np.mean(logs))


# --- three regimes, and what sets the factor -----------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "sigma_w", "sigma_b"),
    [
        ("relu", 1.0, 0.0), ("relu", 2**0.5, 0.0), ("relu", 2.0, 0.0), ("relu", 1.0, 0.3),
        ("leaky_relu", 1.0, 0.0), ("linear", 1.2, 0.0), ("tanh", 1.2, 0.0), ("tanh", 1.0, 0.5),
        ("tanh", 2.0, 20.0), ("sigmoid", 1.2, 0.0), ("sigmoid", 8.0, 0.0), ("elu", 1.1, 0.1),
        ("gelu", 1.0, 0.2),
    ],
)  # fmt: skip
def test_measured_factor_agrees_with_theory(activation, sigma_w, sigma_b):
    # ln of the squared norm of one sample's signal strays by sqrt(c/n) per layer, c = 5 for ReLU;
    # saturated slopes are sparse, c = E[s^4]/E[s^2]^2 - 1 + 2. Three deviations, and 5/n of bias.
    n, depth = 256, 24
    q = theory.fixed_point(activation, sigma_w, sigma_b)
    q = float(np.clip(q, 1e-6, 1e6))
    slope = activations.get(activation).derivative
    fourth = theory.gaussian_average(lambda h: slope(h) ** 4, q)
    c = 2 + 3 * fourth / theory.gaussian_average(lambda h: slope(h) ** 2, q) ** 2
    tolerance = 3 * np.sqrt(c / n / (depth - 1)) + 5 / n + c / n
    measured = factor(n, depth, activation, sigma_w, sigma_b)
    expected = predicted_factor(depth, activation, sigma_w, sigma_b)
    assert np.log(measured) == pytest.approx(np.log(expected), abs=tolerance)


@given(scale=st.floats(1e-30, 1e30), seed=st.integers(0, 100))
def test_a_scaled_loss_shifts_the_profile_and_keeps_its_slope(scale, seed):
    net = MLP([8] * 11, "tanh", 1.0, seed=seed)
    rng = np.random.default_rng(seed)
    signals = net.forward(rng.standard_normal((4, 8)))
    error = rng.standard_normal((4, 8))
    plain, scaled = (net.backward(signals, e).delta for e in (error, scale * error))
    for a, b in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(b, scale * a, rtol=0, atol=1e-11 * scale * np.abs(a).max())


def test_the_same_weights_vanish_or_explode_with_the_activation():
    linear, relu, sigmoid = (factor(200, 30, name, 1.2) for name in ("linear", "relu", "sigmoid"))
    assert sigmoid < 0.1 < relu < 0.8 < 1.3 < linear


@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_large_weights_can_vanish(activation):
    # Sigmoid: weights eight times LeCun's. Softplus: slopes below 1 leave room above sigma_w = 1.
    sigma_w = {"sigmoid": 8.0, "softplus": 1.1}[activation]
    assert factor(200, 30, activation, sigma_w) < 1


def test_the_critical_scale_of_the_sigmoid_lies_above_10():
    assert theory.chi("sigmoid", 10.0) < 1 < theory.chi("sigmoid", 10.3)
    assert factor(300, 30, "sigmoid", 15.0) > 1.2


@pytest.mark.parametrize("seed", range(3))
def test_small_weights_explode_in_wide_layers(seed):
    narrow, wide = (factor(n, 12, "relu", 0.1 * n**0.5, seed=seed) for n in (50, 800))
    assert narrow < 0.5 and wide > 3  # expected 0.25 and 4; 12 layers stray by less than a half


@pytest.mark.parametrize("branch", [0.1, 0.2])
def test_a_skip_connection_overrules_the_weights(branch):
    # chi = 1 + a^2 sigma_w^2 / 2 over 49 layers; one draw strays by a few per cent per layer.
    plain = factor(200, 50, "relu", 1.0)
    skipping = factor(200, 50, "relu", 1.0, branch_scale=branch)
    assert plain < 0.6 and skipping == pytest.approx(1 + branch**2 / 2, abs=0.02)


# --- three signals ------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), activation=st.sampled_from(["relu", "tanh", "sigmoid", "gelu"]))
def test_weight_gradient_of_one_sample_is_forward_times_backward(seed, activation):
    rng = np.random.default_rng(seed)
    net = MLP([5, 7, 6, 4, 3], activation, "glorot", seed=seed, bias_std=0.3)
    signals = net.forward(rng.standard_normal((1, 5)))
    back = net.backward(signals, rng.standard_normal((1, 3)))
    for x, delta, g in zip(signals.inputs, back.delta, back.weights, strict=True):
        assert np.linalg.norm(g) == pytest.approx(np.linalg.norm(x) * np.linalg.norm(delta))


def test_level_weight_gradients_of_glorot_and_bengio():
    # Inputs of deviation 0.5, error behind the last tanh, batch of 256. Averages over 256 x 1000
    # numbers stray by about sqrt(2 / 1000) per layer or less: 4 % after four; half a last digit.
    rng = np.random.default_rng(0)
    net = MLP([1000] * 6, "tanh", "uniform_third", seed=0)
    signals = net.forward(0.5 * rng.standard_normal((256, 1000)))
    slopes = activations.get("tanh").derivative(signals.output)
    back = net.backward(signals, rng.standard_normal((256, 1000)) * slopes)
    rows = [
        ([np.tanh(h) for h in signals.pre], (0.269, 0.151, 0.087, 0.050, 0.029), 5e-4),
        (back.delta, (0.100, 0.186, 0.329, 0.573, 0.997), 5e-4),
        ([g / 256 for g in back.weights], [0.0031] * 5, 5e-5),
    ]
    for arrays, figures, half_digit in rows:
        for array, figure in zip(arrays, figures, strict=True):
            assert rms(array) == pytest.approx(figure, rel=0.04, abs=half_digit)


def test_level_weight_gradients_of_relu_with_xavier():
    # Backward 2^(-29/2) = 4.3e-5 on average; the row's 3.6e-5 is one draw. The logarithm of a ratio
    # strays by half of sqrt(5 * 29 / n) = 0.7, and by 0.18 in the mean of four draws: three of
    # these, and as much for the row's own draw.
    n, backward, weights = 300, [], []
    for seed in range(4):
        net = MLP([n] * 31, "relu", "glorot", seed=seed)
        rng = np.random.default_rng([seed, 1])
        signals = net.forward(rng.standard_normal((32, n)))
        back = net.backward(signals, rng.standard_normal((32, n)))
        backward.append(np.log(rms(back.delta[0]) / rms(back.delta[-1])))
        weights.append(np.log(rms(back.weights[0]) / rms(back.weights[-1])))
    assert np.mean(backward) == pytest.approx(np.log(3.6e-5), abs=1.05)
    assert np.mean(weights) == pytest.approx(np.log(0.97), abs=1.05)


# --- the sigmoid's quarter ----------------------------------------------------------------------


def width(a):
    """Width in x of |w| s'(wx + b) >= 1, for |w| = a >= 4."""
    r = np.sqrt(1 - 4 / a)
    return (1 - r**2) * np.arctanh(r)


@given(w=st.floats(4.01, 50), sign=st.sampled_from([-1, 1]), b=st.floats(-5, 5))
def test_width_of_the_interval(w, sign, b):
    derivative = activations.get("sigmoid").derivative
    centre = -b / (sign * w)
    x = np.linspace(centre - 0.3, centre + 0.3, 60_001)  # 1e-5 apart
    inside = w * derivative(sign * w * x + b) >= 1
    assert inside.sum() * 1e-5 == pytest.approx(width(w), abs=3e-5)


@given(w=st.floats(-3.999, 3.999), h=st.floats(-50, 50))
def test_no_expansion_below_a_weight_of_four(w, h):
    assert abs(w * activations.get("sigmoid").derivative(np.array(h))) < 1


def test_widest_interval():
    best = minimize_scalar(lambda a: -width(a), bounds=(4.1, 40), method="bounded",
                           options={"xatol": 1e-8})  # fmt: skip
    assert best.x == pytest.approx(6.894, abs=5e-4)
    assert -best.fun == pytest.approx(0.4477, abs=5e-5)


@given(seed=st.integers(0, 10**6), sigma_w=st.floats(0.1, 30))
def test_a_sigmoid_layer_is_bounded_by_a_quarter_of_the_largest_singular_value(seed, sigma_w):
    net = MLP([6] * 5, "sigmoid", sigma_w, seed=seed, bias_std=1.0)
    rng = np.random.default_rng(seed)
    signals = net.forward(rng.standard_normal((1, 6)))
    delta = net.backward(signals, rng.standard_normal((1, 6))).delta
    for layer in range(1, 4):
        bound = np.linalg.norm(net.weights[layer], 2) / 4 * np.linalg.norm(delta[layer])
        assert np.linalg.norm(delta[layer - 1]) <= bound * (1 + 1e-12)


def test_a_chain_of_sigmoids_explodes():
    net = MLP([1] * 31, "sigmoid", 6.894, seed=0)
    net.weights = [np.array([[6.894]])] * 30
    net.biases = [np.array([-6.894 / 2])] * 30
    jacobian = net.jacobian(np.array([0.5])).item()
    assert jacobian == pytest.approx(6.894 * (6.894 / 4) ** 29, rel=1e-9)  # first layer has no phi


# --- where numbers run out ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "last"),
    [(np.float16, 12), (ml_dtypes.bfloat16, 66), (np.float32, 74), (np.float64, 537)],
)
def test_last_power_of_a_quarter_above_zero(dtype, last):
    value = dtype(1)
    for _ in range(last):
        value = dtype(value * dtype(0.25))
    assert value > 0
    assert dtype(value * dtype(0.25)) == 0


def test_smallest_float16_is_the_twelfth_power_of_a_quarter():
    assert float(np.float16(0.25**12)) == 2.0**-24 == float(np.finfo(np.float16).smallest_subnormal)


def test_thirteen_sigmoid_layers_give_zero_in_float16():
    # At their best: every pre-activation 0, slope 1/4, weights 1. Layer 1 has no activation below.
    for links, zero in ((12, False), (13, True)):
        net = MLP([1] * (links + 2), "sigmoid", 1.0, seed=0, storage=np.float16)
        net.weights = [np.ones((1, 1))] * (links + 1)
        net.biases = [np.array([0.0]), *[np.array([-0.5])] * links]
        delta = net.backward(net.forward(np.zeros((1, 1))), np.ones((1, 1))).delta
        assert (delta[0].item() == 0) is zero


def test_share_of_zeros_in_a_deep_sigmoid_network():
    net = MLP([64] * 16 + [10], "sigmoid", "glorot", seed=3, storage=np.float16)
    rng = np.random.default_rng(3)
    signals = net.forward(rng.standard_normal((128, 64)))
    _, grad = networks.cross_entropy(signals.output, rng.integers(0, 10, 128))
    weights = net.backward(signals, grad).weights
    assert all((g == 0).all() for g in weights[:5])
    assert (weights[-1] != 0).all()


@pytest.mark.parametrize(("dtype", "n"), [(np.float32, 100), (np.float32, 400), (np.float64, 100)])
def test_products_of_gaussian_matrices_leave_the_format(dtype, n):
    # E[entry^2] = n^(k-1) after k factors; the largest of n^2 entries is about 5 times the root.
    # Draws stray: the logarithm's deviation, sqrt(2 k / n) / 2, is below one factor's growth.
    rng, product, k = np.random.default_rng(0), np.eye(n, dtype=dtype), 0
    with np.errstate(over="ignore", invalid="ignore"):
        while np.isfinite(product).all():
            product = product @ rng.standard_normal((n, n)).astype(dtype)
            k += 1
        after = product @ rng.standard_normal((n, n)).astype(dtype)
    expected = 1 + np.log(float(np.finfo(dtype).max) / 5) / np.log(n) * 2
    assert abs(k - expected) <= 1.5
    assert np.isnan(after).any()
    if (dtype, n) == (np.float32, 100):
        assert abs(k - 39) <= 1  # the row's 39 counts the multiplication in which NaN appears


# --- explosion in a training step ---------------------------------------------------------------


def descend(net, x, y, steps, rate=0.01):
    """Return (loss, norm of the first layer's gradient) at each step of gradient descent."""
    seen = []
    for _ in range(steps):
        signals = net.forward(x)
        loss, grad = networks.cross_entropy(signals.output, y)
        back = net.backward(signals, grad)
        seen.append((loss, np.linalg.norm(back.weights[0])))
        for p, g in zip(net.weights + net.biases, back.weights + back.biases, strict=True):
            with np.errstate(all="ignore"):
                p -= rate * g
    return np.array(seen)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("activation", "sigma_w"), [("relu", 2.0), ("leaky_relu", 2.0)])
def test_an_explosion_overflows_where_nothing_is_bounded(activation, sigma_w, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((32, 64)), rng.integers(0, 10, 32)
    net = MLP([64] * 50 + [10], activation, sigma_w, seed=seed, dtype=np.float32)
    assert not np.isfinite(descend(net, x, y, 3)).all()


@pytest.mark.parametrize("seed", range(3))
def test_an_explosion_ends_in_vanishing_where_the_activation_is_bounded(seed):
    # Ten draws gave 1e6 at first and 1e-23 or less after two steps.
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((64, 64)), rng.integers(0, 10, 64)
    seen = descend(MLP([64] * 50 + [10], "tanh", 3.0, seed=seed), x, y, 3)
    assert np.isfinite(seen).all()
    assert seen[0, 1] > 1e4 and seen[2, 1] < 1e-3


@given(w=st.floats(0.05, 20), x=st.floats(0.01, 2))
def test_a_chain_of_tanh_never_explodes_for_long(w, x):
    # The fixed point attracts, so the factor there is below 1 whatever the weight; at w = 1 the
    # decay is not exponential.
    assume(abs(w - 1) > 0.2)
    log_derivative = 0.0
    for _ in range(400):
        log_derivative += np.log(w) - 2 * np.log(np.cosh(w * x))
        x = np.tanh(w * x)
    assert log_derivative < -10
