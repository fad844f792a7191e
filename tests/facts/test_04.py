"""Facts about Jacobian products: growth rates, finite width, number formats, shattered gradients.

Statistical tolerances are multiples of the standard error that the claim itself implies: 4 of them
fail by chance once in 16,000 runs, and the seeds are fixed.
"""

import ml_dtypes
import numpy as np
import pytest
from scipy.special import digamma, polygamma
from scipy.stats import norm

from gradutils import initializers, theory
from gradutils.networks import MLP


def log_lengths(n, runs, factors, rng):
    """Logarithm of the length of a unit vector after Gaussian n x n factors of unit variance."""
    v, logs = np.full((runs, n), n**-0.5), np.zeros(runs)
    for _ in range(factors):
        v = np.einsum("rij,rj->ri", rng.standard_normal((runs, n, n)), v)
        length = np.linalg.norm(v, axis=1)
        logs += np.log(length)
        v /= length[:, None]
    return logs


def lyapunov(n):
    return (np.log(2) + digamma(n / 2)) / 2


@pytest.mark.parametrize(("n", "stated"), [(1, -0.635), (4, 0.558)])
def test_lyapunov_exponent_has_the_stated_value(n, stated):
    assert lyapunov(n) == pytest.approx(stated, abs=5e-4)


def test_a_hundred_4_by_4_factors_grow_to_the_stated_size():
    assert np.exp(100 * lyapunov(4)) == pytest.approx(1.7e24, rel=0.03)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 12])
def test_gaussian_products_grow_by_the_exponent_and_spread_by_its_variance(n):
    runs, factors = 1000, 100
    logs = log_lengths(n, runs, factors, np.random.default_rng(n))
    variance = factors * polygamma(1, n / 2) / 4
    assert abs(logs.mean() - factors * lyapunov(n)) < 4 * np.sqrt(variance / runs)
    # a sum of 100 terms is close to normal: its sample variance has the deviation v sqrt(2 / runs)
    assert abs(logs.var() / variance - 1) < 5 * np.sqrt(2 / runs)


def test_neither_spectral_radius_nor_singular_value_of_a_factor_gives_the_rate():
    A = np.random.default_rng(0).standard_normal((4000, 4, 4))
    radius = np.log(np.abs(np.linalg.eigvals(A)).max(axis=1))
    largest = np.log(np.linalg.norm(A, 2, axis=(1, 2)))
    for candidate in (radius, largest):
        assert candidate.mean() - 8 * candidate.std() / np.sqrt(4000) > lyapunov(4)


