"""The table of checks: each row says what is looked for, by which limit, and what mends it.

A check is one function of what was measured, and one row of `CHECKS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradutils._records import Head, LayerRecord, Probe, Trial


class Threshold(NamedTuple):
    """A limit, what it limits, and where it comes from."""

    limit: float
    meaning: str
    source: str


_KINDS = "benchmarks.diagnosis, failing models and their sound twins, tuning half"
_GUARD = "a guard: with it no sound model of the tuning half gets an alarm"

_ROUNDING = 1e-5  # of a range, by which rounding may carry an output beyond its end
_SAME = 1e-3  # of a loss, up to which two losses count as the same number
_ZERO_SUM = 1e-6  # of its terms, which rounding leaves of a sum that is 0

#: The limits of the checks, by name.
THRESHOLDS = {
    "vanishing": Threshold(
        2.2,
        "decades by which the backward signal falls towards the first layer; plain SGD",
        "benchmarks.diagnosis, tuning half: nets with 1.9 train, nets with 4.3 do not; "
        "22 ReLU layers with Glorot weights (3.3) begin to fail",
    ),
    "vanishing, adaptive": Threshold(
        4.2,
        "the same for an optimiser that rescales its steps, as Adam does, and a look ahead that "
        "gets somewhere",
        "the same half: the highest limit that finds every sick net, since Adam trains many a "
        "net whose gradients are small",
    ),
    "vanishing, no progress": Threshold(
        3.0,
        "the same for such an optimiser, where the look ahead gets nowhere",
        "a convolutional variational autoencoder at its constant answer (2.8) trains, 6 "
        "convolutions of weights 0.01 (5.8) do not",
    ),
    "vanishing, constant output": Threshold(
        1.5,
        "the same where the output is the same for all samples, and stays so in the look ahead",
        _KINDS + ": four sigmoid layers (1.7) fail",
    ),
    "exploding": Threshold(
        3.5,
        "decades by which the backward signal grows towards the first layer",
        "the same half: nets with 1.7 train, nets with 4.6 do not",
    ),
    "time steps": Threshold(
        10,
        "time steps from which the signal is followed over them",
        "over fewer of them no default cell loses two decades",
    ),
    "dead units": Threshold(
        0.8,
        "share of a hidden layer's units that are zero for every sample",
        "other tools warn between 0.2 and 0.5, but 30 ReLU layers with He weights reach 0.53 "
        "and train",
    ),
    "narrow layer": Threshold(
        16,
        "units of a layer, below which all must be dead before it is a fault",
        "a share of few units is large by chance: 16 He layers of 5 units train with dead ones",
    ),
    "saturated": Threshold(
        0.9,
        "share of a hidden layer's outputs in the outer 3 % of the activation's range",
        "the tails of Glorot and Bengio 2010; 15 chaotic tanh layers reach 0.57 and train",
    ),
    "saturated by inputs": Threshold(
        0.7,
        "the same share in the first layer, where the inputs are ten times too large or more",
        _KINDS,
    ),
    "data scale": Threshold(
        2.0,
        "decades between 1 and the root mean square of what the first layer receives",
        "inputs of unit variance: LeCun et al. 1998",
    ),
    "data scale, plain steps": Threshold(
        1.0,
        "the same for an optimiser that does not rescale its steps, where the look ahead fails",
        _KINDS + ": SGD diverges at 30, and moves nothing at 0.01",
    ),
    "sparse inputs": Threshold(
        0.5,
        "share of the inputs that are exactly 0, from which neither small inputs nor different "
        "features are a fault",
        _KINDS + ": one-hot and TF-IDF rows (0.99) train",
    ),
    "offset": Threshold(
        30.0,
        "root mean square of the features' means over that of their standard deviations",
        _KINDS + ": 130 fails, 6 trains",
    ),
    "feature scales": Threshold(
        100.0,
        "largest over smallest standard deviation of a feature",
        _KINDS + ": 313 fails, 1.1 to 3.8 train",
    ),
    "feature scales, largest": Threshold(
        10.0,
        "standard deviation that the largest feature has at least",
        "features that are merely small drown nothing: data scale judges them",
    ),
    "target scale": Threshold(
        1e3,
        "root mean square of the targets over that of the outputs, where the look ahead fails",
        _KINDS,
    ),
    "output range": Threshold(
        0.05,
        "share of the targets that the last activation cannot reach",
        _KINDS + ": 0.22 to 1 fails, 0 trains",
    ),
    "outside [0, 1]": Threshold(
        1e-6,
        "share of the outputs, or targets, outside [0, 1] under a loss of probabilities",
        "a probability; failing models have 1.00, sound ones 0",
    ),
    "sum of probabilities": Threshold(
        0.01,
        "difference from 1 of the sum of a row's outputs, up to which they are probabilities",
        "rounding in float16 stays below it",
    ),
    "logits expected": Threshold(
        0.1,
        "loss of one's own at outputs that equal the targets, from which it may expect logits",
        "the loss of probabilities is 0 there, a softmax of 10 probabilities gives 1.46",
    ),
    "logits expected, far out": Threshold(
        0.01,
        "the same loss at logits of 20 and -20, over that at the targets",
        "a loss of logits is 0 there",
    ),
    "wrong sign": Threshold(
        1.5,
        "negative loss far off the targets over that nearer to them",
        "a negated cross-entropy has 2 between probabilities of 1e-3 and 1e-6, and 10 between "
        "logits of 20 and 200",
    ),
    "solved": Threshold(
        1e-3,
        "size of the loss up to which gradients of exactly 0 are those of a solved task",
        "a solved task has no gradient and no loss",
    ),
    "underflow": Threshold(
        0.5,
        "decades of the first layer's signal that a larger loss scale brings back",
        "the backward pass is linear in the loss: a scale changes nothing unless numbers round",
    ),
    "no progress": Threshold(
        0.01,
        "share of the loss that ten steps on one batch remove, at least, in a model that learns",
        _KINDS + ": failing models remove less than 0.01",
    ),
    "falls": Threshold(
        0.9,
        "loss during the look ahead over the loss before, from which it has not fallen",
        _GUARD,
    ),
    "learnt": Threshold(
        0.9,
        "loss over that of the best constant answer, below which a model has learnt something",
        _GUARD,
    ),
    "learnt nothing": Threshold(
        0.95,
        "the same, from which a model has learnt nothing",
        "a constant answer has 1",
    ),
    "fitted": Threshold(
        0.5,
        "the same, below which neither saturated units nor a large penalty are a fault",
        _GUARD,
    ),
    "averaged": Threshold(
        10,
        "steps of the optimiser from which moving averages are judged",
        "before, they are those of the start",
    ),
    "trained": Threshold(
        20,
        "steps of the optimiser from which outputs, units and classes are judged as trained",
        _GUARD,
    ),
    "stuck": Threshold(
        50,
        "steps of the optimiser from which having learnt nothing is a fault",
        _GUARD,
    ),
    "step too large": Threshold(
        3.0,
        "largest loss of a batch in ten steps on it, over the loss before",
        _KINDS + ": 3.7 and more fails, 1.7 trains",
    ),
    "diverges": Threshold(
        2.0,
        "loss of a batch after ten steps on it, over the loss before",
        _KINDS,
    ),
    "large step": Threshold(
        0.1,
        "largest step of a layer over its weights, from which it is blamed for a loss that rises",
        _KINDS + ": up to 0.3 trains where the loss falls, rules of thumb say 0.001 to 0.01",
    ),
    "step too small": Threshold(
        1e-4,
        "largest step of a layer over its weights, while gradients are not small and the look "
        "ahead gets nowhere",
        _KINDS + ": 0 to 7e-5 fails, 6e-3 trains",
    ),
    "step too small, gradient": Threshold(
        0.1,
        "largest gradient of a layer over its weights, from which gradients are not small",
        _KINDS + ": 0.2 and more where only the rate is at fault",
    ),
    "step too small, trained": Threshold(
        1e-8,
        "largest step of a layer over its weights, after training and at the constant answer",
        "float32 adds nothing below 6e-8",
    ),
    "rate decayed": Threshold(
        1e-3,
        "largest learning rate of the schedule from ten steps on, over that of now",
        _KINDS + ": below 1e-7 fails",
    ),
    "half precision": Threshold(
        0.5,
        "largest step of a layer over its weights, in float16",
        _KINDS + ": 3.0 fails, 0.005 trains",
    ),
    "broadcast": Threshold(
        0.05,
        "relative difference between the loss of each sample with its target and with all targets",
        _KINDS + ": 1.88 against 1.26 fails, equal trains",
    ),
    "bad rows": Threshold(
        8.0,
        "largest over median loss of a sample, under a CTC loss",
        _KINDS + ": 11 fails, 1.4 trains",
    ),
    "bad rows, regression": Threshold(
        1e3,
        "the same under a regression loss, where the look ahead gets nowhere",
        _KINDS + ": 3e6 fails, 56 trains",
    ),
    "bad rows, share": Threshold(
        0.9,
        "share of the loss that the few rows make up",
        _KINDS,
    ),
    "few rows": Threshold(
        0.1,
        "share of the batch up to which rows are few",
        "more of them are no exception",
    ),
    "large rows": Threshold(
        100.0,
        "size of a sample's inputs over the median, where the look ahead fails",
        _KINDS + ": 1e3 fails",
    ),
    "masked NaN": Threshold(
        0.99,
        "share of the losses that are not finite which stand at masked steps",
        "1 where the padding alone is at fault",
    ),
    "rare class": Threshold(
        0.1,
        "share of the rarest class over the mean share",
        _KINDS + ": 0.01 fails, 0.8 trains",
    ),
    "train and inference": Threshold(
        4.0,
        "loss in inference over loss in training, after ten steps or more",
        _KINDS + ": 5, 40 and 88 fail, 0.4 to 0.8 train",
    ),
    "penalty": Threshold(
        15.0,
        "weight penalty over the rest of the loss",
        _KINDS + ": 22 and 186 fail",
    ),
    "recurrent steps": Threshold(
        30.0,
        "time steps from which an unbounded activation of a gated cell is a fault",
        _KINDS + ": 300 steps fail, series of 3 to 10 steps train",
    ),
    "reach": Threshold(
        0.95,
        "loss after the look ahead over that of the best constant, from which a short reach over "
        "time is a fault",
        _KINDS + ": 0.98 fails, 0.2 to 0.7 train, and more than 0.8 after five steps",
    ),
    "constant output": Threshold(
        0.01,
        "standard deviation of the outputs over the samples, over that of the targets or over "
        "their size, after twenty steps or more",
        _KINDS,
    ),
}


class Evidence(NamedTuple):
    """What a check found: what was measured, in words and as a number, and where.

    limit, remedy and chapter replace those of the check's row where they are given.
    """

    text: str
    value: float
    layers: Sequence[str] = ()
    limit: float | None = None
    remedy: str = ""
    chapter: str = ""


@dataclass(frozen=True)
class Measured:
    """What the checks judge: a probe, what a larger loss scale rescues, and a look ahead."""

    seen: Probe
    limits: Mapping[str, float]
    adaptive: bool = False
    trial: Trial | None = None
    rescued: Probe | None = None

    @property
    def trunk(self) -> list[LayerRecord]:
        """The layers that hold weights, without normalisations and embeddings."""
        return trunk(self.seen.layers)

    @property
    def iterations(self) -> int:
        """Steps that the optimiser has taken."""
        return self.seen.optimizer.iterations if self.seen.optimizer else 0

    @property
    def data_loss(self) -> float:
        """The loss without penalties."""
        return self.seen.loss - sum(self.seen.penalties.values())

    @property
    def constant(self) -> float:
        """Loss of the best constant answer to the batch; NaN where it cannot be told."""
        heads = self.seen.heads
        return _best_constant(heads[0]) if len(heads) == 1 else np.nan

    @property
    def attends(self) -> bool:
        """Whether a layer is named after attention, as those inside Keras' own are."""
        names = [layer.name.lower() for layer in self.seen.layers]
        return any("attention" in name or "attn" in name for name in names)

    @property
    def gets_nowhere(self) -> bool:
        """Whether the look ahead removes next to nothing of a loss that is not small."""
        if self.trial is None or abs(self.seen.loss) <= self.limits["solved"]:
            return False
        first, least = self.trial.losses[0], np.min(self.trial.losses[1:])
        return bool(first - least < self.limits["no progress"] * abs(first))

    @property
    def learned_nothing(self) -> bool:
        """Whether the model is no better than a constant answer after many steps."""
        enough = self.limits["learnt nothing"] * self.constant
        return bool(self.iterations >= self.limits["stuck"] and self.seen.loss >= enough)

    @property
    def blows_up(self) -> bool:
        """Whether the look ahead multiplies the loss, or leaves the finite numbers."""
        if self.trial is None or not np.isfinite(self.trial.losses[0]):
            return False
        losses = self.trial.losses
        if not np.isfinite(losses).all():
            return True
        first, limits = losses[0], self.limits
        if first <= limits["solved"] or losses.max() <= np.nan_to_num(self.constant):
            return False
        spread_before, spread_after = self.trial.output_spreads
        jumps = losses.max() >= limits["step too large"] * first
        stays = losses[-1] >= limits["falls"] * first or losses[-1] > self.constant
        stays |= spread_after < limits["constant output"] * spread_before
        rises = losses[-1] >= first and losses[1:].min() >= limits["falls"] * first
        rises &= not losses[-1] <= self.constant and self.largest_step >= limits["large step"]
        return bool((jumps and stays) or losses[-1] >= limits["diverges"] * first or rises)

    @property
    def largest_step(self) -> float:
        """The largest step of a layer over its weights, in the look ahead."""
        ratios = np.zeros(1) if self.trial is None else self.trial.update_ratios
        return float(np.max(ratios, where=np.isfinite(ratios), initial=0.0))

    @property
    def stays_constant(self) -> bool:
        """Whether the output is the same for all samples, before and after the look ahead."""
        if self.trial is None or not len(self.trial.output_spreads):
            return False
        heads, sizes = self.seen.heads, self.trial.output_sizes
        if len(heads) == 1 and heads[0].targets is not None and _like_targets(heads[0]):
            sizes = np.full(2, np.std(heads[0].targets))
        return bool((self.trial.output_spreads < self.limits["constant output"] * sizes).all())

    @property
    def beats_constant(self) -> bool:
        """Whether the model does, or after the look ahead will do, better than any constant."""
        after = self.trial.losses[-1] if self.trial is not None else np.inf
        return bool(min(self.seen.loss, after) < self.limits["learnt"] * self.constant)


