"""Sphinx extension: scripts that hold up no page, and two that complete those of the theme."""

import re

#: The theme settles light or dark in a script that comes late, and styles all a second time then.
SCHEME = """if (document.documentElement.dataset.mode === "auto")
  document.documentElement.dataset.theme =
    matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";"""
#: The theme finds the blocks that scroll, for the keyboard to reach, when the page has come and
#: when the window changes. Those of a folded solution have no size before it opens.
UNFOLDED = 'document.addEventListener("toggle", () => dispatchEvent(new Event("resize")), true);'


def setup(app):
    """Register."""
    app.add_js_file(None, body=SCHEME)
    app.add_js_file(None, body=UNFOLDED)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def deferred(text):
    """Return a page whose scripts with a file, and those that need one of these, wait for it."""
    text = re.sub(r"<script (?![^>]*\b(?:defer|async)\b)([^>]*src=)", r"<script defer \1", text)
    return re.sub(
        r"<script>(DOCUMENTATION_OPTIONS\.[^<]*)</script>",
        r'<script>addEventListener("DOMContentLoaded", () => { \1 });</script>',
        text,
    )
