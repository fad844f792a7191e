"""From one probe to a verdict: what ails a Keras model, how we know it, and what mends it.

Needs Keras 3 on TensorFlow (``pip install '.[keras]'``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import numpy as np

from gradutils import _checks
from gradutils._keras import keras
from gradutils.probes import LayerRecord, Probe, probe


class Threshold(NamedTuple):
    """A limit, what it limits, and where it comes from."""

    limit: float
    meaning: str
    source: str


#: The limits of `diagnose`, by name.
THRESHOLDS = {
    "vanishing": Threshold(
        2.2,
        "decades by which the backward signal falls towards the first layer; plain SGD",
        "benchmarks/diagnosis.py, tuning half: nets with 1.9 train, nets with 4.3 do not; "
        "22 ReLU layers with Glorot weights (3.3) begin to fail",
    ),
    "vanishing, adaptive": Threshold(
        4.2,
        "the same for an optimiser that rescales its steps, as Adam does",
        "the same half: the highest limit that finds every sick net, since Adam trains many a "
        "net whose gradients are small",
    ),
    "exploding": Threshold(
        3.5,
        "decades by which the backward signal grows towards the first layer",
        "the same half: nets with 1.7 train, nets with 4.6 do not",
    ),
    "dead units": Threshold(
        0.8,
        "share of a hidden layer's units that are zero for every sample",
        "other tools warn between 0.2 and 0.5, but 30 ReLU layers with He weights reach 0.53 "
        "and train",
    ),
    "saturated": Threshold(
        0.9,
        "share of a hidden layer's outputs in the outer 3 % of the activation's range",
        "the tails of Glorot and Bengio 2010; 15 chaotic tanh layers reach 0.57 and train",
    ),
    "data scale": Threshold(
        2.0,
        "decades between 1 and the root mean square of what the first layer receives",
        "inputs of unit variance: LeCun et al. 1998",
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
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    kind : str
        "non-finite", "disconnected", "exploding", "vanishing", "dead units", "saturated" or
        "equal units".
    layers : list of str
        The layers that show it.
    figure, threshold : float
        What was measured, and the limit that it passes, in the unit of `THRESHOLDS`.
    evidence, advice : str
        What was seen, and what mends it.
    chapter : str
        The book's page about it.
    """

    kind: str
    layers: list[str]
    figure: float
    threshold: float
    evidence: str
    advice: str
    chapter: str


