"""Which remedies are tried, alone and together, and which of them helps; no framework is needed.

What a remedy does to a model, and what training it takes, each framework supplies: see `Practice`.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from gradutils._outcomes import (
    FASTER,
    LEAST_FALL,
    Outcome,
    closes_gap,
    fall,
    falls_faster,
    speed,
    turns_round,
)
from gradutils._records import Probe, Trial
from gradutils.checks import THRESHOLDS, over_layers

SLOW = 0.05  # share of the loss up to which a treated model may need another rate as well
MOST_TOGETHER = 3  # remedies in one course
MOST_LONGER = 8  # courses of several remedies that are tried in all
DRAWN, RATE = "drawn weights", "another learning rate"


class Remedy(NamedTuple):
    """One row: its name as in "with ...", the checks that call for it, its advice, its measure."""

    name: str
    checks: tuple[str, ...]
    advice: str
    helped: Callable[[Trial, Trial], bool]


class Treated(NamedTuple):
    """What a remedy changed beside the weights; what is None stays as it was.

    optimizer changes the optimiser, as the framework has it, and rate is set as its learning rate.
    scale says whether the loss has another unit than before. name and advice replace those of the
    row.
    """

    model: Any = None
    batch: Any = None
    loss: Any = None
    optimizer: Callable | None = None
    rate: float | None = None
    retrace: bool = False
    scale: bool = False
    name: str = ""
    advice: str = ""


class Practice(NamedTuple):
    """What a framework supplies for its models.

    A patient is a named tuple with model, batch, loss, seen, which is a Probe, and undo, an
    `ExitStack` on which a treatment puts what takes it back.

    Attributes
    ----------
    treatments : mapping of str to callable
        Name of a remedy -> patient -> one `Treated` for each form of the remedy; none where it does
        not fit the model. A remedy without a treatment is not tried.
    sandbox : callable
        patient -> context manager that puts the model back at its end, and whenever the function
        that it yields is called.
    probe : callable
        patient -> Probe
    trainer : callable
        (patient, all that was `Treated`) -> a function (batch, steps, rate or None) -> Trial
    unfit : tuple of exceptions
        What a model raises that cannot take a remedy.
    """

    treatments: Mapping[str, Callable[[Any], Iterable[Treated]]]
    sandbox: Callable[[Any], AbstractContextManager[Callable[[], None]]]
    probe: Callable[[Any], Probe]
    trainer: Callable[[Any, list[Treated]], Callable[[Any, int, float | None], Trial]]
    unfit: tuple[type[Exception], ...]


class Course(NamedTuple):
    """Remedies that were taken together, what became of them, and what is still found."""

    rows: tuple[Remedy, ...]
    outcome: Outcome
    seen: Probe | None
    left: tuple[str, ...]


@dataclass(frozen=True)
class Clinic:
    """All that a course of remedies needs to be tried; `restore` puts the patient's model back."""

    practice: Practice
    patient: Any
    untreated: Trial
    restore: Callable[[], None]
    steps: int
    wanted: list[str]
    judge: Callable[[Probe, Trial], Iterable[str]] | None

    def outcomes(self) -> list[Outcome]:
        """What became of every remedy that a check calls for, in the order of `REMEDIES`.

        Where something else is found in the treated model, or its loss hardly falls, what that
        calls for is tried on top.
        """
        rows = self.called_for(self.wanted, self.patient.seen)
        courses = [self.best_form((row,)) for row in rows]
        longer = _longer(self, [course for course in courses if course is not None])
        return _without_the_lesser([course.outcome for course in longer])

    def called_for(self, checks: Iterable[str], seen: Probe) -> list[Remedy]:
        """The remedies for these checks that can be tried, in the order of the table."""
        wanted = set(checks)
        if any(layer.nonfinite_outputs for layer in seen.layers):
            wanted |= {f"{check} outputs" for check in wanted}
        known = self.practice.treatments
        return [row for row in REMEDIES if set(row.checks) & wanted and row.name in known]

    def best_form(self, rows: tuple[Remedy, ...]) -> Course | None:
        """Try these remedies together, the last one in all its forms, and return the best."""
        forms: list[tuple[float, Course]] = []
        self.restore()
        # A remedy that the model cannot take, such as a copy of a layer without a configuration,
        # is left out.
        with suppress(*self.practice.unfit), ExitStack() as undo:
            patient, taken = self.patient._replace(undo=undo), []
            for row in rows[:-1]:
                taken.append(next(iter(self.practice.treatments[row.name](patient))))
                patient = _treated(patient, taken[-1])
            again = undo.enter_context(self.practice.sandbox(patient))
            run = None
            for treated in self.practice.treatments[rows[-1].name](patient):
                whole = _treated(patient, treated)
                if treated.rate is None or run is None:
                    run = self.practice.trainer(whole, [*taken, treated])
                course = self._take(rows, [*taken, treated], whole, run)
                forms.append((treated.rate or 0.0, course))
                again()
        if not forms:
            return None
        best = max(_worth(course) for _, course in forms)
        # Of rates that do nearly as well, the lowest leaves room for the steps to come.
        good = [
            (rate, course)
            for rate, course in forms
            if _worth(course)[:-1] == best[:-1]
            and _worth(course)[-1] >= min(best[-1], best[-1] / FASTER)
        ]
        return min(good or forms, key=lambda form: form[0])[1]

    def _take(
        self, rows: tuple[Remedy, ...], taken: list[Treated], patient: Any, run: Callable
    ) -> Course:
        look = self.judge or any(row.name == DRAWN for row in rows)
        before = self.practice.probe(patient) if look else None
        trial = run(patient.batch, self.steps, taken[-1].rate)
        found = [check for check in self.wanted if any(_for(check, row) for row in rows)]
        helped, silent = rows[0].helped(self.untreated, trial), False
        left = tuple(self.judge(before, trial)) if self.judge and before else ()
        if self.judge and not helped and fall(trial) > LEAST_FALL:
            helped = silent = not set(found) & set(left)
        text = _text(rows, taken, self.untreated, trial, self.patient.seen, before)
        outcome = Outcome(
            remedy=" and ".join(_names(rows, taken)),
            checks=found,
            advice=" ".join(t.advice or row.advice for t, row in zip(taken, rows, strict=True)),
            helped=bool(helped),
            text=text + ("; nothing is found any more" if silent else ""),
            trial=trial,
            silenced=bool(silent),
        )
        return Course(rows, outcome, before, left)


