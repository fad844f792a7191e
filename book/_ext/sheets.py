"""Sphinx extension: one style sheet for all pages, with the rules that some page can use.

The theme brings eleven sheets and a whole framework. Nine tenths of its rules fit no element of
this book, and no page is painted before the last sheet is there.
"""

import os
import re
from hashlib import sha256
from pathlib import Path

import tinycss2

LINK = re.compile(r'<link (?=[^>]*rel="stylesheet")[^>]*href="([^"?]+\.css)[^"]*"[^>]*>\s*')
IMPORT = re.compile(r'@import "([^"]+)";')
#: The beginnings of class names that scripts put together from parts.
COMPOSED = ("bs-tooltip-",)


def setup(app):
    """Register, after the pages have been rewritten."""
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def finish(app, exception):
    """Write the sheet, let all pages use it, and remove the sheets it is made of."""
    if exception or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    pages = set(Path(app.outdir).rglob("*.html")) - set(static.rglob("*.html"))
    texts = {path: path.read_text("utf-8") for path in sorted(pages)}
    scripts = [path.read_text("utf-8") for path in static.rglob("*.js")]
    words = {word for text in [*texts.values(), *scripts] for word in re.findall(r"[\w-]+", text)}
    sheets = in_order([sheets_of(path, text) for path, text in texts.items()])
    parts = [part for sheet in sheets for part in with_imports(sheet)]
    css = "\n".join(reduced(rebased(part, static), words) for part in parts)
    (static / "book.css").write_text(css, "utf-8")
    version = sha256(css.encode()).hexdigest()[:8]
    for path, text in texts.items():
        if sheets_of(path, text):
            place = os.path.relpath(static / "book.css", path.parent)
            link = f'<link rel="stylesheet" href="{place}?v={version}"/>\n'
            first = LINK.search(text).start()
            path.write_text(text[:first] + link + LINK.sub("", text[first:]), "utf-8")
    for part in set(parts):
        part.unlink()


def sheets_of(path, text):
    """Return the style sheets of a page, in its order."""
    return [(path.parent / link).resolve() for link in LINK.findall(text)]


def in_order(lists):
    """Return all that some list holds, in the order of the longest, which must hold all."""
    longest = max(lists, key=len)
    missing = {item.name for items in lists for item in items} - {item.name for item in longest}
    if missing:
        raise ValueError(f"no page uses all style sheets: {sorted(missing)} stand apart")
    return longest


def with_imports(path):
    """Return the sheets that a sheet imports, and the sheet."""
    return [(path.parent / name).resolve() for name in IMPORT.findall(path.read_text("utf-8"))] + [
        path
    ]


def rebased(path, folder):
    """Return a sheet as it must read in another folder."""

    def moved(match):
        place = os.path.relpath(path.parent / match[2], folder)
        return f"url({match[1]}{place}{match[1]})"

    text = IMPORT.sub("", path.read_text("utf-8"))
    return re.sub(r"""url\((["']?)(?!data:|#)([^"')]+)\1\)""", moved, text)


def reduced(css, words):
    """Return a sheet without the selectors that name a class or an id that no page knows."""
    rules = tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True)
    return "\n".join(filter(None, (kept(rule, words) for rule in rules)))


def kept(rule, words):
    """Return what remains of a rule, as text."""
    if rule.type == "qualified-rule":
        selectors = [tokens for tokens in selectors_of(rule.prelude) if fits(tokens, words)]
        prelude = ",".join(tinycss2.serialize(tokens).strip() for tokens in selectors)
        return prelude and f"{prelude}{{{tinycss2.serialize(rule.content).strip()}}}"
    if rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports"):
        inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
        rest = "".join(kept(part, words) for part in inner)
        return rest and f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{rest}}}"
    return rule.serialize()


def selectors_of(prelude):
    """Return the selectors between the commas."""
    selectors = [[]]
    for token in prelude:
        if token == ",":
            selectors.append([])
        else:
            selectors[-1].append(token)
    return selectors


def fits(tokens, words):
    """Whether every class and id of a selector is a word of some page or script."""
    names = [token.value for token in tokens if token.type == "hash"]
    names += [b.value for a, b in zip(tokens, tokens[1:], strict=False) if a == "."]
    return all(name in words or name.startswith(COMPOSED) for name in names)
