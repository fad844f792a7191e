"""Facts of the chapter on the learning rate: stability limits, noise floors, sick networks."""

import keras
import numpy as np
import pytest

from gradutils import datasets, networks, patients


@pytest.fixture(scope="module")
def digits():
    data = datasets.digits(np.random.default_rng(0))
    return data.x_train[:256], data.y_train[:256]


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("curvature", [2.5, 7.0])
def test_heavy_ball_is_stable_up_to_two_times_one_plus_m_over_lambda(momentum, curvature):
    """The trainer itself, on one linear unit: (w x + b)^2 has the curvature 2 (x^2 + 1)."""
    x = np.array([[np.sqrt(curvature / 2 - 1)]])
    limit = 2 * (1 + momentum) / curvature
    ends = {}
    for share in (0.97, 1.03):
        net = networks.MLP([1, 1], "linear", 1.0, seed=0)
        history = networks.train(
            net, x, np.zeros((1, 1)), loss=networks.squared_error, learning_rate=share * limit,
            epochs=400, rng=np.random.default_rng(0), momentum=momentum,
        )  # fmt: skip
        ends[share] = history[-1] / history[0]
    # The dominant root differs from 1 by 3 % or more; 400 steps raise it to the 800th power.
    assert ends[0.97] < 0.1 and ends[1.03] > 10


def test_noise_leaves_a_floor_in_proportion_to_the_rate():
    rng = np.random.default_rng(1)
    for rate, curvature, deviation in ((0.5, 1.0, 1.0), (0.1, 2.0, 3.0)):
        w = np.zeros(20_000)
        for _ in range(300):  # far beyond the relaxation time 1 / (rate curvature)
            w = w - rate * (curvature * w + deviation * rng.standard_normal(len(w)))
        floor = rate * deviation**2 / (curvature * (2 - rate * curvature))
        # The mean square of n Gaussian numbers has a relative standard error of sqrt(2 / n).
        assert np.mean(w**2) == pytest.approx(floor, rel=4 * np.sqrt(2 / len(w)))


def test_the_gradient_at_step_zero_does_not_depend_on_the_rate(digits):
    x, y = digits
    movements = {}
    for rate in (1e-3, 10.0):
        net = networks.MLP([64, 32, 10], "tanh", "glorot", seed=0)
        start = [W.copy() for W in net.weights]
        networks.train(
            net, x, y, loss=networks.cross_entropy, learning_rate=rate, epochs=1,
            batch_size=len(x), rng=np.random.default_rng(0),
        )  # fmt: skip
        movements[rate] = [(W - W0) / rate for W, W0 in zip(net.weights, start, strict=True)]
    for small, large in zip(*movements.values(), strict=True):
        np.testing.assert_allclose(small, large, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["deep sigmoid", "deep relu"])
def test_no_rate_mends_a_vanishing_gradient(name):
    arm = patients.search_learning_rate(
        lambda seed: patients.patient(name, seed=seed), learning_rates=[3e-4, 0.03, 3.0],
        seeds=(7,), samples=256, epochs=8, momentum=0.5,
    )  # fmt: skip
    assert arm.accuracy.max() < 0.25


def test_curvature_grows_with_depth_where_gradients_explode(digits):
    x, y = digits[0][:64], digits[1][:64]

    def gradient(net):
        signals = net.forward(x)
        gradients = net.backward(signals, networks.cross_entropy(signals.output, y)[1])
        return np.concatenate([g.ravel() for g in gradients.weights])

    def curvature(depth, sigma_w):
        net = networks.MLP([64] * depth + [10], "tanh", sigma_w, seed=3)
        v = np.random.default_rng(0).standard_normal(gradient(net).size)
        for _ in range(15):
            v /= np.linalg.norm(v)
            ends = []
            for sign in (1, -2, 1):
                start = 0
                for W in net.weights:
                    W += sign * 1e-5 * v[start : start + W.size].reshape(W.shape)
                    start += W.size
                ends.append(gradient(net))
            v = (ends[0] - ends[1]) / 2e-5
        return np.linalg.norm(v)

    growth = {s: curvature(24, s) / curvature(4, s) for s in (1.0, 1.5)}
    # Twenty layers with chi(1.5) = 1.13 and more multiply the squared gradient by more than ten.
    assert growth[1.5] > 5 * growth[1.0]


def test_keras_schedules_follow_the_formulas():
    cosine = keras.optimizers.schedules.CosineDecay(0.5, decay_steps=200)
    steps = np.arange(0, 200, 17)
    expected = 0.25 * (1 + np.cos(np.pi * steps / 200))
    got = [float(cosine(int(t))) for t in steps]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)  # float32
