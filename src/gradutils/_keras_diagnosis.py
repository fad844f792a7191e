"""What `gradutils.diagnosis.diagnose` measures and tries, for a Keras model."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from gradutils import _batches, remedies, trials
from gradutils._batches import Batch
from gradutils._keras import keras
from gradutils._keras_optimizers import inner_optimizer
from gradutils._outcomes import Outcome
from gradutils._records import Probe, Trial
from gradutils.checks import Measured, trunk
from gradutils.probes import probe

#: The checks and the remedies speak of Keras as they stand.
WORDS: dict[str, str] = {}


def one_batch(model: keras.Model, x: Any, y: Any) -> Batch:
    """The batch that is measured and trained on."""
    return _batches.one_batch(x, y)


def measured(
    model: keras.Model, batch: Batch, loss: Any, *, limits: Mapping[str, float], steps: int
) -> Measured:
    """What the checks judge, with a look ahead of these many steps; none for 0."""
    seen = probe(model, batch, loss=loss)
    scale = _rescuing_scale(model, seen)
    return Measured(
        seen=seen,
        limits=limits,
        adaptive=_is_adaptive(model),
        trial=trials.look_ahead(model, batch, loss=loss, steps=steps) if steps else None,
        rescued=probe(model, batch, loss=loss, loss_scale=scale) if scale else None,
    )


def outcomes(
    ids: list[str],
    model: keras.Model,
    batch: Batch,
    loss: Any,
    m: Measured,
    *,
    steps: int,
    judge: Callable[[Probe, Trial], Iterable[str]],
) -> list[Outcome]:
    """What became of the remedies that these checks call for."""
    return remedies.try_remedies(
        ids, model, batch, loss=loss, steps=steps, judge=judge, seen=m.seen, untreated=m.trial
    )


def _is_adaptive(model: keras.Model) -> bool:
    optimizer = inner_optimizer(model)
    return optimizer is not None and not isinstance(optimizer, keras.optimizers.SGD)


def _rescuing_scale(model: keras.Model, seen: Probe) -> float:
    """A loss scale, a power of 2, that lifts the last layer's signal to 256; 0 without float16."""
    half = any(layer.compute_dtype == "float16" for layer in model._flatten_layers())
    layers = trunk(seen.layers)
    last = layers[-1].backward if half and layers else 0.0
    return 2.0 ** np.floor(np.log2(256 / last)) if 0 < last < np.inf else 0.0
