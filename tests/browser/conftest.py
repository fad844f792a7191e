"""A Chromium with the live figures' script, and the built book behind a local address."""

import os
import shutil
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import sync_playwright

from tests.notebooks import ROOT

SCRIPT = ROOT / "src" / "gradutils" / "explorables.js"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def executable():
    """Return the path of a Chromium, named by the variable CHROMIUM or found by its usual names."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.exit(
            "no browser: install Chromium (Debian: apt install chromium), or name one in the "
            "environment variable CHROMIUM",
            returncode=1,
        )
    return found


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def script(browser):
    """A page with the script alone; call it with JavaScript that uses `G`, and an argument."""
    page = browser.new_page()
    page.add_script_tag(path=SCRIPT)
    page.evaluate("globalThis.G = gradutilsExplorables")
    yield page.evaluate
    page.close()


class Handler(SimpleHTTPRequestHandler):
    """Serves the built book, in silence."""

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=str(ROOT / "_build" / "html"))

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


@pytest.fixture(scope="session")
def book():
    """Return the address of the built book."""
    if not (ROOT / "_build" / "html" / "index.html").exists():
        pytest.exit("no book to look at: run `make book` first", returncode=1)
    with serving() as address:
        yield address


@pytest.fixture
def page(browser, book):
    """A page that fails the test if a script fails, or if it asks any other host."""
    faults = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda r: r.url.startswith((book, "data:")) or faults.append(r.url))
    yield page
    page.close()
    assert not faults
