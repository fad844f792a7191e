"""Sphinx extension: formulas as MathML Core, which browsers and e-book readers set themselves."""

import html
import re

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number

#: The annotation carries the TeX source: for copying, and for programs that read TeX.
CONVERTER = LatexToMathML(annotation=True, xml_namespace=True, fancy_error=False)
FONT = "latin-modern-math.woff2"
#: A page from the disk may not ask in advance, and would say so on the console.
PRELOAD = """<script>if (location.protocol !== "file:") document.head.append(Object.assign(
  document.createElement("link"),
  { rel: "preload", as: "font", type: "font/woff2", crossOrigin: "", href: "%s" }));</script>"""
#: Brackets that grow, as those of \left and \right do: the others say that they may not.
BRACKET = re.compile(r'<mo(?![^>]*stretchy="false")([^>]*)>([()\[\]{}⟨⟩⌈⌉⌊⌋])</mo>')
BAR = re.compile(r'<mo(?![^>]*stretchy="false")([^>]*)>([|‖])</mo>')
OVERLINE = '<mo stretchy="true">\N{COMBINING LOW LINE}</mo></mover>'


def setup(app):
    """Register the renderer, and the font on pages with formulas."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    app.connect("html-page-context", preload_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def preload_font(app, pagename, templatename, context, doctree):
    """Let the browser fetch the font early where the page has a formula."""
    if app.builder.name == "html" and "<math " in context.get("body", ""):
        place = context["pathto"](f"_static/{FONT}", resource=True)
        context["metatags"] = context.get("metatags", "") + PRELOAD % place


def mathml(tex, is_display, page):
    """Return a formula of TeX as MathML, or raise an error that names the formula and its page."""
    try:
        formula = CONVERTER.convert_with_local_state(tex, displaystyle=is_display)
    except LatexError as error:
        raise ExtensionError(f"{page}: the formula {tex!r} cannot be set: {error}") from error
    formula = formula.replace("&ApplyFunction;", "&#x2061;")  # XML has no entity of that name
    formula = formula.replace(OVERLINE, OVERLINE.replace("\N{COMBINING LOW LINE}", "\N{OVERLINE}"))
    formula = formula.replace(">⊙</mo>", ' largeop="false">⊙</mo>')  # Firefox would enlarge it
    formula = BAR.sub(r'<mo class="stretched bar"\1>\2</mo>', formula)
    return BRACKET.sub(r'<mo class="stretched"\1>\2</mo>', formula)


def inline(translator, node):
    """Write a formula in a line of text."""
    formula = mathml(node.astext(), False, translator.builder.current_docname)
    translator.body.append(f'<span class="math">{formula}</span>')
    raise nodes.SkipNode


def display(translator, node):
    """Write a formula in a line of its own, with its number if it has one."""
    tex = node.astext()
    if "\\\\" in tex and "\\begin" not in tex:
        tex = f"\\begin{{aligned}}{tex}\\end{{aligned}}"
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        number = html.escape(str(get_node_equation_number(translator, node)))
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    formula = mathml(tex, True, translator.builder.current_docname)
    translator.body.append(f'<div class="math-scroll" tabindex="0">{formula}</div></div>\n')
    raise nodes.SkipNode
