"""Lighthouse's marks for pages of the built book, on its model of a phone.

    python -m benchmarks.lighthouse [page ...]

after `make book`; needs Node, whose npx fetches Lighthouse. Pages are served compressed, as web
hosts do. Five runs for each page; the table shows the median of each mark and of the layout shift.
"""

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

from tools import ROOT
from tools.browser import FLAGS, executable

LIGHTHOUSE = "lighthouse@12"
PAGES = [
    "book/index.html",
    "book/playground.html",
    "notebooks/02_concepts.html",
    "notebooks/05_signal_propagation.html",
]
CATEGORIES = ["performance", "accessibility", "best-practices", "seo"]
RUNS = 5


class Compressed(SimpleHTTPRequestHandler):
    """Serves text compressed."""

    def send_head(self):
        """Answer with a compressed body, where the file is text."""
        path = Path(self.translate_path(self.path))
        if not path.is_file() or path.suffix not in (".html", ".css", ".js", ".svg"):
            return super().send_head()
        body = gzip.compress(path.read_bytes())
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return BytesIO(body)

    def log_message(self, *_):
        """Say nothing."""


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
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Compressed, directory=ROOT / "_build" / "html")
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"{'page':<40}" + "".join(f"{name:>16}" for name in [*CATEGORIES, "layout shift"]))
    with tempfile.TemporaryDirectory() as folder:
        for page in pages:
            url = f"http://127.0.0.1:{server.server_port}/{page}"
            runs, failed = zip(
                *[marks(url, Path(folder) / "report.json") for _ in range(RUNS)], strict=True
            )
            *found, shift = [statistics.median(column) for column in zip(*runs, strict=True)]
            print(f"{page:<40}" + "".join(f"{mark:16.0f}" for mark in found) + f"{shift:16.3f}")
            for audit in sorted({audit for names in failed for audit in names}):
                print(f"    below 0.9 in some run: {audit}")
    server.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:] or PAGES)