class Check(NamedTuple):
    """One row of the table.

    id stays for ever; kind becomes the verdict; test is a function of what was measured; limit
    names a row of `THRESHOLDS`, "" where none is needed; chapter is a slug. A note is said without
    being a verdict. Below a final finding nothing else is judged. also names further chapters;
    that about transformers is named only where the model attends.
    """

    id: str
    kind: str
    test: Callable[[Measured], Evidence | None]
    limit: str
    cause: str
    remedy: str
    chapter: str
    note: bool = False
    final: bool = False
    also: tuple[str, ...] = ()


def _like_targets(head: Head) -> bool:
    """Whether outputs are to equal the targets: in a regression, or a loss of one's own on both."""
    if head.loss or head.targets is None:
        return head.loss in _REGRESSION
    return head.targets.shape == head.outputs.shape


def trunk(layers: Sequence[LayerRecord]) -> list[LayerRecord]:
    """The layers that hold weights, without normalisations and embeddings.

    Parameters
    ----------
    layers : sequence of gradutils.probes.LayerRecord

    Returns
    -------
    list of gradutils.probes.LayerRecord
    """
    return [
        layer
        for layer in layers
        if layer.parameters and not _normalizes(layer) and not layer.kind.startswith("Embedding")
    ]


def _normalizes(layer: LayerRecord) -> bool:
    """Whether it is a normalisation, by its name in Keras or in torch, such as BatchNorm1d."""
    return "Norm" in layer.kind


