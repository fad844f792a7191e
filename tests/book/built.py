"""The built book, as its tests read it."""

import re
from functools import cache
from html.parser import HTMLParser

import pytest
import yaml

from tools import ROOT

HTML = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
CHAPTERS = [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
DOCUMENTS = [TOC["root"], *CHAPTERS]
#: Attributes from which a browser fetches without being asked.
FETCHED = {
    "script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"),
    "video": ("src", "poster"), "audio": ("src",), "embed": ("src",), "object": ("data",),
    "input": ("src",),
}  # fmt: skip
FETCHED_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect"}
EXTERNAL = re.compile(r"^\s*(?:[a-z]+:)?//|@import|url\(\s*['\"]?(?:[a-z]+:)?//", re.I)


class Page(HTMLParser):
    """What a page fetches, the targets of its links, its anchors, its pictures without a text."""

    def __init__(self, text):
        super().__init__()
        self.text, self.fetched, self.links, self.ids, self.mute = text, [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given.get("id"), given.get("name")}
        self.fetched += [given[name] for name in FETCHED.get(tag, ()) if given.get(name)]
        if tag == "link" and FETCHED_RELATIONS & set(given.get("rel", "").split()):
            self.fetched.append(given.get("href", ""))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img" and not given.get("alt"):
            self.mute.append(given.get("src"))
        if EXTERNAL.search(given.get("style") or ""):
            self.fetched.append(given["style"])


@cache
def pages():
    """Return path below HTML -> Page of every built page."""
    if not HTML.is_dir():
        pytest.skip("the book is not built; `make book` builds it and runs these tests")
    paths = sorted(set(HTML.rglob("*.html")) - set((HTML / "_static").rglob("*.html")))
    return {str(path.relative_to(HTML)): Page(path.read_text("utf-8")) for path in paths}
