"""Failing models and their twins by cause, and whether they train: settled by training alone."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from benchmarks.diagnosis import of_the_data, of_the_loss, of_the_model, of_the_step
from benchmarks.diagnosis.everyday import EVERYDAY, Everyday
from benchmarks.diagnosis.toys import Case, Pair
from gradutils.diagnosis import Diagnosis, diagnose

GROUPS = [
    of_the_loss.nothing_returns, of_the_loss.disconnected, of_the_loss.undefined_derivative,
    of_the_loss.out_of_reach, of_the_loss.loss_and_activation, of_the_loss.broadcast,
    of_the_loss.wrong_sign, of_the_loss.penalty, of_the_loss.penalty_not_finite,
    of_the_loss.nonfinite_loss,
    of_the_loss.second_derivative, of_the_loss.rare_class,
    of_the_data.target_scale, of_the_data.input_scale, of_the_data.feature_scale,
    of_the_data.not_finite, of_the_data.indices, of_the_data.scaled_labels,
    of_the_data.bad_rows, of_the_data.masked,
    of_the_step.too_large, of_the_step.too_small, of_the_step.half_precision,
    of_the_step.overflow,
    of_the_model.equal_units, of_the_model.affine, of_the_model.statistics,
    of_the_model.inference, of_the_model.recurrent_activation, of_the_model.reach,
    of_the_model.vanishing, of_the_model.exploding, of_the_model.hidden_units,
]  # fmt: skip
SEEDS = 0, 1, 2
TRAINS, FAILS = 0.6, 0.35  # scores from which a model counts as trained, and up to which not
#: Models once held out, whose misses and alarms mended a check: they tell nothing new any more.
SEEN = {
    "comparison", "decayed", "inputs of 1e3", "likelihood minimised", "table, SGD",
    "turned labels", "CNN, pixels to 255, Adam",
}  # fmt: skip


def pairs() -> Iterator[tuple[Pair, bool]]:
    """Each pair, and whether it is held out: every second one of a cause is, unless seen since."""
    for group in GROUPS:
        for number, pair in enumerate(group()):
            yield pair, _held_out(number, pair.name)


def _held_out(number: int, name: str) -> bool:
    return number % 2 == 1 and name not in SEEN


def trainer(case: Case) -> Callable[[np.ndarray], None]:
    """A function that takes one training step a row of an array of indices, all in one graph."""
    x, y = keras.tree.map_structure(tf.constant, (case.x, case.y))
    first = keras.tree.map_structure(lambda a: a[:1], (case.x, case.y))
    case.model._symbolic_build(data_batch=first)

    @tf.function(input_signature=[tf.TensorSpec((None, case.batch), tf.int64)])
    def train(rows: tf.Tensor) -> None:
        for i in tf.range(tf.shape(rows)[0]):
            batch = rows[i]
            case.model.train_step(
                keras.tree.map_structure(lambda a, b=batch: tf.gather(a, b), (x, y))
            )

    return train


def batches(case: Case, steps: int, seed: int) -> np.ndarray:
    """Indices of shuffled rows, shape (steps, batch)."""
    n = len(keras.tree.flatten(case.x)[0])
    rng = np.random.default_rng(seed)
    epochs = 1 + steps * case.batch // n
    rows = np.concatenate([rng.permutation(n) for _ in range(epochs)])
    return rows[: steps * case.batch].reshape(steps, case.batch)


class Row(NamedTuple):
    """What training and `diagnose` say of one model."""

    cause: str
    name: str
    scores: list[float]  # one a seed
    found: list[Diagnosis | ValueError]  # at the start, after 5 steps, after training


def given(case: Case) -> tuple[Any, Any]:
    """The rows that `diagnose` receives: all, or one batch where a batch is one row."""
    if case.batch > 1:
        return case.x, case.y
    return keras.tree.map_structure(lambda a: a[:1], (case.x, case.y))


def look(case: Case) -> Diagnosis | ValueError:
    """The diagnosis; an error that names what is wrong with the arguments is an answer too."""
    try:
        return diagnose(case.model, *given(case))
    except ValueError as error:
        return error


def reached(model: Pair | Everyday, case: Case, seed: int, found: list | None = None) -> float:
    """The score after training, -1 if training stops with an error; diagnoses go to `found`."""
    rows = batches(case, model.steps, seed)
    try:
        train = trainer(case)
        for part in (rows[:5], rows[5:]):
            train(part)
            if found is not None:
                found.append(look(case))
        value = model.score(case.model, case.x, case.y)
    except (ValueError, tf.errors.OpError):
        return -1.0
    return float(value) if np.isfinite(value) else -1.0


def examine(model: Pair | Everyday, sick: bool, seeds: tuple[int, ...]) -> Row:
    """Train once a seed; diagnose the first model at the start, after 5 steps and at the end."""
    scores: list[float] = []
    found: list = []
    for seed in seeds:
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        case = model.build(sick)
        if not scores:
            found.append(look(case))
        scores.append(reached(model, case, seed, found if not scores else None))
    return Row(model.cause, model.name, scores, found)


def healthy(row: Row) -> bool:
    """Whether no look raised an alarm."""
    return all(isinstance(d, Diagnosis) and d.verdict == "healthy" for d in row.found)


#: Cause -> the checks of which one must speak, and words of which one must stand in what it says.
ACCEPTED = {
    "nothing returns": ({"G17"}, ()),
    "disconnected": ({"G16"}, ()),
    "undefined derivative": ({"G14"}, ("derivative",)),
    "out of reach": ({"G06"}, ()),
    "loss and activation": ({"G01", "G02", "G03", "G04"}, ()),
    "broadcast": ({"G08"}, ()),
    "wrong sign": ({"G09", "G32"}, ()),
    "penalty": ({"G31"}, ()),
    "penalty not finite": ({"G12"}, ()),
    "loss not finite": ({"G04", "G05", "G13", "G14"}, ("log", "loss is not finite")),
    "second derivative": ({"G18"}, ()),
    "rare class": ({"G37"}, ()),
    "target scale": ({"G30"}, ()),
    "input scale": ({"G27", "G28"}, ()),
    "feature scale": ({"G29"}, ()),
    "data not finite": (set(), ()),
    "index out of range": (set(), ()),
    "scaled labels": ({"G07"}, ()),
    "bad rows": ({"G13"}, ()),
    "masked NaN": ({"G13", "G14"}, ("mask", "pad")),
    "step too large": ({"G33", "G36"}, ()),
    "step too small": ({"G15", "G34"}, ()),
    "half precision": ({"G10"}, ()),
    "overflow": ({"G14"}, ()),
    "equal units": ({"G19"}, ()),
    "affine": ({"G38"}, ()),
    "variance of one": ({"G26"}, ()),
    "inference": ({"G35"}, ()),
    "recurrent activation": ({"G11"}, ()),
    "reach": ({"G24"}, ()),
    "vanishing": ({"G22"}, ()),
    "exploding": ({"G23", "G25"}, ()),
    "dead or saturated": ({"G20", "G21"}, ()),
}
REFUSED = {"data not finite", "index out of range"}  # `diagnose` answers with an error


def named(row: Row) -> bool:
    """Whether one of the looks names the cause."""
    if row.cause in REFUSED:
        return any(isinstance(d, ValueError) for d in row.found)
    ids, words = ACCEPTED[row.cause]
    findings = [f for d in row.found if isinstance(d, Diagnosis) for f in d.findings]
    said = [f"{f.evidence} {f.cause} {f.remedy}".lower() for f in findings if f.id in ids]
    return any(not words or any(word in text for word in words) for text in said)


def told(row: Row) -> str:
    """What `diagnose` said, look by look."""
    return " | ".join(d.verdict if isinstance(d, Diagnosis) else str(d)[:60] for d in row.found)


def run(quick: bool) -> None:
    """Examine failing models and their twins, and print the two halves' reports."""
    seeds = SEEDS[:1] if quick else SEEDS
    counts: dict[str, Counter] = {}
    unclear = 0
    for pair, held_out in tqdm(list(pairs())):
        sick, sound = (examine(pair, s, seeds) for s in (True, False))
        if max(sick.scores) > FAILS or min(sound.scores) < TRAINS:
            unclear += 1
            tqdm.write(f"unclear: {pair.cause}, {pair.name}: {sick.scores}, {sound.scores}")
            continue
        counted = counts.setdefault(pair.cause, Counter())
        half = "held out" if held_out else "tuning"
        counted[half] += 1
        counted[half, "named"] += named(sick)
        counted[half, "missed"] += healthy(sick)
        counted[half, "alarms"] += not healthy(sound)
        if not named(sick):
            tqdm.write(f"not named: {pair.cause}, {pair.name}: {told(sick)}")
        if not healthy(sound):
            tqdm.write(f"false alarm: {pair.cause}, {pair.name}: {told(sound)}")
    for half in ("tuning", "held out"):
        print(f"\nFailing models and their twins, {half}")
        heads = "pairs", "named", "called healthy", "alarms on twins"
        print(f"{'cause':24s}" + "".join(f"{head:>17s}" for head in heads))
        total: Counter = Counter()
        for cause, counted in counts.items():
            figures = [counted[half], *(counted[half, k] for k in ("named", "missed", "alarms"))]
            total.update(dict(enumerate(figures)))
            print(f"{cause:24s}" + "".join(f"{figure:17d}" for figure in figures))
        print(f"{'all':24s}" + "".join(f"{total[k]:17d}" for k in range(4)))
    print(f"\nnot counted, since training does not tell them apart: {unclear}")


def run_everyday(quick: bool) -> None:
    """Examine everyday models and print the false alarms; every second one is held out."""
    alarms: Counter = Counter()
    n: Counter = Counter()
    for number, model in enumerate(tqdm(EVERYDAY[::6] if quick else EVERYDAY)):
        half = "held out" if _held_out(number, model.name) else "tuning"
        row = examine(model, False, SEEDS[:1] if quick else SEEDS)
        if min(row.scores) < TRAINS:
            tqdm.write(f"not counted, since it does not train: {model.name}, {row.scores}")
            continue
        n[half] += 1
        alarms[half] += not healthy(row)
        if not healthy(row):
            tqdm.write(f"false alarm: {model.name}: {told(row)}")
    print("\nEveryday models that train")
    for half in n:
        print(
            f"{half}: {alarms[half]} false alarms on {n[half]} models, looked at three times each"
        )
