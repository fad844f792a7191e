"""Which framework a model is made with; none is loaded to find out."""

import sys
from typing import Any


def is_torch_module(model: Any) -> bool:
    """Whether a model is a plain torch.nn.Module; a Keras model on torch is none."""
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    if torch is None or not isinstance(model, torch.nn.Module):
        return False
    return keras is None or not isinstance(model, keras.Layer)
