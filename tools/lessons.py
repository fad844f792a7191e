"""How the Markdown of the book is read: its code blocks, exercises and links to the glossary."""

import re

#: Number, title and difficulty of an exercise, in its heading.
EXERCISE = re.compile(r"### Exercise (\d+): (.+) \((\w+)\)$", flags=re.M)
#: Chapter and number of an exercise, and its answers, in a cell that judges them.
CHECK = re.compile(r'exercises\.check\("(\d+\.\d+)", (.*)\)\)')
_CODE = re.compile(r"^(```+|~~~+).*?^\1", flags=re.M | re.S)


def without_code(text):
    """Return Markdown without its code blocks and directives."""
    return _CODE.sub("", text)


def term_anchor(name):
    """Return the anchor of a term on the page of the glossary."""
    return "term-" + re.sub(r"[^\w.]+", "-", name)
