"""Sphinx extension: links to the book in other forms, which the workflow that publishes makes."""

from docutils import nodes
from launch import repository
from sphinx.util.docutils import SphinxDirective

from tools.offline import NAME

FORMS = {
    f"{NAME}.pdf": "on paper (PDF)",
    f"{NAME}.epub": "for e-book readers (EPUB)",
    f"{NAME}.zip": "as pages for the disk",
    f"{NAME}-student.zip": "as notebooks without solutions",
}


def setup(app):
    """Register."""
    app.add_directive("downloads", Downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Downloads(SphinxDirective):
    """A list of links, or nothing where no repository publishes the book."""

    def run(self):
        """Return the list, for pages only."""
        if not repository():
            return []
        links = "".join(
            f'<li><a href="../downloads/{name}">{text}</a></li>' for name, text in FORMS.items()
        )
        return [nodes.raw("", f"<p>This book:</p><ul>{links}</ul>", format="html")]
