"""Sphinx extension: buttons that open a chapter on Binder, Colab and Kaggle, or report an error.

They lead to the repository that publishes the book, as GitHub Actions names it; where there is
none, there are no buttons. Colab and Kaggle know a notebook, not the repository around it; hence
copies whose first cell installs gradutils, in the folder `colab` beside the pages, which the
workflow that publishes pushes to a branch of that name.
"""

import os
from pathlib import Path
from urllib.parse import quote

import nbformat

ICONS = {
    "Binder": "_static/images/logo_binder.svg",
    "Colab": "_static/images/logo_colab.png",
    "Kaggle": "fab fa-kaggle",
}


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
    copy = f"https://github.com/{repository()}/blob/colab/{file}"
    return {
        "Binder": f"https://mybinder.org/v2/gh/{repository()}/{branch()}?urlpath=lab/tree/{file}",
        "Colab": copy.replace("https://github.com", "https://colab.research.google.com/github"),
        "Kaggle": f"https://kaggle.com/kernels/welcome?src={copy}",
    }


def add_buttons(app, pagename, templatename, context, doctree):
    """Put a menu of these places before the other buttons of a chapter, and a report behind."""
    if not repository():
        return
    title = quote(f"Error on page {pagename}")
    report = {
        "type": "link", "icon": "fas fa-bug",
        "tooltip": "Report an error on this page", "label": "report-button",
        "url": f"https://github.com/{repository()}/issues/new?template=error.yml&title={title}",
    }  # fmt: skip
    context["header_buttons"].append(report)
    if pagename.startswith("notebooks/"):
        links = [
            {"type": "link", "text": name, "tooltip": f"Run on {name}", "icon": ICONS[name],
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