@dataclass(frozen=True)
class Diagnosis:
    """A verdict, its findings with the most serious first, and the layers' records.

    Attributes
    ----------
    verdict : str
        The first finding's kind; "healthy" if there is none.
    findings : list of Finding
    layers : list of gradutils.probes.LayerRecord
    loss : float
    """

    verdict: str
    findings: list[Finding]
    layers: list[LayerRecord]
    loss: float

    def __str__(self) -> str:
        lines = [f"verdict: {self.verdict} (loss {self.loss:.3g}, {len(self.layers)} layers)"]
        for found in self.findings:
            lines += [f"- {found.kind}: {found.evidence}", f"  advice: {found.advice}"]
            lines += [f"  layers: {_span(found.layers)}", f"  read: {found.chapter}"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        items = "".join(
            f"<dt><strong>{escape(found.kind)}</strong>: {escape(found.evidence)}</dt>"
            f"<dd>{escape(found.advice)} <em>Layers:</em> {escape(_span(found.layers))}. "
            f"<em>Read:</em> {escape(found.chapter)}</dd>"
            for found in self.findings
        )
        return (
            f"<p>Verdict: <strong>{escape(self.verdict)}</strong> "
            f"(loss {self.loss:.3g}, {len(self.layers)} layers)</p><dl>{items}</dl>"
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw every weighted layer's backward signal and weight gradient.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        matplotlib Axes
        """
        trunk = _trunk(self.layers)
        from gradutils import plots  # Matplotlib is loaded where something is drawn.

        return plots.layer_profile(
            {
                "backward signal": [layer.backward for layer in trunk],
                "weight gradient": [layer.gradient_norm for layer in trunk],
            },
            ylabel="norm",
            xlabel="weighted layer",
            ax=ax,
        )


def diagnose(
    model: keras.Model,
    x: Any,
    y: Any = None,
    loss: Callable | str | None = None,
    *,
    thresholds: Mapping[str, float] | None = None,
) -> Diagnosis:
    """Probe a model with one batch and say what ails it.

    Judged are the backward signal, which decides whether the first layers learn, and what reaches
    the weights; not the weight gradients alone, which can look flat while both signals die.

    Parameters
    ----------
    model, x, y, loss
        As in `gradutils.probes.probe`; the model is left as it was.
    thresholds : mapping of str to float, optional
        Limits that replace those of `THRESHOLDS`.

    Raises
    ------
    ValueError
        As `probe`; and if a threshold's name is unknown, or its limit no finite number. NaN in
        the weights is a finding.

    Examples
    --------
    >>> import keras, numpy as np
    >>> sick = keras.Sequential([keras.Input((8,))])
    >>> for _ in range(20):
    ...     sick.add(keras.layers.Dense(8, "sigmoid"))
    >>> sick.compile("adam", "mse")
    >>> diagnose(sick, np.ones((4, 8)), np.zeros((4, 8))).verdict
    'vanishing'
    """
    unknown = set(thresholds or {}) - set(THRESHOLDS)
    if unknown:
        raise ValueError(
            f"thresholds must be named among {', '.join(THRESHOLDS)}; received {sorted(unknown)}"
        )
    _checks.finite(**{f"thresholds[{name!r}]": v for name, v in (thresholds or {}).items()})
    limits = {name: threshold.limit for name, threshold in THRESHOLDS.items()}
    given = dict(thresholds or {})
    limits |= given
    # Of two limits that the caller gives, the one for adaptive optimisers is the more specific.
    adaptive = _is_adaptive(model)
    if adaptive and ("vanishing, adaptive" in given or "vanishing" not in given):
        limits["vanishing"] = limits["vanishing, adaptive"]
    seen = probe(model, x, y, loss)
    findings = _nonfinite(seen) or _disconnected(seen) or _nothing_returns(seen, limits)
    if not findings:
        scale = _rescuing_scale(model, seen)
        rescued = probe(model, x, y, loss, loss_scale=scale) if scale else None
        # Copies come first: equal weights can be the cause of a signal that vanishes.
        findings = _equal_units(seen) + _units(seen, limits) + _trend(seen, rescued, limits)
        findings += _scale(seen, limits, adaptive)
    verdict = findings[0].kind if findings else "healthy"
    return Diagnosis(verdict, findings, seen.layers, seen.loss)


def _is_adaptive(model: keras.Model) -> bool:
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return optimizer is not None and not isinstance(optimizer, keras.optimizers.SGD)


def _rescuing_scale(model: keras.Model, seen: Probe) -> float:
    """A loss scale, a power of 2, that lifts the last layer's signal to 256; 0 without float16."""
    half = any(layer.compute_dtype == "float16" for layer in model._flatten_layers())
    last = _trunk(seen.layers)[-1].backward if half and _trunk(seen.layers) else 0.0
    return 2.0 ** np.floor(np.log2(256 / last)) if last else 0.0


def _trunk(layers: list[LayerRecord]) -> list[LayerRecord]:
    """The layers that hold weights, without normalisations and embeddings."""
    return [
        layer
        for layer in layers
        if layer.parameters and "Normalization" not in layer.kind and layer.kind != "Embedding"
    ]


def _nonfinite(seen: Probe) -> list[Finding]:
    """The first place, in the order of computation, where a number is not finite."""
    stages = [
        ("weights", "nonfinite_weights", seen.layers),
        ("outputs", "nonfinite_outputs", seen.layers),
        ("backward signal", "nonfinite_backward", seen.layers[::-1]),
    ]
    for what, field, layers in stages:
        bad = [layer for layer in layers if getattr(layer, field)]
        if bad:
            count = getattr(bad[0], field)
            advice, chapter = {
                "weights": (
                    "Go back to the last good checkpoint, clip by global norm and lower the "
                    "learning rate, and let GradientMonitor(on_alarm='stop') find the step.",
                    "13_clipping",
                ),
                "outputs": (
                    "Scale the data or the weights; in float16, keep this layer in float32.",
                    "04_jacobian_products",
                ),
                "backward signal": (
                    "Look for a derivative that is undefined, as of sqrt, norm, log or a quotient "
                    "at 0: add an epsilon inside, or use a safe form. Clipping cannot mend NaN. In "
                    "float16, lower the loss scale.",
                    "03_backpropagation",
                ),
            }[what]
            evidence = f"{count} NaN or inf, first in the {what} of {bad[0].name}"
            if what == "backward signal" and bad[0].nonfinite_rows:
                evidence += f", in {bad[0].nonfinite_rows:.0%} of the rows"
            names = [layer.name for layer in bad]
            return [Finding("non-finite", names, count, 0, evidence, advice, chapter)]
    if not np.isfinite(seen.loss):
        advice = "Compute the loss from logits, and look for log(0) or division by zero in it."
        return [Finding("non-finite", [], seen.loss, 0, "the loss is not finite, every layer is",
                        advice, "04_jacobian_products")]  # fmt: skip
    return []


def _disconnected(seen: Probe) -> list[Finding]:
    """Weights that the loss does not depend on; a head without a loss is no fault."""
    cut = [layer for layer in seen.layers if layer.disconnected]
    if not cut or seen.outputs > 1:
        return []
    after = seen.layers[seen.layers.index(cut[-1]) + 1 :]
    evidence = f"no gradient (None, not 0) reaches {len(cut)} layers with weights"
    if after:
        evidence += f"; the path from the loss ends at {after[0].name}"
    advice = (
        "Replace what has no derivative (argmax, round, a cast to integers, stop_gradient, NumPy) "
        "by a differentiable form, such as softmax for argmax."
    )
    names = [layer.name for layer in cut]
    return [Finding("disconnected", names, len(cut), 0, evidence, advice, "03_backpropagation")]


def _nothing_returns(seen: Probe, limits: Mapping[str, float]) -> list[Finding]:
    """Every gradient is exactly 0, though the loss is not small."""
    trunk = _trunk(seen.layers)
    loss, limit = abs(seen.loss), limits["solved"]
    if not trunk or loss <= limit or any(layer.gradient_norm != 0 for layer in trunk):
        return []
    last = trunk[-1]
    if last.backward:
        where = f"the activation {last.activation or 'after it'} is flat, in {last.name}"
        advice = "Use a linear output, or reset the last layer's bias; scale what it receives."
    else:
        where = "the loss itself is flat at these outputs"
        advice = (
            "Compute the loss from logits (from_logits=True), or match the last activation to it: "
            "a clipped probability has no gradient."
        )
    evidence = f"nothing comes back from the loss of {seen.loss:.3g}, every gradient is 0: {where}"
    return [Finding("vanishing", [last.name], loss, limit, evidence, advice, "09_activations")]


def _equal_units(seen: Probe) -> list[Finding]:
    """Units that compute the same and are moved alike stay copies of each other."""
    bad = [layer.name for layer in _trunk(seen.layers) if layer.equal_units]
    if not bad:
        return []
    evidence = "all units of a layer have equal incoming weights and equal gradients: they stay so"
    advice = "Draw the weights at random: He for ReLU, Glorot for tanh; zeros suit biases only."
    return [Finding("equal units", bad, len(bad), 0, evidence, advice, "10_initialization")]


def _trend(seen: Probe, rescued: Probe | None, limits: Mapping[str, float]) -> list[Finding]:
    """Vanishing and exploding, over the layers and over time."""
    findings = []
    trunk = _trunk(seen.layers)
    if len(trunk) > 1 and not _about_to_leave_zero(trunk):
        decades = _decades(trunk[0].backward, _last(seen))
        names = [layer.name for layer in trunk]
        if decades <= -limits["vanishing"]:
            findings.append(_vanishing(seen, rescued, decades, names, limits))
        elif decades >= limits["exploding"]:
            findings.append(_exploding(seen, decades, names, limits))
    for cell in (layer for layer in trunk if len(layer.backward_by_call) >= 10):
        findings += _through_time(cell, limits)
    return findings


def _last(seen: Probe) -> float:
    """The backward signal where it starts: the largest among the layers at the outputs."""
    return max(layer.backward for layer in _trunk(seen.layers)[-seen.outputs :])


def _about_to_leave_zero(trunk: list[LayerRecord]) -> bool:
    """Whether nothing comes back only because some weights start at zero, and will not stay."""
    zero = [layer for layer in trunk if layer.weight_norm == 0]
    return trunk[0].backward == 0 and bool(zero) and all(z.gradient_norm > 0 for z in zero)


def _scale(seen: Probe, limits: Mapping[str, float], adaptive: bool) -> list[Finding]:
    """What reaches the first weighted layer is far from unit scale.

    Small inputs are no fault where most of them are 0, as in one-hot rows, or behind an embedding
    under an optimiser that rescales its steps.
    """
    first = _trunk(seen.layers)[:1]
    square = first[0].input_second_moment if first else 1.0
    off = np.log10(square) / 2 if square > 0 else 0.0
    if abs(off) < limits["data scale"]:
        return []
    kind = "exploding" if off > 0 else "vanishing"
    embedded = any(layer.kind == "Embedding" for layer in seen.layers)
    if kind == "vanishing" and (first[0].input_zeros > 0.5 or (embedded and adaptive)):
        return []
    evidence = f"the inputs have a root mean square of {10**off:.1e}"
    advice = "Scale the inputs to mean 0 and variance 1: a Normalization layer adapts to them."
    names, limit = [first[0].name], limits["data scale"]
    return [Finding(kind, names, off, limit, evidence, advice, "05_signal_propagation")]


def _decades(first: float, last: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.log10(first) - np.log10(last)) if last else 0.0


def _vanishing(
    seen: Probe, rescued: Probe | None, decades: float, names: list[str], limits: Mapping
) -> Finding:
    how_far = "to exactly 0" if np.isinf(decades) else f"by {-decades:.1f} decades"
    evidence = f"the backward signal falls {how_far} over {len(names)} layers"
    advice, chapter = (
        "Draw the weights for the activation (He for ReLU, Glorot for tanh), or add skip "
        "connections or layer normalisation; replace sigmoids.",
        "10_initialization",
    )
    if rescued is not None:
        truth = -_decades(_trunk(rescued.layers)[0].backward, _last(rescued))
        if -decades - truth >= limits["underflow"]:
            evidence += f"; with a larger loss scale, by {max(0.0, truth):.1f}: numbers round to 0"
            advice = "Scale the loss (keras.optimizers.LossScaleOptimizer), or compute in bfloat16."
            chapter = "19_outlook"
    return Finding("vanishing", names, -decades, limits["vanishing"], evidence, advice, chapter)


def _exploding(seen: Probe, decades: float, names: list[str], limits: Mapping) -> Finding:
    evidence = f"the backward signal grows by {decades:.1f} decades over {len(names)} layers"
    kinds = {layer.kind for layer in seen.layers}
    if "BatchNormalization" in kinds and "Add" not in kinds:
        evidence += "; batch normalisation in a deep net without skip connections does that"
        advice, chapter = "Add skip connections, or use fewer layers.", "14_normalization"
    else:
        advice = "Draw smaller weights, scale or normalise residual branches, clip by global norm."
        chapter = "10_initialization"
    return Finding("exploding", names, decades, limits["exploding"], evidence, advice, chapter)


def _through_time(cell: LayerRecord, limits: Mapping) -> list[Finding]:
    norms = cell.backward_by_call[cell.backward_by_call > 0]  # masked steps get exactly nothing
    if not len(norms):
        return []
    steps, decades = len(norms), _decades(norms[0], norms[-1])
    if -limits["vanishing"] < decades < limits["exploding"]:
        return []
    kind, verb = ("vanishing", "falls") if decades < 0 else ("exploding", "grows")
    evidence = f"the backward signal {verb} by {abs(decades):.1f} decades over {steps} time steps"
    advice, chapter = {
        "vanishing": (
            "Raise the forget bias towards ln(steps), or shorten the sequences."
            if cell.kind in ("LSTMCell", "GRUCell")
            else "Use an LSTM or GRU and raise its forget bias towards ln(steps), or shorten the "
            "sequences.",
            "16_gates",
        ),
        "exploding": ("Clip by global norm; draw the recurrent matrix orthogonal.", "13_clipping"),
    }[kind]
    return [Finding(kind, [cell.name], abs(decades), limits[kind], evidence, advice, chapter)]


def _units(seen: Probe, limits: Mapping[str, float]) -> list[Finding]:
    """Dead rectifiers and saturated squashers among the hidden layers."""
    findings = []
    remedies = {
        "dead units": (
            "dead",
            "Lower the learning rate or the negative biases; or use leaky ReLU.",
        ),
        "saturated": ("saturated", "Draw smaller weights, or scale the inputs to variance 1."),
    }
    for kind, (field, advice) in remedies.items():
        bad = [layer for layer in seen.layers[:-1] if getattr(layer, field) >= limits[kind]]
        if bad:
            worst = max(getattr(layer, field) for layer in bad)
            noun = "units are dead" if kind == "dead units" else "outputs are saturated"
            where = "in 1 layer" if len(bad) == 1 else f"in {len(bad)} layers"
            evidence = f"up to {worst:.0%} of a layer's {noun}, {where}"
            names = [layer.name for layer in bad]
            findings.append(
                Finding(kind, names, worst, limits[kind], evidence, advice, "09_activations")
            )
    return findings


def _span(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]} ({len(names)})"
