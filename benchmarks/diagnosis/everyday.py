"""Everyday models that train: on none of them should `diagnose` raise an alarm."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.of_the_loss import BINARY, SPARSE
from benchmarks.diagnosis.of_the_step import encoder
from benchmarks.diagnosis.toys import (
    SGD,
    Adam,
    Case,
    RMSprop,
    accuracy,
    bias,
    blobs,
    conv,
    dense,
    images,
    logit_accuracy,
    net,
    one_hot,
    overlap,
    predict,
    r2,
    ready,
    smooth,
    waves,
    words,
)  # fmt: skip


class Everyday(NamedTuple):
    """A model that trains, and its score."""

    name: str
    make: Callable[[], Case]
    score: Callable
    steps: int = 150
    cause: str = "none"

    def build(self, sick: bool = False) -> Case:
        """The model; none of them is sick."""
        return self.make()


def text(*body, optimizer=None, **options) -> Case:
    """A classifier of token sequences."""
    x, y = words(**options)
    model = net(x.shape[1:], *body, dense(1, "sigmoid"), dtype="int32")
    return Case(ready(model, optimizer or Adam(1e-2), BINARY), x, y)


def series(*body, optimizer=None, **options) -> Case:
    """A forecast of the next value."""
    x, y = waves(**options)
    return Case(
        ready(net(x.shape[1:], *body, dense(1, None)), optimizer or Adam(1e-2), "mse"), x, y
    )


def classes(*body, optimizer=None, loss=SPARSE, last="softmax", **options) -> Case:
    """A classifier of clouds."""
    x, y = blobs(**options)
    return Case(
        ready(
            net(x.shape[1:], *body, dense(int(y.max()) + 1, last)), optimizer or Adam(3e-3), loss
        ),
        x,
        y,
    )


def pictures(*body, optimizer=None, factor=1.0, **options) -> Case:
    """A classifier of images."""
    x, y = images(**options)
    model = net(x.shape[1:], *body, dense(int(y.max()) + 1, "softmax"))
    return Case(ready(model, optimizer or Adam(3e-3), SPARSE), factor * x, y)


def target(*body, optimizer=None, loss="mse", scale=1.0, shift=0.0, **options) -> Case:
    """A regression."""
    x, y = smooth(**options)
    return Case(
        ready(net(x.shape[1:], *body, dense(1, None)), optimizer or Adam(1e-2), loss),
        x,
        shift + scale * y,
    )


def bag_of_words(kind: str) -> Case:
    """One-hot, counts or TF-IDF rows over 2000 words."""
    rng = np.random.default_rng(201)
    y = rng.integers(2, size=384)
    if kind == "one-hot":
        x = np.zeros((384, 2000), "float32")
        x[np.arange(384), 2 * rng.integers(60, size=384) + y] = 1
    else:
        x = (rng.uniform(size=(384, 2000)) < 0.01) * rng.integers(1, 4, (384, 2000))
        x[:, :30] += (rng.uniform(size=(384, 30)) < 0.2) * y[:, None]
        if kind == "tf-idf":
            x = x * np.log(384 / (1 + (x > 0).sum(0)))
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    model = net((2000,), dense(32), dense(1, "sigmoid"))
    return Case(ready(model, Adam(1e-2), BINARY), x.astype("float32"), y[:, None] * 1.0)


def autoencoder(activation, last, loss, optimizer) -> Case:
    """784 numbers through a bottleneck."""
    rng = np.random.default_rng(202)
    z = rng.normal(size=(256, 4)) @ rng.normal(size=(4, 100))
    x = (1 / (1 + np.exp(-z))).astype("float32") if last == "sigmoid" else z.astype("float32")
    body = dense(64, activation), dense(8, activation), dense(64, activation)
    return Case(ready(net((100,), *body, dense(100, last)), optimizer, loss), x, x)


def two_outputs() -> Case:
    """A class and a number, with weights for the two losses."""
    x, y = blobs(seed=203)
    i = keras.Input((16,))
    h = dense(32)(i)
    model = keras.Model(
        i,
        {
            "kind": layers.Dense(4, "softmax", name="kind")(h),
            "value": layers.Dense(1, name="value")(h),
        },
    )
    model.compile(
        Adam(1e-2), {"kind": SPARSE, "value": "mse"}, loss_weights={"kind": 1.0, "value": 0.5}
    )
    return Case(model, x, {"kind": y, "value": x[:, :1]})


def spare_head() -> Case:
    """A second head without a loss."""
    x, y = smooth(seed=204)
    i = keras.Input((8,))
    h = dense(32)(i)
    model = keras.Model(
        i, {"used": layers.Dense(1, name="used")(h), "spare": layers.Dense(3, name="spare")(h)}
    )
    model.compile(Adam(1e-2), {"used": "mse"})
    return Case(model, x, {"used": y})


def siamese(loss) -> Case:
    """Pairs of the same class or not, by the distance of their embeddings."""
    x, c = blobs(classes=4, n=512, features=12, noise=0.3, seed=205)
    leaf = net((12,), dense(32), dense(8, None))
    i, j = keras.Input((12,)), keras.Input((12,))
    d = ops.sqrt(ops.sum((leaf(i) - leaf(j)) ** 2, -1, keepdims=True) + 1e-6)
    y = (c[::2] == c[1::2]).astype("float32")[:, None]
    near = layers.Dense(1, "sigmoid", kernel_initializer=bias(-1), bias_initializer=bias(2))
    return Case(ready(keras.Model([i, j], near(d)), Adam(1e-2), loss), [x[::2], x[1::2]], y)


def two_inputs() -> Case:
    """An image and a table."""
    x, y = images(seed=206)
    z = np.random.default_rng(206).normal(size=(len(x), 4)).astype("float32")
    i, j = keras.Input((12, 12, 1)), keras.Input((4,))
    h = layers.Concatenate()([layers.Flatten()(conv(8)(i)), dense(8)(j)])
    return Case(ready(keras.Model([i, j], dense(4, "softmax")(h)), Adam(3e-3), SPARSE), [x, z], y)


def unet() -> Case:
    """A small encoder and decoder with a skip connection, over bright pixels."""
    rng = np.random.default_rng(207)
    mask = np.kron(rng.uniform(size=(96, 4, 4, 1)) < 0.3, np.ones((1, 4, 4, 1)))
    x = (mask + 0.5 * rng.normal(size=mask.shape)).astype("float32")
    i = keras.Input((16, 16, 1))
    a = conv(8)(i)
    b = conv(16)(layers.MaxPooling2D()(a))
    c = conv(8)(layers.Concatenate()([layers.UpSampling2D()(b), a]))
    model = keras.Model(i, layers.Conv2D(1, 1, activation="sigmoid")(c))
    return Case(ready(model, Adam(3e-3), BINARY), x, mask.astype("float32"), 16)


def resnet() -> Case:
    """Residual blocks with batch normalisation."""
    x, y = images(seed=208)
    i = keras.Input((12, 12, 1))
    h = conv(16, None)(i)
    for _ in range(3):
        f = conv(16, None)(layers.ReLU()(layers.BatchNormalization(momentum=0.9)(h)))
        h = h + f
    return Case(
        ready(keras.Model(i, dense(4, "softmax")(layers.Flatten()(h))), Adam(3e-3), SPARSE), x, y
    )


def autoregressive() -> Case:
    """A causal transformer that repeats the token before."""
    rng = np.random.default_rng(209)
    x = rng.integers(20, size=(256, 12))
    i = keras.Input((12,), dtype="int32")
    h = layers.Embedding(20, 32)(i) + layers.Embedding(12, 32)(ops.arange(12))
    for _ in range(2):
        n = layers.LayerNormalization()(h)
        h = h + layers.MultiHeadAttention(2, 16)(n, n, use_causal_mask=True)
        h = h + layers.Dense(32)(layers.Dense(64, "gelu")(layers.LayerNormalization()(h)))
    model = keras.Model(i, layers.Dense(20)(layers.LayerNormalization()(h)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Case(ready(model, Adam(3e-3), loss), x, np.roll(x, 1, 1))


def frozen_base() -> Case:
    """A frozen first layer, as in fine-tuning."""
    case = classes(dense(64, trainable=False), dense(16), seed=210)
    return case


def matrix_factors() -> Case:
    """Ratings as products of two embeddings."""
    rng = np.random.default_rng(211)
    u, v = rng.integers(30, size=1024), rng.integers(20, size=1024)
    y = ((rng.normal(size=(30, 3)))[u] * (rng.normal(size=(20, 3)))[v]).sum(1, keepdims=True)
    i, j = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    a, b = layers.Embedding(30, 8)(i), layers.Embedding(20, 8)(j)
    model = keras.Model([i, j], layers.Dense(1)(layers.Multiply()([a, b])))
    return Case(ready(model, Adam(2e-2), "mse"), [u, v], y.astype("float32"))


def score_kind(model, x, y):
    """Accuracy of the first of `two_outputs`."""
    said = np.asarray(model(x, training=False)["kind"]).argmax(1)
    return float((said == y["kind"]).mean())


def score_used(model, x, y):
    """R2 of the used head of `spare_head`."""
    p = np.asarray(model(x, training=False)["used"])
    return float(1 - ((p - y["used"]) ** 2).sum() / ((y["used"] - y["used"].mean()) ** 2).sum())


def score_tokens(model, x, y):
    """Accuracy over the tokens that have one before them."""
    return float((predict(model, x).argmax(-1) == y)[:, 1:].mean())


FLAT, POOL = layers.Flatten, layers.GlobalAveragePooling1D
E = Everyday
EVERYDAY = [
    E("embedding, pooling", lambda: text(layers.Embedding(200, 16), POOL()), accuracy),
    E(
        "embedding, pooling, dense",
        lambda: text(layers.Embedding(200, 16), POOL(), dense(16), optimizer=Adam(3e-3)),
        accuracy,
    ),
    E(
        "embedding, flat, SGD",
        lambda: text(
            layers.Embedding(200, 16), FLAT(), dense(16), optimizer=SGD(0.3, momentum=0.9)
        ),
        accuracy,
        300,
    ),
    E(
        "LSTM on words",
        lambda: text(layers.Embedding(200, 16), layers.LSTM(16), steps=60),
        accuracy,
    ),
    E("GRU on words", lambda: text(layers.Embedding(200, 16), layers.GRU(16), steps=60), accuracy),
    E(
        "masked LSTM",
        lambda: text(layers.Embedding(200, 16, mask_zero=True), layers.LSTM(16), steps=60),
        accuracy,
    ),
    E(
        "bidirectional GRU",
        lambda: text(layers.Embedding(200, 16), layers.Bidirectional(layers.GRU(12)), steps=40),
        accuracy,
    ),
    E(
        "two LSTM layers",
        lambda: text(
            layers.Embedding(200, 16),
            layers.LSTM(16, return_sequences=True),
            layers.LSTM(16),
            steps=30,
        ),
        accuracy,
        200,
    ),
    E(
        "Conv1D on words",
        lambda: text(
            layers.Embedding(200, 16),
            layers.Conv1D(16, 3, activation="relu"),
            layers.GlobalMaxPooling1D(),
        ),
        accuracy,
    ),
    E("LSTM series", lambda: series(layers.LSTM(24)), r2, 250),
    E(
        "LSTM series, SGD",
        lambda: series(layers.LSTM(24), optimizer=SGD(0.05, momentum=0.9)),
        r2,
        300,
    ),
    E("GRU series, 80 steps", lambda: series(layers.GRU(16), steps=80), r2),
    E("simple RNN series", lambda: series(layers.SimpleRNN(24), optimizer=RMSprop(3e-3)), r2),
    E(
        "dilated Conv1D series",
        lambda: series(
            layers.Conv1D(16, 3, activation="relu", padding="causal"),
            layers.Conv1D(16, 3, activation="relu", dilation_rate=4, padding="causal"),
            FLAT(),
        ),
        r2,
    ),
    E("one-hot rows", lambda: bag_of_words("one-hot"), accuracy),
    E("counts", lambda: bag_of_words("counts"), accuracy),
    E("TF-IDF", lambda: bag_of_words("tf-idf"), accuracy),
    E("MLP, SGD", lambda: classes(dense(64), dense(64), optimizer=SGD(0.05)), accuracy),
    E(
        "MLP, dropout",
        lambda: classes(dense(64), layers.Dropout(0.5), dense(64), layers.Dropout(0.5)),
        accuracy,
    ),
    E(
        "MLP, batch norm",
        lambda: classes(
            dense(64, None), layers.BatchNormalization(), layers.ReLU(), optimizer=Adam(1e-2)
        ),
        accuracy,
        300,
    ),
    E("logistic regression", lambda: classes(optimizer=SGD(0.1)), accuracy),
    E(
        "tanh net",
        lambda: classes(dense(32, "tanh"), dense(32, "tanh"), optimizer=SGD(0.1, momentum=0.9)),
        accuracy,
    ),
    E(
        "sigmoid net, one layer",
        lambda: classes(dense(64, "sigmoid"), optimizer=Adam(1e-2)),
        accuracy,
    ),
    E(
        "SELU, 10 layers",
        lambda: classes(
            *[dense(32, "selu", kernel_initializer="lecun_normal") for _ in range(10)],
            optimizer=Adam(1e-3),
        ),
        accuracy,
    ),
    E(
        "narrow relu, 10 layers of 6",
        lambda: classes(*[dense(6) for _ in range(6)], optimizer=Adam(1e-2), seed=3),
        accuracy,
        400,
    ),
    E(
        "zero last kernel",
        lambda: classes(dense(32, "tanh"), dense(32, "tanh"), last="softmax", seed=4),
        accuracy,
    ),
    E(
        "label smoothing",
        lambda: classes(dense(64), loss=SPARSE, optimizer=keras.optimizers.AdamW(3e-3)),
        accuracy,
    ),
    E(
        "CNN",
        lambda: pictures(
            conv(8),
            layers.MaxPooling2D(),
            conv(16),
            layers.GlobalAveragePooling2D(),
            optimizer=Adam(1e-2),
        ),
        accuracy,
        250,
    ),
    E(
        "CNN, pixels rescaled",
        lambda: pictures(
            layers.Rescaling(1 / 255), conv(8), layers.MaxPooling2D(), FLAT(), factor=255.0
        ),
        accuracy,
    ),
    E(
        "CNN, pixels to 255, Adam",
        lambda: pictures(
            conv(8), layers.MaxPooling2D(), FLAT(), factor=255.0, optimizer=Adam(1e-3)
        ),
        accuracy,
    ),
    E(
        "CNN, batch norm, dropout",
        lambda: pictures(
            conv(8, None),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            conv(16, None),
            layers.BatchNormalization(),
            layers.ReLU(),
            FLAT(),
            layers.Dropout(0.3),
        ),
        accuracy,
        250,
    ),
    E("residual CNN", resnet, accuracy, 200),
    E("U-net", unet, overlap),
    E("autoencoder, sigmoid", lambda: autoencoder("relu", "sigmoid", BINARY, Adam(3e-3)), r2, 250),
    E("autoencoder, linear output", lambda: autoencoder("tanh", None, "mse", Adam(3e-3)), r2, 250),
    E("linear autoencoder", lambda: autoencoder(None, None, "mse", Adam(3e-3)), r2),
    E("two outputs", two_outputs, score_kind),
    E("spare head", spare_head, score_used),
    E("siamese", lambda: siamese(BINARY), accuracy, 250),
    E("image and table", two_inputs, accuracy),
    E("post-norm transformer", lambda: _transformer(), logit_accuracy),
    E("causal transformer", autoregressive, score_tokens, 300),
    E("frozen base", frozen_base, accuracy),
    E("matrix factors", matrix_factors, r2, 400),
    E("regression", lambda: target(dense(32)), r2),
    E(
        "regression, targets of 50, Adam",
        lambda: target(dense(64), dense(64), scale=20, shift=50),
        r2,
        400,
    ),
    E(
        "regression, targets of 300, Adam",
        lambda: target(dense(64), dense(64), scale=300, optimizer=Adam(2e-2)),
        r2,
        400,
    ),
    E("regression, mae", lambda: target(dense(32), loss="mae"), r2),
    E("regression, Huber", lambda: target(dense(32), loss="huber", optimizer=RMSprop(3e-3)), r2),
    E("linear regression, SGD", lambda: _line(), r2),
    E("one-hot labels", lambda: _one_hot(), accuracy),
    E("mixed float16", lambda: _mixed(), accuracy),
]


def _transformer() -> Case:
    x, y = words(steps=16, seed=212)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    return Case(ready(encoder(16, 200, 32, 2, 1), Adam(1e-3), loss), x, y)


def _line() -> Case:
    x, _ = smooth(seed=213)
    return Case(ready(net((8,), layers.Dense(1)), SGD(0.05), "mse"), x, x[:, :1] - 0.5 * x[:, 1:2])


def _one_hot() -> Case:
    x, y = blobs(classes=6, seed=214)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    return Case(ready(net((16,), dense(64), dense(6, "softmax")), Adam(3e-3), loss), x, one_hot(y))


def _mixed() -> Case:
    x, y = blobs(seed=215)
    p = "mixed_float16"
    model = net((16,), dense(64, dtype=p), dense(64, dtype=p), dense(4, "softmax", dtype="float32"))
    return Case(ready(model, keras.optimizers.LossScaleOptimizer(Adam(3e-3)), SPARSE), x, y)
