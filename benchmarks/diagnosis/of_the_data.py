"""Pairs whose failing model fails by the data it is given."""

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.of_the_loss import BINARY, SPARSE
from benchmarks.diagnosis.toys import (
    SGD,
    Adam,
    Case,
    Pair,
    Pairs,
    RMSprop,
    accuracy,
    blobs,
    conv,
    dense,
    images,
    net,
    r2,
    ready,
    smooth,
    waves,
    words,
)  # fmt: skip


def target_scale() -> Pairs:
    """Targets orders of magnitude above what the outputs reach in the steps there are."""

    def dollars(sick):
        x, y = smooth(seed=41)
        scale = 1e5 if sick else 1.0
        return Case(
            ready(net((8,), dense(32), dense(1, None)), Adam(1e-2), "mse"), x, scale * (2 + y)
        )

    def diverging(sick):
        x, y = smooth(features=16, seed=42)
        scale = 3e4 if sick else 1.0
        model = net((16,), dense(64), dense(64), dense(1, None))
        return Case(ready(model, SGD(0.05), "mse"), x, scale * y)

    def prices(sick):
        x, y = waves(seed=43)
        scale = 2e4 if sick else 1.0
        model = net((30, 1), layers.LSTM(16), dense(1, None))
        return Case(ready(model, SGD(0.05, momentum=0.9), "mae"), x, scale * (3 + y))

    def counts(sick):
        x, _ = images(seed=44)
        y = x[:, :6].mean((1, 2)) * (1e6 if sick else 3.0)
        body = conv(8), layers.Flatten(), dense(16), dense(1, None)
        return Case(ready(net((12, 12, 1), *body), RMSprop(3e-3), keras.losses.Huber()), x, y)

    cause = "target scale"
    yield Pair(cause, "1e5, Adam", dollars, r2)
    yield Pair(cause, "3e4, SGD", diverging, r2)
    yield Pair(cause, "2e4, LSTM and momentum", prices, r2, 300)
    yield Pair(cause, "1e6, convolution and Huber", counts, r2, 300)


def input_scale() -> Pairs:
    """Inputs far from unit scale, or from 0, for the optimiser there is."""

    def large(sick):
        x, y = smooth(seed=45)
        model = net((8,), dense(32), dense(32), dense(1, None))
        return Case(ready(model, SGD(0.05), "mse"), (30 if sick else 1) * x, y)

    def small(sick):
        x, y = blobs(seed=46)
        model = net((16,), dense(32, "tanh"), dense(32, "tanh"), dense(4, "softmax"))
        return Case(ready(model, SGD(0.1, momentum=0.9), SPARSE), (1e-4 if sick else 1) * x, y)

    def offset(sick):
        x, y = smooth(seed=47)
        x = (60 if sick else 0) + 0.5 * x
        model = net((8,), dense(16, "tanh"), dense(1, "sigmoid"))
        return Case(ready(model, Adam(3e-4), BINARY), x, (y > 0) * 1.0)

    def pixels(sick):
        x, y = images(size=16, seed=48)
        model = net((16, 16, 1), conv(8), layers.Flatten(), dense(32), dense(4, "softmax"))
        return Case(ready(model, SGD(0.1), SPARSE), (255 if sick else 1) * x, y)

    def faint(sick):
        x, y = smooth(seed=137)
        model = net((8,), dense(32), dense(1, None))
        return Case(ready(model, SGD(0.03), "mse"), (0.005 if sick else 1) * x, y)

    def years(sick):
        x, y = blobs(seed=138)
        x = (60 if sick else 0) + 0.7 * x
        model = net((16,), dense(32), dense(4, "softmax"))
        return Case(ready(model, SGD(0.05), SPARSE), x, y)

    def level(sick):
        x, y = smooth(seed=139)
        model = net((8,), dense(32), dense(32), dense(1, None))
        x = 3 + (0.03 if sick else 1) * x
        return Case(ready(model, Adam(1e-3), "mse"), x, y)

    cause = "input scale"
    yield Pair(cause, "30, SGD", large, r2)
    yield Pair(cause, "1e-4, momentum", small, accuracy)
    yield Pair(cause, "offset 60, Adam", offset, accuracy, 1500)
    yield Pair(cause, "pixels to 255, SGD", pixels, accuracy)
    yield Pair(cause, "0.005, SGD", faint, r2, 250)
    yield Pair(cause, "offset 60, SGD", years, accuracy)
    yield Pair(cause, "3, spread of 0.03", level, r2, 400)


