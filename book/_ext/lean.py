"""Sphinx extension: pages that load little, shift nothing, and can be found and quoted.

Works on the finished pages, because the theme writes what is changed here into its own templates.
"""

import html
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from pathlib import Path

import pydata_sphinx_theme
from docutils import nodes
from launch import repository
from PIL import Image
from pybtex.backends.plaintext import Backend as PlaintextBackend
from pybtex.plugin import register_plugin
from sphinx.errors import ExtensionError

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
ICON_SCRIPT = "scripts/fontawesome.js"
ICON = re.compile(r'<(i|span) class="([^"]*\bfa[srb]?\b[^"]*)"([^>]*)>\s*</\1>')
NEAR = (Path(__file__).parent / "near.js").read_text("utf-8")
LINE_OF_TEXT = 155
LOST = """<h1>This page is not here</h1>
<p>The address leads nowhere: it may be misspelt, or the page has moved.</p>
<ul>
<li><a href="book/index.html">The first page</a> and the menu list all chapters.</li>
<li><a href="search.html">The search</a> looks through every page.</li>
<li><a href="book/concepts.html">The index of concepts</a> and
<a href="book/glossary.html">the glossary</a> know the terms.</li>
</ul>"""


def setup(app):
    """Register."""
    app.connect("html-collect-pages", lost)
    app.connect("html-page-context", describe)
    app.connect("build-finished", finish)
    # Looked up among all installed packages at every citation, unless it is registered.
    register_plugin("pybtex.backends", "plaintext", PlaintextBackend, force=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def address():
    """Return the address that the book is published at, ending in a slash, or None.

    That of the pages of the repository that publishes it.
    """
    owner, _, name = (repository() or "").partition("/")
    if not name:
        return None
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def lost(app):
    """Yield the page that a server shows for an address that is not there."""
    yield "404", {"title": "Page not found", "body": LOST}, "page.html"


def describe(app, pagename, templatename, context, doctree):
    """Say in the page's head what it is about: for search engines and for links to it."""
    if doctree is None or app.builder.name != "html":
        return
    text = next((p.astext() for p in doctree.findall(nodes.paragraph) if len(p.astext()) > 40), "")
    text = re.sub(r"\s+", " ", text)
    if len(text) > LINE_OF_TEXT:
        text = text[:LINE_OF_TEXT].rpartition(" ")[0] + " …"
    title = html.unescape(re.sub(r"<[^>]+>", "", context["title"]))
    entries = {"og:type": "article", "og:title": title, "og:description": text}
    base = address()
    if base:
        entries |= {"og:url": f"{base}{pagename}.html", "og:image": f"{base}_static/hero.png"}
    tags = [f'<meta name="description" content="{html.escape(text)}"/>']
    tags += [f'<meta property="{k}" content="{html.escape(v)}"/>' for k, v in entries.items()]
    if base:
        tags.append(f'<link rel="canonical" href="{base}{pagename}.html"/>')
    context["metatags"] = context.get("metatags", "") + "\n".join(tags)


def finish(app, exception):
    """Rewrite all pages; write the list of pages for search engines, where the address is known."""
    if exception or app.builder.name != "html":
        return
    folder = Path(app.outdir)
    with ThreadPoolExecutor() as pool:
        list(pool.map(shrink, (folder / "_images").glob("*.png")))
    pages = sorted(folder.rglob("*.html"))
    for path in pages:
        text = path.read_text("utf-8")
        for change in (with_icons, deferred, accessible, with_reachable_figures, measured_near):
            text = change(text)
        path.write_text(with_sizes(text, path.parent), "utf-8")
    (folder / "_static" / ICON_SCRIPT).unlink(missing_ok=True)
    script = folder / "_static" / "scripts" / "pydata-sphinx-theme.js"
    script.write_text(without_measuring(script.read_text("utf-8")), "utf-8")
    if address():
        path = folder / "404.html"
        path.write_text(grounded(path.read_text("utf-8")), "utf-8")
        mapped = [page for page in pages if page != path and "_static" not in page.parts]
        places = "".join(
            f"<url><loc>{address()}{path.relative_to(folder)}</loc></url>" for path in mapped
        )
        (folder / "sitemap.xml").write_text(
            '<?xml version="1.0" encoding="utf-8"?>\n'
            f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{places}</urlset>\n'
        )


def grounded(text):
    """Make the links of a page that a server shows for any address independent of that address."""
    return text.replace("<head>", f'<head>\n<base href="{address()}"/>', 1)


def shrink(path):
    """Keep the 256 colours of a figure that matter, where that makes its file smaller."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    packed = BytesIO()
    few.save(packed, "PNG", optimize=True)
    if len(packed.getvalue()) < path.stat().st_size:
        path.write_bytes(packed.getvalue())


@cache
def icon_shapes():
    """Return name -> (width, height, path) of the icons that the theme brings."""
    text = (THEME / ICON_SCRIPT).read_text("utf-8")
    shape = re.compile(r'"?([\w-]+)"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]')
    return {name: (width, height, path) for name, width, height, path in shape.findall(text)}


def with_icons(text):
    """Draw the icons that a page uses, instead of loading a script that brings two thousand."""

    def draw(match):
        _, classes, attributes = match.groups()
        names = [c[3:] for c in classes.split() if c.startswith("fa-") and c[3:] in icon_shapes()]
        width, height, path = icon_shapes()[names[0]]
        attributes = re.sub(r'\s*aria-hidden="\w+"', "", attributes)
        return (
            f'<svg class="svg-inline--fa {classes}"{attributes} aria-hidden="true" '
            f'viewBox="0 0 {width} {height}"><path fill="currentColor" d="{path}"/></svg>'
        )

    text = re.sub(rf'\s*<script src="[^"]*{ICON_SCRIPT}[^"]*"></script>', "", text)
    return ICON.sub(draw, text)


def deferred(text):
    """Let no script hold up the page; one that needs another waits for the document."""
    text = re.sub(r"<script (?![^>]*\b(?:defer|async)\b)([^>]*src=)", r"<script defer \1", text)
    return re.sub(
        r"<script>(DOCUMENTATION_OPTIONS\.pagename = [^<]*)</script>",
        r'<script>addEventListener("DOMContentLoaded", () => { \1 });</script>',
        text,
    )


def accessible(text):
    """Mend what the tools write and screen readers stumble over; say the viewport once."""
    text = text.replace(
        'id="pst-primary-sidebar" class',
        'id="pst-primary-sidebar" role="region" aria-label="Book" class',
        1,
    )
    text = text.replace('role="doc-biblioentry"', 'role="listitem"')
    text = re.sub(r'<th class="head">(?:<p></p>)?</th>', '<td class="head"></td>', text)
    first, *others = re.split(r'<meta name="viewport"[^>]*>', text)
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
    return first + viewport + "".join(others) if others else text


def with_reachable_figures(text):
    """Let the keyboard scroll a wide picture, which a narrow window shows in part."""
    wide = re.compile(r'<figure (?=(?:(?!</figure>).)*<img [^>]*class="[^"]*\bwide\b)', re.DOTALL)
    return wide.sub('<figure tabindex="0" ', text)


def measured_near(text):
    """Add the script that measures a part of the page when it comes near."""
    return text.replace("</body>", f"<script>\n{NEAR}</script>\n</body>", 1)


def without_measuring(script):
    """Take out of the theme's script that it measures every block of a page at once."""
    start = r'"complete"===document\.readyState\?(\w+)\(\):window\.addEventListener\("load",\1\)'
    script, count = re.subn(start, "0", script)
    if count != 1:
        raise ExtensionError("the theme's script has changed: see without_measuring in lean.py")
    return re.sub(r"\s*//# sourceMappingURL=\S+\s*$", "\n", script)  # the map is of the old one


def with_sizes(text, folder):
    """Give pictures their size, so that nothing moves as they come; all but the first may wait."""
    count = 0

    def sized(match):
        nonlocal count
        attributes, source = match.groups()
        path = folder / source
        if "width=" in attributes or not path.exists():
            return match.group()
        with path.open("rb") as file:
            width, height = struct.unpack(">16x2I", file.read(24))
        count += 1
        lazy = ' loading="lazy" decoding="async"' if count > 1 else ""
        return f'<img width="{width}" height="{height}"{lazy} {attributes.rstrip("/ ")}/>'

    return re.sub(r'<img ((?:[^>]*\s)?src="([^"]+\.png)"[^>]*)>', sized, text)
