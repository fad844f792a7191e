"""From one probe and a look ahead to a verdict: what ails a Keras model, and what mends it.

Measuring is the business of `gradutils.probes` and `gradutils.trials`, judging that of
`gradutils.checks`; here it is put into words, JSON and a picture. Needs the framework
that the model is made with, and no other.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import Any

import numpy as np

from gradutils import _checks
from gradutils._frameworks import compiled_alone, is_torch_module
from gradutils._outcomes import Outcome, speed
from gradutils._records import LayerRecord, Probe, Trial
from gradutils.checks import CHECKS, THRESHOLDS, Check, Evidence, Measured, Threshold, trunk

__all__ = ["CHECKS", "THRESHOLDS", "Diagnosis", "Finding", "Threshold", "diagnose"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth a note.

    Attributes
    ----------
    id : str
        That of the check in `gradutils.checks.CHECKS`, such as "G22"; it stays for ever.
    kind : str
        The check's kind, such as "vanishing".
    layers : list of str
        The layers that show it; empty if it is no matter of layers.
    value, threshold : float
        What was measured, and the limit that it passes, in the unit of `THRESHOLDS`.
    evidence, cause, remedy : str
        What was seen, what explains it, and what mends it.
    chapter : str
        Slug of the book's page about it.
    tried : list of str
        What became of the remedies that were tried on the model; empty if none was.
    also : list of str
        Slugs of further pages that treat it.
    """

    id: str
    kind: str
    layers: list[str]
    value: float
    threshold: float
    evidence: str
    cause: str
    remedy: str
    chapter: str
    tried: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)


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
    notes : list of Finding
        What is worth knowing and no fault; it leaves the verdict alone.
    trial : gradutils.trials.Trial or None
        The look ahead; None if there was none.
    unseen : list of str
        What could not be measured, in sentences.
    """

    verdict: str
    findings: list[Finding]
    layers: list[LayerRecord]
    loss: float
    notes: list[Finding] = field(default_factory=list)
    trial: Trial | None = None
    unseen: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"verdict: {self.verdict} (loss {self.loss:.3g}, {len(self.layers)} layers)"]
        for found in self.findings:
            lines += [f"- {found.kind} ({found.id}): {found.evidence}", f"  cause: {found.cause}"]
            lines += [f"  remedy{'' if found.tried else ' (untried)'}: {found.remedy}"]
            lines += [f"  tried: {line}" for line in found.tried]
            lines += [f"  layers: {_span(found.layers)}", f"  read: {_pages(found)}"]
        for note in self.notes:
            lines += [f"- note, {note.kind} ({note.id}): {note.evidence}"]
            lines += [f"  {note.remedy}", f"  read: {note.chapter}"]
        lines += [f"- not seen: {sentence}" for sentence in self.unseen]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        items = "".join(
            f"<dt><strong>{escape(found.kind)}</strong> ({found.id}): {escape(found.evidence)}</dt>"
            f"<dd>{escape(found.cause)} <em>Remedy{'' if found.tried else ' (untried)'}:</em> "
            f"{escape(found.remedy)} "
            + "".join(f"<em>Tried:</em> {escape(line)} " for line in found.tried)
            + f"<em>Layers:</em> {escape(_span(found.layers))}. "
            f"<em>Read:</em> {escape(_pages(found))}</dd>"
            for found in self.findings
        )
        items += "".join(
            f"<dt>Note, {escape(note.kind)} ({note.id}): {escape(note.evidence)}</dt>"
            f"<dd>{escape(note.remedy)} <em>Read:</em> {escape(note.chapter)}</dd>"
            for note in self.notes
        )
        items += "".join(f"<dt>Not seen: {escape(sentence)}</dt>" for sentence in self.unseen)
        return (
            f"<p>Verdict: <strong>{escape(self.verdict)}</strong> "
            f"(loss {self.loss:.3g}, {len(self.layers)} layers)</p><dl>{items}</dl>"
            f"{_profile(self.layers)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything that was found, in plain types; numbers that are not finite become strings.

        Returns
        -------
        dict

        Examples
        --------
        >>> Diagnosis("healthy", [], [], float("nan")).to_dict()["loss"]
        'nan'
        """
        trial = None if self.trial is None else {"losses": self.trial.losses}
        return _plain(
            {
                "verdict": self.verdict,
                "loss": self.loss,
                "findings": [asdict(found) for found in self.findings],
                "notes": [asdict(note) for note in self.notes],
                "unseen": self.unseen,
                "layers": [asdict(layer) for layer in self.layers],
                "look_ahead": trial,
            }
        )

    def to_json(self) -> str:
        """`to_dict` as JSON.

        Returns
        -------
        str
        """
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def plot(self, ax: Any = None) -> Any:
        """Draw every weighted layer's backward signal and weight gradient.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        matplotlib Axes
        """
        from gradutils import plots  # Matplotlib is loaded where something is drawn.

        layers = trunk(self.layers)
        return plots.layer_profile(
            {
                "backward signal": [layer.backward for layer in layers],
                "weight gradient": [layer.gradient_norm for layer in layers],
            },
            ylabel="norm",
            xlabel="weighted layer",
            ax=ax,
        )


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else str(float(value))
    return value


