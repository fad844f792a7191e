"""Pairs whose failing model fails by its weights, its activations, or its layers."""

import keras
import numpy as np
from keras import layers

from benchmarks.diagnosis.of_the_loss import BINARY, SPARSE
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
    net,
    r2,
    ready,
    smooth,
    waves,
)  # fmt: skip


def equal_units() -> Pairs:
    """All units of a layer start alike and stay alike."""

    def dense_net(init, activation, task, last, loss, optimizer, score, seed):
        def build(sick):
            x, y = task(seed=seed)
            k = {"kernel_initializer": init} if sick else {}
            body = dense(32, activation, **k), dense(32, activation, **k), last(**k)
            return Case(ready(net(x.shape[1:], *body), optimizer(), loss), x, y)

        return build, score

    def convolution(sick):
        x, y = images(seed=93)
        k = {"kernel_initializer": bias(0.02)} if sick else {}
        body = (
            conv(8, **k),
            layers.GlobalAveragePooling2D(),
            dense(16, **k),
            dense(4, "softmax", **k),
        )
        return Case(ready(net((12, 12, 1), *body), Adam(1e-2), SPARSE), x, y)

    def four(**k):
        return dense(4, "softmax", **k)

    cause = "equal units"
    settings = [
        (
            "zeros, relu",
            *dense_net("zeros", "relu", blobs, four, SPARSE, lambda: Adam(1e-2), accuracy, 91),
        ),
        (
            "all 0.05, tanh",
            *dense_net(bias(0.05), "tanh", blobs, four, SPARSE, lambda: SGD(0.1), accuracy, 92),
        ),
        (
            "ones, sigmoid",
            *dense_net("ones", "sigmoid", blobs, four, SPARSE, lambda: RMSprop(1e-2), accuracy, 94),
        ),
    ]
    for name, build, score in settings:
        yield Pair(cause, name, build, score)
    yield Pair(cause, "all 0.02, convolution", convolution, accuracy)


def affine() -> Pairs:
    """Layers without activations, on a task that is not affine."""

    def product(sick):
        rng = np.random.default_rng(95)
        x = rng.normal(size=(384, 4)).astype("float32")
        body = [dense(32, None if sick else "relu") for _ in range(2)]
        return Case(
            ready(net((4,), *body, dense(1, "sigmoid")), Adam(1e-2), BINARY),
            x,
            (x[:, :1] * x[:, 1:2] > 0) * 1.0,
        )

    def circle(sick):
        rng = np.random.default_rng(96)
        x = rng.normal(size=(384, 2)).astype("float32")
        y = ((x**2).sum(1, keepdims=True) > 1.4) * 1.0
        body = [dense(16, None if sick else "tanh") for _ in range(3)]
        return Case(
            ready(net((2,), *body, dense(1, "sigmoid")), SGD(0.3, momentum=0.9), BINARY), x, y
        )

    def squares(sick):
        rng = np.random.default_rng(97)
        x = rng.normal(size=(384, 6)).astype("float32")
        y = (x[:, :2] ** 2).sum(1, keepdims=True) - 2
        body = [dense(64, None if sick else "relu") for _ in range(2)]
        return Case(ready(net((6,), *body, dense(1, None)), RMSprop(3e-3), "mse"), x, y)

    def contrast(sick):
        rng = np.random.default_rng(98)
        y = rng.integers(2, size=(256, 1))
        sign = rng.choice([-1, 1], size=(256, 1, 1, 1))
        x = sign * np.where(y[..., None, None] > 0, 1.0, 0.1) * rng.normal(1, 0.2, (256, 8, 8, 1))
        a = None if sick else "relu"
        body = conv(8, a), conv(8, a), layers.GlobalAveragePooling2D(), dense(1, "sigmoid")
        return Case(ready(net((8, 8, 1), *body), Adam(1e-2), BINARY), x.astype("float32"), y * 1.0)

    cause = "affine"
    yield Pair(cause, "sign of a product", product, accuracy, 250)
    yield Pair(cause, "inside a circle", circle, accuracy, 250)
    yield Pair(cause, "sum of squares", squares, r2, 250)
    yield Pair(cause, "contrast of images", contrast, accuracy, 250)


