"""MLP, its losses and its training: exact cases, references, properties, error messages.

Normalisation, storage, Adam and clipping are tested in test_normalizations.py.
"""

import itertools
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from gradutils.activations import ACTIVATIONS, LEAKY_SLOPE
from gradutils.networks import (
    MLP,
    accuracy,
    cross_entropy,
    layer_norms,
    squared_error,
    train,
)

EPS = np.finfo(np.float64).eps
WIDTHS = [4, 7, 6, 5, 3]
LOSSES = (cross_entropy, squared_error)
seeds = st.integers(0, 999)
names = st.sampled_from([*ACTIVATIONS])
shapes = st.lists(st.integers(1, 6), min_size=2, max_size=5)

#: tf.nn.leaky_relu and tf.nn.gelu round their constants to float32, so these two are spelled out.
TENSORFLOW = {
    "linear": tf.identity,
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
    "relu": tf.nn.relu,
    "leaky_relu": lambda x: tf.where(x > 0, x, tf.constant(LEAKY_SLOPE, x.dtype) * x),
    "elu": tf.nn.elu,
    "selu": tf.nn.selu,
    "gelu": lambda x: x * (1 + tf.math.erf(x / tf.sqrt(tf.cast(2, x.dtype)))) / 2,
    "silu": tf.nn.silu,
    "softplus": tf.nn.softplus,
}


def problem(seed, activation="tanh", widths=WIDTHS, batch=6, dtype=np.float64, **options):
    """Return a network with biases, inputs, labels and targets."""
    rng = np.random.default_rng(seed)
    net = MLP(widths, activation, "lecun", rng=rng, bias_std=0.3, dtype=dtype, **options)
    x = rng.standard_normal((batch, widths[0])).astype(dtype)
    labels = rng.integers(0, widths[-1], batch)
    return net, x, labels, rng.standard_normal((batch, widths[-1])).astype(dtype)


def everything(gradients):
    return [*gradients.weights, *gradients.biases, gradients.input]


def relative_difference(ours, theirs):
    """The largest difference, as a share of the largest entry, over pairs of arrays."""
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, theirs, strict=True))


# Exact special cases


def test_one_layer_by_hand():
    net = MLP([2, 2], "tanh", "lecun", seed=0)
    net.weights[0][:] = [[1, 2], [3, 4]]
    net.biases[0][:] = [10, 20]
    signals = net.forward([[1, 0], [0, 1], [1, 1]])
    assert signals.output.tolist() == [[11, 22], [13, 24], [14, 26]]  # no activation at the end
    gradients = net.backward(signals, np.array([[1, 0], [0, 1], [1, 1]]))
    assert gradients.weights[0].tolist() == [[2, 1], [1, 2]]
    assert gradients.biases[0].tolist() == [2, 2]
    assert gradients.input.tolist() == [[1, 3], [2, 4], [3, 7]]
    assert gradients.delta[0].tolist() == [[1, 0], [0, 1], [1, 1]]


def test_two_relu_layers_by_hand():
    """Input 1, weights 2 and 3 through one live and one dead unit: h = (2, -2), output 2 * 3."""
    net = MLP([1, 2, 1], "relu", "lecun", seed=0)
    net.weights[0][:], net.weights[1][:] = [[2, -2]], [[3], [5]]
    signals = net.forward([[1.0]])
    assert signals.pre[0].tolist() == [[2, -2]]
    assert signals.inputs[1].tolist() == [[2, 0]]
    assert signals.output.tolist() == [[6]]
    gradients = net.backward(signals, [[1.0]])
    assert gradients.delta[0].tolist() == [[3, 0]]
    assert gradients.weights[0].tolist() == [[3, 0]]
    assert gradients.weights[1].tolist() == [[2], [0]]
    assert gradients.biases[0].tolist() == [3, 0]


@given(seed=seeds, widths=shapes)
def test_a_linear_network_is_the_product_of_its_matrices(seed, widths):
    net, x, _, grad_output = problem(seed, "linear", widths)
    product = np.linalg.multi_dot([np.eye(widths[0]), *net.weights])
    assert net.jacobian(x[0]) == pytest.approx(product.T, abs=1e-13)
    gradients = net.backward(net.forward(x), grad_output)
    assert gradients.input == pytest.approx(grad_output @ product.T, abs=1e-13)
    if len(widths) == 3:
        assert gradients.weights[0] == pytest.approx(x.T @ grad_output @ net.weights[1].T)


