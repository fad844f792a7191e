"""Normalisations, and the options of MLP that use them: skip connections and storage too."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils.networks import (
    MLP,
    OPTIMIZERS,
    accuracy,
    clip,
    cross_entropy,
    squared_error,
    train,
)
from gradutils.normalizations import NORMALIZATIONS

seeds = st.integers(0, 999)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("batch", [[-1, -1, -1], [1, 1, 1]]),
        ("layer", [[-np.sqrt(1.5), 0, np.sqrt(1.5)], [-np.sqrt(1.5), 0, np.sqrt(1.5)]]),
        ("rms", np.array([[1, 2, 3], [5, 7, 9]]) / np.sqrt([[14 / 3], [155 / 3]])),
    ],
)
def test_two_samples_by_hand(name, expected):
    n, _ = NORMALIZATIONS[name].forward(np.array([[1.0, 2, 3], [5, 7, 9]]))
    assert n == pytest.approx(np.array(expected), abs=1e-9)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_agrees_with_keras(name):
    layer = {
        "batch": lambda: keras.layers.BatchNormalization(epsilon=1e-12, dtype="float64"),
        "layer": lambda: keras.layers.LayerNormalization(epsilon=1e-12, dtype="float64"),
        "rms": lambda: keras.layers.RMSNormalization(epsilon=1e-12, dtype="float64"),
    }[name]()
    h = np.random.default_rng(0).standard_normal((7, 5)) * 3 + 1
    theirs = keras.ops.convert_to_numpy(layer(h, **({"training": True} if name == "batch" else {})))
    assert NORMALIZATIONS[name].forward(h)[0] == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("name", NORMALIZATIONS)
@given(seed=seeds, factor=st.floats(0.1, 10))
def test_scale_of_the_input_is_forgotten(name, seed, factor):
    h = np.random.default_rng(seed).standard_normal((6, 5))
    forward = NORMALIZATIONS[name].forward
    assert forward(factor * h)[0] == pytest.approx(forward(h)[0], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("normalization", [None, *NORMALIZATIONS])
@pytest.mark.parametrize("branch_scale", [None, 0.5])
@given(seed=seeds)
def test_backward_is_the_directional_difference(normalization, branch_scale, seed):
    rng = np.random.default_rng(seed)
    net = MLP([3, 5, 5, 5, 2], "tanh", "he", rng=rng, bias_std=0.1,
              normalization=normalization, branch_scale=branch_scale)  # fmt: skip
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    signals = net.forward(x)
    gradients = net.backward(signals, squared_error(signals.output, y)[1])
    direction = [rng.standard_normal(W.shape) for W in net.weights]
    expected = sum(np.vdot(g, d) for g, d in zip(gradients.weights, direction, strict=True))
    step, values = 1e-5, []
    for sign in (1, -2):  # forth by one step, and back by two
        for W, d in zip(net.weights, direction, strict=True):
            W += sign * step * d
        values.append(squared_error(net.forward(x).output, y)[0])
    size = sum(np.linalg.norm(g) * np.linalg.norm(d)
               for g, d in zip(gradients.weights, direction, strict=True))  # fmt: skip
    # Truncation is step^2 times third derivatives (below 1e4 here, relative to the size).
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, abs=1e-6 * (1 + size))


@pytest.mark.parametrize("normalization", [None, "layer", "rms"])
def test_jacobian_with_skips_is_the_difference(normalization):
    net = MLP([4, 6, 6, 3], "silu", "he", seed=0, normalization=normalization, branch_scale=0.7)
    x, step = np.random.default_rng(1).standard_normal(4), 1e-5
    moved = np.concatenate([x + step * np.eye(4), x - step * np.eye(4)])
    outputs = net.forward(moved).output
    numeric = (outputs[:4] - outputs[4:]).T / (2 * step)
    assert net.jacobian(x) == pytest.approx(numeric, abs=1e-7)


def test_a_branch_of_scale_zero_is_the_identity():
    net = MLP([4, 4, 4, 4], "relu", "he", seed=0, branch_scale=0.0)
    signals = net.forward(np.eye(4))
    assert all(np.array_equal(h, signals.pre[0]) for h in signals.pre)
    gradients = net.backward(signals, np.eye(4))
    assert all(np.array_equal(d, np.eye(4)) for d in gradients.delta)


def test_skips_pass_by_where_widths_agree_only():
    net = MLP([4, 6, 6, 3], "relu", "he", seed=0, branch_scale=0.0)
    first, second, output = net.forward(np.ones((1, 4))).pre
    assert np.array_equal(first, second)
    assert output == pytest.approx(np.maximum(second, 0) @ net.weights[2])  # no skip, no scale


def test_storage_rounds_signals_and_gradients():
    """1e-9 is below half of float16's smallest number, 2^-24, and becomes exactly 0."""
    half = MLP([2, 2], "linear", "orthogonal", seed=0, storage=np.float16)
    signals = half.forward(np.full((1, 2), 0.1))
    assert np.array_equal(signals.output, signals.output.astype(np.float16))
    gradients = half.backward(signals, np.array([[1e-9, 1.0]]))
    assert gradients.delta[0].tolist() == [[0, 1]]
    assert not gradients.weights[0][:, 0].any()


