"""Sphinx extension: scripts that hold up no page, and three that complete those of the theme."""

import re

#: The theme settles light or dark in a script that comes late, and styles all a second time then.
SCHEME = """if (document.documentElement.dataset.mode === "auto")
  document.documentElement.dataset.theme =
    matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";"""
#: The theme finds the blocks that scroll, for the keyboard to reach, when the page has come and
#: when the window changes. Those of a folded solution have no size before it opens.
UNFOLDED = 'document.addEventListener("toggle", () => dispatchEvent(new Event("resize")), true);'

#: The theme marks the heading that a reader has reached, but none in a section of many screens.
REACHED = """addEventListener("DOMContentLoaded", () => {
  document.body.removeAttribute("data-bs-spy");
  const links = [...document.querySelectorAll(".page-toc a.nav-link")];
  const reached = ({ hash }) => document.getElementById(decodeURIComponent(hash.slice(1)))
    .getBoundingClientRect().top < innerHeight / 3;
  addEventListener("scroll", () => {
    const current = links.filter(reached).at(-1);
    for (const link of links) {
      link.classList.toggle("active", Boolean(current && link.parentNode.contains(current)));
    }
  }, { passive: true });
});"""


def setup(app):
    """Register."""
    app.add_js_file(None, body=SCHEME)
    app.add_js_file(None, body=UNFOLDED)
    app.add_js_file(None, body=REACHED)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def deferred(text):
    """Return a page whose scripts with a file, and those that need one of these, wait for it."""
    text = re.sub(r"<script (?![^>]*\b(?:defer|async)\b)([^>]*src=)", r"<script defer \1", text)
    return re.sub(
        r"<script>(DOCUMENTATION_OPTIONS\.[^<]*)</script>",
        r'<script>addEventListener("DOMContentLoaded", () => { \1 });</script>',
        text,
    )