def test_initial_parameters_follow_the_rule():
    net = MLP([300, 200, 100], "relu", "he", seed=0, bias_std=0.5)
    assert [W.shape for W in net.weights] == [(300, 200), (200, 100)]
    assert [b.shape for b in net.biases] == [(200,), (100,)]
    # A sample deviation of m values has a relative error of about sqrt(1 / 2m); five of those.
    for W in net.weights:
        assert W.std() == pytest.approx(np.sqrt(2 / len(W)), rel=5 * np.sqrt(1 / (2 * W.size)))
    assert net.biases[0].std() == pytest.approx(0.5, rel=5 * np.sqrt(1 / 400))


def test_biases_are_zero_unless_asked_for_and_do_not_move_the_weights():
    plain, biased = (MLP([3, 4], "relu", "he", seed=5, bias_std=s) for s in (0, 1))
    assert not plain.biases[0].any()
    assert biased.biases[0].all()
    assert np.array_equal(plain.weights[0], biased.weights[0])


def test_losses_by_hand():
    loss, gradient = cross_entropy(np.log([[1.0, 2, 1], [3, 1, 1]]), np.array([1, 2]))
    assert loss == pytest.approx((np.log(2) + np.log(5)) / 2, rel=4 * EPS)
    expected = np.array([[0.25, -0.5, 0.25], [0.6, 0.2, -0.8]]) / 2  # p - y, averaged
    assert gradient == pytest.approx(expected, rel=8 * EPS)
    loss, gradient = squared_error(np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 0], [3, 8]]))
    assert loss == 5
    assert gradient.tolist() == [[0, 1], [0, -2]]


def test_cross_entropy_of_huge_logits_is_finite():
    loss, gradient = cross_entropy(np.array([[1e4, -1e4], [1e4, -1e4]]), np.array([0, 1]))
    assert loss == 1e4
    assert gradient.tolist() == [[0, 0], [0.5, -0.5]]


# References: TensorFlow and Keras


def tensorflow_gradients(net, x, y, activation, loss):
    """Loss and gradients by parameters and input, as a tape gives them in the network's type."""
    phi = TENSORFLOW[activation]
    W, b = ([tf.Variable(p) for p in group] for group in (net.weights, net.biases))
    x = tf.Variable(x)
    with tf.GradientTape() as tape:
        h = x @ W[0] + b[0]
        for weights, bias in zip(W[1:], b[1:], strict=True):
            branch = phi(h) @ weights + bias
            skips = net.branch_scale is not None and branch.shape == h.shape
            h = h + net.branch_scale * branch if skips else branch
        if loss is cross_entropy:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, h)
        else:
            losses = (h - y) ** 2
        value = tf.reduce_mean(losses)
    return float(value), [g.numpy() for g in tape.gradient(value, [*W, *b, x])]


@pytest.mark.parametrize(
    ("activation", "loss", "widths", "options"),
    [
        *itertools.product(ACTIVATIONS, LOSSES, [WIDTHS], [{}, {"dtype": np.float32}]),
        *(("silu", cross_entropy, [4, 6, 6, 6, 5, 5], {"branch_scale": s}) for s in (0.3, 1.0)),
        *(("sigmoid", cross_entropy, [8] * depth + [5], {}) for depth in (1, 2, 30)),
    ],
)
def test_gradients_are_those_of_tensorflow(activation, loss, widths, options):
    net, x, labels, targets = problem(3, activation, widths, **options)
    y = labels if loss is cross_entropy else targets
    signals = net.forward(x)
    value, grad_output = loss(signals.output, y)
    gradients = net.backward(signals, grad_output)
    expected, theirs = tensorflow_gradients(net, x, y, activation, loss)
    # Sums of up to 8 products in each layer, forth and back: below 25 roundings a layer, relative
    # to the largest entry of each array, however small the layer's gradient.
    bound = 25 * len(widths) * float(np.finfo(x.dtype).eps)
    assert value == pytest.approx(expected, rel=bound)
    assert relative_difference(everything(gradients), theirs) < bound
    assert all(g.dtype == x.dtype for g in [*everything(gradients), *gradients.delta])


# Properties


