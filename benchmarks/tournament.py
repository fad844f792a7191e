"""The tournament of chapter 18 at a larger size: every fix and more pairs on every patient.

    python -m benchmarks.tournament              160 steps, six or seven rates: a quarter of an hour
    python -m benchmarks.tournament --quick      64 steps, three rates: some minutes
    python -m benchmarks.tournament --board      the chapter's budget and rates, eight draws
    python -m benchmarks.tournament --only relu  arms whose patient's name contains "relu"

The code is the chapter's own; only its constants differ. Every arm has the same data, the same
budget, a search of the same size for its learning rate, and as many draws. Printed are the median
score of the draws, the lowest and the highest, and how many draws fail and how many learn. The
score is the share of the test digits named right (chance 0.10); on the adding problem the share of
the variance explained. Arms with a wide range amplify rounding: their scores move by some
hundredths from one processor to another.
"""

import argparse
import platform
import time

import numpy as np
from tqdm import tqdm

from tools.chapters import definitions

MORE_PAIRS = [
    "SELU + weights",
    "clipping + Adam",
    "batch norm + skip, scaled",
    "layer norm + Adam",
    "gates + clipping",
]
#: What replaces the chapter's constants.
QUICK = {
    "SEEDS": [0, 1, 2],
    "BUDGET": {"samples": 512, "epochs": 4, "batch_size": 32},
    "RATES": {"sgd": (0.003, 0.03, 0.3), "adam": (0.0003, 0.003, 0.03)},
}
FULL = {
    "SEEDS": [0, 1, 2],
    "BUDGET": {"samples": 1280, "epochs": 4, "batch_size": 32},
    "RATES": {
        "sgd": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
        "adam": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03),
    },
}
BOARD = {"SEEDS": list(range(8))}


def main(arguments=None):
    """Print a line for every arm."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tournament")
    parser.add_argument("--quick", action="store_true", help="a smaller budget")
    parser.add_argument("--board", action="store_true", help="the chapter's budget, eight draws")
    parser.add_argument("--only", default="", help="patients whose name contains this")
    options = parser.parse_args(arguments)
    chapter = definitions("18_choosing_a_fix")
    vars(chapter).update(BOARD if options.board else QUICK if options.quick else FULL)
    fixes = chapter.FIXES | {pair: chapter.merged(pair) for pair in chapter.PAIRS + MORE_PAIRS}
    print(f"{platform.machine()}, {platform.system()}, NumPy {np.__version__}")
    print(f"{'patient':16s} {'fix':26s} {'median':>6s}   range")
    start, done = time.perf_counter(), {}
    arms = [(name, row) for name in chapter.OWN if options.only in name for row in fixes]
    for name, row in tqdm(arms, leave=False):
        before = len(done)
        with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges is a result
            scores = chapter.compete(name, fixes[row], done)
        if len(done) > before:  # neither struck out nor the same as an arm before
            low, high = scores.min(), scores.max()
            levels = chapter.verdicts(scores)
            tqdm.write(
                f"{name:16s} {row:26s} {np.median(scores):6.2f}   {low:.2f} to {high:.2f}"
                f"   {np.sum(levels == 0)} fail, {np.sum(levels == 2)} learn"
            )
    print(f"{len(done)} arms, {(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
