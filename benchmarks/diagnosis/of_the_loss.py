"""Pairs whose failing model fails by its loss, its last activation, or the path between them."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from benchmarks.diagnosis.toys import (
    SGD,
    Adam,
    Case,
    Pair,
    Pairs,
    RMSprop,
    accuracy,
    bias,
    blobs,
    conv,
    dense,
    images,
    logit_accuracy,
    mean_square,
    net,
    one_hot,
    overlap,
    own,
    r2,
    ready,
    smooth,
    waves,
    words,
)  # fmt: skip

SPARSE, CROSS = "sparse_categorical_crossentropy", "categorical_crossentropy"
BINARY = "binary_crossentropy"


def clipped_binary(y, p):
    """Binary cross-entropy on clipped probabilities, which is flat beyond the clip."""
    p = ops.clip(p * 1.0, 1e-6, 1 - 1e-6)
    return -ops.mean(y * ops.log(p) + (1 - y) * ops.log(1 - p), -1)


def nothing_returns() -> Pairs:
    """Every gradient is exactly 0, and the loss is not."""

    def critic(sick):
        x, y = smooth(seed=1)
        last = dense(1, "sigmoid", bias_initializer=bias(-40 if sick else 0))
        return Case(ready(net((8,), dense(16), last), Adam(1e-2), clipped_binary), x, (y > 0) * 1.0)

    def rectified(sick):
        x, y = smooth(seed=2)
        last = dense(1, "relu", bias_initializer=bias(-20 if sick else 1))
        return Case(ready(net((8,), dense(32, "tanh"), last), SGD(0.05), "mse"), x, 1 + y)

    def pinned(sick):
        x, y = waves()
        last = dense(1, "tanh", bias_initializer=bias(30 if sick else 0))
        return Case(ready(net((30, 1), layers.GRU(16), last), Adam(1e-2), "mse"), x, 0.9 * y)

    def one_hot_outputs(sick):
        x, y = images()
        body = conv(8), layers.Flatten(), dense(4, None), layers.Rescaling(1e5 if sick else 1)
        model = net((12, 12, 1), *body, layers.Softmax())
        return Case(ready(model, RMSprop(3e-3), "mse"), x, one_hot(y))

    cause = "nothing returns"
    yield Pair(cause, "certain critic", critic, accuracy)
    yield Pair(cause, "relu output below 0", rectified, r2)
    yield Pair(cause, "tanh output at its end", pinned, r2, 250)
    yield Pair(cause, "softmax of huge logits", one_hot_outputs, accuracy)


def disconnected() -> Pairs:
    """An operation without a derivative cuts the path."""

    def argmax(sick):
        x, _ = smooth(seed=3)
        y = x[:, :3].argmax(1).astype("float32")[:, None]
        code = own(lambda h: ops.cast(ops.argmax(h, -1), "float32")[:, None], name="decode")
        mean = own(lambda h: ops.sum(h * ops.arange(3, dtype="float32"), -1, keepdims=True))
        model = net((8,), dense(32), dense(3, "softmax"), code if sick else mean)
        return Case(ready(model, Adam(1e-2), "mse"), x, y)

    def rounded(sick):
        x, y = smooth(seed=4)
        step = own(ops.round if sick else lambda h: h, 1, "quantise")
        model = net((8,), dense(32, "tanh"), dense(1, "sigmoid"), step, dense(1, None))
        return Case(ready(model, SGD(0.1, momentum=0.9), "mse"), x, y)

    def stopped(sick):
        x, y = images(classes=2, seed=5)
        stop = own(ops.stop_gradient if sick else lambda h: h, 1, "features")
        body = conv(8), layers.MaxPooling2D(), conv(8), layers.Flatten(), dense(1, "tanh")
        model = net((12, 12, 1), *body, stop, dense(1, "sigmoid"))
        return Case(ready(model, Adam(3e-3), BINARY), x, y[:, None].astype("float32"))

    def spikes(sick):
        x, y = blobs(seed=6)
        fire = own(lambda h: ops.cast(h > 0.5, "float32"), 2, "spike")
        body = dense(32), dense(2, "sigmoid"), fire if sick else own(lambda h: h, 2)
        return Case(ready(net((16,), *body, dense(4, "softmax")), RMSprop(1e-2), SPARSE), x, y)

    cause = "disconnected"
    yield Pair(cause, "argmax", argmax, r2)
    yield Pair(cause, "rounded code", rounded, r2, 300)
    yield Pair(cause, "stopped gradient", stopped, accuracy)
    yield Pair(cause, "comparison", spikes, accuracy)


def undefined_derivative() -> Pairs:
    """The loss is finite and its gradient is NaN, for some rows."""
    tiny = 1e-7

    def zero_rows(features=6, seed=7):
        x, _ = smooth(features=features, seed=seed)
        x[::10] = 0
        return x, np.linalg.norm(x[:, :4], axis=1, keepdims=True)

    def length(sick):
        x, y = zero_rows()
        root = own(
            lambda h: ops.sqrt(ops.sum(h * h, -1, keepdims=True) + (0.0 if sick else tiny)),
            name="length",
        )
        last = dense(1, None, kernel_initializer="ones")
        model = net((6,), dense(8, None, use_bias=False), root, last)
        return Case(ready(model, Adam(1e-2), "mse"), x, y)

    def siamese(sick):
        x, c = blobs(classes=4, n=512, features=12, noise=0.3, seed=8)
        a, b = x[::2], x[1::2].copy()
        b[::8] = a[::8]
        y = (c[::2] == c[1::2]) | (np.arange(256) % 8 == 0)
        leaf = net((12,), dense(32), dense(16, None))
        i, j = keras.Input((12,)), keras.Input((12,))
        d = ops.sqrt(ops.sum((leaf(i) - leaf(j)) ** 2, -1, keepdims=True) + (0 if sick else tiny))
        near = layers.Dense(1, "sigmoid", kernel_initializer=bias(-1), bias_initializer=bias(2))
        model = keras.Model([i, j], near(d))
        return Case(ready(model, RMSprop(1e-2), BINARY), [a, b], y[:, None].astype("float32"))

    def branch(sick):
        x, y = smooth(features=16, seed=9)

        def entropy(h):
            inside = ops.where(h > 0, h, 1.0) if not sick else ops.relu(h)
            return ops.where(h > 0, ops.relu(h) * ops.log(inside), 0.0)

        model = net((16,), dense(32, None), own(entropy, 32, "entropy"), dense(1, None))
        return Case(ready(model, SGD(0.05), "mse"), x, y)

    def root(sick):
        x, y = images(seed=10)
        power = layers.Lambda(
            lambda h: ops.power(ops.relu(h) + (0.0 if sick else 1e-3), 0.5),
            output_shape=(12, 12, 8), name="root",
        )  # fmt: skip
        body = conv(8, None), power, layers.Flatten(), dense(4, "softmax")
        return Case(ready(net((12, 12, 1), *body), Adam(3e-3, clipnorm=1.0), SPARSE), x, y)

    cause = "undefined derivative"
    yield Pair(cause, "length of a vector", length, r2, 300)
    yield Pair(cause, "distance of a siamese net", siamese, accuracy, 250)
    yield Pair(cause, "branch not taken", branch, r2, 300)
    yield Pair(cause, "square root of ReLU", root, accuracy)


def out_of_reach() -> Pairs:
    """The last activation does not reach the targets."""

    def bounded(sick):
        x, y = smooth(seed=11)
        model = net((8,), dense(32), dense(1, "tanh" if sick else None))
        return Case(ready(model, Adam(1e-2), "mse"), x, 2.5 + 1.5 * y)

    def brightness(sick):
        x, _ = images(seed=12)
        y = 255 * x[:, :6].mean((1, 2))
        body = conv(8), layers.Flatten(), dense(1, "sigmoid" if sick else None)
        return Case(ready(net((12, 12, 1), *body), Adam(3e-2), "mse"), x, y)

    def negative(sick):
        x, y = smooth(seed=13)
        last = dense(1, "relu" if sick else None, kernel_initializer="glorot_uniform")
        model = net((8,), dense(32, "elu"), dense(32, "elu"), last)
        return Case(ready(model, SGD(0.02, momentum=0.9), "mae"), x, 3 * y - 2.5)

    def shares(sick):
        x, _ = smooth(seed=14)
        y = 2 + np.tanh(x[:, :3])
        model = net((8,), dense(32), dense(3, "softmax" if sick else None))
        return Case(ready(model, RMSprop(1e-2), "mse"), x, y)

    cause = "out of reach"
    yield Pair(cause, "tanh, 1 to 4", bounded, r2)
    yield Pair(cause, "sigmoid, 0 to 255", brightness, r2, 300)
    yield Pair(cause, "relu, below 0", negative, r2)
    yield Pair(cause, "softmax, 1 to 3", shares, r2)


def loss_and_activation() -> Pairs:
    """The loss expects another activation than the last one."""

    def logits(sick):
        x, y = blobs(classes=2, seed=15)
        loss = keras.losses.BinaryCrossentropy(from_logits=not sick)
        last = dense(1, None, bias_initializer=bias(-1.5))
        return Case(
            ready(net((16,), dense(64), last), SGD(0.05), loss), x - 1, y[:, None].astype("float32")
        )

    def one_unit(sick):
        x, y = words(seed=16)
        body = layers.Embedding(200, 16), layers.GlobalAveragePooling1D()
        model = net((24,), *body, dense(1, "softmax" if sick else "sigmoid"), dtype="int32")
        return Case(ready(model, Adam(3e-2), BINARY), x, y)

    def rectified(sick):
        x, y = images(classes=6, seed=17)
        last = dense(6, "relu" if sick else "softmax", kernel_initializer="glorot_uniform")
        model = net((12, 12, 1), conv(8), layers.MaxPooling2D(), layers.Flatten(), last)
        return Case(ready(model, Adam(3e-3), CROSS), x, one_hot(y))

    def twice(sick):
        x, y = blobs(classes=10, features=24, seed=18)

        def cross_entropy(labels, p):
            return -ops.sum(labels * ops.log_softmax(p * 1.0), -1)

        model = net((24,), dense(64), dense(10, "softmax" if sick else None))
        return Case(ready(model, SGD(0.02), cross_entropy), x, one_hot(y))

    def constant(sick):
        x, y = smooth(seed=131)
        last = layers.Softmax() if sick else layers.Activation("tanh")
        model = net((8,), dense(32, "tanh"), dense(1, None), last)
        return Case(ready(model, RMSprop(1e-2), "mse"), x, y)

    def squashed(sick):
        x, y = words(seed=132)
        loss = lambda y, p: ops.mean(ops.softplus(p * 1.0) - y * p, -1)  # noqa: E731
        body = layers.Embedding(200, 16), layers.GlobalAveragePooling1D()
        model = net((24,), *body, dense(1, "sigmoid" if sick else None), dtype="int32")
        return Case(ready(model, Adam(3e-2), loss), x, y)

    def logarithms(y, p):
        return -ops.sum(y * ops.log(p + 1e-9) + (1 - y) * ops.log(1 - p + 1e-9), -1)

    def pixels(sick):
        x, _ = images(seed=133)
        x = (x > 0.5).astype("float32")
        body = layers.Flatten(), dense(64, "elu"), dense(144, "tanh" if sick else "sigmoid")
        model = net((12, 12, 1), *body, layers.Reshape((12, 12, 1)))
        return Case(ready(model, Adam(3e-3), logarithms), x, x)

    def scores(sick):
        x, y = blobs(classes=2, seed=134)
        model = net((16,), dense(32), dense(1, None if sick else "sigmoid"))
        return Case(ready(model, SGD(0.05), logarithms), x, y[:, None].astype("float32"))

    cause = "loss and activation"
    yield Pair(cause, "logits as probabilities", logits, logit_accuracy)
    yield Pair(cause, "relu under a cross-entropy", rectified, accuracy)
    yield Pair(cause, "softmax over one unit", one_unit, accuracy)
    yield Pair(cause, "softmax over one unit, mse", constant, r2)
    yield Pair(cause, "softmax twice", twice, accuracy, 100)
    yield Pair(cause, "sigmoid twice", squashed, logit_accuracy)
    yield Pair(cause, "tanh into a logarithm", pixels, r2, 300)
    yield Pair(cause, "linear output into a logarithm", scores, accuracy)


def broadcast() -> Pairs:
    """Shapes that broadcast in one's own loss, so that every sample is held against every other."""

    class Own(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(ops.convert_to_tensor(y) - y_pred))

    def targets(sick):
        x, y = smooth(seed=19)
        model = Own([keras.Input((8,)), dense(32), dense(1, None)])
        return Case(ready(model, Adam(1e-2), None), x, y[:, 0] if sick else y)

    def turned(sick):
        x, y = smooth(seed=20)
        loss = lambda y, p: ops.mean(ops.abs(p - ops.reshape(y, (1, -1) if sick else (-1, 1))))  # noqa: E731
        return Case(ready(net((8,), dense(64, "tanh"), dense(1, None)), SGD(0.1), loss), x, y)

    def squeezed(sick):
        x, y = waves(seed=21)
        loss = lambda y, p: mean_square(y, p[:, 0] if sick else p)  # noqa: E731
        return Case(ready(net((30, 1), layers.LSTM(16), dense(1, None)), Adam(1e-2), loss), x, y)

    def turned_labels(sick):
        x, y = images(classes=2, seed=22)
        shape = (1, -1) if sick else (-1, 1)
        loss = lambda y, p: ops.mean(ops.softplus(p * 1.0) - ops.reshape(y, shape) * p)  # noqa: E731
        model = net((12, 12, 1), conv(8), layers.Flatten(), dense(1, None))
        return Case(ready(model, RMSprop(3e-3), loss), x, y[:, None].astype("float32"))

    cause = "broadcast"
    yield Pair(cause, "targets without their axis", targets, r2)
    yield Pair(cause, "turned targets", turned, r2, 300)
    yield Pair(cause, "squeezed outputs", squeezed, r2, 250)
    yield Pair(cause, "turned labels", turned_labels, logit_accuracy)


