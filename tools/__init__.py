"""Commands of contributors, each run as `python -m tools.NAME`. Importing one changes nothing."""

from pathlib import Path

#: The folder of the repository.
ROOT = Path(__file__).resolve().parent.parent