def _best_constant(head: Head) -> float:
    """Loss of the constant that suits the batch's targets best; NaN for a loss without a rule."""
    targets, loss = head.targets, head.loss
    if targets is None or not targets.size:
        return np.nan
    if loss == "mean_squared_error":
        return float(targets.var(axis=0).mean())
    if loss == "mean_absolute_error":
        return float(np.abs(targets - np.median(targets, axis=0)).mean())
    if loss == "binary_crossentropy" and targets.min() >= 0 and targets.max() <= 1:
        p = targets.reshape(-1, targets.shape[-1]).mean(axis=0)
        return float(np.mean(_entropy(p) + _entropy(1 - p)))
    if loss == "categorical_crossentropy" and targets.min() >= 0:
        return float(_entropy(targets.reshape(-1, targets.shape[-1]).mean(axis=0)).sum())
    if loss == "sparse_categorical_crossentropy":
        shares = np.unique(targets, return_counts=True)[1] / targets.size
        return float(_entropy(shares).sum())
    return np.nan


def _entropy(p: np.ndarray) -> np.ndarray:
    return -p * np.log(np.where(p > 0, p, 1.0))


# What the loss expects and what the outputs are

#: Activation -> the open or closed interval that its outputs fill.
RANGES = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, np.inf),
    "exponential": (0.0, np.inf),
    "elu": (-1.0, np.inf),
}
_PROBABILITIES = {"sigmoid", "softmax"}
_BOUNDED = {"tanh", "sigmoid", "hard_sigmoid", "softsign", "hard_tanh"}
_REGRESSION = {
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
}


def _outside(values: np.ndarray, low: float, high: float) -> float:
    margin = _ROUNDING * (1 if np.isinf(high) else high - low)
    return float(((values < low - margin) | (values > high + margin)).mean())


def _spans(values: np.ndarray) -> str:
    return f"{np.nanmin(values):.3g} to {np.nanmax(values):.3g}"


def _softmax_over_one(m: Measured) -> Evidence | None:
    for head in m.seen.heads:
        if head.activation == "softmax" and head.outputs.shape[-1:] == (1,):
            text = f"{head.layer} is a softmax over one unit: its output is 1 whatever the weights"
            return Evidence(text, 1.0, [head.layer], limit=1.0)
    return None


def _outputs_no_probabilities(m: Measured) -> Evidence | None:
    for head in m.seen.heads:
        if "crossentropy" not in head.loss or head.from_logits or head.activation in _PROBABILITIES:
            continue
        share = _outside(head.outputs, 0, 1)
        rows = head.outputs.sum(axis=-1) if head.outputs.ndim else head.outputs
        one_of_many = not head.loss.startswith("binary")
        off = np.abs(rows - 1).max() > m.limits["sum of probabilities"]
        off &= one_of_many and head.activation in (RANGES.keys() | {"linear"})
        if share > m.limits["outside [0, 1]"] or off:
            text = (
                f"the loss {head.loss} takes probabilities, the outputs range from "
                f"{_spans(head.outputs)}; the last activation is {head.activation or 'unknown'}"
            )
            return Evidence(text, share, [head.layer] if head.layer else [])
    return None


def _logits_expected(m: Measured) -> Evidence | None:
    for head in m.seen.heads:
        probabilities = head.activation in _PROBABILITIES or _rows_sum_to_one(m, head)
        if not probabilities or (head.activation == "softmax" and head.outputs.shape[-1] == 1):
            continue
        own = m.seen.own_loss
        twice = head.from_logits and not head.has_logits
        if own is not None and own.at_targets > m.limits["logits expected"]:
            twice |= abs(own.at_logits) < m.limits["logits expected, far out"] * own.at_targets
        if twice:
            last = head.activation or "softmax"
            text = f"the loss expects logits, the outputs are probabilities: {last} twice"
            return Evidence(text, 1.0, [head.layer] if head.layer else [], limit=1.0)
    return None


def _rows_sum_to_one(m: Measured, head: Head) -> bool:
    p = head.outputs
    if p.ndim < 2 or p.shape[-1] < 2 or not np.isfinite(p).all():
        return False
    off = np.abs(p.sum(axis=-1) - 1).max()
    return bool(p.min() >= 0 and off <= m.limits["sum of probabilities"])


def _log_of_outputs(m: Measured) -> Evidence | None:
    own, heads = m.seen.own_loss, m.seen.heads
    if own is None or np.isfinite(m.data_loss) or not np.isfinite(own.clipped):
        return None
    share = _outside(heads[0].outputs, 0, 1)
    if share <= m.limits["outside [0, 1]"]:
        return None
    text = (
        f"the loss is not finite at outputs of {_spans(heads[0].outputs)} and finite in the range "
        "[0, 1]: it takes the log of a number below 0"
    )
    return Evidence(text, share, [heads[0].layer] if heads[0].layer else [])


def _swapped_arguments(m: Measured) -> Evidence | None:
    own = m.seen.own_loss
    if own is None or np.isfinite(m.data_loss) or np.isfinite(own.clipped):
        return None
    if not np.isfinite(own.swapped) or m.seen.heads[0].activation not in _PROBABILITIES:
        return None
    text = "the loss is not finite as it is called, and finite with its two arguments swapped"
    return Evidence(text, 1.0, limit=1.0)


def _targets_out_of_range(m: Measured) -> Evidence | None:
    for head in m.seen.heads:
        if head.targets is None or not head.targets.size:
            continue
        low, high = RANGES.get(head.activation, (-np.inf, np.inf))
        if "crossentropy" in head.loss and not head.loss.startswith("sparse"):
            low, high, limit = 0.0, 1.0, m.limits["outside [0, 1]"]
        elif head.loss in _REGRESSION and head.outputs.shape[-1:] != (0,):
            limit = m.limits["output range"]
        else:
            continue
        share = _outside(head.targets, low, high)
        if share > limit:
            text = (
                f"{share:.0%} of the targets, {_spans(head.targets)}, lie outside the range "
                f"{low:g} to {high:g} of the {head.activation or 'last'} output"
            )
            return Evidence(text, share, [head.layer] if head.layer else [], limit=limit)
    return None


def _labels_no_classes(m: Measured) -> Evidence | None:
    for head in m.seen.heads:
        if not head.loss.startswith("sparse") or head.targets is None:
            continue
        broken = float((head.targets != np.round(head.targets)).mean())
        if broken:
            text = f"{broken:.0%} of the class labels, {_spans(head.targets)}, are no whole numbers"
            return Evidence(text, broken, [head.layer] if head.layer else [], limit=0.0)
    return None


def _broadcast(m: Measured) -> Evidence | None:
    own = m.seen.own_loss
    if own is None or not np.isfinite([own.rows, own.pairs, own.together]).all() or not own.rows:
        return None
    off = abs(own.pairs - own.rows) / abs(own.rows)
    paired = any(np.isclose(own.together, c * own.pairs, rtol=_SAME) for c in (1, 2, 3, 4, 9))
    rowwise = any(np.isclose(own.together, c * own.rows, rtol=_SAME) for c in (1, 2, 3))
    if off < m.limits["broadcast"] or not paired or rowwise:
        return None
    head = m.seen.heads[0]
    text = (
        f"the loss of a batch is that of every target with every output ({own.pairs:.3g}), not of "
        f"each with its own ({own.rows:.3g}): targets of shape {np.asarray(head.targets).shape} "
        f"and outputs of shape {head.outputs.shape} broadcast"
    )
    return Evidence(text, off)