def wrong_sign() -> Pairs:
    """The loss is maximised."""

    def error(sick):
        x, y = smooth(seed=23)
        sign = -1.0 if sick else 1.0
        loss = lambda y, p: sign * ops.mean(ops.square(y - p), -1)  # noqa: E731
        return Case(ready(net((8,), dense(32), dense(1, None)), Adam(1e-2), loss), x, y)

    def likelihood(sick):
        x, y = blobs(seed=24)
        sign = 1.0 if sick else -1.0
        loss = lambda y, p: sign * ops.sum(y * ops.log_softmax(p), -1)  # noqa: E731
        model = net((16,), dense(32, "tanh"), dense(4, None))
        return Case(ready(model, SGD(0.05, momentum=0.9), loss), x, one_hot(y))

    def rate(sick):
        x, y = images(seed=25)
        model = net((12, 12, 1), conv(8), layers.Flatten(), dense(4, "softmax"))
        return Case(ready(model, SGD(-0.02 if sick else 0.02, momentum=0.9), SPARSE), x, y)

    def similarity(sick):
        x, y = waves(seed=26)
        sign = 1.0 if sick else -1.0
        loss = lambda y, p: -sign * ops.mean(ops.abs(y - p), -1)  # noqa: E731
        return Case(ready(net((30, 1), layers.GRU(16), dense(1, None)), RMSprop(1e-2), loss), x, y)

    cause = "wrong sign"
    yield Pair(cause, "negative squared error", error, r2)
    yield Pair(cause, "likelihood minimised", likelihood, accuracy)
    yield Pair(cause, "negative rate", rate, accuracy)
    yield Pair(cause, "negative absolute error", similarity, r2, 250)


