"""A Chromium with the live figures' script, and the built book behind a local address."""

import pytest
from playwright.sync_api import sync_playwright

from tools import ROOT
from tools.browser import FLAGS, executable, serving

SCRIPT = ROOT / "src" / "gradutils" / "explorables" / "explorables.js"


@pytest.fixture(scope="session")
def browser():
    try:
        program = executable()
    except SystemExit as error:
        pytest.exit(str(error), returncode=1)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
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
