"""Keras and what differs between its backends; or else a sentence of what works."""

import importlib
import os

_NEED = "gradutils.trials, gradutils.remedies and gradutils.monitor need Keras 3"
_OTHERS = "The rest of gradutils needs no Keras"
_BACKENDS = ("tensorflow", "torch", "jax")
_chosen = os.environ.get("KERAS_BACKEND")

try:
    import keras
except ModuleNotFoundError as error:
    raise ImportError(
        f"{_NEED} with one of the backends {', '.join(_BACKENDS)}: pip install 'gradutils[keras]', "
        f"or set the variable KERAS_BACKEND to the one that is installed; there is no module "
        f"{error.name!r}, and KERAS_BACKEND is {_chosen!r}. {_OTHERS}."
    ) from error

if keras.backend.backend() not in _BACKENDS:
    raise ImportError(
        f"{_NEED} with one of the backends {', '.join(_BACKENDS)}: set the environment variable "
        f'KERAS_BACKEND before Keras is imported, or "backend" in Keras\' own keras.json; the '
        f"backend is {keras.backend.backend()!r}. {_OTHERS}."
    )

# What Keras draws from without a seed, and the masks of tensors, stand here and nowhere in public.
from keras.src.backend.common import global_state  # noqa: E402
from keras.src.backend.common.masking import get_keras_mask  # noqa: E402

backend = importlib.import_module(f"gradutils._backends.{keras.backend.backend()}")

__all__ = ["backend", "get_keras_mask", "global_state", "keras"]
