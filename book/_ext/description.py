"""Sphinx extension: what a page is about, in its head, for search engines and for links to it."""

import html
import re

from docutils import nodes

LENGTH = 155


def setup(app):
    """Register."""
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def describe(app, pagename, templatename, context, doctree):
    """Describe a page by its title and the beginning of its first paragraph."""
    if doctree is None or app.builder.name != "html":
        return
    text = next((p.astext() for p in doctree.findall(nodes.paragraph) if len(p.astext()) > 40), "")
    text = re.sub(r"\s+", " ", text)
    if len(text) > LENGTH:
        text = text[:LENGTH].rpartition(" ")[0] + " …"
    title = html.unescape(re.sub(r"<[^>]+>", "", context["title"]))
    entries = {"og:type": "article", "og:title": title, "og:description": text}
    if address := app.config.html_baseurl:
        entries |= {"og:url": context["pageurl"], "og:image": f"{address}_static/hero.png"}
    tags = [f'<meta name="description" content="{html.escape(text)}"/>']
    tags += [f'<meta property="{k}" content="{html.escape(v)}"/>' for k, v in entries.items()]
    context["metatags"] = context.get("metatags", "") + "\n".join(tags)
