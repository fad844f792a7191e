"""Which framework a model is made with; none is loaded to find out."""

import sys
from typing import Any


def is_torch_module(model: Any) -> bool:
    """Whether a model is a plain torch.nn.Module; a Keras model on torch is none."""
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    if torch is None or not isinstance(model, torch.nn.Module):
        return False
    return keras is None or not isinstance(model, keras.Layer)


def compiled_alone(optimizer: Any) -> None:
    """Refuse an optimiser beside a model that is compiled with its own."""
    if optimizer is not None:
        raise ValueError(
            "optimizer must be None for a Keras model, which is compiled with its own; received "
            f"{type(optimizer).__name__}"
        )
