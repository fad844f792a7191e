"""Icons, drawn in the page: the theme's script brings two thousand, and the book uses a few."""

import re
from functools import cache
from pathlib import Path

import pydata_sphinx_theme

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
SCRIPT = "scripts/fontawesome.js"
ICON = re.compile(r'<(i|span) class="([^"]*\bfa[srb]?\b[^"]*)"([^>]*)>\s*</\1>')


@cache
def shapes():
    """Return name -> (width, height, path) of the icons in the theme's script."""
    text = (THEME / SCRIPT).read_text("utf-8")
    shape = re.compile(r'"?([\w-]+)"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]')
    return {name: (width, height, path) for name, width, height, path in shape.findall(text)}


def drawn(text):
    """Return a page with its icons as drawings, without the script that would draw them."""
    text = re.sub(rf'\s*<script [^>]*src="[^"]*{SCRIPT}[^"]*"></script>', "", text)
    return ICON.sub(drawing, text)


def drawing(match):
    """Return the drawing of an icon."""
    _, classes, attributes = match.groups()
    names = [c[3:] for c in classes.split() if c.startswith("fa-") and c[3:] in shapes()]
    width, height, path = shapes()[names[0]]
    attributes = re.sub(r'\s*aria-hidden="\w+"', "", attributes)
    return (
        f'<svg class="svg-inline--fa {classes}"{attributes} aria-hidden="true" '
        f'viewBox="0 0 {width} {height}"><path fill="currentColor" d="{path}"/></svg>'
    )