def feature_scale() -> Pairs:
    """A few features, which tell nothing, are orders of magnitude above the others."""

    def table(classify, hidden, activation, optimizer, factor, seed):
        def build(sick):
            x, y = blobs(seed=seed) if classify else smooth(seed=seed)
            loud = np.random.default_rng(seed).normal(size=(len(x), 3))
            x = np.concatenate([x, (factor if sick else 1) * loud], 1).astype("float32")
            body = [dense(width, activation) for width in hidden]
            last = dense(4, "softmax") if classify else dense(1, None)
            loss = SPARSE if classify else "mse"
            return Case(ready(net((x.shape[1],), *body, last), optimizer(), loss), x, y)

        return build

    cause = "feature scale"
    one = table(False, [32], "relu", lambda: Adam(3e-3), 300, 49)
    yield Pair(cause, "300, Adam", one, r2, 200)
    two = table(True, [64], "tanh", lambda: Adam(1e-3), 1000, 50)
    yield Pair(cause, "1000, tanh", two, accuracy, 200)
    three = table(True, [32, 32], "relu", lambda: RMSprop(1e-3), 1000, 51)
    yield Pair(cause, "1000, two layers", three, accuracy, 200)
    four = table(False, [64, 64], "tanh", lambda: Adam(1e-3), 500, 52)
    yield Pair(cause, "500, two layers", four, r2, 200)


def not_finite() -> Pairs:
    """NaN or inf in the data."""

    def poisoned(where, value, seed):
        def build(sick):
            x, y = smooth(seed=seed)
            if sick:
                {"x": x, "y": y}[where][3::40, 0] = value
            return Case(ready(net((8,), dense(32), dense(1, None)), Adam(1e-2), "mse"), x, y)

        return build

    def dataset(sick):
        x, y = waves(seed=55)
        if sick:
            x[5, 7:] = np.inf
        return Case(
            ready(net((30, 1), layers.GRU(16), dense(1, None)), SGD(0.1, momentum=0.9), "mae"), x, y
        )

    def labels(sick):
        x, y = images(classes=2, seed=56)
        y = y[:, None].astype("float32")
        if sick:
            y[9::50] = -np.inf
        return Case(
            ready(net((12, 12, 1), conv(8), layers.Flatten(), dense(1, None)), Adam(3e-3), "mse"),
            x,
            y,
        )

    cause = "data not finite"
    yield Pair(cause, "inf in the inputs", poisoned("x", np.inf, 53), r2)
    yield Pair(cause, "NaN in the targets", poisoned("y", np.nan, 54), _finite(r2))
    yield Pair(cause, "inf in sequences", dataset, r2, 250)
    yield Pair(cause, "-inf in the targets", labels, _finite(r2))


def _finite(score):
    """The score over the rows whose targets are finite; -1 if the outputs are not."""

    def scored(model, x, y):
        good = np.isfinite(y[:, 0])
        return score(model, x[good], y[good])

    return scored


def indices() -> Pairs:
    """Token ids or labels beyond the table or the outputs."""

    def ids(sick):
        x, y = words(seed=57)
        body = layers.Embedding(100 if sick else 200, 16), layers.GlobalAveragePooling1D()
        return Case(
            ready(net((24,), *body, dense(1, "sigmoid"), dtype="int32"), Adam(3e-2), BINARY), x, y
        )

    def labels(sick):
        x, y = blobs(classes=5, seed=58)
        model = net((16,), dense(32), dense(5, "softmax"))
        return Case(ready(model, Adam(1e-2), SPARSE), x, y + (1 if sick else 0))

    def recurrent(sick):
        x, y = words(steps=16, seed=59)
        body = layers.Embedding(200, 16), layers.GRU(16), dense(1, "sigmoid")
        return Case(
            ready(net((16,), *body, dtype="int32"), Adam(2e-2), BINARY), x + (7 if sick else 0), y
        )

    def negative(sick):
        x, y = images(classes=3, seed=60)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = net((12, 12, 1), conv(8), layers.Flatten(), dense(3, None))
        return Case(ready(model, SGD(0.02, momentum=0.9), loss), x, y - (1 if sick else 0))

    cause = "index out of range"
    yield Pair(cause, "ids beyond the table", ids, accuracy)
    yield Pair(cause, "labels from 1", labels, accuracy)
    yield Pair(cause, "ids beyond the table, GRU", recurrent, accuracy, 250)
    yield Pair(cause, "labels from -1", negative, accuracy)


