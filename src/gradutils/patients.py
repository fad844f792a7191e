"""The sick networks on which every fix of the book is tried, and the tasks they fail at.

Each is defined once, here. A chapter takes a patient as it is, or with one thing changed:
``patient("deep relu", seed=0, initializer="he")``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradutils import _checks, datasets, networks

_WIDTH = 64
#: Weight of the loss in the float16 run, as of an auxiliary task among others.
FAINT_LOSS_WEIGHT = 2.0**-20

#: Name -> arguments of `gradutils.networks.MLP`. All classify the 64 pixels of the digits.
PATIENTS: dict[str, dict[str, Any]] = {
    "deep sigmoid": {
        "widths": [_WIDTH] * 20 + [10],
        "activation": "sigmoid",
        "initializer": "glorot",
    },
    "deep relu": {
        "widths": [_WIDTH] * 30 + [10],
        "activation": "relu",
        "initializer": "glorot",
    },
    "exploding tanh": {
        "widths": [_WIDTH] * 30 + [10],
        "activation": "tanh",
        "initializer": 3.0,
    },
    "deep batch norm": {
        "widths": [_WIDTH] * 50 + [10],
        "activation": "relu",
        "initializer": "he",
        "normalization": "batch",
    },
    # With a loss weighted by FAINT_LOSS_WEIGHT its gradients lie below what float16 can hold.
    "float16": {
        "widths": [_WIDTH] * 10 + [10],
        "activation": "tanh",
        "initializer": "glorot",
        "storage": np.float16,
    },
}


class LearningRateSearch(NamedTuple):
    """What `search_learning_rate` measured.

    accuracy is the share of the test digits named right, shape (learning rates, seeds);
    learning_rate is the one of the lowest mean training loss at the end, and best its row of
    accuracy, shape (seeds,).
    """

    accuracy: np.ndarray
    learning_rate: float
    best: np.ndarray


def patient(name: str, *, seed: int, **changes: Any) -> networks.MLP:
    """Return the sick network of that name, with the given arguments of `MLP` changed.

    Parameters
    ----------
    name : str
        A key of `PATIENTS`.
    seed : int
        Draws the weights.
    **changes
        Arguments of `gradutils.networks.MLP` that replace the patient's own.

    Returns
    -------
    gradutils.networks.MLP

    Raises
    ------
    ValueError
        If the name is not in the table.

    Examples
    --------
    >>> patient("deep relu", seed=0).weights[0].shape
    (64, 64)
    """
    _checks.names(PATIENTS, name=name)
    return networks.MLP(**(PATIENTS[name] | changes), seed=seed)


def search_learning_rate(
    make: Callable[[int], networks.MLP],
    *,
    learning_rates: Sequence[float],
    seeds: Sequence[int] = (0, 1, 2),
    samples: int = 512,
    epochs: int = 10,
    loss: networks.Loss = networks.cross_entropy,
    **options: Any,
) -> LearningRateSearch:
    """Train a patient on the digits at several learning rates, each with several seeds.

    The same data, the same budget and the same small search for every arm of a comparison.

    Parameters
    ----------
    make : callable
        seed -> a fresh network with 64 inputs and 10 outputs.
    learning_rates : sequence of float
    seeds : sequence of int
        One run each; a seed draws the weights and the order of the samples.
    samples : int
        Of the training digits.
    epochs : int
    loss : callable
    **options
        Passed on to `gradutils.networks.train`: optimizer, momentum, clip_norm, batch_size.

    Returns
    -------
    LearningRateSearch

    Raises
    ------
    ValueError
        If there is no learning rate or no seed, `samples` is not a positive integer, or `train`
        cannot use an option.

    Examples
    --------
    >>> arm = search_learning_rate(
    ...     lambda seed: patient("deep relu", seed=seed, initializer="he"),
    ...     learning_rates=[1e-4, 1e-2], seeds=[0], momentum=0.9,
    ... )
    >>> arm.learning_rate, arm.accuracy.shape
    (0.01, (2, 1))
    """
    _checks.callables(make=make)
    _checks.positive_integers(samples=samples)
    data = datasets.digits(np.random.default_rng(0))
    x, y = data.x_train[:samples], data.y_train[:samples]
    if not (len(learning_rates) and len(seeds)):
        raise ValueError(
            "learning_rates and seeds must each hold one or more; received "
            f"{list(learning_rates)!r} and {list(seeds)!r}"
        )
    final, accuracy = np.empty((2, len(learning_rates), len(seeds)))
    for i, rate in enumerate(learning_rates):
        for j, seed in enumerate(seeds):
            net = make(seed)
            history = networks.train(
                net, x, y, loss=loss, learning_rate=rate, epochs=epochs,
                rng=np.random.default_rng(seed), **options,
            )  # fmt: skip
            final[i, j] = history[-1]
            accuracy[i, j] = networks.accuracy(net, data.x_test, data.y_test)
    best = int(np.argmin(np.nan_to_num(final, nan=np.inf, posinf=np.inf).mean(axis=1)))
    return LearningRateSearch(accuracy, learning_rates[best], accuracy[best])
