"""Keras on TensorFlow, for the modules that look into models; or else a sentence of what works."""

import os

_NEED = "gradutils.trials, gradutils.remedies and gradutils.monitor need Keras 3 on TensorFlow"
_OTHERS = "The rest of gradutils needs no Keras"
_chosen = os.environ.get("KERAS_BACKEND")

try:
    import keras
    import tensorflow as tf
except ModuleNotFoundError as error:
    raise ImportError(
        f"{_NEED}: pip install 'gradutils[keras]', and leave the variable KERAS_BACKEND unset or "
        f"make it 'tensorflow'; there is no module {error.name!r}, and KERAS_BACKEND is "
        f"{_chosen!r}. {_OTHERS}."
    ) from error

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"{_NEED}: set the environment variable KERAS_BACKEND=tensorflow before Keras is "
        f'imported, or "backend": "tensorflow" in Keras\' own keras.json; the backend is '
        f"{keras.backend.backend()!r}. {_OTHERS}."
    )

# What Keras and TensorFlow draw from without a seed stands in these two, and nowhere in public.
from keras.src.backend.common import global_state  # noqa: E402
from tensorflow.python.eager import context as eager_context  # noqa: E402

__all__ = ["eager_context", "global_state", "keras", "tf"]