def _names(rows: tuple[Remedy, ...], taken: list[Treated]) -> list[str]:
    return [t.name or row.name for t, row in zip(taken, rows, strict=True)]


def _for(check: str, row: Remedy) -> bool:
    return check in row.checks or f"{check} outputs" in row.checks


def _without_the_lesser(outcomes: list[Outcome]) -> list[Outcome]:
    """What only silences a check, or ends in a constant, is no advice beside what does more."""

    def drop(outcomes: list[Outcome], lesser: Callable[[Outcome], bool]) -> list[Outcome]:
        better = {check for o in outcomes if o.helped and not lesser(o) for check in o.checks}
        return [
            replace(o, helped=False) if lesser(o) and set(o.checks) <= better else o
            for o in outcomes
        ]

    return drop(drop(outcomes, lambda o: o.silenced), lambda o: not _alive(o.trial))


def _longer(clinic: Clinic, courses: list[Course]) -> list[Course]:
    """Add to what does best for a check what else the treated model calls for.

    That is what is still found, what wakes dead units where the outputs are a constant, and another
    rate where the loss hardly falls. A longer course stands in for the shorter one if its loss
    falls at least twice as fast, or its outputs are no constant any more.
    """
    if clinic.judge is None:
        return courses
    tried = 0
    for check in clinic.wanted:
        mine = [i for i, course in enumerate(courses) if check in course.outcome.checks]
        if not mine:
            continue
        place = max(mine, key=lambda i: _worth(courses[i]))
        course: Course | None = courses[place]
        while course is not None and len(course.rows) < MOST_TOGETHER:
            best = None
            for row in _on_top(clinic, course):
                if tried == MOST_LONGER or (row.name == RATE and best is not None):
                    break
                tried += 1
                longer = clinic.best_form((*course.rows, row))
                if longer is not None and _improves(course, longer):
                    best = longer if best is None or _worth(longer) > _worth(best) else best
            if best is not None and best.outcome.helped:
                courses[place] = best
            course = best
    return courses


