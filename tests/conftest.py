"""What all tests share."""

import os

import hypothesis
import matplotlib

matplotlib.use("agg")

# Machines are shared and slow: no deadline; and the same examples everywhere.
hypothesis.settings.register_profile(
    "book", deadline=None, derandomize=True, database=None, max_examples=30
)
hypothesis.settings.load_profile("book")

# `make test-backends` runs these, and only these, in an environment of its own.
backend = os.environ.get("KERAS_BACKEND", "tensorflow")
collect_ignore = ["backends"] if backend == "tensorflow" else []
