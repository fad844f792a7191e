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


# The chapter's code and the package's are one


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


# The first backward signal is p - y, and it is bounded


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


# Two ways to check a gradient


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


# "Vanishing and exploding are caused by the size of weights and biases"


def backward_share(width, std, activation, depth=20, seed=0, bias=0.0):
    """Norm of the first layer's backward signal as a share of the last one's."""
    net = MLP([width] * (depth + 1), activation, std * np.sqrt(width), seed=seed)
    for b in net.biases:
        b += bias
    x, pull = np.random.default_rng(seed).standard_normal((2, 20, width))
    return norm(net.backward(net.forward(x), pull).delta[0]) / norm(pull)


@pytest.mark.parametrize("width", [50, 200, 600])
def test_one_size_of_weights_vanishes_holds_or_explodes_by_width(width):
    """ReLU, std 0.1: the squared norm changes by width * 0.01 / 2 in each of 19 layers.

    Its logarithm has mean -2.5 beta and variance 5 beta about that, beta = 19 / width (Hanin
    2018); the norm's logarithm has half of each. Five deviations are allowed.
    """
    beta = 19 / width
    expected = 19 / 2 * np.log(width * 0.01 / 2) - 1.25 * beta
    measured = np.log(backward_share(width, 0.1, "relu"))
    assert measured == pytest.approx(expected, abs=5 * np.sqrt(5 * beta) / 2 + 1.25 * beta)
    assert (measured < -5, abs(measured) < 3, measured > 5)[[50, 200, 600].index(width)]


def test_one_size_of_weights_differs_by_activation_bias_and_depth():
    """Width 200, std 0.1: sigma_w = sqrt(2), which only ReLU without biases turns into 1."""
    assert 0.1 < backward_share(200, 0.1, "relu") < 10
    # The slope is at most 1/4, so wide networks lose a factor of sqrt(2) / 4 or more: 3e-9 in all.
    assert backward_share(200, 0.1, "sigmoid") < 1e-5
    # The log norm of 19 Gaussian factors deviates by sqrt(19 / 400) = 0.22: five are a factor 3.
    assert np.sqrt(2) ** 19 / 3 < backward_share(200, 0.1, "linear") < np.sqrt(2) ** 19 * 3
    # Biases act through the slopes alone: here they close every rectifier, or flatten the sigmoid.
    assert backward_share(200, 0.1, "relu", bias=-10.0) == 0
    assert backward_share(200, 0.1, "sigmoid", bias=5.0) < 1e-6 * backward_share(
        200, 0.1, "sigmoid"
    )
    # Depth alone: 4 factors of 1/2, or 19.
    assert backward_share(50, 0.1, "relu", depth=5) > 1e-2 > backward_share(50, 0.1, "relu")


# "Flat weight-gradient norms mean healthy gradients"


@given(seed=seeds, activation=st.sampled_from([*ACTIVATIONS]))
def test_one_samples_weight_gradient_is_input_times_backward_signal(seed, activation):
    rng = np.random.default_rng(seed)
    net = MLP([6] * 8, activation, "lecun", rng=rng, bias_std=0.1)
    signals = net.forward(rng.standard_normal((1, 6)))
    g = net.backward(signals, rng.standard_normal((1, 6)))
    for W, x, d in zip(g.weights, signals.inputs, g.delta, strict=True):
        assert norm(W) == pytest.approx(norm(x) * norm(d), rel=1e-12)


def test_weight_gradients_look_flat_while_the_backward_signal_dies():
    """ReLU with Glorot weights, 30 layers: both signals change by 2^(-1/2) per layer.

    One log norm ratio over 29 layers has a deviation of sqrt(5 * 29 / 64) / 2 = 0.75; the mean of
    30 networks one of 0.14, and a shift of -1.25 * 29 / 64 = -0.57 (Hanin 2018). Five deviations.
    In the weight gradient the two changes cancel; its deviation is at most twice as large.
    """
    backward, weight = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        net = MLP([64] * 31, "relu", "glorot", rng=rng)
        g = net.backward(net.forward(rng.standard_normal((1, 64))), rng.standard_normal((1, 64)))
        backward.append(np.log(norm(g.delta[0]) / norm(g.delta[-1])))
        weight.append(np.log(norm(g.weights[0]) / norm(g.weights[-1])))
    assert np.mean(backward) == pytest.approx(-29 / 2 * np.log(2) - 0.57, abs=5 * 0.14)
    assert abs(np.mean(weight)) < 2 * 5 * 0.14
