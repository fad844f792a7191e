"""Moves every random number drawn by one unit in the last place, up or down.

With this folder on PYTHONPATH, Python imports this file at start-up. Nothing is loaded here; the
changes are made when `numpy.random` and Keras' TensorFlow backend are first imported. Two runs with
and without it bound what another processor can do to a printed digit, and more.
"""

import functools
import importlib.abc
import importlib.util
import sys

NUMPY_DRAWS = ("random", "uniform", "standard_normal", "normal", "lognormal", "exponential")
KERAS_DRAWS = ("normal", "uniform", "truncated_normal", "gamma", "beta")


def noisy_numpy(module):
    """Have `default_rng` make generators whose floating-point draws are moved."""
    import numpy as np

    hidden = module.Generator(module.PCG64(1))
    ordinary = module.default_rng

    def moved(method):
        @functools.wraps(method)
        def draw(self, *args, **kwargs):
            x = method(self, *args, **kwargs)
            up = hidden.integers(0, 2, size=np.shape(x)) * 2 - 1
            y = np.nextafter(x, np.asarray(up * np.inf, dtype=np.asarray(x).dtype))
            if kwargs.get("out") is not None:
                kwargs["out"][...] = y
                return kwargs["out"]
            return y if np.ndim(x) else float(y)

        return draw

    Noisy = type(
        "Generator",
        (module.Generator,),
        {name: moved(getattr(module.Generator, name)) for name in NUMPY_DRAWS},
    )

    def default_rng(seed=None):
        return seed if isinstance(seed, Noisy) else Noisy(ordinary(seed).bit_generator)

    module.default_rng = default_rng


def noisy_keras(module):
    """Move the draws of Keras' TensorFlow backend, from which its initialisers draw."""
    import numpy as np
    import tensorflow as tf

    hidden = np.random.Generator(np.random.PCG64(2))

    def moved(function):
        @functools.wraps(function)
        def draw(*args, **kwargs):
            x = function(*args, **kwargs)
            if x.dtype not in (tf.float32, tf.float64):
                return x
            up = hidden.integers(0, 2, size=tuple(x.shape)) * 2 - 1
            return tf.math.nextafter(x, tf.constant(up * np.inf, dtype=x.dtype))

        return draw

    for name in KERAS_DRAWS:
        setattr(module, name, moved(getattr(module, name)))


CHANGES = {"numpy.random": noisy_numpy, "keras.src.backend.tensorflow.random": noisy_keras}


class Finder(importlib.abc.MetaPathFinder):
    """Lets the ordinary finders find a module of CHANGES, and changes it once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        """Return a module's specification whose loader changes the module, or None."""
        change = CHANGES.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
