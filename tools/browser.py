"""A Chromium and a local address of the built book, for the browser tests and benchmarks."""

import gzip
import os
import shutil
import sys
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

from tools import ROOT

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def executable():
    """Return the path of a Chromium, named by the variable CHROMIUM or found by its usual names."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        sys.exit(
            "no browser: install Chromium (Debian: apt install chromium), or name one in the "
            "environment variable CHROMIUM"
        )
    return found


class Handler(SimpleHTTPRequestHandler):
    """Serves the built book in silence, and text compressed, as web hosts do."""

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=str(ROOT / "_build" / "html"))

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

    def log_message(self, *arguments):
        """Say nothing."""


@contextmanager
def serving():
    """Serve the built book on this machine; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
