"""How often is `diagnose` right? On models whose true state is settled without it.

    python -m benchmarks.diagnosis                    all, about an hour on two cores
    python -m benchmarks.diagnosis --quick            one model of each family, one seed
    python -m benchmarks.diagnosis --part kinds       failing models and their sound twins
    python -m benchmarks.diagnosis --part everyday    everyday models that train
    python -m benchmarks.diagnosis --part signals     vanishing, exploding, dead and sound nets

Limits were chosen on the tuning halves; what is reported is the halves set aside.
"""

import argparse
import os
import platform

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from benchmarks.diagnosis import kinds, signals

PARTS = {"signals": signals.run, "kinds": kinds.run, "everyday": kinds.run_everyday}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one model of each family, one seed")
    parser.add_argument("--part", choices=PARTS, help="one part only")
    given = parser.parse_args()
    print(f"{platform.machine()}, {platform.system()}, Keras {keras.__version__}")
    for name, run in PARTS.items():
        if given.part in (None, name):
            run(given.quick)


if __name__ == "__main__":
    main()