def _on_top(clinic: Clinic, course: Course) -> list[Remedy]:
    """The remedies that a treated model calls for, other than those that it has had.

    Another rate comes last, and only where the loss hardly falls.
    """
    if course.rows[-1].name == RATE:
        return []
    left = set(course.left) if _alive(course.outcome.trial) else {*course.left, "G20"}
    rows = clinic.called_for(left, course.seen) if course.seen else []
    rows = [row for row in rows if row.name != RATE and row not in course.rows]
    slow = fall(course.outcome.trial) < SLOW
    known = clinic.practice.treatments
    return rows + [row for row in REMEDIES if slow and row.name == RATE and RATE in known]


def _treated(patient: Any, treated: Treated) -> Any:
    """The patient with what a remedy changed beside the weights."""
    given = {name: getattr(treated, name) for name in ("model", "batch", "loss")}
    return patient._replace(**{name: value for name, value in given.items() if value is not None})


def _alive(trial: Trial) -> bool:
    """Whether the outputs differ from sample to sample in the end."""
    least = THRESHOLDS["constant output"].limit
    return bool(trial.output_spreads[1] >= least * trial.output_sizes[1])


def _improves(course: Course, longer: Course) -> bool:
    before, after = course.outcome.trial, longer.outcome.trial
    falls = fall(after) > 0
    if falls and (len(longer.left) < len(course.left) or _alive(after) > _alive(before)):
        return True
    return falls_faster(before, after)


def _worth(course: Course) -> tuple[bool, bool, bool, float]:
    """Does it help, do the outputs differ, does the loss never rise above its start; the speed."""
    trial = course.outcome.trial
    steady = bool(trial.losses.max() <= trial.losses[0])
    return course.outcome.helped, _alive(trial), steady, speed(trial)


def _text(
    rows: tuple[Remedy, ...],
    taken: list[Treated],
    untreated: Trial,
    trial: Trial,
    seen: Probe,
    after: Probe | None,
) -> str:
    parts = []
    if after is not None:
        # Adding 0 makes a rounded -0.0 a 0.0.
        decades = [round(over_layers(probe), 1) + 0.0 for probe in (after, seen)]
        if abs(decades[1]) >= 1 and abs(decades[0] - decades[1]) >= 0.1:
            parts.append(
                f"the signal changes by {decades[0]:.1f} decades instead of {decades[1]:.1f}"
            )
    steps = len(trial.losses) - 1
    if rows[0].helped is closes_gap:
        now, before = (f"{t.inference_losses[1]:.3g}" for t in (trial, untreated))
        parts.append(f"loss in inference after {steps} steps {now} instead of {before}")
    elif any(treated.scale for treated in taken):
        parts.append(
            f"in {steps} steps the loss {_change(trial)}; without, it {_change(untreated)}"
        )
    else:
        now, before = (f"{t.losses[-1]:.3g}" for t in (trial, untreated))
        parts.append(f"loss after {steps} steps {now} instead of {before}")
    return f"with {' and '.join(_names(rows, taken))}: {'; '.join(parts)}"


def _change(trial: Trial) -> str:
    removed = fall(trial)
    if not np.isfinite(removed):
        return "ends in NaN or inf"
    if removed < -1:
        return f"grows {trial.losses[-1] / abs(trial.losses[0]):.1e} times"
    return f"{'falls' if removed >= 0 else 'grows'} by {abs(removed):.0%}"


