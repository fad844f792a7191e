"""Sphinx extension: old addresses of chapters lead to the new ones, and each has one that stays.

The file of a chapter begins with its number, so its address changes when chapters are renumbered.
`chapters/gates.html` always leads to the chapter whose file ends in `gates`; `gradutils` names
chapters by that word alone.
"""

from pathlib import Path

#: Chapters as they were numbered once.
OLD = ("16_gates", "17_choosing_a_fix", "18_diagnose", "19_outlook", "20_faq")


def setup(app):
    """Register."""
    app.connect("config-inited", configure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def configure(app, config):
    """Tell sphinx-reredirects which address leads where."""
    paths = Path(app.srcdir, "notebooks").glob("*.ipynb")
    now = {path.stem[3:]: f"/notebooks/{path.stem}.html" for path in paths}
    lasting = {f"chapters/{name}": place for name, place in now.items()}
    config.redirects = lasting | {f"notebooks/{old}": now[old[3:]] for old in OLD}
    config.redirect_html_template_file = str(Path(__file__).with_suffix(".html"))