def diagnose(
    model: Any,
    x: Any,
    y: Any = None,
    loss: Callable | str | None = None,
    *,
    optimizer: Any = None,
    thresholds: Mapping[str, float] | None = None,
    look_ahead: int = 10,
    try_remedies: bool = True,
) -> Diagnosis:
    """Probe a model with one batch, look a few steps ahead, and say what ails it.

    What is looked for stands in `gradutils.checks.CHECKS`. Where two causes explain what is seen,
    both are findings; where none is sure, nothing is said.

    Parameters
    ----------
    model, x, y, loss, optimizer
        As in `gradutils.probes.probe`; the model is left as it was.
    thresholds : mapping of str to float, optional
        Limits that replace those of `THRESHOLDS`.
    look_ahead : int
        Training steps on the batch that are tried and taken back; 0 for none. A model without an
        optimiser takes none.
    try_remedies : bool
        Whether the remedies that can be tried are tried in the same way, and those that do not
        help are left out.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        As `probe`; and if a threshold's name is unknown, its limit no finite number, or
        `look_ahead` no whole number of 0 or more. NaN in the weights is a finding.

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
    limits = _limits(thresholds)
    if look_ahead != 0:
        _checks.positive_integers(look_ahead=look_ahead)
    kind, options = _kind(model, optimizer)
    # One batch for all, since a shuffled dataset yields another one each time.
    batch = kind.one_batch(model, x, y)
    m = kind.measured(model, batch, loss, limits=limits, steps=look_ahead, **options)
    findings, notes = _judge(m)
    if findings and try_remedies and look_ahead:

        def judge(treated: Probe, trial: Trial) -> list[str]:
            return [found.id for found in _judge(replace(m, seen=treated, trial=trial))[0]]

        ids = [found.id for found in findings]
        known = {"steps": look_ahead, "judge": judge} | options
        outcomes = kind.outcomes(ids, model, batch, loss, m, **known)
        findings = [_advised(found, outcomes) for found in findings]
    verdict = findings[0].kind if findings else "healthy"
    findings, notes = ([_in_words(found, kind.WORDS) for found in all] for all in (findings, notes))
    return Diagnosis(verdict, findings, m.seen.layers, m.seen.loss, notes, m.trial, m.seen.unseen)


def _kind(model: Any, optimizer: Any) -> tuple[Any, dict[str, Any]]:
    """The module that measures models of this kind, and what its functions take beside a model."""
    if is_torch_module(model):
        from gradutils._torch import diagnosis as of_torch  # This loads torch.

        return of_torch, {"optimizer": optimizer}
    compiled_alone(optimizer)
    from gradutils import _keras_diagnosis  # This loads Keras.

    return _keras_diagnosis, {}


def _in_words(found: Finding, words: Mapping[str, str]) -> Finding:
    """The finding in the words of the model's framework."""

    def said(text: str) -> str:
        for theirs, ours in words.items():
            text = text.replace(theirs, ours)
        return text

    return replace(
        found,
        evidence=said(found.evidence),
        cause=said(found.cause),
        remedy=said(found.remedy),
        tried=[said(text) for text in found.tried],
    )