def _wrong_sign(m: Measured) -> Evidence | None:
    own = m.seen.own_loss
    if own is None:
        return None
    near, far = own.against
    if far < m.limits["wrong sign"] * near < 0 and near < np.fmax(own.at_logits, own.at_targets):
        text = (
            f"the loss is {near:.3g} where outputs contradict the targets and {far:.3g} further "
            "off: it is maximised, and falls without bound"
        )
        return Evidence(text, near, limit=0.0)
    if not max(own.beside_targets) < own.at_targets:
        return None
    text = (
        f"the loss is largest where outputs equal targets ({own.at_targets:.3g}; beside them "
        f"{max(own.beside_targets):.3g}): it is maximised, and falls without bound"
    )
    return Evidence(text, own.at_targets - max(own.beside_targets), limit=0.0)


def _half_precision(m: Measured) -> Evidence | None:
    layers = [layer for layer in m.trunk if layer.weight_dtype == "float16"]
    bad = [layer for layer in layers if layer.update_ratio >= m.limits["half precision"]]
    if not bad or not m.adaptive:
        return None
    worst = max(layer.update_ratio for layer in bad)
    text = (
        f"weights and optimiser are float16: the next step is {worst:.2g} times the weights, since "
        "squared gradients round to 0 and epsilon with them"
    )
    return Evidence(text, worst, [layer.name for layer in bad])


def _recurrent_activation(m: Measured) -> Evidence | None:
    for cell in m.seen.layers:
        gated = cell.kind in ("LSTMCell", "GRUCell")
        steps = len(cell.backward_by_call)
        if gated and cell.activation not in _BOUNDED and steps >= m.limits["recurrent steps"]:
            name = cell.activation or "linear"
            text = f"{cell.name} feeds {name}, which has no bound, back into itself {steps} times"
            return Evidence(text, steps, [cell.name])
    return None


def _penalty_not_finite(m: Measured) -> Evidence | None:
    bad = {name: value for name, value in m.seen.penalties.items() if not np.isfinite(value)}
    if not bad:
        return None
    name, value = next(iter(bad.items()))
    text = f"the penalty that {name} adds to the loss (a regulariser, or add_loss) is {value}"
    return Evidence(text, value, list(bad), limit=0.0)


def _penalty_outweighs(m: Measured) -> Evidence | None:
    penalty, rest = m.seen.regularization, abs(m.data_loss)
    fitted = rest < m.limits["fitted"] * np.nan_to_num(m.constant)
    if not np.isfinite(penalty) or not penalty or fitted:
        return None
    ratio = penalty / rest if rest else np.inf
    if ratio < m.limits["penalty"]:
        return None
    names = [layer.name for layer in m.trunk if layer.name in m.seen.penalties]
    text = f"the weight penalty of {penalty:.3g} outweighs the rest of the loss, {rest:.3g}"
    return Evidence(text, ratio, names)


def _bad_rows(m: Measured) -> Evidence | None:
    for head in m.seen.heads:
        losses = head.sample_losses
        if head.masked_losses > m.limits["masked NaN"]:
            text = (
                "the loss is not finite at masked (padded) steps only: their weight 0 times NaN is "
                "NaN"
            )
            return Evidence(text, head.masked_losses, limit=m.limits["masked NaN"])
        bad = np.flatnonzero(~np.isfinite(losses))
        finite = not any(w.nonfinite_outputs or w.nonfinite_weights for w in m.seen.layers)
        if finite and 0 < len(bad) < len(losses):
            text = f"the loss is not finite in {len(bad)} of {len(losses)} rows: {_rows(bad)}"
            return Evidence(text, len(bad) / len(losses), limit=0.0)
        if head.loss in _REGRESSION and m.gets_nowhere and len(losses):
            limit, few = m.limits["bad rows, regression"], m.limits["few rows"]
            largest = np.sort(losses)[::-1][: max(1, int(few * len(losses)))]
            ratio = losses.max() / np.median(losses)
            if ratio >= limit and largest.sum() > m.limits["bad rows, share"] * losses.sum():
                rows = np.flatnonzero(losses >= limit * np.median(losses))
                text = (
                    f"the loss of {len(rows)} rows ({_rows(rows)}) is up to {ratio:.3g} times the "
                    "median, and no step makes it small"
                )
                return Evidence(text, ratio, limit=limit)
        if large := _large_rows(m):
            return large
        if head.loss != "ctc" or not len(losses):
            continue
        ratio = losses.max() / np.median(losses)
        if ratio >= m.limits["bad rows"]:
            rows = np.flatnonzero(losses >= m.limits["bad rows"] * np.median(losses))
            text = (
                f"the loss of {len(rows)} rows ({_rows(rows)}) is up to {ratio:.3g} times the "
                "median: their labels are too long for the frames"
            )
            return Evidence(text, ratio)
    return None


def _large_rows(m: Measured) -> Evidence | None:
    """A few samples whose inputs are far larger than the others', where the look ahead fails."""
    sizes = m.seen.row_sizes
    middle = np.median(sizes) if len(sizes) else 0.0
    if not middle or not (m.blows_up or m.gets_nowhere):
        return None
    rows = np.flatnonzero(sizes >= m.limits["large rows"] * middle)
    if not 0 < len(rows) <= m.limits["few rows"] * len(sizes):
        return None
    ratio = sizes.max() / middle
    text = f"the inputs of {len(rows)} rows ({_rows(rows)}) are up to {ratio:.3g} times the median"
    return Evidence(text, ratio, limit=m.limits["large rows"])


def _rows(indices: np.ndarray) -> str:
    shown = ", ".join(str(i) for i in indices[:5])
    return f"{shown} and more" if len(indices) > 5 else shown


# Where numbers end, paths are cut, or nothing comes back


def _nonfinite(m: Measured) -> Evidence | None:
    """The first place, in the order of computation, where a number is not finite."""
    seen = m.seen
    stages = [
        ("weights", "nonfinite_weights", seen.layers),
        ("outputs", "nonfinite_outputs", seen.layers),
        ("backward signal", "nonfinite_backward", seen.layers[::-1]),
    ]
    for what, field, layers in stages:
        bad = [layer for layer in layers if getattr(layer, field)]
        if not bad:
            continue
        if what == "backward signal" and not np.isfinite(seen.loss):
            break
        count = getattr(bad[0], field)
        text = f"{count} NaN or inf, first in the {what} of {bad[0].name}"
        remedy, chapter = {
            "weights": (
                "Go back to the last good checkpoint, clip by global norm and lower the "
                "learning rate, and let GradientMonitor(on_alarm='stop') find the step.",
                "clipping",
            ),
            "outputs": (
                "Scale the data or the weights; in float16, keep this layer in float32.",
                "jacobian_products",
            ),
            "backward signal": (
                "Look for a derivative that is undefined, as of sqrt, norm, log or a quotient "
                "at 0, also in the branch that where() drops: add an epsilon inside, or use a "
                "safe form. Clipping cannot mend NaN. In float16, lower the loss scale.",
                "backpropagation",
            ),
        }[what]
        if what == "outputs" and bad[0].activation == "exponential":
            text += ", whose activation is the exponential"
            remedy = "Replace the exponential activation: it doubles with every 0.7 it receives."
        if what == "outputs" and bad[0].compute_dtype == "float16":
            text += ", which computes in float16: its largest number is 65,504"
        if what == "backward signal" and bad[0].nonfinite_rows:
            text += f", in {bad[0].nonfinite_rows:.0%} of the rows"
        names = [layer.name for layer in bad]
        return Evidence(text, count, names, 0.0, remedy, chapter)
    if np.isfinite(seen.loss):
        return None
    remedy = (
        "Compute the loss from logits, and look for log(0) (an underflow: use logsumexp) or a "
        "division by zero in it."
    )
    text = "the loss is not finite, every layer is"
    return Evidence(text, seen.loss, [], 0.0, remedy, "jacobian_products")


