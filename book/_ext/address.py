"""Sphinx extension: what follows from the address that the book is published at.

Canonical links, which Sphinx writes; a page for readers who are lost; a list of pages for search
engines. The address is that of the pages of the repository that GitHub Actions names.
"""

from pathlib import Path

from launch import repository

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
    app.connect("config-inited", configure)
    app.connect("html-collect-pages", page_for_the_lost)
    app.connect("html-page-context", anchor_links)
    app.connect("build-finished", write_map)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def configure(app, config):
    """Tell Sphinx the address."""
    config.html_baseurl = address()


def address():
    """Return the address, ending in a slash; it is empty where no repository is known."""
    owner, _, name = (repository() or "").partition("/")
    if not name:
        return ""
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def page_for_the_lost(app):
    """Yield the page that a server shows for an address that is not there."""
    yield "404", {"title": "Page not found", "body": LOST}, "page.html"


def anchor_links(app, pagename, templatename, context, doctree):
    """Make the links of that page independent of the address it is shown for."""
    if pagename == "404" and app.config.html_baseurl:
        base = f'<base href="{app.config.html_baseurl}"/>'
        context["metatags"] = base + context.get("metatags", "")


def write_map(app, exception):
    """Write the list of pages."""
    if exception or app.builder.name != "html" or not app.config.html_baseurl:
        return
    places = "".join(
        f"<url><loc>{app.config.html_baseurl}{app.builder.get_target_uri(name)}</loc></url>"
        for name in sorted(app.env.found_docs)
    )
    Path(app.outdir, "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{places}</urlset>\n'
    )
