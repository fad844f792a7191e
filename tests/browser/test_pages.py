"""What the pages do as they are read: blocks that scroll, and the list of headings."""

import pytest

CHAPTER = "notebooks/05_signal_propagation.html"
BLOCKS = "[...document.querySelectorAll('pre, .cell_output > .output')]"
#: Blocks of code and output whose reachability by the keyboard is not that of their scrolling.
WRONG = f"""() => {BLOCKS}.filter((block) => block.offsetParent && block.checkVisibility()
    && (block.tabIndex === 0) !== (block.scrollWidth > block.clientWidth
                                   || block.scrollHeight > block.clientHeight)).length"""
REACHABLE = f"() => {BLOCKS}.filter((block) => block.tabIndex === 0).length / {BLOCKS}.length"


@pytest.fixture(params=[390, 1400])
def chapter(request, browser, book):
    page = browser.new_page(viewport={"width": request.param, "height": 800})
    page.goto(f"{book}/{CHAPTER}")
    yield page
    page.close()


def test_far_blocks_are_not_measured_and_can_be_reached(chapter):
    chapter.wait_for_timeout(300)
    assert chapter.evaluate(REACHABLE) > 0.9


def test_once_near_the_blocks_that_scroll_can_be_reached(chapter):
    chapter.evaluate("""async () => {
        for (let y = 0; y < document.documentElement.scrollHeight; y += 500) {
            scrollTo({ top: y, behavior: "instant" });
            await new Promise((done) => setTimeout(done, 40));
        }
    }""")
    chapter.wait_for_timeout(300)
    assert chapter.evaluate(WRONG) == 0


def test_a_folded_solution_is_measured_when_it_opens(chapter):
    solution = chapter.locator("details.hide").last
    solution.scroll_into_view_if_needed()
    solution.locator("summary").first.click()
    chapter.wait_for_timeout(300)
    block = solution.locator("pre").first
    scrolls = block.evaluate("(block) => block.scrollWidth > block.clientWidth")
    assert block.get_attribute("tabindex") == ("0" if scrolls else "-1")


def test_blocks_are_measured_again_in_another_width(chapter):
    block = chapter.locator("div.cell_input pre").nth(2)
    block.scroll_into_view_if_needed()
    chapter.set_viewport_size({"width": 320, "height": 800})
    chapter.wait_for_timeout(600)
    assert block.get_attribute("tabindex") == "0"


def third_section(page):
    """Scroll to a section, and return it."""
    section = page.locator(".bd-article > section > section").nth(2)
    section.evaluate("(part) => part.scrollIntoView({ behavior: 'instant' })")
    return section


def test_the_list_of_headings_follows_in_a_wide_window(browser, book):
    page = browser.new_page(viewport={"width": 1400, "height": 800})
    page.goto(f"{book}/{CHAPTER}")
    third_section(page)
    active = page.locator("nav.page-toc a.active").last
    active.wait_for(state="attached", timeout=5000)
    section = page.locator(active.get_attribute("href")).bounding_box()
    assert section["y"] < 800 and section["y"] + section["height"] > 0
    page.close()


def test_the_drawer_of_headings_marks_the_current_one(browser, book):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(f"{book}/{CHAPTER}")
    section = third_section(page)
    box = page.locator(".secondary-toggle").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)  # without scrolling
    active = page.locator(".page-toc a.active:visible")
    assert active.get_attribute("href") == "#" + section.get_attribute("id")
    page.close()


STRETCHED = """() => [...document.querySelectorAll("mo.stretched")]
    .filter((part) => part.checkVisibility())
    .map((part) => part.getBoundingClientRect())
    .map(({ width, height }) => [width, height])"""


def test_formulas_have_their_font_and_brackets_as_high_as_what_they_hold(chapter):
    chapter.evaluate("document.fonts.ready")
    assert chapter.evaluate("document.fonts.check('16px \"Latin Modern Math\"', '∑')")
    size = chapter.evaluate("parseFloat(getComputedStyle(document.querySelector('math')).fontSize)")
    brackets = chapter.evaluate(STRETCHED)
    assert max(height for _, height in brackets) > 1.5 * size
    assert all(width < 0.8 * size for width, _ in brackets)
