"""Small data sets, nets and scores from which the pairs of `benchmarks.diagnosis` are built."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

Adam, RMSprop, SGD = keras.optimizers.Adam, keras.optimizers.RMSprop, keras.optimizers.SGD


class Case(NamedTuple):
    """A compiled model, the data that it is trained on, and the size of its batches."""

    model: keras.Model
    x: Any
    y: Any
    batch: int = 32


class Pair(NamedTuple):
    """A model that fails by one cause, and its twin, which differs in that cause alone."""

    cause: str
    name: str
    build: Callable[[bool], Case]  # the failing model if its argument is true
    score: Callable[[keras.Model, Any, Any], float]  # 0: a constant answer; 1: solved
    steps: int = 150


Pairs = Iterator[Pair]


def smooth(n: int = 384, features: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Normal inputs and a smooth target in (-1, 1), shape (n, 1), of two of their directions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features))
    a, b = (x @ rng.normal(size=(2, features, 1)) / features**0.5)[:]
    return x.astype("float32"), np.tanh(a + 0.5 * b * np.abs(a)).astype("float32")


def blobs(
    classes: int = 4, n: int = 384, features: int = 16, noise: float = 0.7, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Clouds around one centre a class, and their labels, shape (n,)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    x = rng.normal(size=(classes, features))[y] + noise * rng.normal(size=(n, features))
    return x.astype("float32"), y


def images(
    classes: int = 4, n: int = 256, size: int = 12, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images in [0, 1] of one coarse pattern a class, shape (n, size, size, 1)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    coarse = rng.uniform(size=(classes, size // 4, size // 4, 1))
    x = 0.6 * np.kron(coarse, np.ones((1, 4, 4, 1)))[y]
    return (x + 0.4 * rng.uniform(size=x.shape)).astype("float32"), y


def waves(n: int = 256, steps: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sine waves, shape (n, steps, 1), and their next value, shape (n, 1)."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0.2, 0.5, (n, 1)) * np.arange(steps + 1) + rng.uniform(0, 6, (n, 1))
    return np.sin(angle[:, :-1, None]).astype("float32"), np.sin(angle[:, -1:]).astype("float32")


def words(n: int = 384, steps: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Token ids below 200 of which a few tell the class, and labels 0 and 1, shape (n, 1)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    x = rng.integers(30, 200, size=(n, steps))
    for row, label in zip(x, y, strict=True):
        row[rng.integers(steps, size=steps // 5)] = 10 * label + rng.integers(1, 10)
    return x, y[:, None].astype("float32")


def net(shape: tuple[int, ...], *body: keras.Layer, dtype: str = "float32") -> keras.Sequential:
    """A sequential model of these layers."""
    return keras.Sequential([keras.Input(shape, dtype=dtype), *body])


def ready(model: keras.Model, optimizer: Any, loss: Any) -> keras.Model:
    """The same model, compiled."""
    model.compile(optimizer, loss)
    return model


def dense(units: int, activation: Any = "relu", **options: Any) -> keras.Layer:
    """A dense layer with He weights under ReLU and Glorot weights elsewhere."""
    rule = "he_normal" if activation == "relu" else "glorot_uniform"
    return layers.Dense(units, activation, **({"kernel_initializer": rule} | options))


def conv(channels: int, activation: Any = "relu", **options: Any) -> keras.Layer:
    """A 3 x 3 convolution with He weights."""
    options = {"kernel_initializer": "he_normal", "padding": "same"} | options
    return layers.Conv2D(channels, 3, activation=activation, **options)


def own(function: Callable, units: int = 1, name: str | None = None) -> keras.Layer:
    """A Lambda layer over vectors."""
    return layers.Lambda(function, output_shape=(units,), name=name)


def bias(value: float) -> keras.initializers.Initializer:
    """A constant initialiser."""
    return keras.initializers.Constant(value)


def predict(model: keras.Model, x: Any) -> np.ndarray:
    """The outputs in inference mode, in float64."""
    return np.asarray(model(x, training=False), float)


def r2(model: keras.Model, x: Any, y: np.ndarray) -> float:
    """Share of the targets' variance that the outputs explain; -1 if they are not finite."""
    outputs, y = predict(model, x), np.asarray(y, float)
    error = ((outputs.reshape(y.shape) - y) ** 2).sum()
    return float(1 - error / ((y - y.mean(0)) ** 2).sum()) if np.isfinite(error) else -1.0


def accuracy(model: keras.Model, x: Any, y: np.ndarray) -> float:
    """Share of right classes, from 0 for the most frequent class to 1."""
    outputs = predict(model, x)
    if not np.isfinite(outputs).all():
        return -1.0
    labels = np.asarray(y).argmax(-1) if np.ndim(y) > 1 and np.shape(y)[-1] > 1 else np.ravel(y)
    if outputs.shape[-1] == 1:
        labels, said = labels > 0, np.ravel(outputs) > 0.5
    else:
        said = outputs.argmax(-1)
    constant = max((labels == label).mean() for label in np.unique(labels))
    return float(((said == labels).mean() - constant) / (1 - constant))


def logit_accuracy(model: keras.Model, x: Any, y: np.ndarray) -> float:
    """`accuracy` of one logit."""
    said, labels = np.ravel(predict(model, x)) > 0, np.ravel(y) > 0
    constant = max(labels.mean(), 1 - labels.mean())
    return float(((said == labels).mean() - constant) / (1 - constant))


def overlap(model: keras.Model, x: Any, y: np.ndarray) -> float:
    """Dice coefficient of the positive class: 0 if it is never found."""
    said, true = predict(model, x) > 0.5, np.asarray(y) > 0.5
    return float(2 * (said & true).sum() / max(1, said.sum() + true.sum()))


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Rows of the unit matrix."""
    return np.eye(labels.max() + 1, dtype="float32")[labels]


def mean_square(y: Any, p: Any) -> Any:
    """The mean squared error, as one writes it oneself."""
    return ops.mean(ops.square(y - p))
