"""``python -m gradutils model.keras data.npz``: what ails a saved model, for people and for CI.

Exit status: 0 if nothing is found, 1 if there is a finding (with ``--fail-on``, one of those ids),
2 if the model or the data cannot be used.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence

import numpy as np


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m gradutils",
        description="Say what ails a saved Keras model, from one batch and a few trial steps.",
        epilog="Exit status: 0 if nothing is found, 1 if there is a finding (with --fail-on, one "
        "of those ids), 2 if the model or the data cannot be used. Notes never fail.",
    )
    parser.add_argument("model", help="a compiled model, saved as .keras")
    parser.add_argument(
        "data",
        help="an .npz file with arrays x and y; of a model with several inputs or outputs, x.NAME "
        "and y.NAME",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--fail-on",
        metavar="IDS",
        help="ids of the checks that are to fail, separated by commas, such as G14,G22; all by "
        "default",
    )
    parser.add_argument("--loss", help="a name that Keras knows; the compiled loss by default")
    parser.add_argument(
        "--look-ahead", type=int, default=10, metavar="STEPS", help="trial steps; 10 by default"
    )
    parser.add_argument("--no-remedies", action="store_true", help="try no remedies")
    return parser.parse_args(arguments)


def _part(data: dict[str, np.ndarray], name: str) -> np.ndarray | dict[str, np.ndarray] | None:
    """The array of that name, or a dict of the arrays NAME.part; None if there is neither."""
    if name in data:
        return data[name]
    parts = {key[len(name) + 1 :]: a for key, a in data.items() if key.startswith(f"{name}.")}
    return parts or None


def main(arguments: Sequence[str] | None = None) -> int:
    """Diagnose, print, and return the exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the command line by default.

    Returns
    -------
    int
        0, 1 or 2, as the module says.
    """
    given = _arguments(arguments)
    from gradutils._keras import keras  # --help needs no Keras
    from gradutils.diagnosis import CHECKS, diagnose

    known = {check.id for check in CHECKS}
    failing = set(given.fail_on.split(",")) if given.fail_on else known
    try:
        if failing - known:
            unknown = ", ".join(sorted(failing - known))
            raise ValueError(f"--fail-on must name checks, G01 to {max(known)}; received {unknown}")
        with np.load(given.data) as file:
            data = dict(file)
        x, y = _part(data, "x"), _part(data, "y")
        if x is None:
            raise ValueError(f"{given.data} must hold an array x; it holds {', '.join(data)}")
        with warnings.catch_warnings():
            # An optimiser that never took a step is saved without its state: nothing is lost.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model = keras.saving.load_model(given.model)
        found = diagnose(
            model, x, y, given.loss,
            look_ahead=given.look_ahead, try_remedies=not given.no_remedies,
        )  # fmt: skip
    except (OSError, TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(found.to_json() if given.json else found)
    return int(any(finding.id in failing for finding in found.findings))


if __name__ == "__main__":
    sys.exit(main())
