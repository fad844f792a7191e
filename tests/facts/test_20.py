"""The facts that chapter 20 shows: the links of eight chains, with the chapter's own functions."""

import numpy as np
import pytest
from scipy import stats

from tools.chapters import definitions

CHAPTER = definitions("20_elsewhere")


def slopes(f, x, step=1e-6):
    """Return the central differences of a scalar function of a vector."""
    return np.array([(f(x + d) - f(x - d)) / (2 * step) for d in step * np.eye(len(x))])


@pytest.mark.parametrize("keep", [0.05, 0.2, 0.7])
def test_a_kept_share_bounds_what_a_graph_network_loses(keep):
    S = CHAPTER.averaging(40, np.random.default_rng(1))
    assert S.sum(axis=1) == pytest.approx(np.ones(40)) and np.array_equal(S, S.T)
    deep = CHAPTER.propagate(S, np.eye(40), 300, keep)
    assert np.linalg.svd(deep, compute_uv=False).min() >= keep / (2 - keep)
    values, vectors = np.linalg.eigh(S)
    for layers in (1, 2, 7):  # Where the eigenvalue is positive, no layer has less than its limit.
        left = np.sum(vectors * CHAPTER.propagate(S, vectors, layers, keep), axis=0)
        assert (left >= keep / (1 - (1 - keep) * values) - 1e-12)[values >= 0].all()


def test_averaging_shrinks_differences_at_least_by_the_second_eigenvalue():
    rng = np.random.default_rng(2)
    S, x = CHAPTER.averaging(40, rng), rng.standard_normal(40)
    second = np.sort(np.abs(np.linalg.eigvalsh(S)))[-2]
    x -= x.mean()
    for layers in (1, 4, 16):
        left = np.linalg.norm(CHAPTER.propagate(S, x, layers)) / np.linalg.norm(x)
        assert left <= second**layers * (1 + 1e-9)


@pytest.mark.parametrize("noise", [0, 10])
@pytest.mark.parametrize("theta", [0.0, 7.0])
def test_the_best_logit_is_the_log_ratio_of_the_densities(noise, theta):
    x, spread = np.linspace(-5, 25, 7), 1 + noise**2
    given = ((20 - theta) * x - (20**2 - theta**2) / 2) / spread
    real, made = (stats.norm(mean, spread**0.5) for mean in (20, theta))
    assert given == pytest.approx(real.logpdf(x) - made.logpdf(x), abs=1e-9)


def test_slopes_of_both_losses_of_a_generator():
    a = np.array([-30.0, -3.0, 0.0, 2.0])
    D = 1 / (1 + np.exp(-a))
    saturating, other = (
        (f(a + 1e-5) - f(a - 1e-5)) / 2e-5
        for f in (lambda a: -np.logaddexp(0, a), lambda a: np.logaddexp(0, -a))
    )
    assert saturating == pytest.approx(-D, abs=1e-9)
    assert other == pytest.approx(-(1 - D), abs=1e-9)
    assert (np.exp(a) >= D).all()


@pytest.mark.parametrize("rate", [1e-3, 0.1, 0.9])
def test_a_value_that_is_its_own_target_grows_at_every_rate(rate):
    assert CHAPTER.value(0.99, updates=10, rate=rate) == pytest.approx((1 + rate * 0.98) ** 10)
    assert CHAPTER.value(0.49, updates=10, rate=rate) < 1


def test_a_target_network_multiplies_once_per_copy():
    # Between copies the distance to 2 gamma times the target shrinks by 1 - rate.
    factor = 1.98 + (1 - 1.98) * 0.9**100
    assert CHAPTER.value(0.99, every=100) == pytest.approx(factor**5)
    assert CHAPTER.value(0.99) > 1.98**5 > factor**5


def test_second_derivatives_and_what_they_do_not_see():
    rng = np.random.default_rng(3)
    w, b, x = 3 * rng.standard_normal(5), rng.uniform(size=5), np.linspace(0, 1, 9)
    u, second = CHAPTER.rows(x, w, b)
    up, down = (CHAPTER.rows(x + d, w, b)[0] for d in (1e-4, -1e-4))
    assert second == pytest.approx((up - 2 * u + down) / 1e-8, abs=1e-5)


def test_the_exponent_of_the_logistic_map_is_ln_2():
    # The mean over the invariant density of ln|4 - 8x|, by x = sin^2(pi t / 2), t uniform.
    t = (np.arange(200_000) + 0.5) / 200_000
    x = np.sin(np.pi * t / 2) ** 2
    assert np.mean(np.log(np.abs(4 - 8 * x))) == pytest.approx(np.log(2), abs=1e-4)


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_the_slope_of_a_horizon_is_that_of_its_loss(horizon):
    data = CHAPTER.orbit(0.3, 10, 3.9)

    def loss(r):
        pieces = [CHAPTER.orbit(x, horizon, r[0])[1:] for x in data[:-1:horizon]]
        return np.sum((np.concatenate(pieces) - data[1:]) ** 2) / 2 / 10

    r = np.array([3.7])
    assert CHAPTER.slope(r, data, horizon) == pytest.approx(slopes(loss, r), rel=1e-6)


@pytest.mark.parametrize("radius", [0.3, 0.95])
def test_implicit_unrolled_and_difference_agree_at_the_fixed_point(radius):
    rng = np.random.default_rng(4)
    W = rng.standard_normal((6, 6))
    W *= radius / np.linalg.norm(W, 2)
    b, v = 0.3 * rng.standard_normal(6), rng.standard_normal(6)
    states = CHAPTER.settle(W, b, 1000)
    implicit = CHAPTER.implicit(W, states[-1], v)
    assert implicit == pytest.approx(CHAPTER.unrolled(W, states, v)[0], rel=1e-9)
    assert implicit == pytest.approx(
        slopes(lambda b: v @ CHAPTER.settle(W, b, 1000)[-1], b), rel=1e-6
    )


@pytest.mark.parametrize("decay", [1.0, 20.0])
def test_a_run_back_returns_to_a_power_below_one(decay):
    total, start = CHAPTER.by_adjoint(decay)
    assert start == pytest.approx((1 - (decay / 100) ** 2) ** 100)
    true = -((1 - decay / 100) ** 199)
    assert CHAPTER.by_unrolling(decay) == pytest.approx(true)
    assert abs(total) < abs(true)


def test_an_error_on_hidden_pixels_has_its_own_slope():
    rng = np.random.default_rng(5)
    target = rng.standard_normal((3, 4))
    target[0, 1] = target[2, 3] = np.nan
    output = rng.standard_normal(12)
    given = CHAPTER.on_hidden(output.reshape(3, 4), target)[1]
    expected = slopes(lambda o: CHAPTER.on_hidden(o.reshape(3, 4), target)[0], output)
    assert given.ravel() == pytest.approx(expected, abs=1e-8)
    assert given[0, 1] == given[2, 3] == 0


@pytest.mark.parametrize(("rate", "steps"), [(0.05, 1), (0.05, 10), (0.3, 10)])
def test_the_outer_gradient_is_that_of_the_adapted_loss(rate, steps):
    rng = np.random.default_rng(6)
    A, c, theta = (rng.standard_normal(shape) for shape in ((8, 4), 8, 4))

    def loss(theta):
        end = CHAPTER.adapt(theta, A, c, rate, steps)[-1]
        return np.log(np.cosh(A @ end - c)).sum()

    path = CHAPTER.adapt(theta, A, c, rate, steps)
    given = CHAPTER.outer_gradient(path, A, c, rate)
    assert given == pytest.approx(slopes(loss, theta), rel=1e-4, abs=1e-6)