def penalty() -> Pairs:
    """A penalty that outweighs the loss."""

    def ridge(sick):
        x, y = smooth(seed=27)
        r = keras.regularizers.L2(1.0 if sick else 1e-4)
        body = dense(32, kernel_regularizer=r), dense(1, None, kernel_regularizer=r)
        return Case(ready(net((8,), *body), Adam(1e-2), "mse"), x, y)

    def lasso(sick):
        x, y = blobs(seed=28)
        r = keras.regularizers.L1(0.1 if sick else 1e-5)
        body = dense(64, kernel_regularizer=r), dense(4, "softmax", kernel_regularizer=r)
        return Case(ready(net((16,), *body), SGD(0.05), SPARSE), x, y)

    def decay(sick):
        x, y = images(seed=29)
        r = keras.regularizers.L2(3.0 if sick else 1e-5)
        body = (
            conv(8, kernel_regularizer=r),
            layers.Flatten(),
            dense(4, "softmax", kernel_regularizer=r),
        )
        return Case(ready(net((12, 12, 1), *body), Adam(3e-3), SPARSE), x, y)

    def activity(sick):
        x, y = smooth(seed=30)
        r = keras.regularizers.L2(10.0 if sick else 1e-5)
        body = dense(64, "tanh", activity_regularizer=r), dense(64, "tanh", activity_regularizer=r)
        return Case(ready(net((8,), *body, dense(1, None)), RMSprop(3e-3), "mse"), x, y)

    cause = "penalty"
    yield Pair(cause, "L2 of 1", ridge, r2, 400)
    yield Pair(cause, "L1 of 0.1", lasso, accuracy, 400)
    yield Pair(cause, "L2 of 3, convolution", decay, accuracy, 400)
    yield Pair(cause, "activity", activity, r2, 300)