def scaled_labels() -> Pairs:
    """Class labels that were scaled like data."""

    def divided(sick):
        x, y = blobs(seed=139)
        model = net((16,), dense(32), dense(4, "softmax"))
        return Case(ready(model, Adam(1e-2), SPARSE), x, y / 255 if sick else y * 1.0)

    def standardised(sick):
        x, y = images(seed=140)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = net((12, 12, 1), conv(8), layers.Flatten(), dense(4, None))
        return Case(ready(model, RMSprop(3e-3), loss), x, (y / 3.5 if sick else y) * 1.0)

    def true_labels(model, x, y):
        return accuracy(model, x, np.unique(y, return_inverse=True)[1])

    cause = "scaled labels"
    yield Pair(cause, "divided by 255", divided, true_labels)
    yield Pair(cause, "divided by 3.5", standardised, true_labels)


def bad_rows() -> Pairs:
    """A few rows whose loss is orders of magnitude above the others."""

    def targets(sick):
        x, y = smooth(seed=61)
        seen = y.copy()
        if sick:
            seen[::50] = 1e3
        return Case(ready(net((8,), dense(32), dense(1, None)), Adam(1e-2), "mse"), x, seen)

    def inputs(sick):
        x, y = smooth(seed=62)
        if sick:
            x[::60] *= 1e3
        return Case(ready(net((8,), dense(32), dense(32), dense(1, None)), SGD(0.05), "mse"), x, y)

    def ctc(sick):
        rng = np.random.default_rng(63)
        y = np.zeros((64, 20), "int32")
        for i, row in enumerate(y):
            length = rng.integers(3, 8) if not sick or i % 12 else 20
            row[:length] = rng.integers(1, 10, length)
        x = rng.normal(size=(64, 16, 12)).astype("float32") * 0.3
        for k in range(8):
            x[np.arange(64), 2 * k, y[:, k]] += 2.0
        model = net((16, 12), dense(32), dense(10, None))
        return Case(ready(model, Adam(1e-2), keras.losses.CTC()), x, y, 16)

    def sequences(sick):
        x, y = waves(seed=64)
        seen = y.copy()
        if sick:
            seen[7::40] = -9999.0
        return Case(ready(net((30, 1), layers.GRU(16), dense(1, None)), Adam(1e-2), "mse"), x, seen)

    cause = "bad rows"
    yield Pair(cause, "targets of 1e3", targets, _rows_below(100))
    yield Pair(cause, "inputs of 1e3", inputs, r2)
    yield Pair(cause, "CTC labels too long", ctc, _ctc, 300)
    yield Pair(cause, "missing as -9999", sequences, _rows_below(100), 250)


def _rows_below(limit):
    """`r2` over the rows whose targets are below a limit."""

    def scored(model, x, y):
        good = np.abs(y[:, 0]) < limit
        return r2(model, x[good], y[good])

    return scored


def _ctc(model, x, y):
    """1 for a loss of 0, 0 for the loss of an untrained net, about 30."""
    return 1 - float(model.evaluate(x, y, verbose=0)) / 30


def masked() -> Pairs:
    """Padding that reaches the loss, although it is masked."""

    def log_targets(sick):
        rng = np.random.default_rng(65)
        x = rng.uniform(0.1, 1, size=(128, 20, 3)).astype("float32")
        y = x[..., :1] + 0.5
        for row, target, length in zip(x, y, rng.integers(5, 20, 128), strict=True):
            row[length:], target[length:] = -1, -1 if sick else 1
        loss = lambda y, p: ops.square(ops.log(y[..., 0]) - p[..., 0])  # noqa: E731
        model = net(
            (20, 3), layers.Masking(-1.0), layers.LSTM(12, return_sequences=True), dense(1, None)
        )
        return Case(ready(model, Adam(1e-2), loss), x, y)

    def ratio(sick):
        rng = np.random.default_rng(66)
        x = rng.uniform(0.5, 1.5, size=(128, 16, 2)).astype("float32")
        y = x.mean(-1, keepdims=True)
        for row, target, length in zip(x, y, rng.integers(4, 16, 128), strict=True):
            row[length:], target[length:] = 0, 0 if sick else 1
        loss = lambda y, p: ops.square(1 - p[..., 0] / y[..., 0])  # noqa: E731
        model = net(
            (16, 2), layers.Masking(0.0), layers.GRU(12, return_sequences=True), dense(1, None)
        )
        return Case(ready(model, RMSprop(3e-3), loss), x, y)

    cause = "masked NaN"
    yield Pair(cause, "log of padding", log_targets, _unpadded, 300)
    yield Pair(cause, "division by padding", ratio, _unpadded, 300)


def _unpadded(model, x, y):
    """1 if every output is finite, 0 otherwise: the loss of padding is NaN in every step."""
    return float(np.isfinite(model(x, training=False)).all())
