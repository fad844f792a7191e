"""Sphinx extension: the last pass over the built pages, which the theme's templates wrote."""

from pathlib import Path

import accessibility
import icons
import pictures
import scripts


def setup(app):
    """Register."""
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def finish(app, exception):
    """Shrink the pictures and rewrite the pages."""
    if exception or app.builder.name != "html":
        return
    folder = Path(app.outdir)
    pictures.shrink(folder / "_images")
    for path in folder.rglob("*.html"):
        text = scripts.deferred(icons.drawn(path.read_text("utf-8")))
        text = accessibility.mended(text)
        path.write_text(pictures.sized(text, path.parent), "utf-8")
    (folder / "_static" / icons.SCRIPT).unlink(missing_ok=True)
