"""Sphinx extension: buttons that open a chapter on Binder and Colab.

They lead to the repository that publishes the book, as GitHub Actions names it; where there is
none, there are no buttons. Colab knows a notebook, not the repository around it; hence copies whose
first cell installs gradutils, in the folder `colab` beside the pages, which the workflow that
publishes pushes to a branch of that name.
"""

import os
from pathlib import Path

import nbformat

LOGOS = {"Binder": "_static/images/logo_binder.svg", "Colab": "_static/images/logo_colab.png"}


def setup(app):
    """Register."""
    # After the theme's own buttons, so that these stand first.
    app.connect("html-page-context", add_buttons, priority=502)
    app.connect("build-finished", write_for_colab)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def repository():
    """Return the repository that publishes the book, as owner/name on GitHub, or None."""
    return os.environ.get("GITHUB_REPOSITORY")


def branch():
    """Return the branch that is published."""
    return os.environ.get("GITHUB_REF_NAME", "main")


def places(pagename):
    """Return the name and address of each place that runs a chapter."""
    file = f"{pagename}.ipynb"
    return {
        "Binder": f"https://mybinder.org/v2/gh/{repository()}/{branch()}?urlpath=lab/tree/{file}",
        "Colab": f"https://colab.research.google.com/github/{repository()}/blob/colab/{file}",
    }


def add_buttons(app, pagename, templatename, context, doctree):
    """Put a menu of these places before the other buttons of a chapter."""
    if repository() and pagename.startswith("notebooks/"):
        links = [
            {"type": "link", "text": name, "tooltip": f"Run on {name}", "icon": LOGOS[name],
             "url": url}
            for name, url in places(pagename).items()
        ]  # fmt: skip
        menu = {"type": "group", "buttons": links, "icon": "fas fa-rocket", "tooltip": "Run it",
                "label": "launch-buttons"}  # fmt: skip
        context["header_buttons"].insert(0, menu)


def write_for_colab(app, exception):
    """Write the copies for Colab."""
    if exception or app.builder.name != "html" or not repository():
        return
    folder = Path(app.outdir).parent / "colab" / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(app.srcdir, "notebooks").glob("*.ipynb")):
        (folder / path.name).write_text(for_colab(path.read_text("utf-8")), "utf-8")


def for_colab(text):
    """Return a notebook that begins by installing gradutils; Colab brings TensorFlow itself."""
    notebook = nbformat.reads(text, as_version=4)
    revision = os.environ.get("GITHUB_SHA") or branch()
    source = f"git+https://github.com/{repository()}@{revision}"
    install = nbformat.v4.new_code_cell(f'%pip install --quiet "gradutils @ {source}" anywidget')
    notebook.cells.insert(0, install)
    return nbformat.writes(notebook)
