"""Buttons that run a chapter: they know the repository, and are absent where there is none."""

from types import SimpleNamespace

import launch
import nbformat
import pytest

from tools import ROOT

VARIABLES = ["GITHUB_REPOSITORY", "GITHUB_REF_NAME", "GITHUB_SHA"]
CHAPTER = "notebooks/01_background"


@pytest.fixture(autouse=True)
def no_repository(monkeypatch):
    """Begin each test in an environment that names no repository."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def buttons(pagename):
    """Return the addresses of a page's buttons."""
    context = {"header_buttons": []}
    launch.add_buttons(None, pagename, "page.html", context, None)
    menus = [menu for menu in context["header_buttons"] if menu["type"] == "group"]
    return [link["url"] for menu in menus for link in menu["buttons"]]


def test_where_no_repository_is_known_there_are_no_buttons(tmp_path):
    assert buttons(CHAPTER) == []
    builder = SimpleNamespace(name="html")
    app = SimpleNamespace(builder=builder, outdir=tmp_path / "html", srcdir=ROOT)
    launch.write_for_colab(app, None)
    assert not (tmp_path / "colab").exists()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GITHUB_REPOSITORY": "ada/gradients"}, "ada/gradients/main"),
        ({"GITHUB_REPOSITORY": "ada/gradients", "GITHUB_REF_NAME": "draft"}, "ada/gradients/draft"),
    ],
)
def test_buttons_lead_to_the_repository_that_publishes(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    binder = f"https://mybinder.org/v2/gh/{expected}?urlpath=lab/tree/{CHAPTER}.ipynb"
    found = buttons(CHAPTER)
    assert found[:1] == [binder]
    assert buttons("book/glossary") == []


def test_the_copies_for_colab_install_gradutils_first_and_change_nothing_else(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("GITHUB_REPOSITORY", "ada/gradients")
    monkeypatch.setenv("GITHUB_SHA", "0123abc")
    builder = SimpleNamespace(name="html")
    app = SimpleNamespace(builder=builder, outdir=tmp_path / "html", srcdir=ROOT)
    launch.write_for_colab(app, None)
    originals = sorted((ROOT / "notebooks").glob("*.ipynb"))
    copies = sorted((tmp_path / "colab" / "notebooks").glob("*.ipynb"))
    assert [path.name for path in copies] == [path.name for path in originals]
    for original, copy in zip(originals, copies, strict=True):
        first, *rest = nbformat.read(copy, as_version=4).cells
        assert rest == nbformat.read(original, as_version=4).cells
        assert '"gradutils @ git+https://github.com/ada/gradients@0123abc"' in first.source
    _, *others = buttons(CHAPTER)
    assert len(others) == 2
    assert all(url.endswith(f"/ada/gradients/blob/colab/{CHAPTER}.ipynb") for url in others)


def test_each_page_can_be_reported(monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "ada/gradients")
    context = {"header_buttons": []}
    launch.add_buttons(None, "book/glossary", "page.html", context, None)
    (report,) = context["header_buttons"]
    assert report["url"].startswith(
        "https://github.com/ada/gradients/issues/new?template=error.yml"
    )
    assert report["url"].endswith("glossary")
    assert (ROOT / ".github" / "ISSUE_TEMPLATE" / "error.yml").exists()