def statistics() -> Pairs:
    """Normalisation over one number, whose variance is 0: the outputs are constant."""

    def batch(sick):
        x, y = blobs(seed=99)
        body = dense(32, None), layers.BatchNormalization(), layers.ReLU(), dense(4, "softmax")
        return Case(ready(net((16,), *body), Adam(3e-3), SPARSE), x, y, 1 if sick else 32)

    def unit(sick):
        x, y = smooth(seed=100)
        body = (
            dense(32, "tanh"),
            dense(1 if sick else 8, None),
            layers.LayerNormalization(),
            dense(1, None),
        )
        return Case(ready(net((8,), *body), Adam(1e-2), "mse"), x, y)

    def groups(sick):
        x, y = images(seed=101)
        norm = layers.GroupNormalization(-1 if sick else 2)
        body = conv(8), layers.Flatten(), dense(16, None), norm, layers.ReLU(), dense(4, "softmax")
        return Case(ready(net((12, 12, 1), *body), RMSprop(3e-3), SPARSE), x, y)

    def pooled(sick):
        x, y = images(seed=102)
        body = (
            conv(8),
            layers.GlobalAveragePooling2D(),
            dense(16, None),
            layers.BatchNormalization(),
        )
        model = net((12, 12, 1), *body, layers.ReLU(), dense(4, "softmax"))
        return Case(ready(model, SGD(0.05, momentum=0.9), SPARSE), x, y, 1 if sick else 32)

    cause = "variance of one"
    yield Pair(cause, "batch of 1", batch, accuracy, 300)
    yield Pair(cause, "layer norm of 1 unit", unit, r2, 250)
    yield Pair(cause, "groups of 1 channel", groups, accuracy, 250)
    yield Pair(cause, "batch of 1, convolution", pooled, accuracy, 300)


def inference() -> Pairs:
    """Training works, inference does not: moving statistics lag behind."""

    def tabular(sick):
        x, y = blobs(seed=103)
        m = 0.9999 if sick else 0.8
        body = (
            dense(32, None),
            layers.BatchNormalization(momentum=m),
            layers.ReLU(),
            dense(4, "softmax"),
        )
        return Case(ready(net((16,), *body), Adam(1e-2), SPARSE), 20 + 5 * x, y)

    def convolution(sick):
        x, y = images(seed=104)
        m = 0.999 if sick else 0.8
        body = []
        for channels in (8, 16):
            body += [
                layers.Rescaling(30.0),
                conv(channels, None),
                layers.BatchNormalization(momentum=m),
                layers.ReLU(),
            ]
        model = net((12, 12, 1), *body, layers.GlobalAveragePooling2D(), dense(4, "softmax"))
        return Case(ready(model, Adam(1e-2), SPARSE), x, y)

    def regression(sick):
        x, y = smooth(seed=105)
        m = 0.9999 if sick else 0.8
        body = (
            layers.BatchNormalization(momentum=m),
            dense(32),
            layers.BatchNormalization(momentum=m),
            dense(1, None),
        )
        return Case(ready(net((8,), *body), RMSprop(1e-2), "mse"), 50 + 10 * x, y)

    def deep(sick):
        x, y = blobs(seed=106)
        m = 0.999 if sick else 0.8
        body = []
        for _ in range(3):
            body += [
                layers.Rescaling(20.0),
                dense(32, None),
                layers.BatchNormalization(momentum=m),
                layers.ReLU(),
            ]
        return Case(
            ready(net((16,), *body, dense(4, "softmax")), SGD(0.05, momentum=0.9), SPARSE), x + 3, y
        )

    cause = "inference"
    yield Pair(cause, "one norm", tabular, accuracy, 100)
    yield Pair(cause, "convolutions", convolution, accuracy, 100)
    yield Pair(cause, "normalised inputs", regression, r2, 150)
    yield Pair(cause, "three norms", deep, accuracy, 100)


