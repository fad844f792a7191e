"""Pairs whose failing model fails by its optimiser's steps, or by the precision of its numbers."""

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.of_the_loss import SPARSE
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

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def encoder(steps: int, vocabulary: int, width: int, blocks: int, outputs: int) -> keras.Model:
    """A post-norm transformer over tokens, averaged over time."""
    tokens = keras.Input((steps,), dtype="int32")
    h = layers.Embedding(vocabulary, width)(tokens)
    for _ in range(blocks):
        h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, width // 2)(h, h))
        f = layers.Dense(width)(layers.Dense(2 * width, "gelu")(h))
        h = layers.LayerNormalization()(h + f)
    return keras.Model(tokens, layers.Dense(outputs)(layers.GlobalAveragePooling1D()(h)))


def too_large() -> Pairs:
    """Steps that throw the loss up, or that end in one answer for all."""

    def plain(sick):
        x, y = smooth(seed=71)
        model = net((8,), dense(32), dense(32), dense(1, None))
        return Case(ready(model, SGD(3.0 if sick else 0.05), "mse"), x, y)

    def adam(sick):
        x, y = blobs(seed=72)
        model = net((16,), *[dense(32) for _ in range(4)], dense(4, "softmax"))
        return Case(ready(model, Adam(1.0 if sick else 3e-3), SPARSE), x, y)

    def attention(sick):
        x, y = words(steps=16, seed=73)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        return Case(ready(encoder(16, 200, 32, 3, 1), Adam(0.1 if sick else 1e-3), loss), x, y)

    def momentum(sick):
        x, y = images(seed=74)
        model = net((12, 12, 1), conv(8), conv(8), layers.Flatten(), dense(4, "softmax"))
        return Case(ready(model, SGD(1.0 if sick else 0.01, momentum=0.9), SPARSE), x, y)

    cause = "step too large"
    yield Pair(cause, "SGD", plain, r2)
    yield Pair(cause, "Adam", adam, accuracy)
    yield Pair(cause, "transformer", attention, lambda m, x, y: accuracy(m, x, y))
    yield Pair(cause, "momentum, convolution", momentum, accuracy)


def too_small() -> Pairs:
    """Steps that move nothing."""

    def tiny(sick, rate):
        x, y = smooth(seed=75)
        model = net((8,), dense(32), dense(32), dense(1, None))
        return Case(ready(model, SGD(rate if sick else 0.05), "mse"), x, y)

    def adam(sick):
        x, y = images(seed=76)
        model = net((12, 12, 1), conv(8), layers.Flatten(), dense(4, "softmax"))
        return Case(ready(model, Adam(1e-8 if sick else 3e-3), SPARSE), x, y)

    def frozen(sick):
        x, y = blobs(seed=77)
        model = net((16,), dense(32, "tanh"), dense(4, None))
        model.trainable = not sick
        return Case(ready(model, RMSprop(1e-2), LOGITS), x, y)

    def decayed(sick):
        x, y = waves(seed=78)
        rate = keras.optimizers.schedules.ExponentialDecay(0.1, 1 if sick else 200, 0.1)
        model = net((30, 1), layers.GRU(16), dense(1, None))
        return Case(ready(model, SGD(rate, momentum=0.9), "mse"), x, y)

    cause = "step too small"
    yield Pair(cause, "SGD of 1e-6", lambda s: tiny(s, 1e-6), r2)
    yield Pair(cause, "Adam of 1e-8", adam, accuracy)
    yield Pair(cause, "all frozen", frozen, accuracy)
    yield Pair(cause, "decayed", decayed, r2, 300)
    yield Pair(cause, "SGD of 1e-5", lambda s: tiny(s, 1e-5), r2)


def half_precision() -> Pairs:
    """float16 weights whose optimiser divides by numbers that round to 0."""

    def regression(sick, optimizer, seed):
        x, y = smooth(features=12, seed=seed)
        p = "float16" if sick else "float32"
        body = dense(48, dtype=p), dense(48, dtype=p), dense(1, None, dtype=p)
        return Case(ready(net((12,), *body, dtype=p), optimizer, "mse"), x.astype(p), y.astype(p))

    def classes(sick, optimizer, seed):
        x, y = blobs(seed=seed)
        p = "float16" if sick else "float32"
        model = net((16,), dense(48, "tanh", dtype=p), dense(4, None, dtype=p), dtype=p)
        return Case(ready(model, optimizer, LOGITS), x.astype(p), y)

    cause = "half precision"
    yield Pair(cause, "Adam", lambda s: regression(s, Adam(3e-3), 79), r2)
    yield Pair(cause, "RMSprop", lambda s: regression(s, RMSprop(1e-3), 80), r2, 200)
    yield Pair(cause, "Nadam", lambda s: classes(s, keras.optimizers.Nadam(3e-3), 81), accuracy)
    yield Pair(cause, "Adam, three layers", lambda s: regression(s, Adam(1e-2), 82), r2)


def overflow() -> Pairs:
    """Numbers that outgrow their precision in the forward pass."""

    def exponential(sick):
        x, y = blobs(seed=83)
        body = [dense(8, "exponential" if sick else "elu") for _ in range(6)]
        return Case(ready(net((16,), *body, dense(4, "softmax")), Adam(3e-3), SPARSE), x, y)

    def float16(sick):
        x, y = images(seed=84)
        p = "mixed_float16"
        body = conv(8, dtype=p), layers.Rescaling(1e5 if sick else 1.0, dtype=p), layers.Flatten()
        model = net((12, 12, 1), *body, dense(4, "softmax", dtype="float32"))
        optimizer = keras.optimizers.LossScaleOptimizer(Adam(3e-3))
        return Case(ready(model, optimizer, SPARSE), x, y)

    def variance(sick):
        x, y = smooth(seed=85)

        def likelihood(y, p):
            s = 60 * p[:, 1:] if sick else ops.clip(p[:, 1:], -3.0, 3.0)
            return 0.5 * ops.square(y - p[:, :1]) * ops.exp(-s) + 0.5 * s

        return Case(ready(net((8,), dense(64), dense(2, None)), Adam(1e-2), likelihood), x, y)

    def powers(sick):
        x, y = smooth(seed=86)
        rise = layers.Lambda(lambda h: h**6 if sick else ops.elu(h), output_shape=(16,))
        body = (
            dense(16, "tanh"),
            dense(16, None),
            rise,
            dense(16, None),
            rise,
            dense(16, None),
            rise,
        )
        return Case(ready(net((8,), *body, dense(1, None)), SGD(0.02), "mse"), 3 * x, y)

    cause = "overflow"
    yield Pair(cause, "exponential activations", exponential, accuracy, 250)
    yield Pair(cause, "float16", float16, accuracy)
    yield Pair(cause, "variance by an exponential", variance, lambda m, x, y: _first(m, x, y), 250)
    yield Pair(cause, "sixth powers", powers, r2, 300)


def _first(model, x, y):
    """`r2` of the first output."""
    p = np.asarray(model(x, training=False), float)[:, :1]
    return (
        float(1 - ((p - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())
        if np.isfinite(p).all()
        else -1.0
    )