@given(seed=seeds, activation=names, a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_backward_is_linear_in_the_output_gradient(seed, activation, a, b):
    net, x, _, g = problem(seed, activation)
    other = np.random.default_rng(seed + 1).standard_normal(g.shape)
    signals = net.forward(x)
    first, second, both = (net.backward(signals, d) for d in (g, other, a * g + b * other))
    for one, two, total in zip(*map(everything, (first, second, both)), strict=True):
        size = abs(a) * np.abs(one).max() + abs(b) * np.abs(two).max()
        assert np.abs(a * one + b * two - total).max() <= 100 * EPS * (size + 1)


@given(seed=seeds, activation=names, widths=shapes, branch_scale=st.sampled_from([None, 0.5]))
def test_jacobian_is_stacked_backward_of_unit_vectors(seed, activation, widths, branch_scale):
    net, x, _, _ = problem(seed, activation, widths, batch=1, branch_scale=branch_scale)
    signals = net.forward(x)
    rows = [net.backward(signals, unit[None]).input[0] for unit in np.eye(widths[-1])]
    assert net.jacobian(x[0]) == pytest.approx(np.array(rows), rel=1e-12, abs=1e-14)


@given(seed=seeds, activation=names)
def test_jacobian_of_every_layer_obeys_the_chain_rule(seed, activation):
    """J of a layer is W^T diag(phi'(h)) J of the layer before; negative indices count back."""
    net, x, _, _ = problem(seed, activation, batch=1)
    pre = net.forward(x).pre
    J = net.weights[0].T
    for layer, W in enumerate(net.weights):
        if layer > 0:
            J = W.T @ np.diag(net.activation.derivative(pre[layer - 1][0])) @ J
        assert net.jacobian(x[0], layer) == pytest.approx(J, rel=1e-12, abs=1e-14)
        assert np.array_equal(
            net.jacobian(x[0], layer), net.jacobian(x[0], layer - len(net.weights))
        )


@given(seed=seeds, activation=names)
def test_samples_do_not_mix(seed, activation):
    """The gradient of a batch is the sum of those of its samples."""
    net, x, _, g = problem(seed, activation)
    whole = net.backward(net.forward(x), g)
    single = [net.backward(net.forward(x[i : i + 1]), g[i : i + 1]) for i in range(len(x))]
    for k, total in enumerate(whole.weights + whole.biases):
        summed = sum((part.weights + part.biases)[k] for part in single)
        assert np.abs(summed - total).max() <= 100 * EPS * (np.abs(total).max() + 1)


@given(seed=seeds, bias_std=st.floats(0, 2))
def test_a_seed_fixes_the_network(seed, bias_std):
    one, same, other = (
        MLP(WIDTHS, "relu", "he", seed=s, bias_std=bias_std) for s in (seed, seed, seed + 1)
    )
    generator = MLP(WIDTHS, "relu", "he", rng=np.random.default_rng(seed), bias_std=bias_std)
    for k, W in enumerate(one.weights):
        assert np.array_equal(W, same.weights[k])
        assert np.array_equal(W, generator.weights[k])
        assert not np.array_equal(W, other.weights[k])
    assert all(np.array_equal(a, b) for a, b in zip(one.biases, same.biases, strict=True))


def test_training_finds_the_least_squares_solution():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 3)), rng.standard_normal((50, 2))
    net = MLP([3, 2], "linear", "lecun", seed=1)
    train(net, x, y, loss=squared_error, learning_rate=0.4, epochs=2000, batch_size=50, rng=rng)
    best = np.linalg.lstsq(np.column_stack([x, np.ones(50)]), y, rcond=None)[0]
    assert np.vstack([net.weights[0], net.biases[0]]) == pytest.approx(best, abs=1e-10)


@given(seed=seeds, momentum=st.floats(0, 0.99), batch_size=st.integers(1, 9))
def test_a_learning_rate_of_zero_changes_nothing(seed, momentum, batch_size):
    net, x, labels, _ = problem(seed)
    before = [p.copy() for p in net.weights + net.biases]
    rng = np.random.default_rng(0)
    history = train(net, x, labels, loss=cross_entropy, learning_rate=0.0, epochs=3,
                    momentum=momentum, batch_size=batch_size, rng=rng)  # fmt: skip
    assert all(map(np.array_equal, before, net.weights + net.biases))
    if len(x) % batch_size == 0:  # else the mean over batches weighs samples differently
        loss = cross_entropy(net.forward(x).output, labels)[0]
        assert history == pytest.approx(loss, rel=1e-13)


