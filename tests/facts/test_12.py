"""Facts of the chapter on optimisers: how long their steps are, and what a step cannot restore."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils import datasets, networks, patients


@pytest.fixture(scope="module")
def digits():
    data = datasets.digits(np.random.default_rng(0))
    return data.x_train[:128], data.y_train[:128]


def adam_step(gradients, rate=1.0):
    """Return the last of several steps of the package's Adam, for given gradients."""
    p, m, v = (np.zeros_like(gradients[0]) for _ in range(3))
    for step, g in enumerate(gradients, start=1):
        before = p.copy()
        networks.OPTIMIZERS["adam"](p, g, m, v, learning_rate=rate, momentum=0.0, step=step)
    return before - p


def newton_schulz(G, eps):
    X = G / (np.linalg.norm(G) + eps)
    for _ in range(5):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X


@pytest.mark.parametrize(("g", "share"), [(1e-6, 0.99), (1e-8, 0.5), (1e-10, 0.0099)])
def test_first_step_of_adam_as_published(g, share):
    # Both corrected averages are those of one number; the facts give two digits.
    m, v = 0.1 * g / (1 - 0.9), 0.001 * g**2 / (1 - 0.999)
    assert m / (np.sqrt(v) + 1e-8) == pytest.approx(share, rel=5e-3)


@given(st.integers(1, 200), st.floats(-12, 0))
def test_keras_form_has_a_floor_that_comes_down(steps, exponent):
    # Algebra for a constant gradient; only rounding is left, over at most 200 additions.
    g = 10.0**exponent
    expected = g / (g + 1e-7 / np.sqrt(1 - 0.999**steps))
    assert adam_step(np.full((steps, 1), g)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
def test_momentum_multiplies_a_constant_gradient_by_the_geometric_series(momentum):
    (p, m, v), steps = np.zeros((3, 1)), 40
    for step in range(1, steps + 1):
        before = p.copy()
        networks.OPTIMIZERS["sgd"](
            p, np.full(1, 1e-10), m, v, learning_rate=1.0, momentum=momentum, step=step
        )
    gain = (before - p).item() / 1e-10
    assert gain == pytest.approx((1 - momentum**steps) / (1 - momentum), rel=1e-6)
    assert gain <= 1 / (1 - momentum) * (1 + 1e-6)


@given(st.integers(0, 10_000), st.floats(-100, 100))
def test_muon_is_blind_to_scale_without_epsilon(seed, exponent):
    # The norm divides the scale out; the five passes amplify its rounding by at most 485.
    G = np.random.default_rng(seed).standard_normal((6, 4))
    expected = newton_schulz(G, 0.0)
    np.testing.assert_allclose(newton_schulz(10.0**exponent * G, 0.0), expected, atol=1e-10)


@given(st.integers(0, 10_000))
def test_muon_brings_singular_values_near_one_and_keeps_directions(seed):
    # The polynomial of five passes stays in [0.67, 1.21] for relative singular values above 0.002
    # (a scan of the scalar map, next test); eight values from 0.05 to 1 lie well above.
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((8, 8)))[0] for _ in range(2))
    out = U.T @ newton_schulz(U * np.geomspace(0.05, 1, 8) @ V.T, 1e-7) @ V
    np.testing.assert_allclose(out, np.diag(np.diag(out)), atol=1e-10)
    assert np.diag(out).min() > 0.6 and np.diag(out).max() < 1.25


def test_muon_lifts_a_small_singular_value_by_485_at_most():
    s = np.geomspace(1e-6, 1, 2000)
    out = s.copy()
    for _ in range(5):
        out = 3.4445 * out - 4.7750 * out**3 + 2.0315 * out**5
    assert (out / s).max() <= 3.4445**5 * (1 + 1e-9)
    assert out[s > 0.002].min() > 0.6 and out.max() < 1.25
    assert out[s < 1e-4].max() < 0.05


def test_adam_remembers_an_outlier_for_the_log_of_its_square():
    # v = 0.001 * 1e8 * 0.999^k = 1 at k = 1000 ln 1e5 = 11,500 for an outlier of 1e4. There the
    # step is 1 / sqrt(2); beforehand, at a third of that time, it is far below.
    top, beta = 1e4, 0.999
    k = int(np.log((1 - beta) * top**2) / -np.log(beta))
    v = 1.0 + (1 - beta) * (top**2 - 1) * beta ** np.array([k // 3, k])
    m = np.ones(2)  # after hundreds of steps of 0.9 nothing of the outlier is left in m
    gradients = np.ones((20_000 + k + 1, 1))
    gradients[20_000] = top
    assert adam_step(gradients).item() == pytest.approx((m / np.sqrt(v))[1], rel=1e-3)
    assert (m / np.sqrt(v))[0] < 0.05


@pytest.mark.parametrize("seed", [3, 4])
def test_full_steps_do_not_restore_the_signal(digits, seed):
    # Other seeds than the chapter's. A loss times 1e15 takes Adam's floor out of play.
    def without_floor(outputs, labels):
        loss, gradient = networks.cross_entropy(outputs, labels)
        return loss, 1e15 * gradient

    x, y = digits
    net = patients.patient("deep sigmoid", seed=seed)
    before = [W.copy() for W in net.weights]
    history = networks.train(
        net, x, y, loss=without_floor, learning_rate=1e-3, epochs=10,
        rng=np.random.default_rng(seed), optimizer="adam",
    )  # fmt: skip
    moved = [np.linalg.norm(W - V) for W, V in zip(net.weights[:-1], before[:-1], strict=True)]
    assert min(moved) > 0.1 * max(moved)  # all hidden layers move alike
    assert history[-1] > 2.0  # one answer for all digits costs ln 10 = 2.30
    last = net.forward(x).inputs[-1]
    assert np.linalg.norm(last - last.mean(axis=0)) < 1e-5 * np.linalg.norm(last)


def test_adam_mends_scales_where_directions_are_good():
    def short(seed):
        return networks.MLP([64] * 5 + [10], "sigmoid", "glorot", seed=seed)

    rates = {"sgd": [0.1, 0.5], "adam": [0.003, 0.01]}
    arms = {
        name: patients.search_learning_rate(
            short, learning_rates=r, seeds=(3, 4), optimizer=name,
            momentum=0.9 if name == "sgd" else 0.0,
        )
        for name, r in rates.items()
    }  # fmt: skip
    assert (arms["sgd"].accuracy < 0.35).all()
    assert (arms["adam"].best > 0.6).all()


def test_float16_leaves_exact_zeros_and_no_rule_scales_them(digits):
    x, y = digits
    net = patients.patient("deep sigmoid", seed=3, storage=np.float16)
    signals = net.forward(x)
    parts = net.backward(signals, networks.cross_entropy(signals.output, y)[1]).weights
    # Each layer takes about a factor of 4; below 2^-25 a number rounds to zero: ten layers of 20
    # lie under it with room to spare.
    assert not any(g.any() for g in parts[:8])
    assert all(g.any() for g in parts[-4:])
    assert not adam_step(parts[:1]).any()
