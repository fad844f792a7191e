"""No violation of the rules of axe-core, on any page, light and dark, wide and narrow."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tools import ROOT

HTML = ROOT / "_build" / "html"
# Pages that lead on to another at once are never looked at.
LEADING_ON = re.compile(r"http-equiv=\"refresh\"", re.IGNORECASE)
PAGES = sorted(
    str(path.relative_to(HTML))
    for path in set(HTML.rglob("*.html")) - set((HTML / "_static").rglob("*.html"))
    if not LEADING_ON.search(path.read_text("utf-8"))
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_no_violation(browser, book, path, scheme):
    width = 1280 if scheme == "light" else 390
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(f"{book}/{path}")
    for figure in page.locator("[data-explorable]").all():
        figure.scroll_into_view_if_needed()
        figure.locator("summary").click()
    found = Axe().run(page).response["violations"]
    page.close()
    assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found] == []