def _frozen(m: Measured) -> Evidence | None:
    layers = m.seen.layers
    if not layers or any(layer.parameters for layer in layers):
        return None
    return Evidence("no weight of the model is trainable", 0.0, limit=0.0)


def _disconnected(m: Measured) -> Evidence | None:
    """Weights that the loss does not depend on; a head without a loss is no fault."""
    seen = m.seen
    cut = [layer for layer in seen.layers if layer.disconnected]
    if not cut or seen.outputs > 1:
        return None
    after = seen.layers[seen.layers.index(cut[-1]) + 1 :]
    text = f"no gradient (None, not 0) reaches {len(cut)} layers with weights"
    if after:
        text += f"; the path from the loss ends at {after[0].name}"
    return Evidence(text, len(cut), [layer.name for layer in cut], limit=0.0)


def _nothing_returns(m: Measured) -> Evidence | None:
    """Every gradient is exactly 0, though the loss is not small."""
    layers, loss = m.trunk, abs(m.seen.loss)
    if not layers or loss <= m.limits["solved"] or any(w.gradient_norm != 0 for w in layers):
        return None
    last = layers[-1]
    if last.backward:
        where = f"the activation {last.activation or 'after it'} is flat, in {last.name}"
        remedy = "Use a linear output, or reset the last layer's bias; scale what it receives."
    else:
        where = "the loss itself is flat at these outputs"
        remedy = (
            "Compute the loss from logits (from_logits=True), or match the last activation to it: "
            "a clipped probability has no gradient."
        )
    text = f"nothing comes back from the loss of {loss:.3g}, every gradient is 0: {where}"
    if _constant_output(m):
        text += "; all samples have collapsed to one output"
    return Evidence(text, loss, [last.name], remedy=remedy)


# The signal over the layers, and the units


def _second_derivative(m: Measured) -> Evidence | None:
    if m.seen.curvature != 0:
        return None
    names = [layer.name for layer in m.seen.layers if layer.activation in ("relu", "leaky_relu")]
    text = "the loss takes second derivatives of the outputs, and they are exactly 0"
    return Evidence(text, 0.0, names, limit=0.0)


def _equal_units(m: Measured) -> Evidence | None:
    """Units that compute the same and are moved alike stay copies of each other."""
    bad = [layer.name for layer in m.trunk if layer.equal_units]
    if not bad:
        return None
    text = "all units of a layer have equal incoming weights and equal gradients: they stay so"
    return Evidence(text, len(bad), bad, limit=0.0)


def _dead_units(m: Measured) -> Evidence | None:
    """A narrow layer has a large share by chance, so there all of its units must be dead."""
    share, narrow = m.limits["dead units"], m.limits["narrow layer"]
    bad = [w for w in m.seen.layers[:-1] if w.dead >= (share if w.units >= narrow else 1.0)]
    return _share(bad, "dead", "units are dead")


def _saturated(m: Measured) -> Evidence | None:
    """Units at the ends of their range are no fault where training has put them there."""
    if m.iterations >= m.limits["trained"] and m.seen.loss < m.limits["fitted"] * m.constant:
        return None
    bad = [layer for layer in m.seen.layers[:-1] if layer.saturated >= m.limits["saturated"]]
    return _share(bad, "saturated", "outputs are saturated")


def _share(bad: list[LayerRecord], field: str, noun: str) -> Evidence | None:
    if not bad:
        return None
    worst = max(getattr(layer, field) for layer in bad)
    where = "in 1 layer" if len(bad) == 1 else f"in {len(bad)} layers"
    text = f"up to {worst:.0%} of a layer's {noun}, {where}"
    return Evidence(text, worst, [layer.name for layer in bad])


def over_layers(seen: Probe) -> float:
    """Decades by which the backward signal changes from the last weighted layer to the first.

    Parameters
    ----------
    seen : gradutils.probes.Probe

    Returns
    -------
    float
        Negative where it vanishes; 0 where that cannot be told.
    """
    layers = trunk(seen.layers)
    if len(layers) < 2 or _about_to_leave_zero(layers):
        return 0.0
    return _decades(layers[0].backward, _last(seen))


def _last(seen: Probe) -> float:
    """The backward signal where it starts: the largest among the layers at the outputs."""
    return max(layer.backward for layer in trunk(seen.layers)[-seen.outputs :])


def _about_to_leave_zero(layers: list[LayerRecord]) -> bool:
    """Whether nothing comes back only because of weights that are equal, and will not stay so.

    Columns that are equal, zeros among them, pass the sum of the gradients from above, which a
    softmax makes 0; the first step parts them if their own gradients differ.
    """
    equal = [w for w in layers if w.weight_norm == 0 or (w.equal_weights and not w.equal_units)]
    return layers[0].backward < _ZERO_SUM * layers[-1].backward and any(
        w.gradient_norm > 0 for w in equal
    )


def _decades(first: float, last: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.log10(first) - np.log10(last)) if last else 0.0


def _vanishing_limit(m: Measured) -> float:
    if m.stays_constant:
        return m.limits["vanishing, constant output"]
    if not m.adaptive:
        return m.limits["vanishing"]
    return m.limits["vanishing, no progress" if m.gets_nowhere else "vanishing, adaptive"]


def _vanishing(m: Measured) -> Evidence | None:
    decades, limit = over_layers(m.seen), _vanishing_limit(m)
    if decades > -limit or m.beats_constant:
        return None
    names = [layer.name for layer in m.trunk]
    how_far = "to exactly 0" if np.isinf(decades) else f"by {-decades:.1f} decades"
    text = f"the backward signal falls {how_far} over {len(names)} layers"
    if m.rescued is not None:
        truth = -_decades(trunk(m.rescued.layers)[0].backward, _last(m.rescued))
        if -decades - truth >= m.limits["underflow"]:
            text += f"; with a larger loss scale, by {max(0.0, truth):.1f}: numbers round to 0"
            remedy = "Scale the loss (keras.optimizers.LossScaleOptimizer), or compute in bfloat16."
            return Evidence(text, -decades, names, limit, remedy, "outlook")
    return Evidence(text, -decades, names, limit)


def _exploding(m: Measured) -> Evidence | None:
    decades = over_layers(m.seen)
    if decades < m.limits["exploding"]:
        return None
    names = [layer.name for layer in m.trunk]
    text = f"the backward signal grows by {decades:.1f} decades over {len(names)} layers"
    kinds = {layer.kind for layer in m.seen.layers}
    if any(kind.startswith("BatchNorm") for kind in kinds) and "Add" not in kinds:
        text += "; batch normalisation in a deep net without skip connections does that"
        remedy, chapter = "Add skip connections, or use fewer layers.", "normalization"
        return Evidence(text, decades, names, remedy=remedy, chapter=chapter)
    return Evidence(text, decades, names)


def _over_time(m: Measured) -> list[tuple[LayerRecord, float, int]]:
    """Cells with several steps: the decades from the last step to the first, and the steps."""
    found = []
    for cell in m.trunk:
        norms = cell.backward_by_call[cell.backward_by_call > 0]  # masked steps get exactly nothing
        if len(cell.backward_by_call) >= m.limits["time steps"] and len(norms):
            found.append((cell, _decades(norms[0], norms[-1]), len(norms)))
    return found


def _exploding_over_time(m: Measured) -> Evidence | None:
    for cell, decades, steps in _over_time(m):
        if decades >= m.limits["exploding"]:
            text = f"the backward signal grows by {decades:.1f} decades over {steps} time steps"
            return Evidence(text, decades, [cell.name])
    return None


def _vanishing_over_time(m: Measured) -> Evidence | None:
    if m.trial is None or m.seen.loss < m.limits["reach"] * m.constant:
        return None
    if any(test(m) for test in (_target_scale, _input_scale, _step_too_large, _step_too_small)):
        return None
    fails = m.trial.losses[-1] >= m.limits["reach"] * m.constant
    return _short_reach(m) if m.gets_nowhere or fails else None


