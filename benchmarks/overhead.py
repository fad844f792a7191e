"""What GradientMonitor costs: step time with it over step time without, interleaved in one run.

    python -m benchmarks.overhead

Each round times every way of training for the same number of steps, one after the other, so that
a slow moment of the machine hits all of them. Printed are the median and the quartiles, over the
rounds, of the ratio to plain `fit`. "second tape" is the usual tutorial code: a gradient of the
same batch, computed once more in a callback.
"""

import platform
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tqdm import tqdm

from gradutils.monitor import GradientMonitor

ROUNDS = 15


class SecondTape(keras.callbacks.Callback):
    """The naive way: after every step, another pass over a batch with a tape of its own."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y, self.norms = x, y, []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Compute the gradient again and keep its norms."""
        with tf.GradientTape() as tape:
            loss = self.model.compute_loss(self.x, self.y, self.model(self.x, training=True))
        grads = tape.gradient(loss, [v.value for v in self.model.trainable_variables])
        self.norms.append([float(tf.norm(g)) for g in grads])


def mlp(depth: int, width: int) -> keras.Model:
    """A ReLU net with ten outputs."""
    hidden = [layers.Dense(width, "relu", kernel_initializer="he_normal") for _ in range(depth)]
    return keras.Sequential([keras.Input((width,)), *hidden, layers.Dense(10)])


def cnn() -> keras.Model:
    """Two convolutions on 16 x 16 images."""
    body = [layers.Conv2D(16, 3, activation="relu"), layers.Conv2D(32, 3, activation="relu")]
    return keras.Sequential([keras.Input((16, 16, 1)), *body, layers.Flatten(), layers.Dense(10)])


def lstm() -> keras.Model:
    """One LSTM layer on 20 time steps."""
    return keras.Sequential([keras.Input((20, 8)), layers.LSTM(32), layers.Dense(10)])


#: Name -> (model, batch size, steps of a round).
MODELS: dict[str, tuple[Callable[[], keras.Model], int, int]] = {
    "MLP 20 x 128": (lambda: mlp(20, 128), 64, 100),
    "MLP 50 x 512": (lambda: mlp(50, 512), 256, 6),
    "small CNN": (cnn, 64, 60),
    "small LSTM": (lstm, 64, 60),
}


def ratios(build: Callable[[], keras.Model], batch: int, steps: int) -> dict[str, np.ndarray]:
    """Step time over plain fit's, shape (rounds,), for each way of watching."""
    rng = np.random.default_rng(0)
    model = build()
    x = rng.standard_normal((batch * steps, *model.input_shape[1:])).astype("float32")
    y = rng.integers(0, 10, len(x))
    ways = {
        "plain fit": lambda: [],
        "every step": lambda: [watch_all],
        "one step in 50": lambda: [watch_some],
        "second tape": lambda: [SecondTape(x[:batch], y[:batch])],
    }
    watch_all, watch_some = GradientMonitor(), GradientMonitor(every=50)
    models, seconds = {}, {way: [] for way in ways}
    for way in ways:
        models[way] = build()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        models[way].compile(keras.optimizers.SGD(1e-4), loss)
    for round_ in tqdm(range(ROUNDS + 1), leave=False):
        for way, callbacks in ways.items():
            start = time.perf_counter()
            models[way].fit(x, y, batch_size=batch, verbose=0, shuffle=False, callbacks=callbacks())
            if round_:  # the first round compiles
                seconds[way].append(time.perf_counter() - start)
    plain = np.array(seconds["plain fit"])
    return {way: np.array(times) / plain for way, times in seconds.items()}


def main() -> None:
    """Print a line for every model and way."""
    print(f"{platform.machine()}, {platform.system()}, Keras {keras.__version__}")
    print(f"{'model':14s} {'way':16s} {'median':>7s}   quartiles")
    for name, setting in MODELS.items():
        for way, values in ratios(*setting).items():
            low, middle, high = np.percentile(values, [25, 50, 75])
            print(f"{name:14s} {way:16s} {middle:7.3f}   {low:.3f} to {high:.3f}", flush=True)


if __name__ == "__main__":
    main()