def test_eigenvalues_of_the_factors_do_not_decide():
    A, B = np.array([[0.5, 2.0], [0.0, 0.5]]), np.array([[0.5, 0.0], [2.0, 0.5]])
    C, D = np.diag([2.0, 0.1]), np.diag([0.1, 2.0])
    assert np.linalg.norm(np.linalg.matrix_power(A, 100), 2) < 1e-25
    assert np.linalg.norm(np.linalg.matrix_power(B @ A, 50), 2) > 1e30
    assert np.linalg.norm(np.linalg.matrix_power(D @ C, 50), 2) < 1e-30


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "sigmoid"])
def test_the_jacobian_is_the_product_of_the_layers_jacobians(activation):
    rng = np.random.default_rng(1)
    net = MLP([6, 5, 7, 4], activation, 1.5, rng=rng, bias_std=0.3)
    x, delta = rng.standard_normal((1, 6)), rng.standard_normal((1, 4))
    signals = net.forward(x)
    J = net.weights[0].T
    for W, h in zip(net.weights[1:], signals.pre[:-1], strict=True):
        J = W.T @ np.diag(net.activation.derivative(h[0])) @ J
    np.testing.assert_allclose(J, net.jacobian(x[0]), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(delta @ J, net.backward(signals, delta).input, rtol=1e-11)
    sigma = np.linalg.svd(J, compute_uv=False)
    gain = np.linalg.norm(delta @ J) / np.linalg.norm(delta)
    assert sigma[-1] <= gain <= sigma[0]


def condition_numbers(n, factors, rng):
    """kappa = |P| |P^-1|: both norms stay accurate where the smallest singular value does not."""
    P, inverse, kappa = np.eye(n), np.eye(n), []
    for _ in range(factors):
        A = rng.standard_normal((n, n))
        P, inverse = A @ P, inverse @ np.linalg.inv(A)
        kappa.append(np.linalg.norm(P, 2) * np.linalg.norm(inverse, 2))
    return np.array(kappa)


def test_condition_numbers_of_gaussian_products():
    """The stated numbers are single draws: each must lie among the draws, not beside them."""
    rng = np.random.default_rng(2)
    kappa = np.array([condition_numbers(100, 10, rng) for _ in range(40)])
    for factors, stated in [(1, 141), (2, 1.6e4), (10, 1.9e14)]:
        share = np.mean(kappa[:, factors - 1] < stated)
        assert 0.01 < share < 0.99
    # Edelman 1988: P(kappa < n x) -> exp(-2/x - 2/x^2) for one factor. Deviation of a share of
    # 40 draws: at most 0.08; the law is a limit, so a little is added for n = 100.
    for x in (2.0, 3.7, 8.0):
        expected = np.exp(-2 / x - 2 / x**2)
        assert abs(np.mean(kappa[:, 0] < 100 * x) - expected) < 4 * 0.08 + 0.03


def test_orthogonal_products_have_condition_number_one():
    rng, P = np.random.default_rng(3), np.eye(100)
    for _ in range(100):
        P = initializers.orthogonal((100, 100), rng) @ P
    assert np.linalg.cond(P) == pytest.approx(1, abs=1e-12)


def test_spectrum_of_100_gaussian_layers_of_width_256():
    x = np.random.default_rng(4).standard_normal(256)
    net = MLP([256] * 101, "linear", "lecun", seed=5)
    sigma = np.linalg.svd(net.jacobian(x), compute_uv=False)
    # Exponents of all directions: E ln chi_{n-k+1}^2 / 2, a limit of many factors. In the middle of
    # the ranks that are free of rounding, the logarithm is met within a tenth.
    k = np.arange(40, 90)
    limit = 50 * (np.log(2 / 256) + digamma((256 - k) / 2))
    np.testing.assert_allclose(np.log(sigma[k]), limit, rtol=0.1)
    assert np.mean(sigma > 1e-3) < 0.2


def one_layer_variance(slope):
    """Variance of n X, X = mean of s^2 g^2 over units, s = sigma or sigma * slope with equal odds.

    sigma^2 = 2 / (1 + slope^2) makes the mean 1. It is 5 for ReLU (slope 0), 2 if linear (1).
    """
    return 6 * (1 + slope**4) / (1 + slope**2) ** 2 - 1


def log_gains(activation, sigma_w, width, depth, nets, rng):
    gains = np.empty(nets)
    for i in range(nets):
        net = MLP([width] * (depth + 2), activation, sigma_w, rng=rng)
        signals = net.forward(rng.standard_normal((1, width)))
        delta = net.backward(signals, rng.standard_normal((1, width))).delta
        gains[i] = np.log(np.sum(delta[0] ** 2) / np.sum(delta[-1] ** 2))
    return gains


@pytest.mark.parametrize(
    ("activation", "slope", "width", "depth"),
    [("relu", 0.0, 50, 50), ("linear", 1.0, 40, 20), ("leaky_relu", 0.2, 50, 25)],
)
def test_log_gradients_have_the_mean_and_variance_of_finite_width(activation, slope, width, depth):
    nets, v = 150, one_layer_variance(slope)
    sigma_w = np.sqrt(2 / (1 + slope**2))
    gains = log_gains(activation, sigma_w, width, depth, nets, np.random.default_rng(6))
    beta = depth / width
    mean, variance = -v / 2 * beta, v * beta  # leading order: -2.5 beta and 5 beta for ReLU
    # The next order is a share of at most v / n (1.6/n and 4/n for ReLU); 4 standard errors on top.
    assert abs(gains.mean() - mean) < v / width * abs(mean) + 4 * np.sqrt(variance / nets)
    assert abs(gains.var() / variance - 1) < v / width + 4 * np.sqrt(2 / nets)


def test_the_stated_figures_of_finite_width():
    """Exact moments of ln X, X = (2/n) chi^2_K with K binomial: no simulation, no expansion."""
    n, draws = 50, 400_000
    rng = np.random.default_rng(7)
    log_x = np.log(2 / n * rng.chisquare(rng.binomial(n, 0.5, draws)))
    mean, variance = n * log_x.mean(), n * log_x.var()
    # The stated -2.49 and 4.97 come from a sample; -2.5 and 5 are the leading order. The exact
    # values are -2.59 and 5.41: the next order adds a share of 1.6/n to the mean and of 4/n to the
    # variance.
    assert mean == pytest.approx(-2.49, rel=0.06)
    assert variance == pytest.approx(4.97, rel=0.12)
    assert mean < -2.5 and variance > 5


def test_he_keeps_the_mean_and_loses_the_median():
    n, depth, nets = 100, 20, 20_000  # beta = 0.2
    rng = np.random.default_rng(8)
    gain = np.exp(np.log(2 / n * rng.chisquare(rng.binomial(n, 0.5, (depth, nets)))).sum(axis=0))
    second = (1 + 5 / n) ** depth  # E gain^2, exactly
    assert abs(gain.mean() - 1) < 4 * np.sqrt((second - 1) / nets)
    assert np.median(gain) == pytest.approx(np.exp(-2.5 * depth / n), rel=0.05)


@pytest.mark.parametrize(
    ("kind", "survives"),
    [(np.float16, 12), (ml_dtypes.bfloat16, 66), (np.float32, 74), (np.float64, 537)],
)
def test_how_many_sigmoid_layers_a_number_format_survives(kind, survives):
    gradient = kind(1)
    for _ in range(survives):
        gradient = gradient * kind(0.25)
    assert gradient == kind(2.0 ** (-2 * survives)) > 0
    assert gradient * kind(0.25) == 0


def test_twelve_quarters_are_the_smallest_float16():
    assert 0.25**12 == 2**-24 == np.finfo(np.float16).smallest_subnormal


@pytest.mark.parametrize(
    ("storage", "layers", "alive"),
    [(np.float16, 12, True), (np.float16, 13, False), (np.float32, 13, True)],
)
def test_sigmoid_layers_at_their_steepest(storage, layers, alive):
    net = MLP([1] * (layers + 2), "sigmoid", 1.0, seed=0, storage=storage)
    net.weights = [np.ones((1, 1))] * (layers + 1)
    net.biases = [np.zeros(1)] + [np.full(1, -0.5)] * layers  # every pre-activation is 0
    delta = net.backward(net.forward(np.zeros((1, 1))), np.ones((1, 1))).delta
    assert (delta[0].item() > 0) == alive


@pytest.mark.parametrize("seed", range(3))
def test_float32_products_of_width_100_become_nan_after_39_multiplications(seed):
    """Entries have the mean square 100^(k-1): 1e38 at k = 39, and the largest float is 3.4e38."""
    rng = np.random.default_rng(seed)
    M, first = rng.standard_normal((100, 100)).astype(np.float32), {}
    with np.errstate(over="ignore", invalid="ignore"):
        for multiplications in range(1, 45):
            M = M @ rng.standard_normal((100, 100)).astype(np.float32)
            for name, failed in (("inf", np.isinf(M)), ("nan", np.isnan(M))):
                if failed.any():
                    first.setdefault(name, multiplications)
    # The log length of a column has the deviation sqrt(39 / 200) = 0.44, a fifth of a factor's
    # ln 9.95 = 2.3: the count can be off by one.
    assert abs(first["nan"] - 39) <= 1
    assert first["inf"] <= first["nan"]


@pytest.mark.parametrize(
    ("scale", "stated", "tolerance"), [(1, 0.27, 0.005), (8, 0.05, 0.005), (128, 0.0012, 5e-5)]
)
def test_loss_scaling(scale, stated, tolerance):
    """Log-normal gradients, median 1e-7, sigma 2; zero from half the smallest subnormal down."""
    expected = norm.cdf(np.log(2.0**-25 / scale / 1e-7) / 2)
    assert expected == pytest.approx(stated, abs=tolerance)  # half of the last digit stated
    draws = 200_000
    g = 1e-7 * np.exp(2 * np.random.default_rng(9).standard_normal(draws))
    share = np.mean((scale * g).astype(np.float16) == 0)
    assert abs(share - expected) < 4 * np.sqrt(expected / draws)


def test_loss_scale_1024_loses_a_few_in_a_hundred_thousand():
    """Stated: 0.005 %. The formula says 0.0023 %: 5 in 100,000 is what such a sample may show."""
    expected = norm.cdf(np.log(2.0**-25 / 1024 / 1e-7) / 2)
    assert expected == pytest.approx(2.3e-5, rel=0.02)
    assert abs(5e-5 - expected) < 4 * np.sqrt(expected / 100_000)


def autocorrelations(depth, sigma_w, nets, bias=True, width=200, lag=8):
    """Lag-8 autocorrelation of the input gradient over 256 scalar inputs from -2 to 2.

    All weights have the variance sigma_w^2 / width, the first layer's too, biases 1 / width.
    """
    x = np.arange(-2, 2, 1 / 64)[:, None]
    found = []
    for seed in range(nets):
        net = MLP(
            [1, *[width] * depth, 1], "relu", sigma_w, seed=seed, bias_std=width**-0.5,
            dtype=np.float32,
        )  # fmt: skip
        net.weights[0] /= np.float32(np.sqrt(width))
        if not bias:
            net.biases = net.biases[:1] + [0 * b for b in net.biases[1:]]
        signals = net.forward(x)
        g = net.backward(signals, np.ones_like(signals.output)).input[:, 0].astype(float)
        g /= np.abs(g).max()
        g -= g.mean()
        found.append((g[:-lag] @ g[lag:]) / (g @ g))
    return np.mean(found), np.std(found, ddof=1) / np.sqrt(nets)


@pytest.mark.parametrize(
    ("depth", "sigma_w", "bias", "low", "high"),
    [
        (1, 2**0.5, True, 0.83, 0.83),
        (50, 2**0.5, True, 0.23, 0.29),  # biases in every layer
        (50, 2**0.5, False, 0.23, 0.29),  # biases in the first layer only
        (50, 1.0, True, 0.74, 0.74),  # the public notebook
    ],
)
def test_shattered_gradients(depth, sigma_w, bias, low, high):
    mean, error = autocorrelations(depth, sigma_w, nets=16, bias=bias)
    assert low - 4 * error < mean < high + 4 * error
    assert 4 * error < 0.3  # so 0.29 and 0.74 are told apart


def test_gradients_shatter_only_where_the_network_remembers_its_input():
    """Weight variance 1/D halves what depends on the input in each layer: chi = 1/2."""
    assert theory.chi("relu", 1.0, 200**-0.5) == pytest.approx(0.5)
    assert theory.depth_scale("relu", 1.0, 200**-0.5) == pytest.approx(1 / np.log(2))
    assert theory.depth_scale("relu", 2**0.5, 200**-0.5) == np.inf