def _advised(found: Finding, outcomes: list[Outcome]) -> Finding:
    """The finding with what became of its remedies; only what helped is still advised, best first.

    Where nothing helped, a remedy that fits this evidence alone stays: it is none of those tried.
    """
    mine = [outcome for outcome in outcomes if found.id in outcome.checks]
    if not mine:
        return found
    helped = sorted((o for o in mine if o.helped), key=lambda o: -speed(o.trial))
    remedy = " Or: ".join(outcome.advice for outcome in helped)
    if not helped:
        usual = {check.remedy for check in CHECKS}
        remedy = "None of the remedies that were tried helped."
        remedy += "" if found.remedy in usual else f" Untried: {found.remedy}"
    return replace(found, remedy=remedy, tried=[outcome.text for outcome in helped or mine])


def _limits(thresholds: Mapping[str, float] | None) -> dict[str, float]:
    """The table's limits with the caller's in their place."""
    given = dict(thresholds or {})
    unknown = set(given) - set(THRESHOLDS)
    if unknown:
        raise ValueError(
            f"thresholds must be named among {', '.join(THRESHOLDS)}; received {sorted(unknown)}"
        )
    _checks.finite(**{f"thresholds[{name!r}]": v for name, v in given.items()})
    limits = {name: threshold.limit for name, threshold in THRESHOLDS.items()} | given
    # Of two limits that the caller gives, the one for adaptive optimisers is the more specific.
    if "vanishing" in given and "vanishing, adaptive" not in given:
        limits["vanishing, adaptive"] = limits["vanishing"]
        limits["vanishing, no progress"] = limits["vanishing"]
        limits["vanishing, constant output"] = limits["vanishing"]
    return limits


def _judge(m: Measured) -> tuple[list[Finding], list[Finding]]:
    """Go down the table: the findings and the notes."""
    findings: list[Finding] = []
    notes: list[Finding] = []
    for check in CHECKS:
        with np.errstate(all="ignore"):
            evidence = check.test(m)
        if evidence is None:
            continue
        (notes if check.note else findings).append(_worded(check, evidence, m))
        if check.final:
            break
    return findings, notes


def _worded(check: Check, evidence: Evidence, m: Measured) -> Finding:
    limit = evidence.limit if evidence.limit is not None else m.limits.get(check.limit, 0.0)
    return Finding(
        id=check.id,
        kind=check.kind,
        layers=list(evidence.layers),
        value=float(evidence.value),
        threshold=float(limit),
        evidence=evidence.text,
        cause=check.cause,
        remedy=evidence.remedy or check.remedy,
        chapter=evidence.chapter or check.chapter,
        also=[page for page in check.also if page != "transformers" or m.attends],
    )


def _pages(found: Finding) -> str:
    return ", ".join([found.chapter, *found.also])


def _span(names: list[str]) -> str:
    if not names:
        return "all"
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]} ({len(names)})"


def _profile(layers: list[LayerRecord]) -> str:
    """A small drawing, in SVG, of the backward signal and the weight gradient by layer."""
    curves = {
        "backward signal": [layer.backward for layer in trunk(layers)],
        "weight gradient": [layer.gradient_norm for layer in trunk(layers)],
    }
    norms = np.array(list(curves.values()))
    shown = np.isfinite(norms) & (norms > 0)
    if norms.shape[1] < 2 or not shown.any():
        return ""
    decades = np.log10(np.where(shown, norms, np.nan))
    low, high = np.floor(np.nanmin(decades)), np.ceil(np.nanmax(decades)) + 1e-9
    width, height = 320, 120
    lines = []
    for (name, dash), row in zip(zip(curves, ("", "4 3"), strict=True), decades, strict=True):
        x = np.linspace(4, width - 4, len(row))
        y = 4 + (high - row) / (high - low) * (height - 8)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b))
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="currentColor" '
            f'stroke-dasharray="{dash}"><title>{name}</title></polyline>'
        )
    label = f"Backward signal and weight gradient over {norms.shape[1]} weighted layers"
    return (
        f'<figure><svg role="img" aria-label="{label}" width="{width}" height="{height}">'
        f"{''.join(lines)}</svg><figcaption>Backward signal (line) and weight gradient (dashes) by "
        f"weighted layer, from 1e{low:.0f} to 1e{high:.0f}</figcaption></figure>"
    )
