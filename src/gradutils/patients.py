"""The sick networks on which every fix of the book is tried, and the tasks they fail at.

Each is defined once, here. A chapter takes a patient as it is, or with one thing changed:
``patient("deep relu", seed=0, initializer="he")``.
"""

from typing import Any

import numpy as np

from gradutils import networks

_WIDTH = 64
FAINT = 2.0**-20  # weight of the loss in the float16 run: an auxiliary task among others

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
    # With a loss weighted by FAINT its gradients lie below what float16 can hold.
    "float16": {
        "widths": [_WIDTH] * 10 + [10],
        "activation": "tanh",
        "initializer": "glorot",
        "storage": np.float16,
    },
}


def patient(name: str, *, seed: int | np.random.Generator, **changes: Any) -> networks.MLP:
    """Return the sick network of that name, with the given arguments of `MLP` changed.

    Parameters
    ----------
    name : str
        A key of `PATIENTS`.
    seed : int or numpy.random.Generator
    **changes
        Arguments of `gradutils.networks.MLP` that replace the patient's own.

    Raises
    ------
    ValueError
        If the name is not in the table.

    Examples
    --------
    >>> patient("deep relu", seed=0).weights[0].shape
    (64, 64)
    """
    if name not in PATIENTS:
        raise ValueError(f"name must be one of {', '.join(PATIENTS)}; received {name!r}")
    return networks.MLP(**(PATIENTS[name] | changes), seed=seed)
