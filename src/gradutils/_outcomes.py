"""What became of a remedy that was tried, from the losses of its trial; no framework is needed."""

from dataclasses import dataclass

import numpy as np

from gradutils._records import Trial
from gradutils.checks import THRESHOLDS

LEAST_FALL = THRESHOLDS["no progress"].limit  # a model removes as much if it learns at all
FASTER = 2.0  # so many times faster than without the remedy the loss has to fall
LEAST_RISE = 1.5  # the factor between losses of inference and training that is no fault


@dataclass(frozen=True)
class Outcome:
    """What became of one remedy.

    Attributes
    ----------
    remedy : str
        Name of the row of `REMEDIES`.
    checks : list of str
        Ids of the checks for which it was tried.
    advice : str
        What to do, in one sentence.
    helped : bool
        Whether the loss falls, and clearly faster than without the remedy, or what was measured
        gets within its limit.
    text : str
        What changed, such as "with He weights: loss after 10 steps 1.9 instead of 2.30".
    trial : gradutils.trials.Trial
        The same training steps with the remedy.
    silenced : bool
        Whether it helped only in that the loss falls and the check finds nothing any more.
    """

    remedy: str
    checks: list[str]
    advice: str
    helped: bool
    text: str
    trial: Trial
    silenced: bool = False


def speed(trial: Trial) -> float:
    """How fast the loss falls, whatever its unit: in decades over all steps.

    Parameters
    ----------
    trial : gradutils.trials.Trial

    Returns
    -------
    float
        Negative if the loss grows; -inf if it leaves the finite numbers; inf if it ends at 0 or
        below.
    """
    removed = fall(trial)
    if not np.isfinite(trial.losses).all() or not np.isfinite(removed):
        return -np.inf
    return float(-np.log10(1 - removed)) if removed < 1 else np.inf


def fall(trial: Trial) -> float:
    """Share of the loss that the steps of a trial remove; negative if it grows.

    Parameters
    ----------
    trial : gradutils.trials.Trial

    Returns
    -------
    float
        ``(first - last) / abs(first)``; NaN if the loss or the weights become NaN.
    """
    if np.isnan(trial.update_ratios).any():
        return np.nan
    first, last = trial.losses[0], trial.losses[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(first - last, abs(first)))


def falls_faster(untreated: Trial, trial: Trial) -> bool:
    """Whether the loss falls by more than 1 %, and at least twice as fast as without the remedy.

    Parameters
    ----------
    untreated, trial : gradutils.trials.Trial

    Returns
    -------
    bool
        False if the loss with the remedy leaves the finite numbers.
    """
    before, now = fall(untreated), fall(trial)
    if not np.isfinite(trial.losses).all() or not now > LEAST_FALL:
        return False
    if not before > 0:  # NaN as well
        return True
    if max(before, now) < 1:
        before, now = -np.log10(1 - before), -np.log10(1 - now)  # in decades
    return now >= FASTER * before


def turns_round(untreated: Trial, trial: Trial) -> bool:
    """Whether a loss falls whose sign was changed, where before the steps made it grow.

    Parameters
    ----------
    untreated, trial : gradutils.trials.Trial

    Returns
    -------
    bool
    """
    return bool(fall(trial) > LEAST_FALL and fall(untreated) > 0)


def closes_gap(untreated: Trial, trial: Trial) -> bool:
    """Whether the loss in inference comes near that in training, or twice as near as without.

    Parameters
    ----------
    untreated, trial : gradutils.trials.Trial

    Returns
    -------
    bool
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        before = untreated.inference_losses[1] / untreated.losses[-1]
        now = trial.inference_losses[1] / trial.losses[-1]
    return bool(np.isfinite(now) and (now <= LEAST_RISE or now <= before / FASTER))
