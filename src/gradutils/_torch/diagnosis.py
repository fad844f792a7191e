"""What `gradutils.diagnosis.diagnose` measures and tries, for a torch module."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from gradutils._batches import Batch
from gradutils._courses import Clinic, Practice, Treated
from gradutils._outcomes import Outcome
from gradutils._records import Probe, Trial
from gradutils._torch import modules
from gradutils._torch.modules import sandbox, unwrapped, weights_of
from gradutils._torch.probe import probe
from gradutils._torch.remedies import TREATMENTS, UNFIT, Patient
from gradutils._torch.trials import look_ahead, trainer
from gradutils.checks import Measured, trunk

#: What the checks and the remedies say of Keras -> what it is called in torch.
WORDS = {
    "the loss sparse_categorical_crossentropy takes probabilities": (
        "nll_loss takes the logarithms of probabilities"
    ),
    "sparse_categorical_crossentropy": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "binary_crossentropy": "binary_cross_entropy",
    "mean_squared_error": "mse_loss",
    "mean_absolute_error": "l1_loss",
    "a loss with from_logits=True": "a loss of logits (CrossEntropyLoss, BCEWithLogitsLoss)",
    "from logits (from_logits=True)": "from logits (CrossEntropyLoss, BCEWithLogitsLoss)",
    "take probabilities (from_logits=False)": "take probabilities (BCELoss, NLLLoss of their log)",
    "Change from_logits of the loss.": "Exchange BCELoss and BCEWithLogitsLoss.",
    "Keras calls a loss with the targets first": "torch calls a loss with the predictions first",
    "loss(y_true, y_pred)": "loss(predictions, targets)",
    "a regulariser, or add_loss": "a term of the loss",
    "with the policy mixed_float16": "under torch.autocast",
    "Set trainable = True on the layers that are to learn, then compile again.": (
        "Set requires_grad = True on the weights that are to learn, and give them to the optimiser."
    ),
    "stop_gradient": "detach",
    ": a Normalization layer adapts to them": ", by the mean and deviation of the training set",
    "keras.optimizers.LossScaleOptimizer": "torch.amp.GradScaler",
    "GradientMonitor(on_alarm='stop')": "gradutils.torch_monitor",
    "lower the momentum of the batch normalisation (0.9)": (
        "raise the momentum of the batch normalisation, which is 1 minus that of Keras"
    ),
    "Lower the momentum of the batch normalisation, to 0.9, or 0.5 for few steps.": (
        "Raise the momentum of the batch normalisation, to 0.5 for few steps."
    ),
    "by class_weight or a sample_weight of": "by the loss's weight,",
    "(class_weight)": "(the loss's weight)",
    "Clip by global norm: global_clipnorm=1.0.": (
        "Clip by global norm: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)."
    ),
}


def one_batch(model: nn.Module, x: Any, y: Any) -> Batch:
    """The batch that is measured and trained on."""
    return modules.one_batch(unwrapped(model)[0], x, y)


def measured(
    model: nn.Module,
    batch: Batch,
    loss: Callable,
    *,
    optimizer: torch.optim.Optimizer | None,
    limits: Mapping[str, float],
    steps: int,
) -> Measured:
    """What the checks judge, with a look ahead of these many steps; none for 0."""
    seen = probe(model, batch, loss=loss, optimizer=optimizer)
    scale = _rescuing_scale(seen)
    inner, _ = unwrapped(model)
    ahead = steps and optimizer is not None
    return Measured(
        seen=seen,
        limits=limits,
        adaptive=not isinstance(optimizer, torch.optim.SGD | torch.optim.ASGD | None),
        trial=look_ahead(inner, batch, loss, optimizer, steps=steps) if ahead else None,
        rescued=probe(model, batch, loss=loss, loss_scale=scale) if scale else None,
    )


def outcomes(
    ids: list[str],
    model: nn.Module,
    batch: Batch,
    loss: Callable,
    m: Measured,
    *,
    optimizer: torch.optim.Optimizer | None,
    steps: int,
    judge: Callable[[Probe, Trial], Iterable[str]],
) -> list[Outcome]:
    """What became of the remedies that these checks call for; nothing without an optimiser."""
    if optimizer is None or m.trial is None:
        return []
    inner, _ = unwrapped(model)
    patient = Patient(inner, batch, loss, optimizer, m.seen, ExitStack())
    with sandbox(inner, weights_of(inner, optimizer)) as restore:
        return Clinic(_PRACTICE, patient, m.trial, restore, steps, list(ids), judge).outcomes()


def _trainer(patient: Patient, taken: list[Treated]) -> Callable:
    changes = [treated.optimizer for treated in taken if treated.optimizer]

    def at_rate(batch: Batch, steps: int, rate: float | None) -> Trial:
        treated = [*changes, *([] if rate is None else [_rate(rate)])]
        return trainer(patient.model, patient.optimizer, patient.loss, treated)(batch, steps)

    return at_rate


def _rate(rate: float) -> Callable[[torch.optim.Optimizer], None]:
    def change(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    return change


#: What torch supplies for courses of remedies.
_PRACTICE = Practice(
    treatments=TREATMENTS,
    sandbox=lambda patient: sandbox(patient.model, weights_of(patient.model, patient.optimizer)),
    probe=lambda p: probe(p.model, p.batch, loss=p.loss, optimizer=p.optimizer),
    trainer=_trainer,
    unfit=UNFIT,
)


def _rescuing_scale(seen: Probe) -> float:
    """A loss scale, a power of 2, that lifts the last layer's signal to 256; 0 without float16."""
    half = any(layer.weight_dtype == "float16" for layer in seen.layers) or _autocast()
    layers = trunk(seen.layers)
    last = layers[-1].backward if half and layers else 0.0
    return 2.0 ** np.floor(np.log2(256 / last)) if 0 < last < np.inf else 0.0


def _autocast() -> bool:
    """Whether the caller computes in float16 for now."""
    kinds = ("cpu", "cuda")
    return any(
        torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.float16
        for kind in kinds
    )
