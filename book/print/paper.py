"""Sphinx extension: the book on paper, through LaTeX; nothing here touches the HTML pages."""

import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

from tools.offline import NAME

STYLE = Path(__file__).with_suffix(".sty")
#: Characters of a table's row that fit on a line of the page.
LINE = 84
LIVE = "Here the HTML book has a live figure, which computes a network when you move a control."


def setup(app):
    """Register."""
    app.connect("config-inited", configure, priority=999)  # after the table of contents
    app.add_post_transform(LiveFigures)
    app.add_post_transform(Paper)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def configure(app, config):
    """Set what Sphinx needs to know about the paper."""
    author = config.author
    config.latex_engine = "xelatex"
    config.latex_documents = [(config.root_doc, f"{NAME}.tex", config.html_title, author, "manual")]
    config.latex_additional_files = [str(STYLE)]
    config.latex_domain_indices = False
    config.latex_use_xindy = False
    config.latex_table_style = ["booktabs"]
    config.latex_elements = {
        "papersize": "a4paper",
        "pointsize": "10pt",
        "extraclassoptions": "openany,oneside",
        "fontpkg": "",
        "fncychap": "",
        "figure_align": "htb",
        "fvset": r"\fvset{fontsize=\footnotesize}",
        "sphinxsetup": "hmargin={20mm,20mm}, vmargin={24mm,24mm}, pre_border-width=0pt, "
        "pre_border-radius=0pt, pre_background-TeXcolor={gray}{0.95}, pre_padding=4pt",
        "preamble": r"\usepackage{paper}",
    }


class LiveFigures(SphinxPostTransform):
    """A sentence in the place of each live figure."""

    default_priority = 3  # before MyST-NB chooses among the forms of an output
    formats = ("latex",)

    def run(self):
        """Replace them."""
        for raw in list(self.document.findall(nodes.raw)):
            if 'class="explorable"' in raw.astext():
                bundle = raw.parent.get("nb_element") == "mime_bundle"
                text = nodes.paragraph("", "", nodes.emphasis("", LIVE))
                (raw.parent if bundle else raw).replace_self(text)


class Paper(SphinxPostTransform):
    """The order of a book: preface, chapters under the headings of the pages' menu."""

    default_priority = 198  # before hidden cells lose their label
    formats = ("latex",)

    def run(self):
        """Change the document in place."""
        if self.env.docname == self.config.root_doc:
            self.arrange()
            for image in self.document.findall(nodes.image):
                if image.parent.tagname == "figure" and "wide" not in image["classes"]:
                    image["width"] = "75%"
            for value in list(self.document.findall(addnodes.desc_annotation)):
                if len(value.astext()) > LINE:
                    value.parent.remove(value)
            for table in self.document.findall(nodes.table):
                fit(table)
            for cell in self.document.findall(nodes.container):
                if cell.get("hide_mode"):
                    label = nodes.strong("", cell["prompt_show"])
                    cell.insert(0, nodes.paragraph("", "", label))

    def arrange(self):
        """Make a preface of the first page, and name the parts."""
        title, *preface = self.document[0].children
        groups = [node for node in self.document.findall(nodes.compound) if is_menu(node)]
        toctrees = self.env.get_doctree(self.config.root_doc).findall(addnodes.toctree)
        captions = [toctree["caption"] for toctree in toctrees]
        for group in groups:
            group.parent.remove(group)
            for start in group.findall(addnodes.start_of_file):
                start.insert(0, latex(self.numbering(start["docname"])))
        preface = [node for node in preface if "contents" not in node.get("names", [])]
        chapter = nodes.section("", nodes.title("", "About this book"), *preface, ids=["about"])
        self.document[0].children = []
        self.document[0].extend([title, latex(self.numbering(self.config.root_doc)), chapter])
        for caption, group in zip(captions, groups, strict=True):
            self.document[0].extend([latex(rf"\bookpart{{{caption}}}"), group])

    def numbering(self, docname):
        """Return the commands that give a chapter and its figures the numbers of the pages."""
        number = self.env.toc_secnumbers.get(docname, {}).get("")
        figures = self.env.toc_fignumbers.get(docname, {}).get("figure", {}).values()
        if number:
            return rf"\numbered{{{number[0]}}}"
        return rf"\unnumbered{{{min(figures, default=[1])[0]}}}"


def is_menu(node):
    """Whether a node stands for a group of chapters."""
    return "toctree-wrapper" in node["classes"] and any(node.findall(addnodes.start_of_file))


def latex(text):
    """Return a node of LaTeX."""
    return nodes.raw("", text + "\n", format="latex")


def fit(table):
    """Give a table that is wider than the page columns that wrap, and let a long one break."""
    for entry in table.findall(nodes.entry):
        if not entry.children:  # LaTeX would set an empty line
            entry += nodes.paragraph("", "\N{NO-BREAK SPACE}")
    columns = list(zip(*[row.children for row in table.findall(nodes.row)], strict=True))
    longest = [max(map(width, column)) for column in columns]
    if sum(longest) <= LINE:
        return
    table["classes"].append("colwidths-given")
    if len(columns[0]) > 8:
        table["classes"].append("longtable")
    room, colspecs = LINE, list(table.findall(nodes.colspec))
    order = sorted(range(len(longest)), key=longest.__getitem__)
    for taken, column in enumerate(order):  # a narrow column leaves its share to the wide ones
        colspecs[column]["colwidth"] = min(longest[column], room // (len(order) - taken))
        room -= colspecs[column]["colwidth"]


def width(entry):
    """Return about how many characters wide a cell with its margins is."""
    formulas = "".join(formula.astext() for formula in entry.findall(nodes.math))
    signs = re.sub(r"\\[a-zA-Z]+", "x", formulas)
    return 2 + len(entry.astext()) - len(formulas) + len(re.sub(r"[{}^_]", "", signs))
