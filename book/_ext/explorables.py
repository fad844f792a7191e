"""Sphinx extension: the live figures, on the pages that have one, and nothing of them elsewhere."""

import re
import shutil
from pathlib import Path

from sphinx.errors import ExtensionError

from tools import ROOT

SCRIPT = ROOT / "src" / "gradutils" / "explorables" / "explorables.js"
STYLE = SCRIPT.with_suffix(".css")
STATIC = ROOT / "book" / "explorables" / "static"
PLACE = re.compile(r'(<div [^>]*data-explorable="([a-z]+)"[^>]*>)(.*?)(</div>)', re.DOTALL)
#: Once the page is there; until then it shows the picture that is in its text.
LOADER = """<script>
addEventListener("load", () => setTimeout(() => {
  const script = document.createElement("script");
  script.src = "%s";
  document.body.append(script);
}));
</script>"""


def setup(app):
    """Register."""
    app.connect("html-page-context", fill)
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fill(app, pagename, templatename, context, doctree):
    """Put each figure's picture into its place, and load style and script."""
    if 'data-explorable="' not in context.get("body", ""):
        return
    context["body"] = PLACE.sub(picture, context["body"])
    app.add_css_file("explorables.css")
    if app.builder.name == "html":
        context["body"] += LOADER % context["pathto"]("_static/explorables.js", resource=True)


def picture(match):
    """Return the place with the picture in it."""
    opening, name, _, closing = match.groups()
    path = STATIC / f"{name}.html"
    if not path.exists():
        raise ExtensionError(f"there is no live figure {name!r}")
    return opening + path.read_text("utf-8") + closing


def copy(app, exception):
    """Copy style and script; Sphinx would load a script of its static folder on every page."""
    if exception is None and app.builder.name == "html":
        for path in (SCRIPT, STYLE):
            shutil.copy(path, Path(app.outdir) / "_static")
