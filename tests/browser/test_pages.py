"""What the pages do in a browser: blocks that scroll, colours, the search, formulas."""

import re
from io import BytesIO

import moved
import pytest
from PIL import Image

from tests.book.built import DOCUMENTS
from tools import ROOT

CHAPTER = "notebooks/05_signal_propagation.html"
BLOCKS = "[...document.querySelectorAll('pre, .cell_output > .output')]"
#: Blocks of code and output whose reachability by the keyboard is not that of their scrolling.
WRONG = f"""() => {BLOCKS}.filter((block) => block.offsetParent && block.checkVisibility()
    && (block.tabIndex === 0) !== (block.scrollWidth > block.clientWidth
                                   || block.scrollHeight > block.clientHeight)).length"""


@pytest.fixture(params=[390, 1400])
def chapter(request, browser, book):
    page = browser.new_page(viewport={"width": request.param, "height": 800})
    page.goto(f"{book}/{CHAPTER}")
    yield page
    page.close()


def test_the_blocks_that_scroll_can_be_reached_and_no_others(chapter):
    chapter.evaluate(
        "document.querySelectorAll('details.hide').forEach((part) => part.open = true)"
    )
    chapter.wait_for_timeout(600)  # the theme waits for 300 ms
    assert chapter.evaluate(WRONG) == 0


#: Scroll until a section ends where the window ends, or its heading is near the top.
TO_THE_END = """(part) => {
    const top = part.getBoundingClientRect().top + scrollY;
    const end = top + part.offsetHeight - innerHeight;
    scrollTo({ top: Math.max(top - 200, end), behavior: "instant" });
}"""


def test_the_list_of_headings_marks_where_the_reader_is(chapter):
    for section in chapter.locator(".bd-article > section > section").all():
        section.evaluate(TO_THE_END)
        name = section.get_attribute("id")
        chapter.locator(f".page-toc a.active[href='#{name}']").wait_for(state="attached")
        assert chapter.locator(".page-toc > ul > li > a.active").count() == 1


def test_no_page_is_wider_than_a_phone(browser, book):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    wide = {}
    for document in DOCUMENTS:
        page.goto(f"{book}/{document}.html")
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 390:
            wide[document] = width
    page.close()
    assert wide == {}


#: The widest line of every block of code or output that is cut off, with all folds open.
CUT_OFF = """() => {
    document.querySelectorAll("details").forEach((part) => part.open = true);
    document.querySelectorAll("[hidden]").forEach((part) => part.removeAttribute("hidden"));
    return [...document.querySelectorAll("div.highlight pre")]
        .filter((block) => block.checkVisibility() && block.scrollWidth > block.clientWidth)
        .map((block) => block.innerText.split("\\n").sort((a, b) => b.length - a.length)[0]);
}"""


@pytest.mark.parametrize("width", [1280, 1440])
def test_no_line_of_code_or_output_is_cut_off(browser, book, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    found = {}
    for document in DOCUMENTS:
        page.goto(f"{book}/{document}.html")
        if lines := page.evaluate(CUT_OFF):
            found[document] = lines
    page.close()
    assert found == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_shadow_lies_where_code_is_cut_off_and_nowhere_else(browser, book, scheme):
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page.goto(f"{book}/{CHAPTER}")
    long = [code for code in page.locator(".cell_input pre").all() if code.evaluate(CUT)]
    for scroll, left, right in [(0, False, True), (80, True, True), (9999, True, False)]:
        long[0].evaluate("(code, to) => code.scrollTo({ left: to, behavior: 'instant' })", scroll)
        assert shadows(long[0].screenshot()) == (left, right)
    page.close()


#: Enough of the code is cut off for it to be in the midst of its way after 80 pixels.
CUT = "(code) => code.checkVisibility() && code.scrollWidth > code.clientWidth + 160"


def shadows(screenshot):
    """Whether the left and the right end of the empty lowest line differ from its middle."""
    picture = Image.open(BytesIO(screenshot)).convert("RGB")
    places = (2, picture.width // 2, picture.width - 3)
    left, middle, right = (picture.getpixel((x, picture.height - 4)) for x in places)
    return left != middle, right != middle


#: The widest paragraph and picture, and the edges of the column and of what stands on its right.
EDGES = """() => {
    const boxes = (what) => [...document.querySelectorAll(what)]
        .filter((part) => part.checkVisibility()).map((part) => part.getBoundingClientRect());
    const [column] = boxes(".bd-article"), [list] = boxes(".bd-sidebar-secondary");
    const most = (what, size) => Math.max(...boxes(what).map((box) => box[size]));
    return {
        text: most(".bd-article section > p", "width"),
        picture: most(".cell_output img.wide", "width"),
        right: most(".bd-article :is(p, pre, figure, .explorable)", "right"),
        column: column.right,
        list: list.left,
    };
}"""


@pytest.mark.parametrize("width", [1280, 1440, 1920])
def test_pictures_grow_with_the_window_and_lines_of_text_do_not(browser, book, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(f"{book}/{CHAPTER}")
    page.get_by_role("button", name="Show all, from now on").first.click()
    edges = page.evaluate(EDGES)
    page.close()
    assert edges["text"] <= 700
    assert edges["picture"] > {1280: 0.95, 1440: 1.1, 1920: 1.3}[width] * edges["text"]
    assert edges["right"] <= edges["column"] <= edges["list"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_has_its_colours_before_the_themes_script(browser, book, scheme):
    page = browser.new_page(color_scheme=scheme)
    page.route("**/pydata-sphinx-theme.js*", lambda route: route.abort())
    page.goto(f"{book}/{CHAPTER}")
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.close()


@pytest.mark.parametrize(
    ("address", "name"),
    [("chapters/gates", "gates"), *((f"notebooks/{old}", old[3:]) for old in moved.OLD)],
)
def test_an_address_that_leads_on_keeps_the_place_in_the_page(page, book, address, name):
    page.goto(f"{book}/{address}.html#recap")
    page.wait_for_url(re.compile(rf"/notebooks/\d\d_{name}\.html#recap$"))


def test_the_search_finds_a_term(page, book):
    page.goto(f"{book}/search.html?q=isometry")
    page.locator("#search-results li a").first.wait_for(timeout=10_000)


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


def test_a_page_from_the_disk_has_its_formulas_font_and_complains_of_nothing(browser):
    page, said = browser.new_page(), []
    page.on("console", lambda m: m.type in ("warning", "error") and said.append(m.text))
    page.goto((ROOT / "_build" / "html" / CHAPTER).as_uri())
    page.wait_for_load_state("networkidle")
    page.evaluate("document.fonts.ready")
    assert page.evaluate("document.fonts.check('16px \"Latin Modern Math\"', '∑')")
    page.close()
    assert said == []