#: The remedies that can be tried, in the order in which they are; `checks` names rows of
#: `gradutils.checks.CHECKS`, "G14 outputs" G14 only where the outputs of a layer are not finite.
REMEDIES = (
    Remedy("a sigmoid output", ("G01", "G02", "G04"), "Use a sigmoid output.", falls_faster),
    Remedy("a softmax output", ("G02",), "Use a softmax output.", falls_faster),
    Remedy("a linear output", ("G03", "G06", "G17"), "Use a linear output.", falls_faster),
    Remedy("the other from_logits", ("G02", "G03", "G17"), "Change from_logits of the loss.",
           falls_faster),
    Remedy("the loss's arguments exchanged", ("G05",), "Define the loss as loss(y_true, y_pred).",
           falls_faster),
    Remedy("targets in the shape of the outputs", ("G08",),
           "Give the targets the shape of the outputs, as by y[:, None].", falls_faster),
    Remedy("the other sign of the loss", ("G09",), "Change the sign of the loss.", turns_round),
    Remedy("all layers trainable", ("G15",),
           "Set trainable = True on the layers that are to learn, then compile again.",
           falls_faster),
    Remedy("no regulariser", ("G12", "G31"),
           "Leave the regulariser out, or lower its factor, to 1e-4 for a start.", falls_faster),
    Remedy("class weights", ("G37",),
           "Weigh the classes, by class_weight or a sample_weight of 1 / (classes * share), and "
           "judge by a metric of the rare class.", falls_faster),
    Remedy("drawn weights", ("G14 outputs", "G19", "G20", "G21", "G22", "G23", "G25", "G36"),
           "Draw the weights at random, for the activation: He for ReLU, Glorot for tanh, "
           "orthogonal for recurrent matrices; zeros suit biases only.", falls_faster),
    Remedy("ReLU and He weights", ("G21", "G22"),
           "Replace sigmoid and tanh by ReLU in the hidden layers, with He weights.", falls_faster),
    Remedy("layer normalisation", ("G21", "G22", "G23"),
           "Put layer normalisation before each hidden activation.", falls_faster),
    Remedy("leaky ReLU", ("G20",), "Use leaky ReLU in the hidden layers.", falls_faster),
    Remedy("ReLU between the layers", ("G38",), "Put ReLU between the layers.", falls_faster),
    Remedy("tanh in the hidden layers", ("G18",),
           "Use a smooth activation, such as tanh, in the hidden layers.", falls_faster),
    Remedy("tanh in the recurrent layer", ("G11",),
           "Use tanh, the default activation, in the recurrent layer.", falls_faster),
    Remedy("scaled inputs", ("G14 outputs", "G17", "G20", "G21", "G27", "G28", "G29", "G33"),
           "Scale the inputs to mean 0 and variance 1: a Normalization layer adapts to them.",
           falls_faster),
    Remedy("scaled targets", ("G06", "G14 outputs", "G30", "G33"),
           "Scale the targets to mean 0 and variance 1, and the predictions back.", falls_faster),
    Remedy("another learning rate", ("G14 outputs", "G20", "G32", "G33", "G34", "G36"),
           "Change the learning rate.", falls_faster),
    Remedy("a forget bias of ln(steps)", ("G24", "G39"), "Raise the forget bias to ln(steps).",
           falls_faster),
    Remedy("clipping by global norm", ("G14 outputs", "G23", "G25", "G33"),
           "Clip by global norm: global_clipnorm=1.0.", falls_faster),
    Remedy("float32", ("G10", "G14"), "Compute in float32.", falls_faster),
    Remedy("an epsilon of 1e-3", ("G10",), "Set the optimiser's epsilon to 1e-3.", falls_faster),
    Remedy("a loss scale", ("G10", "G14", "G22"),
           "Scale the loss: keras.optimizers.LossScaleOptimizer.", falls_faster),
    Remedy("the bad rows dropped", ("G13",), "Drop these rows.", falls_faster),
    Remedy("a momentum of 0.5 in batch normalisation", ("G35",),
           "Lower the momentum of the batch normalisation, to 0.9, or 0.5 for few steps.",
           closes_gap),
)  # fmt: skip