@pytest.mark.parametrize(
    ("optimizer", "settings"), [*((name, {}) for name in OPTIMIZERS), ("sgd", {"momentum": 0.9})]
)
def test_an_optimiser_agrees_with_that_of_keras(optimizer, settings):
    rng, settings = np.random.default_rng(0), {"learning_rate": 0.01, **settings}
    x, y = rng.standard_normal((16, 3)), rng.standard_normal((16, 2))
    net = MLP([3, 4, 2], "tanh", "lecun", seed=1)
    model = keras.Sequential([keras.Input((3,), dtype="float64")])
    model.add(keras.layers.Dense(4, "tanh", dtype="float64"))
    model.add(keras.layers.Dense(2, dtype="float64"))
    model.set_weights([a for pair in zip(net.weights, net.biases, strict=True) for a in pair])
    rule = keras.optimizers.get({"class_name": optimizer, "config": settings})
    model.compile(rule, keras.losses.MeanSquaredError(dtype="float64"))
    model.fit(x, y, batch_size=16, epochs=20, verbose=0)
    train(net, x, y, loss=squared_error, epochs=20, batch_size=16, optimizer=optimizer, rng=rng,
          **settings)  # fmt: skip
    # Keras keeps 0.999 in float32: 1 - 0.999 is off by 1.3e-5, relative, in each of 20 steps.
    ours = [a for pair in zip(net.weights, net.biases, strict=True) for a in pair]
    for a, b in zip(ours, model.get_weights(), strict=True):
        assert a == pytest.approx(b, abs=20 * 0.01 * 1.3e-5)


@given(seed=seeds, norm=st.floats(0.01, 10))
def test_clipping_keeps_the_direction_and_bounds_the_norm(seed, norm):
    rng = np.random.default_rng(seed)
    gradients = [rng.standard_normal((3, 2)), rng.standard_normal(4)]
    clipped = clip(gradients, norm)
    before, after = (np.concatenate([g.ravel() for g in gs]) for gs in (gradients, clipped))
    assert np.linalg.norm(after) == pytest.approx(min(norm, np.linalg.norm(before)))
    cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
    assert cosine == pytest.approx(1)


def test_clipping_far_outside_float32_squares():
    (clipped,) = clip([np.array([1e25], np.float32)], 1.0)
    assert clipped == pytest.approx(1.0)


def test_clipping_reports_what_is_not_finite():
    gradients = [np.array([3.0, np.nan]), np.array([4.0])]
    assert clip(gradients, 1.0)[0] == pytest.approx([3.0, np.nan], nan_ok=True)
    assert clip(gradients, 1.0)[1] == 4.0
    clipped = clip([np.array([3.0, np.inf]), np.array([4.0])], 1.0)
    assert clipped[0] == pytest.approx([0.0, np.nan], nan_ok=True)
    assert clipped[1] == 0.0


def test_clipping_bounds_every_step_of_training():
    rng = np.random.default_rng(0)
    net = MLP([2, 2], "linear", "lecun", seed=0)
    before = [p.copy() for p in net.weights + net.biases]
    train(net, np.full((4, 2), 100.0), np.array([0, 1, 0, 1]), loss=cross_entropy,
          learning_rate=0.1, epochs=1, clip_norm=0.5, rng=rng)  # fmt: skip
    moved = [a - b for a, b in zip(net.weights + net.biases, before, strict=True)]
    assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(0.05)


def quick(**options):
    net, ones = MLP([1, 1], "relu", "he", seed=0), np.ones((1, 1))
    options = {"learning_rate": 0.1, "epochs": 1, "rng": np.random.default_rng(0)} | options
    return train(net, ones, ones, loss=squared_error, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MLP([2, 2], "relu", "he", seed=0, normalization="group"),
         "normalization must be None or one of batch, layer, rms; received 'group'"),
        (lambda: MLP([2, 2, 2], "relu", "he", seed=0, normalization="batch").jacobian(np.ones(2)),
         "normalization must not be 'batch'"),
        (lambda: MLP([2, 2], "relu", "he", seed=0, branch_scale=np.nan),
         "branch_scale must be a finite number; received nan"),
        (lambda: accuracy(MLP([2, 2], "relu", "he", seed=0), np.ones((3, 2)), np.ones((3, 1))),
         r"labels must have shape \(3,\); received \(3, 1\)"),
        (lambda: quick(epochs=0), "epochs must be a positive integer; received 0"),
        (lambda: quick(batch_size=0), "batch_size must be a positive integer; received 0"),
        (lambda: quick(learning_rate=np.nan), "learning_rate must be a finite number >= 0"),
        (lambda: clip([np.ones(2)], 0.0), "norm must be > 0; received 0.0"),
        (lambda: quick(optimizer="lion"),
         "optimizer must be one of sgd, adam.*; received 'lion'"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