def recurrent_activation() -> Pairs:
    """A recurrent cell whose state is not bounded."""

    def classes(cell, activation, steps, units, rate, seed):
        def build(sick):
            rng = np.random.default_rng(seed)
            y = rng.integers(4, size=96)
            x = rng.normal(size=(96, steps, 8)).astype("float32")
            x[np.arange(96), :, y] += 0.7
            options = {"activation": activation} if sick else {}
            return Case(
                ready(
                    net((steps, 8), cell(units, **options), dense(4, "softmax")), Adam(rate), SPARSE
                ),
                x,
                y,
                16,
            )

        return build

    cause = "recurrent activation"
    yield Pair(
        cause, "relu in an LSTM", classes(layers.LSTM, "relu", 150, 32, 1e-2, 107), accuracy, 90
    )
    yield Pair(
        cause,
        "relu in a simple RNN",
        classes(layers.SimpleRNN, "relu", 150, 48, 1e-2, 108),
        accuracy,
        90,
    )
    yield Pair(
        cause, "elu in an LSTM", classes(layers.LSTM, "elu", 150, 32, 1e-2, 109), accuracy, 90
    )
    yield Pair(
        cause,
        "linear simple RNN",
        classes(layers.SimpleRNN, "linear", 150, 48, 1e-2, 110),
        accuracy,
        90,
    )


def reach() -> Pairs:
    """What decides stands further back than the cell reaches; in the twin it stands at the end."""

    def recall(cell, steps, optimizer, seed):
        def build(sick):
            rng = np.random.default_rng(seed)
            y = rng.integers(2, size=(256, 1))
            x = rng.normal(size=(256, steps, 2)).astype("float32")
            at = slice(0, 4) if sick else slice(steps - 4, steps)
            x[:, at, 0] = 2.0 * (2 * y - 1)
            model = net((steps, 2), cell(24), dense(1, "sigmoid"))
            return Case(ready(model, optimizer(), BINARY), x, y * 1.0)

        return build

    cause = "reach"
    yield Pair(
        cause, "LSTM, 120 steps", recall(layers.LSTM, 120, lambda: Adam(3e-3), 111), accuracy, 100
    )
    yield Pair(
        cause, "GRU, 120 steps", recall(layers.GRU, 120, lambda: Adam(1e-3), 112), accuracy, 100
    )
    yield Pair(
        cause,
        "simple RNN, 120 steps",
        recall(layers.SimpleRNN, 120, lambda: SGD(0.03), 113),
        accuracy,
        100,
    )
    yield Pair(
        cause, "LSTM, 150 steps", recall(layers.LSTM, 150, lambda: Adam(3e-3), 114), accuracy, 100
    )


def vanishing() -> Pairs:
    """The backward signal falls over the layers."""

    def deep(depth, width, wrong, right, optimizer, init=None, seed=0):
        def build(sick):
            x, y = blobs(seed=seed)
            k = {"kernel_initializer": init} if sick and init is not None else {}
            body = [dense(width, wrong if sick else right, **k) for _ in range(depth)]
            return Case(ready(net((16,), *body, dense(4, "softmax")), optimizer(), SPARSE), x, y)

        return build

    def convolutions(sick):
        x, y = images(seed=118)
        init = keras.initializers.RandomNormal(stddev=0.01, seed=0)
        body = [conv(8, **({"kernel_initializer": init} if sick else {})) for _ in range(6)]
        return Case(
            ready(
                net((12, 12, 1), *body, layers.Flatten(), dense(4, "softmax")),
                SGD(0.02, momentum=0.9),
                SPARSE,
            ),
            x,
            y,
        )

    cause = "vanishing"
    small = keras.initializers.RandomNormal(stddev=0.01, seed=0)
    yield Pair(
        cause,
        "8 sigmoid layers",
        deep(8, 32, "sigmoid", "relu", lambda: Adam(3e-3), seed=115),
        accuracy,
    )
    yield Pair(
        cause,
        "8 layers of weights 0.01",
        deep(8, 64, "relu", "relu", lambda: Adam(1e-3), small, 116),
        accuracy,
    )
    yield Pair(
        cause,
        "6 sigmoid layers, SGD",
        deep(6, 48, "sigmoid", "tanh", lambda: SGD(0.1), seed=117),
        accuracy,
    )
    yield Pair(cause, "6 convolutions of weights 0.01", convolutions, accuracy)