def _reach_note(m: Measured) -> Evidence | None:
    return None if _vanishing_over_time(m) else _short_reach(m)


def _short_reach(m: Measured) -> Evidence | None:
    limit = m.limits["vanishing, adaptive" if m.adaptive else "vanishing"]
    for cell, decades, steps in _over_time(m):
        if decades <= -limit:
            text = f"the backward signal falls by {-decades:.1f} decades over {steps} time steps"
            gated = cell.kind in ("LSTMCell", "GRUCell")
            remedy = "" if gated else "Use an LSTM or GRU and raise its forget bias towards "
            remedy = remedy or "Raise the forget bias towards "
            remedy += "ln(steps), or shorten the sequences, if the task needs the first steps."
            return Evidence(text, -decades, [cell.name], limit, remedy)
    return None


def _constant_normalization(m: Measured) -> Evidence | None:
    bad = [
        layer
        for layer in m.seen.layers
        if _normalizes(layer) and layer.parameters and layer.weight_norm > 0 and layer.spread == 0
    ]
    if not bad:
        return None
    text = f"{bad[0].name} divides by a variance of 0, over one sample or a constant: it returns 0"
    return Evidence(text, 0.0, [layer.name for layer in bad], limit=0.0)


# The data and the steps


def _first(m: Measured) -> LayerRecord | None:
    return m.trunk[0] if m.trunk else None


def _size(layer: LayerRecord) -> float:
    """Decades of the root mean square of what the layer receives; 0 if it receives zeros."""
    square = layer.input_second_moment
    return float(np.log10(square) / 2) if square > 0 else 0.0


def _input_scale(m: Measured) -> Evidence | None:
    """Small inputs are no fault where most are 0, as in one-hot rows, or behind an embedding."""
    first = _first(m)
    if first is None or _large_rows(m):
        return None
    off, limit = _size(first), m.limits["data scale"]
    fails = m.blows_up if off > 0 else m.gets_nowhere
    if not m.adaptive and fails:
        limit = m.limits["data scale, plain steps"]
    saturates = off > 0 and first.saturated >= m.limits["saturated by inputs"]
    if saturates:
        limit = m.limits["data scale, plain steps"]
    embedded = any(layer.kind.startswith("Embedding") for layer in m.seen.layers)
    sparse = first.input_zeros > m.limits["sparse inputs"]
    if abs(off) < limit or (off < 0 and (sparse or (embedded and m.adaptive))):
        return None
    if m.adaptive and not saturates and _copes(m, off):
        return None
    text = f"the inputs have a root mean square of {10**off:.1e}"
    if saturates:
        text += f", and {first.saturated:.0%} of the first layer's outputs are saturated"
    return Evidence(text, off, [first.name], limit)


def _copes(m: Measured, off: float) -> bool:
    """Whether the look ahead learns from inputs that are too large, or too small, by that much.

    Small inputs need more than a loss that falls, since the biases learn a constant without them.
    """
    if m.trial is None or m.blows_up:
        return False
    falls = m.trial.losses[-1] <= m.limits["falls"] * m.trial.losses[0]
    return m.beats_constant or bool(off > 0 and falls)


def _input_offset(m: Measured) -> Evidence | None:
    first = _first(m)
    stuck = m.gets_nowhere or m.learned_nothing
    if first is None or not first.feature_stds.size or not stuck:
        return None
    means, stds = np.sqrt([np.mean(a**2) for a in (first.feature_means, first.feature_stds)])
    ratio = means / stds if stds else 0.0
    if ratio < m.limits["offset"]:
        return None
    text = f"the inputs lie {ratio:.0f} standard deviations away from 0"
    return Evidence(text, ratio, [first.name])


def _feature_scales(m: Measured) -> Evidence | None:
    first = _first(m)
    if first is None or first.input_zeros > m.limits["sparse inputs"] or _large_rows(m):
        return None
    stds = first.feature_stds[first.feature_stds > 0]
    if len(stds) < 2 or stds.max() < m.limits["feature scales, largest"]:
        return None
    ratio = stds.max() / stds.min()
    if ratio < m.limits["feature scales"]:
        return None
    text = (
        f"the features of the inputs have standard deviations from {stds.min():.2g} to "
        f"{stds.max():.2g}: the large ones drown the others"
    )
    return Evidence(text, ratio, [first.name])


def _target_scale(m: Measured) -> Evidence | None:
    for head in m.seen.heads:
        regression = head.loss in _REGRESSION or not head.loss
        if head.targets is None or not regression or not head.targets.size:
            continue
        size, outputs = (np.sqrt(np.mean(a**2)) for a in (head.targets, head.outputs))
        ratio = size / outputs if outputs else size
        if ratio >= m.limits["target scale"] and (m.gets_nowhere or m.blows_up):
            text = f"the targets have a root mean square of {size:.2g}, the outputs {outputs:.2g}"
            return Evidence(text, ratio, [head.layer] if head.layer else [])
    return None


def _step_too_large(m: Measured) -> Evidence | None:
    if m.trial is None or not m.blows_up:
        return None
    losses = m.trial.losses
    if np.isfinite(losses).all():
        ratio = losses.max() / losses[0]
        later = sorted({int(losses.argmax()), len(losses) - 1} - {0, 1})
        text = f"one step on this batch multiplies its loss by {losses[1] / losses[0]:.2g}"
        text += "".join(f", {k} steps by {losses[k] / losses[0]:.2g}" for k in later)
    else:
        ratio, steps = np.inf, int(np.argmin(np.isfinite(losses)))
        text = f"after {steps} steps on this batch its loss of {losses[0]:.2g} is not finite"
    text += f"; a step is up to {m.largest_step:.1g} times a layer's weights"
    return Evidence(text, ratio)


def _step_too_small(m: Measured) -> Evidence | None:
    optimizer, layers = m.seen.optimizer, m.trunk
    if optimizer is None or not layers or abs(m.seen.loss) <= m.limits["solved"]:
        return None
    largest = max(np.nan_to_num(layer.update_ratio) for layer in layers)
    gradient = max(layer.gradient_norm / (layer.weight_norm or 1) for layer in layers)
    later = optimizer.later_rate / optimizer.rate if optimizer.rate else np.inf
    later = later if optimizer.later_rate else 1.0
    limits, trained = m.limits, m.iterations >= m.limits["trained"]
    unsolved = not trained or m.seen.loss >= limits["learnt"] * m.constant
    if unsolved and 0 <= optimizer.later_rate < limits["rate decayed"] * optimizer.rate:
        text = (
            f"ten steps from now the schedule will have lowered the learning rate from "
            f"{optimizer.rate:.2g} to {optimizer.later_rate:.2g}, for good"
        )
        return Evidence(text, optimizer.later_rate / optimizer.rate, limit=limits["rate decayed"])
    if unsolved and trained and largest * later < limits["step too small, trained"]:
        text = (
            f"at a learning rate of {optimizer.rate:.2g} the next update is {largest:.1g} times "
            "the weights, less than float32 can add to them"
        )
        return Evidence(text, largest, limit=limits["step too small, trained"])
    moves = m.trial is not None and not m.gets_nowhere
    small = gradient < limits["step too small, gradient"]
    if small or moves or largest * later >= limits["step too small"]:
        return None
    text = (
        f"at a learning rate of {optimizer.rate:.2g} the next update is {largest:.1g} times the "
        "weights, although the gradients are not small: steps move nothing"
    )
    if any(layer.weight_dtype == "bfloat16" for layer in layers):
        text += "; a bfloat16 weight loses what is less than 1/256 of it"
        remedy = "Keep the weights in float32, as the policy mixed_bfloat16 does."
        return Evidence(text, largest, remedy=remedy, chapter="transformers")
    return Evidence(text, largest)


def _negative_rate(m: Measured) -> Evidence | None:
    if m.seen.optimizer is None or m.seen.optimizer.rate >= 0:
        return None
    text = f"the learning rate is {m.seen.optimizer.rate:.2g}: every step climbs"
    return Evidence(text, m.seen.optimizer.rate, limit=0.0)


