"""Lighthouse's marks for pages of the built book, on its model of a phone.

    python -m benchmarks.lighthouse [page ...]

after `make book`; needs Node, whose npx fetches Lighthouse. Pages are served compressed, as web
hosts do. Five runs for each page; the table shows the median of each mark and of the layout shift.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.browser import FLAGS, executable, serving

LIGHTHOUSE = "lighthouse@12"
PAGES = [
    "book/index.html",
    "book/playground.html",
    "notebooks/02_concepts.html",
    "notebooks/05_signal_propagation.html",
]
CATEGORIES = ["performance", "accessibility", "best-practices", "seo"]
RUNS = 5


def marks(url, report):
    """Return the marks of one run, of 100, and the layout shift."""
    flags = " ".join(["--headless=new", *FLAGS])
    subprocess.run(
        ["npx", "--yes", LIGHTHOUSE, url, "--output=json", f"--output-path={report}", "--quiet",
         f"--chrome-flags={flags}", f"--only-categories={','.join(CATEGORIES)}"],
        env={**os.environ, "CHROME_PATH": executable()}, check=True, cwd=report.parent,
    )  # fmt: skip
    found = json.loads(report.read_text("utf-8"))
    shift = found["audits"]["cumulative-layout-shift"]["numericValue"]
    failed = [
        audit["id"]
        for category in CATEGORIES
        for audit in found["categories"][category]["auditRefs"]
        if audit["weight"] and (found["audits"][audit["id"]]["score"] or 0) < 0.9
        and found["audits"][audit["id"]]["scoreDisplayMode"] not in ("notApplicable", "manual")
    ]  # fmt: skip
    return [100 * found["categories"][name]["score"] for name in CATEGORIES] + [shift], failed


def main(pages):
    """Print the table."""
    print(f"{'page':<40}" + "".join(f"{name:>16}" for name in [*CATEGORIES, "layout shift"]))
    with tempfile.TemporaryDirectory() as folder, serving() as book:
        for page in pages:
            url = f"{book}/{page}"
            runs, failed = zip(
                *[marks(url, Path(folder) / "report.json") for _ in range(RUNS)], strict=True
            )
            *found, shift = [statistics.median(column) for column in zip(*runs, strict=True)]
            print(f"{page:<40}" + "".join(f"{mark:16.0f}" for mark in found) + f"{shift:16.3f}")
            for audit in sorted({audit for names in failed for audit in names}):
                print(f"    below 0.9 in some run: {audit}")


if __name__ == "__main__":
    main(sys.argv[1:] or PAGES)
