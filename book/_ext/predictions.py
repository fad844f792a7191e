"""Sphinx extension: what follows a prediction is folded until the reader has made one.

In a notebook a prediction is a paragraph with "**Predict.**", a list of options where there are
some, and a comment, which nobody sees there, in YAML:

    <!-- predict
    right: 2
    measured: for-depth-in-networks:after training
    -->

`right` is the number of the right option. `measured` says after which words of which cell's stored
output the measured number stands, as for the role `stored`. Where there is no list, the reader
sets a number: `between` has its least and largest value and its step. Without a comment a
prediction stays a paragraph.
"""

import html
import re
from pathlib import Path

import stored
import yaml
from docutils import nodes
from myst_parser.mdit_to_docutils.base import default_slugify
from sphinx.errors import ExtensionError

WAYS = (
    '<p class="ways"><button type="button" name="show">Just show me</button> '
    '<button type="button" name="show-all">Show all, from now on</button></p>'
    '<p class="outcome" role="status"></p>'
)
RAISED = str.maketrans("−0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
COMMENT = re.compile(r"<!-- predict\n(.*?)-->", re.DOTALL)


def setup(app):
    """Register."""
    app.connect("doctree-resolved", fold)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def asks(node):
    """Whether a node is the question of a prediction."""
    return isinstance(node, nodes.paragraph) and any(
        isinstance(child, nodes.strong) and child.astext() == "Predict." for child in node
    )


def settings(text):
    """Return the table in a comment, or None where it is another comment."""
    found = COMMENT.search(text)
    return yaml.safe_load(found[1]) if found else None


def written(words):
    """Yield the question, with its options, and the table of each prediction in Markdown."""
    for comment in COMMENT.finditer(words):
        before = words[: comment.start()]
        yield before[before.rindex("**Predict.**") :], settings(comment[0])


def identity(chapter, question):
    """Return the id of a prediction: its chapter and the first words of its question.

    >>> identity("09", "Predict. Which of the nine have the largest share in degree 0?")
    'predict-09-which-of-the-nine-have-the'
    """
    words = default_slugify(question.partition("Predict.")[2].strip()).split("-")
    return "-".join(["predict", chapter, *[word for word in words if word][:6]])


def fold(app, doctree, docname):
    """Enclose each prediction, and what follows it up to the next one or the end of its section."""
    for comment in list(doctree.findall(nodes.raw)):
        table = settings(comment.astext())
        if table is None:
            continue
        parent, chapter = comment.parent, Path(docname).name[:2]
        end = parent.index(comment)
        start = max((i for i in range(end) if asks(parent[i])), default=None)
        if start is None:
            raise ExtensionError(f"{docname}: no **Predict.** stands before {comment.astext()}")
        if app.builder.name != "html":
            continue
        options = [node for node in parent[start:end] if isinstance(node, nodes.bullet_list)]
        attributes = outcome(app, chapter, table, sum(map(len, options)))
        name = identity(chapter, parent[start].astext())
        attributes = {"id": name, "role": "group", "aria-label": "Prediction", **attributes}
        for node in options:
            node["classes"].append("options")
        stop = next(
            (i for i in range(end + 1, len(parent))
             if isinstance(parent[i], nodes.section) or asks(parent[i])),
            len(parent),
        )  # fmt: skip
        parent.insert(stop, raw("</div>"))
        parent[end : end + 1] = [
            raw(control(table) + WAYS),
            raw('</div><div class="after-predict">'),
        ]
        given = "".join(f' {key}="{html.escape(str(v))}"' for key, v in attributes.items())
        parent.insert(start, raw(f'<div class="predict"{given}>'))


def outcome(app, chapter, table, options):
    """Return what the page knows of the right option and of the number that was measured."""
    unknown = set(table) - {"right", "measured", "between"}
    if unknown or bool(options) != ("right" in table) or bool(options) == ("between" in table):
        raise ExtensionError(
            "a prediction has options and `right`, or `between`, and perhaps `measured`; "
            f"received {table} and {options} options"
        )
    if options and table["right"] not in range(1, options + 1):
        raise ExtensionError(f"`right` must be 1 to {options}; received {table['right']}")
    attributes = {"data-right": table["right"]} if options else {}
    if "measured" in table:
        folder = Path(app.srcdir) / "notebooks"
        _, number = stored.look_up(folder, f"{chapter}:{table['measured']}")
        attributes["data-measured"] = "".join(map(plain, stored.shown(number)))
        if not options:
            attributes["data-value"] = number[0].partition(" of ")[0].replace(",", "").strip()
    return attributes


def plain(node):
    """Return the text of a node, with an exponent in characters of its own: 10⁻⁵."""
    if isinstance(node, nodes.superscript):
        return node.astext().translate(RAISED)
    return node.astext()


def control(table):
    """Return the control with which a reader sets a number."""
    if "between" not in table:
        return ""
    least, largest, step = table["between"]
    return (
        '<p class="number"><label>Your guess: <input type="range" '
        f'min="{least}" max="{largest}" step="{step}"/></label> <output></output> '
        '<button type="button" class="commit">This is my guess</button></p>'
    )


def raw(text):
    """Return a node of HTML."""
    return nodes.raw("", text, format="html")