# After training


def _train_and_inference(m: Measured) -> Evidence | None:
    if m.iterations < m.limits["averaged"] or not m.seen.loss > 0:
        return None
    targets = [head.targets for head in m.seen.heads if head.targets is not None]
    if any(np.all(given == given[:1]) for given in targets):
        return None  # All targets are alike, and a loss near 0 has many small multiples.
    ratio = m.seen.inference_loss / m.seen.loss
    enough = np.nan_to_num(m.constant)
    if not ratio >= m.limits["train and inference"] or m.seen.inference_loss < enough:
        return None
    names = [layer.name for layer in m.seen.layers if layer.kind.startswith("BatchNorm")]
    if not names:
        return None
    text = (
        f"the loss of this batch is {m.seen.loss:.2g} in training mode and "
        f"{m.seen.inference_loss:.2g} in inference mode: the moving averages lag behind"
    )
    return Evidence(text, ratio, names)


def _constant_output(m: Measured) -> Evidence | None:
    head = m.seen.heads[0] if len(m.seen.heads) == 1 else None
    if m.iterations < m.limits["trained"] or head is None or m.trial is None:
        return None
    least = max(m.limits["solved"], m.limits["learnt nothing"] * np.nan_to_num(m.constant))
    if m.seen.loss <= least:
        return None
    spread, size = m.trial.output_spreads[0], m.trial.output_sizes[0]
    if head.targets is not None and head.loss in _REGRESSION:
        size = float(np.std(head.targets))
    if not spread < m.limits["constant output"] * size:
        return None
    text = f"the model gives the same output for all samples, after {m.iterations} steps"
    return Evidence(text, spread / size)


def _rarest(m: Measured) -> tuple[float, Head] | None:
    for head in m.seen.heads:
        shares = _shares(head)
        if len(shares) > 1 and shares.min() * len(shares) < m.limits["rare class"]:
            return float(shares.min()), head
    return None


def _shares(head: Head) -> np.ndarray:
    """Shares of the classes that occur: one that does not is absent, not rare."""
    return head.class_shares[head.class_shares > 0]


def _rare_class(m: Measured) -> Evidence | None:
    rarest = _rarest(m)
    if rarest is None or m.iterations < m.limits["trained"]:
        return None
    share, head = rarest
    text = f"the rarest class has a share of {share:.2g}"
    if not m.seen.loss < m.limits["learnt"] * m.constant:
        text += (
            f", and the loss of {m.seen.loss:.2g} is that of the best constant answer, "
            f"{m.constant:.2g}"
        )
    elif (
        m.iterations >= m.limits["stuck"]
        and m.seen.loss >= m.limits["fitted"] * m.constant
        and (missed := _missed(head))
    ):
        text += f", and none of its {missed} samples in the batch is recognised"
    else:
        return None
    return Evidence(text, share * len(_shares(head)), [])


def _missed(head: Head) -> int:
    """Samples of the rarest class in the batch if the outputs name another class for all of them.

    0 if one of them is recognised, or none is there.
    """
    targets, outputs, shares = head.targets, head.outputs, head.class_shares
    rarest = int(np.argmin(np.where(shares > 0, shares, 1.0)))
    if targets is None:
        return 0
    if head.loss.startswith("binary"):
        logits = head.from_logits and not head.has_logits
        labels, answers = targets > 0.5, outputs > (0.0 if logits else 0.5)
    else:
        sparse = head.loss.startswith("sparse")
        labels = targets if sparse else targets.argmax(axis=-1)
        answers = outputs.argmax(axis=-1)
    labels, answers = labels.ravel(), answers.ravel()
    if labels.shape != answers.shape:
        return 0
    rare = labels == rarest
    return 0 if (answers[rare] == rarest).any() else int(rare.sum())


def _rare_class_note(m: Measured) -> Evidence | None:
    rarest = _rarest(m)
    if rarest is None or _rare_class(m):
        return None
    share, head = rarest
    text = (
        f"the rarest class has a share of {share:.2g}: class imbalance, a constant is nearly right"
    )
    return Evidence(text, share * len(_shares(head)), [])


def _affine(m: Measured) -> Evidence | None:
    hidden = [layer for layer in m.seen.layers[:-1] if layer.activation]
    if not m.seen.affine or len(m.trunk) < 2 or hidden:
        return None
    text = f"{len(m.trunk)} layers of weights with nothing between them: the net is affine"
    return Evidence(text, 1.0, [layer.name for layer in m.trunk], limit=1.0)


def _affine_fails(m: Measured) -> Evidence | None:
    return _affine(m) if m.learned_nothing else None


def _affine_note(m: Measured) -> Evidence | None:
    return None if _affine_fails(m) else _affine(m)


def _logits_noted(m: Measured) -> Evidence | None:
    for head in m.seen.heads:
        if head.from_logits and head.has_logits:
            text = (
                f"from_logits=True on a {head.activation or 'softmax'} output: Keras takes its "
                "logits, other frameworks would take probabilities for logits"
            )
            return Evidence(text, 1.0, [head.layer] if head.layer else [], limit=1.0)
    return None


