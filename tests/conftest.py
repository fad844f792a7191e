"""What all tests share."""

import hypothesis
import matplotlib

matplotlib.use("agg")

# Machines are shared and slow: no deadline; and the same examples everywhere.
hypothesis.settings.register_profile(
    "book", deadline=None, derandomize=True, database=None, max_examples=30
)
hypothesis.settings.load_profile("book")
