"""Sphinx extension: a Markdown link may lead to a term of the glossary, `glossary.md#term-name`.

The role for this, `term`, shows as raw text in JupyterLab; a link does not. A link to a term that
is not there is a warning, like any other.
"""

from docutils.nodes import term
from sphinx.addnodes import glossary


def setup(app):
    """Register."""
    app.connect("doctree-read", name_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def name_terms(app, doctree):
    """Put the terms among the anchors of their page, beside the headings."""
    for group in doctree.findall(glossary):
        anchors = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
        for node in group.findall(term):
            anchors |= {name: (node.line, name, node.astext()) for name in node["ids"]}