def exploding() -> Pairs:
    """The backward signal grows over the layers."""

    def deep(depth, width, activation, std, optimizer, seed):
        def build(sick):
            x, y = blobs(seed=seed)
            init = keras.initializers.RandomNormal(stddev=std, seed=0)
            k = {"kernel_initializer": init} if sick else {}
            body = [dense(width, activation, **k) for _ in range(depth)]
            return Case(ready(net((16,), *body, dense(4, "softmax")), optimizer(), SPARSE), x, y)

        return build

    def residual(sick):
        x, y = blobs(seed=121)
        i = keras.Input((16,))
        h = dense(32, None)(i)
        for _ in range(30):
            h = h + (1 if sick else 0.1) * dense(32)(h)
        return Case(
            ready(keras.Model(i, dense(4, "softmax")(h)), SGD(0.01, momentum=0.9), SPARSE), x, y
        )

    def recurrent(sick):
        x, y = waves(steps=60, seed=122)
        o = keras.initializers.Orthogonal(2.0 if sick else 1.0, seed=0)
        body = layers.SimpleRNN(48, recurrent_initializer=o), dense(1, None)
        return Case(ready(net((60, 1), *body), SGD(0.01, momentum=0.9), "mse"), x, y)

    cause = "exploding"
    yield Pair(
        cause, "10 relu layers, SGD", deep(10, 64, "relu", 0.6, lambda: SGD(0.02), 119), accuracy
    )
    yield Pair(
        cause, "25 tanh layers", deep(25, 64, "tanh", 0.5, lambda: Adam(1e-3), 120), accuracy
    )
    yield Pair(cause, "simple RNN over 60 steps", recurrent, r2, 400)
    yield Pair(cause, "30 residual blocks", residual, accuracy)


def hidden_units() -> Pairs:
    """A hidden layer that is dead, or saturated, as a whole."""

    def dead(sick):
        x, y = blobs(seed=123)
        low = bias(-10 if sick else 0)
        body = dense(32), dense(32, bias_initializer=low), dense(4, "softmax")
        return Case(ready(net((16,), *body), Adam(3e-3), SPARSE), x, y)

    def saturated(sick):
        x, y = smooth(seed=124)
        k = (
            {"kernel_initializer": keras.initializers.RandomNormal(stddev=30.0, seed=0)}
            if sick
            else {}
        )
        body = dense(24, "tanh", **k), dense(24, "tanh", **k), dense(1, None)
        return Case(ready(net((8,), *body), SGD(0.05), "mse"), x, y)

    def dead_conv(sick):
        x, y = images(seed=125)
        low = bias(-5 if sick else 0)
        body = conv(8, bias_initializer=low), conv(8), layers.Flatten(), dense(4, "softmax")
        return Case(ready(net((12, 12, 1), *body), SGD(0.02, momentum=0.9), SPARSE), x, y)

    def sigmoids(sick):
        x, y = blobs(seed=126)
        far = bias(40 if sick else 0)
        body = dense(32, "sigmoid", bias_initializer=far), dense(32), dense(4, "softmax")
        return Case(ready(net((16,), *body), RMSprop(3e-3), SPARSE), x, y)

    cause = "dead or saturated"
    yield Pair(cause, "dead layer", dead, accuracy)
    yield Pair(cause, "dead convolution", dead_conv, accuracy)
    yield Pair(cause, "saturated tanh", saturated, r2, 250)
    yield Pair(cause, "saturated sigmoids", sigmoids, accuracy, 250)
