"""Sphinx extension: the book for e-book readers; nothing here touches the HTML pages."""

import posixpath
import re
from importlib.metadata import version
from pathlib import Path

from explorables import STYLE
from paper import LIVE
from sphinx.builders.epub3 import Epub3Builder

from tools.offline import NAME

READER = Path(__file__).with_name("reader.css")
#: What XHTML without scripts needs to be otherwise, in this order.
CHANGES = [
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"<fieldset.*?</fieldset>|<div class=\"buttons\">.*?</div>|<details>.*?</details>", ""),
        (r'(<p class="note"[^>]*>)[^<]*', rf"\1{LIVE}"),
        (r"<svg(?![^>]*xmlns=)", '<svg xmlns="http://www.w3.org/2000/svg"'),
        (r'<p class="collapsed[^>]*>(.*?)</p>\s*<p class="expanded.*?</p>', r"\1"),
        (r'<p>(<ul class="simple">.*?</ul>\s*)</p>', r"\1"),
    )
]
#: The sheets that stay; the others dress what an e-book lacks: buttons, tabs, the theme.
SHEETS = re.compile(r"_static/(pygments|epub|reader|explorables)\.css$")


class EBook(Epub3Builder):
    """Sphinx's own builder, with the names and properties that readers of e-books ask for."""

    media_types = Epub3Builder.media_types | {".woff2": "font/woff2"}

    def toc_add_files(self, refnodes):
        """Write "notebooks/05" where Sphinx has "book/../notebooks/05", which names no file."""
        for node in refnodes:
            node["refuri"] = posixpath.normpath(node["refuri"])
        super().toc_add_files(refnodes)

    def build_content(self):
        """Say in the list of files which pages have formulas and drawings."""
        super().build_content()
        package = Path(self.outdir, "content.opf")
        package.write_text(
            re.sub(
                r'href="(\S+\.xhtml)" media-type="\S+"(?= />)', self.properties, package.read_text()
            )
        )

    def properties(self, match):
        """Return the attributes of a page in the list of files."""
        page = Path(self.outdir, match[1]).read_text()
        kinds = " ".join(
            kind for kind, tag in (("mathml", "<math"), ("svg", "<svg")) if tag in page
        )
        return f'{match[0]} properties="{kinds}"' if kinds else match[0]


def setup(app):
    """Register."""
    app.add_builder(EBook, override=True)
    app.connect("config-inited", configure, priority=999)  # after the table of contents
    app.connect("builder-inited", add_style)
    app.connect("html-page-context", show, priority=900)  # after the live figures have come
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def configure(app, config):
    """Set what Sphinx needs to know about the file."""
    config.epub_basename = config.epub_identifier = config.epub_uid = NAME
    config.epub_title = config.html_title
    config.epub_description = "Why gradients vanish or explode in deep networks, and what to do."
    config.epub_publisher = config.author
    config.version = version("gradutils")
    config.epub_show_urls = "no"
    config.epub_tocscope = "includehidden"
    config.suppress_warnings += ["epub.unknown_project_files"]
    config.epub_exclude_files = ["404.xhtml", "index.html"]
    config.epub_css_files = [("reader.css", {})]


def add_style(app):
    """Bring the readers' style, and that of the live figures' pictures; no page has moved here."""
    if app.builder.name == "epub":
        app.config.redirects = {}
        app.config.html_static_path += [str(STYLE), str(READER)]


def show(app, pagename, templatename, context, doctree):
    """Leave of each live figure its picture, and of all pages what works without a script."""
    if app.builder.name != "epub":
        return
    context["css_files"] = [file for file in context["css_files"] if SHEETS.match(file.filename)]
    for pattern, replacement in CHANGES if "body" in context else ():
        context["body"] = pattern.sub(replacement, context["body"])
