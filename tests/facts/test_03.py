"""The facts of 03_backpropagation: the chapter's own code against the package, and its claims."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from gradutils.activations import ACTIVATIONS
from gradutils.networks import MLP, cross_entropy, train
from tools.chapters import definitions

EPS = np.finfo(np.float64).eps
seeds = st.integers(0, 999)
norm = np.linalg.norm
HERE = definitions("03_backpropagation")


@given(seed=seeds, activation=st.sampled_from([*ACTIVATIONS]), depth=st.integers(1, 6))
def test_the_inline_chain_rule_is_mlp_backward(seed, activation, depth):
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 8, depth + 1).tolist()
    net = MLP(widths, activation, "he", rng=rng, bias_std=0.5)
    signals = net.forward(rng.standard_normal((5, widths[0])))
    grad_output = rng.standard_normal((5, widths[-1]))
    slopes = [1.0] + [net.activation.derivative(h) for h in signals.pre[:-1]]
    layers = list(zip(net.weights, signals.inputs, slopes, strict=True))
    ours = HERE.chain_rule(layers, grad_output)
    packaged = net.backward(signals, grad_output)
    for (dW, db), W, b in zip(ours, packaged.weights, packaged.biases, strict=True):
        assert np.abs(dW - W).max() <= 50 * EPS * (np.abs(W).max() + 1)
        assert np.abs(db - b).max() <= 50 * EPS * (np.abs(b).max() + 1)


@given(seed=seeds, rate=st.floats(0.01, 0.5))
def test_the_seven_steps_are_train(seed, rate):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((12, 2)), rng.integers(0, 2, (12, 1))
    net = MLP([2, 4, 3, 1], "tanh", "glorot", rng=rng)
    W, b = [p.copy() for p in net.weights], [p.copy() for p in net.biases]
    losses, _ = HERE.descend(W, b, x, y, rate, 20)
    history = train(net, x, y, loss=HERE.binary_cross_entropy, learning_rate=rate, epochs=20,
                    batch_size=12, rng=rng)  # fmt: skip
    assert history == pytest.approx(losses, rel=1e-9)
    for ours, packaged in zip(W + b, net.weights + net.biases, strict=True):
        assert ours == pytest.approx(packaged, rel=1e-8, abs=1e-10)


def test_the_chapters_tape_is_mlp_backward():
    rng = np.random.default_rng(0)
    net = MLP([5, 6, 4], "sigmoid", "glorot", rng=rng)
    x, labels = rng.standard_normal((9, 5)), rng.integers(0, 4, 9)
    signals = net.forward(x)
    gradients = net.backward(signals, cross_entropy(signals.output, labels)[1])
    theirs = HERE.tensorflow_gradients(net, x, labels)
    for ours, other in zip(gradients.weights + gradients.biases, theirs, strict=True):
        assert np.abs(ours - other).max() < 50 * EPS * np.abs(other).max()


@given(seed=seeds, scale=st.floats(0.01, 300))
def test_the_start_is_p_minus_y_and_never_above_one(seed, scale):
    rng = np.random.default_rng(seed)
    logits, labels = scale * rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    _, gradient = cross_entropy(logits, labels)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert gradient == pytest.approx((p - np.eye(4)[labels]) / 6, abs=10 * EPS)
    assert np.abs(gradient).max() <= (1 + 10 * EPS) / 6
    assert gradient.sum(axis=1) == pytest.approx(0, abs=10 * EPS)


def test_keras_loses_the_gradient_of_clipped_probabilities():
    """Probabilities are clipped to [1e-7, 1 - 1e-7]; below sigmoid(-16.1) nothing comes back."""
    for logit, lost in ((-14.0, False), (-20.0, True)):
        h, target = tf.Variable([[logit]]), tf.constant([[1.0]])
        with tf.GradientTape(persistent=True) as tape:
            p = 1.0 * keras.ops.sigmoid(h)
            clipped = keras.losses.BinaryCrossentropy()(target, p)
            exact = keras.losses.BinaryCrossentropy(from_logits=True)(target, h)
        assert (tape.gradient(clipped, h).numpy().item() == 0) is lost
        assert tape.gradient(exact, h).numpy().item() == pytest.approx(-1, abs=1e-6)


def test_one_complex_pass_is_one_direction():
    """Forward mode: the imaginary part is the gradient times the direction, for any direction."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((10, 2)), rng.integers(0, 2, (10, 1))
    like = [rng.standard_normal(s) for s in ((2, 4), (4, 1), (4,), (1,))]
    theta = np.concatenate([p.ravel() for p in like])
    gradient = HERE.complex_step(HERE.loss_at, theta, 1e-30, like, x, y)
    v = rng.standard_normal(theta.size)
    along = HERE.loss_at(theta + 1e-30j * v, like, x, y).imag / 1e-30
    assert along == pytest.approx(gradient @ v, rel=1e-12)
    differences = HERE.central_difference(HERE.loss_at, theta, 1e-5, like, x, y)
    assert differences == pytest.approx(gradient, abs=1e-9)


@given(seed=seeds, activation=st.sampled_from([*ACTIVATIONS]))
def test_one_samples_weight_gradient_is_input_times_backward_signal(seed, activation):
    rng = np.random.default_rng(seed)
    net = MLP([6] * 8, activation, "lecun", rng=rng, bias_std=0.1)
    signals = net.forward(rng.standard_normal((1, 6)))
    g = net.backward(signals, rng.standard_normal((1, 6)))
    for W, x, d in zip(g.weights, signals.inputs, g.delta, strict=True):
        assert norm(W) == pytest.approx(norm(x) * norm(d), rel=1e-12)