@given(batch_size=st.integers(1, 20))
def test_every_epoch_sees_every_sample_once(batch_size):
    seen = []

    def remember(outputs, targets):
        seen.append(targets)
        return squared_error(outputs, targets)

    y = np.arange(17.0)[:, None]
    train(MLP([1, 1], "linear", "lecun", seed=0), y / 17, y, loss=remember, learning_rate=0.0,
          epochs=2, batch_size=batch_size, rng=np.random.default_rng(0))  # fmt: skip
    first, second = np.split(np.concatenate(seen).ravel(), 2)
    assert sorted(first) == sorted(second) == list(range(17))
    assert not np.array_equal(first, second)  # drawn anew; equal with probability 1 / 17!
    assert max(map(len, seen)) == min(batch_size, 17)


def test_training_takes_the_same_way_for_the_same_seed():
    def run(seed):
        net, x, labels, _ = problem(1, batch=20)
        return train(net, x, labels, loss=cross_entropy, learning_rate=0.1, epochs=5,
                     batch_size=7, rng=np.random.default_rng(seed))  # fmt: skip

    assert np.array_equal(run(3), run(3))
    assert not np.array_equal(run(3), run(4))


def test_divergence_is_a_result_without_a_warning():
    rng = np.random.default_rng(0)
    net, x, _, targets = problem(2, "linear")
    history = train(net, x, targets, loss=squared_error, learning_rate=1e6, epochs=10, rng=rng)
    assert not np.isfinite(history[-1])
    signals = MLP([2] * 400, "linear", 100.0, seed=0).forward(np.ones((1, 2)))
    assert not np.isfinite(signals.output).all()


def test_accuracy_counts_the_largest_output():
    net = MLP([3, 3], "linear", "lecun", seed=0)
    net.weights[0][:] = np.eye(3)
    x = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [5, 6, 7]])
    assert accuracy(net, x, np.array([0, 1, 0, 2])) == 0.75


# Error messages


def fitted(**arguments):
    """Train a small network with some arguments replaced."""
    arguments = {
        "x": np.ones((4, 2)), "y": np.zeros((4, 1)), "loss": squared_error, "learning_rate": 0.1,
        "epochs": 1, "rng": np.random.default_rng(0),
    } | arguments  # fmt: skip
    return train(MLP([2, 1], "relu", "he", seed=0), **arguments)


