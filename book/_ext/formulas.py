"""Sphinx extension: formulas set when the book is built, by KaTeX, so that pages need no script.

katex/katex.min.js is KaTeX 0.19.1 as its makers publish it; style and fonts are in _static/katex.
"""

import atexit
import html
import json
from functools import cache
from pathlib import Path

from docutils import nodes
from py_mini_racer import MiniRacer
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number

SCRIPT = Path(__file__).parent / "katex" / "katex.min.js"
EARLY = ("KaTeX_Main-Regular", "KaTeX_Math-Italic")  # fonts that nearly every formula needs


def setup(app):
    """Register the renderer, and its style on pages with formulas."""
    app.add_html_math_renderer("katex", (inline, None), (display, None))
    app.connect("html-page-context", add_style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_style(app, pagename, templatename, context, doctree):
    """Load style and fonts where the page has a formula."""
    if app.builder.name != "html" or 'class="katex' not in context.get("body", ""):
        return
    app.add_css_file("katex/katex.css", priority=400)
    place = context["pathto"]("_static/katex/fonts", resource=True)
    context["metatags"] = context.get("metatags", "") + "".join(
        f'<link rel="preload" as="font" type="font/woff2" crossorigin href="{place}/{font}.woff2"/>'
        for font in EARLY
    )


@cache
def engine():
    """Return a JavaScript engine that has read KaTeX."""
    context = MiniRacer()
    atexit.register(context.close)  # as an object goes, Python 3.13 can no longer end its thread
    context.eval(SCRIPT.read_text("utf-8") + "; 0")
    return context


@cache
def rendered(tex, is_display, output="htmlAndMathml"):
    """Return the HTML of a formula: the picture for eyes, MathML for screen readers and e-books."""
    options = {
        "displayMode": is_display, "output": output, "throwOnError": True, "strict": "error",
    }  # fmt: skip
    call = f"katex.renderToString({json.dumps(tex)}, {json.dumps(options)})"
    try:
        return engine().eval(call)
    except Exception as error:
        raise ExtensionError(f"KaTeX cannot set {tex!r}: {error}") from error


def output_of(translator):
    """Return what KaTeX writes for the book that is built: e-book readers set MathML themselves."""
    return "mathml" if translator.builder.name == "epub" else "htmlAndMathml"


def inline(translator, node):
    """Write a formula in a line of text."""
    formula = rendered(node.astext(), False, output_of(translator))
    translator.body.append(f'<span class="math">{formula}</span>')
    raise nodes.SkipNode


def display(translator, node):
    """Write a formula in a line of its own, with its number if it has one."""
    tex = node.astext()
    if "\\\\" in tex and "\\begin" not in tex:
        tex = f"\\begin{{split}}{tex}\\end{{split}}"
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        number = html.escape(str(get_node_equation_number(translator, node)))
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    formula = rendered(tex, True, output_of(translator))
    translator.body.append(f'<div class="math-scroll" tabindex="0">{formula}</div></div>\n')
    raise nodes.SkipNode