#: The checks, the most serious first. An id stays with its check for ever.
CHECKS = (
    Check(
        "G01", "loss mismatch", _softmax_over_one, "",
        "A softmax divides by the sum over its units, and one unit is its own sum.",
        "Use one sigmoid output, or two units under the softmax.",
        "activations",
    ),
    Check(
        "G02", "loss mismatch", _outputs_no_probabilities, "outside [0, 1]",
        "The loss takes probabilities, and the outputs are none.",
        "Use a sigmoid output for one class or several labels, softmax for one class of many, or "
        "a loss with from_logits=True.",
        "worked_example",
    ),
    Check(
        "G03", "loss mismatch", _logits_expected, "",
        "The loss applies a sigmoid or softmax of its own to outputs that went through one.",
        "Drop the last activation, or let the loss take probabilities (from_logits=False).",
        "worked_example",
    ),
    Check(
        "G04", "loss mismatch", _log_of_outputs, "outside [0, 1]",
        "The last activation leaves the range in which the loss is defined.",
        "Use a sigmoid output, or compute the loss from logits.",
        "worked_example",
    ),
    Check(
        "G05", "loss mismatch", _swapped_arguments, "",
        "Keras calls a loss with the targets first, and here the log is taken of the targets.",
        "Define the loss as loss(y_true, y_pred): log(0) comes from the zeros in the targets.",
        "worked_example",
    ),
    Check(
        "G06", "output range", _targets_out_of_range, "output range",
        "The last activation cannot reach the targets, however the weights are.",
        "Use a linear output, or rescale the targets to what the output can reach.",
        "activations",
    ),
    Check(
        "G07", "output range", _labels_no_classes, "",
        "A class label is an index: it must be a whole number.",
        "Do not scale the labels; pass them as integers.",
        "worked_example",
    ),
    Check(
        "G08", "broadcast", _broadcast, "broadcast",
        "Arrays of shape (n,) and (n, 1) make (n, n) without a word.",
        "Give targets and outputs the same shape inside the loss, as by y[:, None].",
        "backpropagation",
    ),
    Check(
        "G09", "wrong sign", _wrong_sign, "",
        "The optimiser makes the loss small, and this loss is smallest far from the targets.",
        "Change the sign of the loss.",
        "backpropagation",
    ),
    Check(
        "G10", "half precision", _half_precision, "half precision",
        "In float16, numbers below 6e-8 are 0: squared gradients, and an epsilon of 1e-8.",
        "Keep the weights in float32 with the policy mixed_float16, or set epsilon to 1e-3.",
        "optimizers",
    ),
    Check(
        "G11", "recurrent activation", _recurrent_activation, "recurrent steps",
        "A state that is fed back through an unbounded function can grow at every step.",
        "Use tanh, the default activation, in the recurrent layer.",
        "recurrence",
    ),
    Check(
        "G12", "non-finite", _penalty_not_finite, "",
        "The loss is a sum, and one of its terms is NaN or inf.",
        "Look at this layer's regulariser or add_loss: a log, root or quotient of 0 needs an "
        "epsilon.",
        "regularization",
    ),
    Check(
        "G13", "bad rows", _bad_rows, "bad rows",
        "A few samples have a loss that no step can mend, and they decide the gradient.",
        "Look at these rows: drop them, shorten labels that are too long, or give padded targets a "
        "harmless value inside the loss.",
        "backpropagation",
    ),
    Check(
        "G14", "non-finite", _nonfinite, "",
        "A number left the range of floating point, or an operation is undefined where it stands.",
        "Scale the data or the weights; in float16, keep this layer in float32.",
        "jacobian_products",
        final=True,
        also=("transformers",),
    ),
    Check(
        "G15", "frozen", _frozen, "",
        "Without trainable weights there is nothing to learn.",
        "Set trainable = True on the layers that are to learn, then compile again.",
        "learning_rate",
        final=True,
    ),
    Check(
        "G16", "disconnected", _disconnected, "",
        "Something without a derivative stands between these weights and the loss.",
        "Replace what has no derivative (argmax, round, a cast to integers, stop_gradient, NumPy) "
        "by a differentiable form, such as softmax for argmax.",
        "backpropagation",
        final=True,
    ),
    Check(
        "G17", "vanishing", _nothing_returns, "solved",
        "The loss or the last activation is flat where the outputs are.",
        "Compute the loss from logits (from_logits=True), or use a linear output.",
        "activations",
        final=True,
        also=("elsewhere",),
    ),
    Check(
        "G18", "second derivative", _second_derivative, "",
        "Piecewise linear activations have no curvature, so the residual does not see the net.",
        "Use a smooth activation, such as tanh, in the hidden layers.",
        "activations",
        also=("elsewhere",),
    ),
    Check(
        "G19", "equal units", _equal_units, "",
        "Units that start as copies are moved alike: no step breaks the symmetry.",
        "Draw the weights at random: He for ReLU, Glorot for tanh; zeros suit biases only.",
        "initialization",
    ),
    Check(
        "G26", "constant normalisation", _constant_normalization, "",
        "A normalisation over one number, or over equal ones, leaves nothing of it.",
        "Use larger batches, or layer normalisation over several features.",
        "normalization",
    ),
    Check(
        "G20", "dead units", _dead_units, "dead units",
        "A rectifier that is 0 for all samples passes nothing back.",
        "Lower the learning rate or the negative biases; or use leaky ReLU.",
        "activations",
    ),
    Check(
        "G21", "saturated", _saturated, "saturated",
        "Far out, tanh and sigmoid are flat.",
        "Draw smaller weights, or scale the inputs to variance 1.",
        "activations",
    ),
    Check(
        "G22", "vanishing", _vanishing, "vanishing",
        "The backward signal is multiplied at every layer, here by less than 1.",
        "Draw the weights for the activation (He for ReLU, Glorot for tanh), or add skip "
        "connections or layer normalisation; replace sigmoids.",
        "initialization",
        also=("transformers",),
    ),
    Check(
        "G23", "exploding", _exploding, "exploding",
        "The backward signal is multiplied at every layer, here by more than 1.",
        "Draw smaller weights, scale or normalise residual branches, clip by global norm.",
        "initialization",
        also=("transformers",),
    ),
    Check(
        "G24", "vanishing", _vanishing_over_time, "vanishing",
        "The backward signal is multiplied at every time step, here by less than 1.",
        "Raise the forget bias towards ln(steps), or shorten the sequences.",
        "gates",
    ),
    Check(
        "G25", "exploding", _exploding_over_time, "exploding",
        "The backward signal is multiplied at every time step, here by more than 1.",
        "Clip by global norm; draw the recurrent matrix orthogonal.",
        "clipping",
    ),
    Check(
        "G29", "feature scales", _feature_scales, "feature scales",
        "Units follow the few features that are large.",
        "Scale the inputs feature by feature: a Normalization layer adapts to them.",
        "signal_propagation",
    ),
    Check(
        "G27", "input scale", _input_scale, "data scale",
        "Weights are drawn for inputs of mean 0 and variance 1.",
        "Scale the inputs to mean 0 and variance 1: a Normalization layer adapts to them.",
        "signal_propagation",
    ),
    Check(
        "G28", "input scale", _input_offset, "offset",
        "What all samples share drowns what tells them apart.",
        "Centre and scale the inputs to mean 0 and variance 1: a Normalization layer adapts to "
        "them.",
        "signal_propagation",
    ),
    Check(
        "G30", "target scale", _target_scale, "target scale",
        "Outputs start near 0 and move by about the learning rate, the targets are far away.",
        "Scale the targets to variance 1 (or predict their log), and scale the predictions back.",
        "signal_propagation",
        also=("elsewhere",),
    ),
    Check(
        "G31", "penalty", _penalty_outweighs, "penalty",
        "The optimiser shrinks the weights instead of fitting the data.",
        "Lower the factor of the regulariser, to 1e-4 for a start.",
        "regularization",
    ),
    Check(
        "G32", "step too large", _negative_rate, "",
        "A negative learning rate follows the gradient uphill.",
        "Make the learning rate positive.",
        "learning_rate",
    ),
    Check(
        "G33", "step too large", _step_too_large, "step too large",
        "The step leaves the region in which the gradient says where the loss falls.",
        "Lower the learning rate tenfold, or warm it up over the first steps.",
        "learning_rate",
        also=("transformers",),
    ),
    Check(
        "G34", "step too small", _step_too_small, "step too small",
        "The learning rate is too small, or its schedule has brought it to nothing.",
        "Raise the learning rate, or count the decay of its schedule in steps, not in epochs.",
        "learning_rate",
    ),
    Check(
        "G35", "train and inference", _train_and_inference, "train and inference",
        "In inference a batch normalisation uses moving averages, which follow slowly.",
        "Train for more steps, or lower the momentum of the batch normalisation (0.9); with few "
        "samples a batch, use layer or group normalisation.",
        "normalization",
    ),
    Check(
        "G36", "constant output", _constant_output, "constant output",
        "The outputs have collapsed to one point, most often after steps that were too large.",
        "Draw the weights anew and lower the learning rate tenfold, or warm it up.",
        "learning_rate",
        also=("transformers", "elsewhere"),
    ),
    Check(
        "G37", "rare class", _rare_class, "rare class",
        "Where one class is rare, a constant answer is nearly right.",
        "Weigh or resample the classes (class_weight), and judge by a metric of the rare class.",
        "worked_example",
    ),
    Check(
        "G38", "affine", _affine_fails, "",
        "A chain of linear maps is one linear map.",
        "Put an activation, such as relu, between the layers.",
        "activations",
    ),
    Check(
        "G39", "short reach", _reach_note, "vanishing",
        "The backward signal is multiplied at every time step, here by less than 1. A task that "
        "does not need the first steps is learnt all the same.",
        "Raise the forget bias towards ln(steps), or shorten the sequences, if the task needs the "
        "first steps.",
        "gates",
        note=True,
    ),
    Check(
        "G40", "rare class", _rare_class_note, "rare class",
        "Where one class is rare, a constant answer is nearly right.",
        "Watch a metric of the rare class; weigh or resample the classes if it stays at 0.",
        "worked_example",
        note=True,
    ),
    Check(
        "G41", "affine", _affine_note, "",
        "A chain of linear maps is one linear map.",
        "Put an activation, such as relu, between the layers if the task is not linear.",
        "activations",
        note=True,
    ),
    Check(
        "G42", "from logits", _logits_noted, "",
        "The output has an activation, and the loss is told that it has none.",
        "Say one of the two: no activation, or from_logits=False.",
        "worked_example",
        note=True,
    ),
)  # fmt: skip
