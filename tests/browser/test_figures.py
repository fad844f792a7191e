"""The live figures in the built book: by mouse, by keyboard, by address, and without script."""

import json

import pytest

from gradutils.explorables import EXPLORABLES
from tools import ROOT

SPECIFICATION = json.loads((ROOT / "src/gradutils/explorables/explorables.json").read_text("utf-8"))
PLAYGROUND = "book/playground.html"
#: What shows only in the steps that follow.
WHILE_TRAINING = {("train", name) for name in ("learning_rate", "clipping", "adam")}


def opened(page, book, name, query=""):
    """Open the playground and return the place of one live figure, mounted."""
    page.goto(f"{book}/{PLAYGROUND}{query}")
    figure = page.locator(f"[data-explorable={name}]")
    figure.scroll_into_view_if_needed()
    page.wait_for_selector(f"[data-explorable={name}][data-live]")
    return figure


def numbers(figure):
    """Return the rows of the table of numbers."""
    if figure.locator("details").get_attribute("open") is None:
        figure.locator("summary").click()
    figure.locator("tbody tr").first.wait_for()  # the table is filled a moment after it opens
    return [row.split("\t") for row in figure.locator("tbody tr").all_inner_texts()]


CONTROLS = [(name, control) for name in EXPLORABLES for control in SPECIFICATION[name]["controls"]]


@pytest.mark.parametrize(
    ("name", "control"), CONTROLS, ids=[f"{name}-{control['name']}" for name, control in CONTROLS]
)
def test_every_control_by_keyboard(page, book, name, control):
    figure = opened(page, book, name)
    before = figure.inner_html()
    figure.locator(f"[name={control['name']}]").focus()
    if "min" in control:
        page.keyboard.press("ArrowUp" if control["min"] == control["default"] else "ArrowDown")
    elif "options" in control:
        is_last = control["options"][-1] == control["default"]
        page.keyboard.press("ArrowUp" if is_last else "ArrowDown")
    else:
        page.keyboard.press("Space")
    assert (name, control["name"]) in WHILE_TRAINING or figure.inner_html() != before
    page.wait_for_function(f"location.search.includes('{name}.{control['name']}=')")


@pytest.mark.parametrize("name", EXPLORABLES)
def test_every_slider_by_mouse(page, book, name):
    figure = opened(page, book, name)
    for control in SPECIFICATION[name]["controls"]:
        if "min" not in control:
            continue
        slider = figure.locator(f"[name={control['name']}]")
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
        shown = float(slider.locator("xpath=following-sibling::output").inner_text())
        assert shown == pytest.approx(control["max"], rel=0.02)
        page.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
        shown = float(slider.locator("xpath=following-sibling::output").inner_text())
        assert abs(shown - control["min"]) <= 0.02 * (control["max"] - control["min"])


@pytest.mark.parametrize("name", EXPLORABLES)
def test_an_address_is_a_setting(page, book, name):
    figure = opened(page, book, name)
    changed = {c["name"]: c for c in SPECIFICATION[name]["controls"]}
    query = []
    for key, control in changed.items():
        if "options" in control:
            value = control["options"][0]
        elif isinstance(control["default"], bool):
            value = str(not control["default"]).lower()
        else:
            value = control["max"]
        query.append(f"{name}.{key}={value}")
    figure = opened(page, book, name, "?" + "&".join(query))
    assert figure.locator("[name]").count() == len(changed)
    for key, control in changed.items():
        field = figure.locator(f"[name={key}]")
        if isinstance(control["default"], bool):
            assert field.is_checked() != control["default"]
        else:
            expected = control["options"][0] if "options" in control else control["max"]
            assert field.input_value() == str(expected)


def test_nonsense_in_the_address_is_left_out(page, book):
    figure = opened(page, book, "depth", "?depth.depth=1e9&depth.width=63&depth.sigma_w=much")
    values = [
        figure.locator(f"[name={key}]").input_value() for key in ("depth", "width", "sigma_w")
    ]
    assert values == ["100", "64", "1"]


@pytest.mark.parametrize("name", EXPLORABLES)
def test_reset(page, book, name):
    figure = opened(page, book, name)
    field = figure.locator("input[type=range]").first
    start = field.input_value()
    field.focus()
    page.keyboard.press("ArrowRight")
    assert field.input_value() != start
    figure.get_by_role("button", name="Reset", exact=True).last.click()
    assert field.input_value() == start
    page.wait_for_function("location.search === ''")


def test_the_numbers_are_pythons(page, book):
    from tests.browser.test_depth import reference, settings

    figure = opened(page, book, "depth", "?depth.depth=20&depth.activation=relu&depth.sigma_w=1.4")
    norms = reference(settings(depth=20, activation="relu", sigmaW=1.4, width=64))
    for row, *expected in zip(numbers(figure), *norms, strict=True):
        assert [float(cell) for cell in row[1:4]] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", EXPLORABLES)
def test_without_script_there_is_a_picture_that_says_so(browser, book, name):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{book}/{PLAYGROUND}")
        figure = page.locator(f"[data-explorable={name}]")
        assert figure.locator("svg").first.is_visible()
        assert figure.get_by_text("controls need JavaScript").is_visible()
        assert figure.locator("[name]").first.is_disabled()


@pytest.mark.parametrize("name", EXPLORABLES)
def test_nothing_moves_when_the_script_takes_over(browser, book, name):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{book}/{PLAYGROUND}")
        still = page.locator(f"[data-explorable={name}]").bounding_box()["height"]
    page = browser.new_page()
    live = opened(page, book, name).bounding_box()["height"]
    page.close()
    assert live == pytest.approx(still, abs=3)


def test_pages_without_a_figure_load_nothing_of_it(page, book):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{book}/book/notation.html")
    page.wait_for_load_state("networkidle")
    assert not [url for url in asked if "explorables" in url]


def test_the_script_comes_after_the_first_paint(page, book):
    page.goto(f"{book}/{PLAYGROUND}")
    page.wait_for_selector("[data-live]")
    paint, script = page.evaluate(
        """() => [
            performance.getEntriesByName("first-contentful-paint")[0].startTime,
            performance.getEntriesByType("resource")
                .find((e) => e.name.endsWith("explorables.js")).startTime,
        ]"""
    )
    assert script > paint


def test_a_signal_vanishes_and_explodes_on_the_first_page(page, book):
    page.goto(f"{book}/book/index.html")
    page.wait_for_selector("[data-explorable=depth][data-live]")
    figure = page.locator("[data-explorable=depth]")
    assert figure.locator(".verdict").inner_text().startswith("Healthy")
    for scale, word in (("0.8", "Vanishing"), ("2.5", "Exploding")):
        figure.locator("[name=sigma_w]").fill(scale)
        page.wait_for_function(
            "word => document.querySelector('.verdict').textContent.startsWith(word)", arg=word
        )
