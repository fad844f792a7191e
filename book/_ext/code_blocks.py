"""Sphinx extension: code in which what has no colour is text, so that a page has fewer elements.

Names, punctuation and space are a third of a chapter's elements otherwise.
"""

from pygments.formatters import HtmlFormatter
from pygments.token import Name, Punctuation, Text, Whitespace
from sphinx.highlighting import PygmentsBridge


def setup(app):
    """Register."""
    PygmentsBridge.html_formatter = Formatter
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Formatter(HtmlFormatter):
    """The formatter that Sphinx uses, with an element for nothing but coloured code."""

    def format_unencoded(self, tokensource, outfile):
        """Write the tokens."""
        plain = {Name, Punctuation, Whitespace}
        tokens = ((Text if kind in plain else kind, text) for kind, text in tokensource)
        super().format_unencoded(tokens, outfile)
