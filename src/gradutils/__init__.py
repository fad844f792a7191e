"""Measure, predict and diagnose vanishing and exploding gradients.

Importing this package loads none of its modules: ``gradutils.theory`` and the others are
loaded at first use, so that TensorFlow and Matplotlib are paid for only where they are used.
"""

import importlib
import os
from types import ModuleType

__version__ = "0.1.0"
__all__ = [
    "activations",
    "checks",
    "datasets",
    "diagnosis",
    "exercises",
    "explorables",
    "initializers",
    "monitor",
    "networks",
    "normalizations",
    "patients",
    "plots",
    "probes",
    "recurrent",
    "remedies",
    "theory",
    "torch_monitor",
    "transformers",
    "trials",
]

# TensorFlow reads this once, when it is imported; a value set by the user wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"gradutils.{name}")
    raise AttributeError(f"module 'gradutils' has no attribute {name!r}")
