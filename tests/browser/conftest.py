"""A Chromium with the live figures' script, and the built book behind a local address."""

import os
import shutil

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