SMALL = MLP([2, 3, 1], "relu", "he", seed=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MLP([2, 1], "rleu", "he", seed=0), "activation must be one of linear, "),
        (lambda: MLP([2, 1], "relu", "kaiming", seed=0),
         "initializer must be one of lecun, glorot, he, uniform_third, orthogonal, or a finite "
         "sigma_w >= 0; received 'kaiming'"),
        (lambda: MLP([2, 1], "relu", -1.0, seed=0), "received -1.0"),
        (lambda: MLP([], "relu", "he", seed=0), "widths must be two or more positive integers; "
                                                "received []"),
        (lambda: MLP([5], "relu", "he", seed=0), "received [5]"),
        (lambda: MLP([2, 0, 1], "relu", "he", seed=0), "received [2, 0, 1]"),
        (lambda: MLP([2, -3], "relu", "he", seed=0), "received [2, -3]"),
        (lambda: MLP([2.5, 2], "relu", "he", seed=0), "received [2.5, 2]"),
        (lambda: MLP([2, True], "relu", "he", seed=0), "received [2, True]"),
        (lambda: MLP([2, 1], "relu", "he"),
         "either seed or rng must be given; received None and None"),
        (lambda: MLP([2, 1], "relu", "he", seed=0, rng=np.random.default_rng(0)),
         "either seed or rng must be given; received 0 and Generator"),
        (lambda: MLP([2, 1], "relu", "he", seed=-1), "seed must be an integer >= 0; received -1"),
        (lambda: MLP([2, 1], "relu", "he", rng=7),
         "rng must be a numpy.random.Generator; received 7"),
        (lambda: MLP([2, 1], "relu", "he", seed=0, bias_std=-0.5),
         "bias_std must be a finite number >= 0; received -0.5"),
        (lambda: MLP([2, 1], "relu", "he", seed=0, bias_std=np.nan), "received nan"),
        (lambda: MLP([2, 1], "relu", "he", seed=0, bias_std=float("inf")), "received inf"),
        (lambda: MLP([2, 1], "relu", float("inf"), seed=0), "received inf"),
        (lambda: MLP([2, 1], "relu", "he", seed=0, dtype=np.float16),
         "dtype must be float64 or float32; received"),
        (lambda: MLP([2, 1], "relu", "he", seed=0, dtype=int), "dtype must be float64 or float32"),
        (lambda: MLP([2, 1], "relu", "he", seed=0, dtype="float7"), "received 'float7'"),
        (lambda: MLP([2, 1], "relu", "he", seed=0, storage=int),
         "storage must be None or a floating-point type; received <class 'int'>"),
        (lambda: SMALL.forward(np.ones((0, 2))), "received (0, 2)"),
        (lambda: SMALL.forward(np.ones((4, 3))), "x must have shape (batch, 2); received (4, 3)"),
        (lambda: SMALL.forward(np.ones(2)), "x must have shape (batch, 2); received (2,)"),
        (lambda: SMALL.forward(np.ones((1, 4, 2))), "received (1, 4, 2)"),
        (lambda: SMALL.forward([[np.nan, 1], [np.inf, -np.inf]]),
         "x must be finite; received 3 NaN or inf"),
        (lambda: SMALL.forward([[np.inf, 1]]), "x must be finite; received 1 NaN or inf"),
        (lambda: SMALL.backward(SMALL.forward(np.ones((4, 2))), np.ones((4, 2))),
         "grad_output must have the output's shape (4, 1); received (4, 2)"),
        (lambda: SMALL.backward(SMALL.forward(np.ones((4, 2))), np.ones(4)), "received (4,)"),
        (lambda: SMALL.jacobian(np.ones(2), layer=2), "layer must index 2 layers; received 2"),
        (lambda: SMALL.jacobian(np.ones(2), layer=-3), "layer must index 2 layers; received -3"),
        (lambda: SMALL.jacobian(np.ones(3)), "x must have shape (batch, 2); received (1, 3)"),
        (lambda: SMALL.jacobian(np.array([np.nan, 0])), "x must be finite; received 1 NaN or inf"),
        (lambda: cross_entropy(np.zeros((2, 3)), np.array([0, 3])),
         "labels must be 2 integers from 0 to 2; received int64 of shape (2,): [0, 3]"),
        (lambda: cross_entropy(np.zeros((2, 3)), np.array([-1, 0])), "[-1, 0]"),
        (lambda: cross_entropy(np.zeros((2, 3)), np.array([0.0, 1.5])), "received float64"),
        (lambda: cross_entropy(np.zeros(3), np.array([0])),
         "logits must have shape (batch, classes); received (3,)"),
        (lambda: cross_entropy(np.zeros((2, 3)), np.array([0, 1, 2])), "of shape (3,)"),
        (lambda: cross_entropy(np.zeros((2, 3)), np.array([[0], [1]])), "of shape (2, 1)"),
        (lambda: squared_error(np.zeros((2, 1)), np.zeros(2)),
         "targets must have the outputs' shape (2, 1); received (2,)"),
        (lambda: fitted(y=np.zeros((3, 1))), "x and y must hold as many samples; received 4 and 3"),
        (lambda: fitted(momentum=1.0), "momentum must be below 1; received 1.0"),
        (lambda: fitted(clip_norm=0.0), "clip_norm must be > 0; received 0.0"),
        (lambda: fitted(x=np.ones((0, 2)), y=np.zeros((0, 1))), "received 0 and 0"),
        (lambda: fitted(x=np.full((4, 2), np.nan)), "x must be finite; received 8 NaN or inf"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("bad", [3, None, (np.sin,)])
def test_activation_of_the_wrong_type(bad):
    with pytest.raises(TypeError, match="activation must be a name or a pair of callables"):
        MLP([2, 1], bad, "he", seed=0)


def test_layer_norms_of_one_linear_layer_by_hand():
    net = MLP([1, 1], "linear", 0.0, seed=0)
    net.weights[0][:] = 2.0
    x, y = np.array([[3.0], [4.0]]), np.zeros((2, 1))
    norms = layer_norms(net, x, y, loss=squared_error)
    # Outputs 6 and 8; dL/dh = 2 h / 2 = h; dL/dW = sum of h x.
    assert norms.forward.tolist() == [np.sqrt(50)]
    assert norms.backward.tolist() == [10.0]
    assert norms.weights.tolist() == [50.0]
