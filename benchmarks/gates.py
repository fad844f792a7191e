"""The adding problem of chapters 17 and 21, with and without gates: which runs learn.

    python -m benchmarks.gates          30 steps, seven arms, five rates: about ten minutes
    python -m benchmarks.gates --long   100 steps, the two arms without gates of chapter 21

Printed is for each arm and learning rate in how many of eight seeds the error on fresh sequences
comes below a quarter of the baseline, in how many it stays above 0.8 of it, and the smallest and
the largest error. Networks and training are those of chapter 17.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gradutils import datasets, networks, recurrent
from tools.chapters import definitions

SEEDS = range(8)
RATES = (0.003, 0.01, 0.03, 0.06, 0.1)
LONG_RATES = (0.003, 0.01)
#: Networks without gates: activation, and how their recurrent matrix starts.
ARMS: dict[str, tuple[str, str | float]] = {
    "tanh": ("tanh", "orthogonal"),
    "tanh, identity": ("tanh", "identity"),
    "ReLU, orthogonal": ("relu", "orthogonal"),
    "ReLU, identity": ("relu", "identity"),
}
LONG_ARMS: dict[str, tuple[str, str | float]] = {
    "tanh": ("tanh", 1.0),
    "ReLU, identity": ("relu", "identity"),
}
Make = Callable[[int], Any]


def plain(units: int, activation: str, start: str | float, **source: Any) -> recurrent.RNN:
    """Return a network without gates; `start` is a rule for its matrix, or "identity"."""
    rule = "orthogonal" if start == "identity" else start
    net = recurrent.RNN(2, units, 1, activation, recurrent=rule, **source)
    if start == "identity":
        net.W = np.eye(units)
    return net


def long_error(arm: tuple[str, str | float], rate: float, seed: int) -> float:
    """Return the error after 300 steps with fresh sequences of 100 numbers, baseline 1."""
    rng = np.random.default_rng(seed)
    net = plain(24, *arm, rng=rng)
    x, y = datasets.adding_problem(300 * 32, 100, rng)
    networks.train(
        net, x, y[:, None], loss=networks.squared_error, learning_rate=rate, rng=rng,
        epochs=1, batch_size=32, optimizer="adam", clip_norm=1.0,
    )  # fmt: skip
    x, y = datasets.adding_problem(500, 100, rng)
    return 6 * networks.squared_error(net.forward(x).output, y[:, None])[0]


def line(label: str, rate: float, errors: list[float]) -> str:
    """Return what one arm did at one rate."""
    learned, failed = np.sum(np.less(errors, 0.25)), np.sum(~np.less_equal(errors, 0.8))
    return (
        f"{label:20s} {rate:6} learned {learned} of {len(errors)}, failed {failed}, "
        f"errors {min(errors):.2f} to {max(errors):.2g}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Print a line for every arm and rate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gates")
    parser.add_argument("--long", action="store_true", help="100 steps in place of 30")
    if parser.parse_args(arguments).long:
        for label, arm in LONG_ARMS.items():
            for rate in LONG_RATES:
                print(line(label, rate, [long_error(arm, rate, seed) for seed in SEEDS]))
        return
    chapter = definitions("17_gates")
    makes: dict[str, Make] = {
        label: lambda seed, arm=arm: plain(26, *arm, seed=seed) for label, arm in ARMS.items()
    }
    for bias in (0.0, 1.0, 3.0):
        makes[f"LSTM, bias {bias:.0f}"] = partial(chapter.make_lstm, bias)
    for label, make in makes.items():
        for rate in RATES:
            print(line(label, rate, [chapter.learn(make, rate, seed)[1] for seed in SEEDS]))


if __name__ == "__main__":
    main()