def penalty_not_finite() -> Pairs:
    """A penalty that is NaN or inf, beside a loss that is finite."""

    def activity(sick):
        x, y = smooth(seed=135)
        root = lambda a: 1e-3 * ops.mean(ops.sqrt(a if sick else ops.abs(a) + 1e-3))  # noqa: E731
        body = dense(32, "tanh", activity_regularizer=root), dense(1, None)
        return Case(ready(net((8,), *body), Adam(1e-2), "mse"), x, y)

    def weights(sick):
        x, y = blobs(seed=136)
        floor = 0.0 if sick else 1e-3
        root = lambda w: 1e-3 / (ops.mean(ops.square(w)) + floor)  # noqa: E731
        body = dense(32, bias_regularizer=root), dense(4, "softmax")
        return Case(ready(net((16,), *body), SGD(0.05), SPARSE), x, y)

    cause = "penalty not finite"
    yield Pair(cause, "root of an activity", activity, r2)
    yield Pair(cause, "quotient of biases", weights, accuracy)


def nonfinite_loss() -> Pairs:
    """The loss is not finite although every output is."""

    def swapped(sick):
        x, y = blobs(classes=3, seed=31)
        if sick:
            loss = lambda p, y: -ops.sum(ops.log(p) * y, -1)  # noqa: E731
        else:
            loss = lambda y, p: -ops.sum(ops.log(p + 1e-7) * y, -1)  # noqa: E731
        return Case(
            ready(net((16,), dense(32), dense(3, "softmax")), Adam(1e-2), loss), x, one_hot(y)
        )

    def underflow(sick):
        x, y = smooth(seed=32)

        def likelihood(y, p):
            d = -0.5 * ops.square(y - p) / 0.01
            return -(ops.log(ops.exp(d)) if sick else d)

        return Case(ready(net((8,), dense(32), dense(1, None)), Adam(1e-2), likelihood), x, 4 * y)

    def percentage(sick):
        x, y = smooth(seed=33)
        y = np.where(np.abs(y) < 0.3, 0.0, y).astype("float32")
        floor = 0.0 if sick else 1.0
        loss = lambda y, p: ops.mean(ops.abs(y - p) / ops.maximum(ops.abs(y), floor), -1)  # noqa: E731
        return Case(ready(net((8,), dense(32, "tanh"), dense(1, None)), RMSprop(3e-3), loss), x, y)

    def logarithm(sick):
        x, y = smooth(seed=34)
        shift = 0.0 if sick else 3.0
        loss = lambda y, p: ops.mean(ops.square(ops.log(p + shift) - ops.log(y + 3.0)), -1)  # noqa: E731
        last = dense(1, None)
        return Case(ready(net((8,), dense(32, "elu"), last), SGD(0.1), loss), x, y)

    cause = "loss not finite"
    yield Pair(cause, "arguments swapped", swapped, accuracy)
    yield Pair(cause, "log of an underflow", underflow, r2, 300)
    yield Pair(cause, "division by targets of 0", percentage, r2, 300)
    yield Pair(cause, "log of negative outputs", logarithm, r2, 300)


