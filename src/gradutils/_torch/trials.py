"""A few training steps of a torch module in a sandbox: what `gradutils.trials` does with one."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from gradutils import _measures
from gradutils._batches import Batch
from gradutils._records import Trial
from gradutils._torch.modules import array, call, optimizer_twin, random_states, sandbox, weights_of
from gradutils._torch.probe import loss_of, take_step, train
from gradutils._torch.recorder import Recorder, own_weights


def look_ahead(
    model: nn.Module,
    batch: Batch,
    loss: Callable,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
) -> Trial | None:
    """Run a few training steps on one batch, then put everything back bit by bit.

    Parameters
    ----------
    model : torch.nn.Module
    batch, loss, optimizer, steps
        As in `trainer`.

    Returns
    -------
    gradutils.trials.Trial or None
        None if no weight is trained.
    """
    weights = weights_of(model, optimizer)
    if not weights:
        return None
    with sandbox(model, weights):
        return trainer(model, optimizer, loss)(batch, steps)


def trainer(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable,
    changes: Iterable[Callable[[torch.optim.Optimizer], Any]] = (),
) -> Callable[[Batch, int], Trial]:
    """A function that trains a module for a few steps from the weights that it has then.

    Parameters
    ----------
    model : torch.nn.Module
        Nothing of it is restored: that is for `gradutils._torch.modules.sandbox`.
    optimizer : torch.optim.Optimizer
        A copy of it takes the steps, and begins each run in the state that it has now.
    loss : callable
        (predictions, targets) -> torch.Tensor
    changes : iterable of callable, optional
        What is done to the copy before its first step.

    Returns
    -------
    callable
        (batch, steps) -> gradutils.trials.Trial
    """
    weights = weights_of(model, optimizer)
    trained = {id(w) for w in weights}
    owners = []
    for name, module in model.named_modules():
        own = [w for w in own_weights(module) if id(w) in trained]
        trained -= {id(w) for w in own}  # Each weight has one owner, the first.
        owners += [(name or type(model).__name__, own)] if own else []

    def gradients(batch: Batch) -> tuple[float, list]:
        train(model)
        value = loss_of(loss, call(model, batch.x), batch.y)
        if not value.requires_grad:
            return float(array(value)), [None] * len(weights)
        return float(array(value)), list(torch.autograd.grad(value, weights, allow_unused=True))

    @torch.enable_grad()
    def run(batch: Batch, steps: int) -> Trial:
        twin = optimizer_twin(optimizer, {id(w): w for w in weights})
        for change in changes:
            change(twin)
        rewind = random_states(model)
        ends = [_inference(model, batch, loss)]
        rewind()
        losses, ratios = [], []
        before = [[array(w) for w in own] for _, own in owners]
        for _ in range(steps):
            value, found = gradients(batch)
            losses.append(value)
            for weight, gradient in zip(weights, found, strict=True):
                weight.grad = gradient
            take_step(twin)
            after = [[array(w) for w in own] for _, own in owners]
            ratios.append([_measures.change(*pair) for pair in zip(before, after, strict=True)])
            before = after
        ends.append(_inference(model, batch, loss))
        rewind()
        losses.append(gradients(batch)[0])
        inference, spreads, sizes, dead = np.array(ends).T
        rate = max((float(group["lr"]) for group in twin.param_groups), key=abs)
        return Trial(
            losses=np.array(losses),
            inference_losses=inference,
            layer_names=[name for name, _ in owners],
            update_ratios=np.array(ratios),
            learning_rates=np.full(steps, rate),
            output_spreads=spreads,
            output_sizes=sizes,
            dead=dead,
        )

    return run


def _inference(model: nn.Module, batch: Batch, loss: Callable) -> tuple[float, ...]:
    """Loss, spread and size of the outputs, and largest share of dead units, in inference mode."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    with Recorder(model) as recorder:
        outputs = call(model, batch.x)
        recorder.watching = False
        value = float(array(loss_of(loss, outputs, batch.y)))
    for module, flag in flags:
        module.training = flag
    rows = [array(a) for a in pytree.tree_leaves(outputs) if torch.is_tensor(a) and a.dim()]
    rectified: dict[Any, list[np.ndarray]] = {}
    for step in recorder.calls:
        if step.activation in _measures.RECTIFYING:
            values = array(step.output)
            values = np.moveaxis(values, 1, -1) if step.channels_first else values
            rectified.setdefault(step.key, []).append(values)
    dead = max(map(_measures.dead, rectified.values()), default=np.nan)
    return value, *_measures.spread_and_size(rows), dead
