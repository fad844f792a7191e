"""Corrections of what the tools write and screen readers or the keyboard stumble over."""

import re

WIDE = re.compile(r'<figure (?=(?:(?!</figure>).)*<img [^>]*class="[^"]*\bwide\b)', re.DOTALL)


def mended(text):
    """Return a page with these corrections."""
    text = text.replace(
        'id="pst-primary-sidebar" class',
        'id="pst-primary-sidebar" role="region" aria-label="Book" class',
        1,
    )
    text = text.replace('role="doc-biblioentry"', 'role="listitem"')
    text = re.sub(r'<th class="head">(?:<p></p>)?</th>', '<td class="head"></td>', text)
    # A screen reader then says "Solution 1", and not "Toggle hidden content" for each of them.
    text = text.replace(' aria-label="Toggle hidden content"', "")
    # A narrow window shows a wide picture in part, and the keyboard must be able to scroll it.
    text = WIDE.sub('<figure tabindex="0" ', text)
    # Sphinx and the theme both say how wide the page is.
    first, *others = re.split(r'<meta name="viewport"[^>]*>', text)
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
    return first + viewport + "".join(others) if others else text