class _Residual(keras.Sequential):
    """u'' = f on an interval, u given at both ends: the loss of a physics-informed net."""

    def second(self, x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                u = self(x)
            first = inner.gradient(u, x)
        second = outer.gradient(first, x)
        return tf.zeros_like(x) if second is None else second

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        x, k = tf.convert_to_tensor(x), self.wave * np.pi
        residual = self.second(x) + k**2 * tf.sin(k * x)
        ends = self(tf.constant([[-1.0], [1.0]]))
        return tf.reduce_mean(residual**2) + 100 * tf.reduce_mean(ends**2)


def second_derivative() -> Pairs:
    """The loss holds a second derivative that piecewise linear units do not have."""

    def residual(rough, fine, depth, wave, optimizer):
        def build(sick):
            x = np.linspace(-1, 1, 128, dtype="float32")[:, None]
            hidden = [dense(24, rough if sick else fine) for _ in range(depth)]
            model = _Residual([keras.Input((1,)), *hidden, dense(1, None)])
            model.wave = wave
            return Case(ready(model, optimizer(), None), x, np.sin(wave * np.pi * x), 128)

        return build

    cause = "second derivative"
    settings = [
        ("relu", "tanh", 2, 1.0, lambda: Adam(1e-2)),
        ("leaky_relu", "silu", 3, 1.0, lambda: Adam(3e-3)),
        ("leaky_relu", "tanh", 2, 1.0, lambda: RMSprop(1e-2)),
        ("relu6", "tanh", 3, 1.0, lambda: Adam(1e-2)),
    ]
    for rough, fine, depth, wave, optimizer in settings:
        yield Pair(
            cause,
            f"{rough}, {depth} layers",
            residual(rough, fine, depth, wave, optimizer),
            r2,
            600,
        )


def rare_class() -> Pairs:
    """One class is so rare that the constant answer is nearly right."""

    def pixels(sick, channels, optimizer, seed):
        rng = np.random.default_rng(seed)
        mask = (rng.uniform(size=(96, 16, 16, 1)) < (0.005 if sick else 0.4)).astype("float32")
        x = (0.8 * mask + 0.6 * rng.normal(size=mask.shape)).astype("float32")
        body = conv(channels), layers.Conv2D(1, 1, activation="sigmoid")
        return Case(ready(net((16, 16, 1), *body), optimizer, BINARY), x, mask, 16)

    def table(sick, body, optimizer, seed):
        rng = np.random.default_rng(seed)
        y = (rng.uniform(size=(1024, 1)) < (0.01 if sick else 0.4)).astype("float32")
        x = (rng.normal(size=(1024, 8)) + 0.6 * y).astype("float32")
        return Case(ready(net((8,), *body(), dense(1, "sigmoid")), optimizer(), BINARY), x, y)

    cause = "rare class"
    yield Pair(cause, "pixels, Adam", lambda s: pixels(s, 8, Adam(3e-3), 35), overlap)
    yield Pair(
        cause, "table, SGD", lambda s: table(s, lambda: [dense(16)], lambda: SGD(0.05), 36), overlap
    )
    yield Pair(
        cause,
        "table, tanh",
        lambda s: table(s, lambda: [dense(16, "tanh"), dense(16, "tanh")], lambda: Adam(3e-3), 37),
        overlap,
    )
    yield Pair(cause, "pixels, SGD", lambda s: pixels(s, 16, SGD(0.1, momentum=0.9), 38), overlap)
