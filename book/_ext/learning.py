"""Sphinx extension: the script of predictions and answers, and the page of a reader's own.

Everything stays in the reader's browser. Without a script nothing is folded.
"""

import html
import json
import re

from lists import HEADING, FromNotebooks, text
from predictions import identity, written

from tools.lessons import CHECK

#: Before the first paint, so that nothing moves: whether predictions fold what follows them, and
#: which of them are open, since the reader has made them.
BEFORE = """<script>(() => {
  let kept;
  try { kept = JSON.parse(localStorage.getItem("gradutils-learning")); } catch {}
  if (kept?.showAll || location.search.includes("highlight=")) return;
  document.documentElement.classList.add("folds", "folded");
  const made = Object.keys(kept?.predictions ?? {}).map((id) => `#${CSS.escape(id)}`).join();
  if (!made) return;
  const style = document.createElement("style");
  style.textContent = `:is(${made}) + .after-predict { display: block !important; }
    :is(${made}) .ways { display: none !important; }
    :is(${made}) .outcome { display: block !important; min-height: 1.65em; }`;
  document.head.append(style);
})();</script>"""
PAGE = """<div id="progress" data-chapters="{chapters}">
<p class="summary"></p>
<div class="pst-scrollable-table-container"><table class="table">
<thead><tr><th>chapter</th><th>predictions made</th><th>right</th><th>by guessing</th>
<th>answers right</th></tr></thead><tbody></tbody><tfoot></tfoot></table></div>
<p><label><input type="checkbox" name="fold"/>
Fold what follows a prediction until it is made</label></p>
<p class="ways"><button type="button" name="save">Save as a file</button>
<label class="button">Load a file
<input type="file" name="load" accept="application/json"/></label>
<button type="button" name="clear">Forget all</button></p>
<p role="status"></p>
</div>
<noscript><p>This page needs JavaScript: your browser keeps what you said.</p></noscript>"""
#: What stands in place of the table on paper and in an e-book, which keep nothing.
ELSEWHERE = "The table stands on this page of the website, where predictions are made."


def setup(app):
    """Register."""
    app.add_directive("own-predictions", OwnPredictions)
    app.connect("html-page-context", load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class OwnPredictions(FromNotebooks):
    """The table of a reader's predictions and answers, which the script fills."""

    def markdown(self, chapters):
        """Yield the page as HTML, and a sentence where nothing could fill it."""
        if self.env.app.builder.name != "html":
            yield ELSEWHERE
            return
        counted = [counts(file, cells) for file, cells in chapters.items()]
        page = PAGE.format(chapters=html.escape(json.dumps(counted)))
        yield from ["```{raw} html", *page.split("\n"), "```"]


def counts(file, cells):
    """Return title, predictions and answers of a chapter."""
    words = text(cells, "markdown")
    predictions = []
    for question, table in written(words):
        options = len(re.findall(r"^- ", question, flags=re.M)) if "right" in table else 0
        predictions.append(
            {"id": identity(file[:2], question.replace("*", "")), "options": options}
        )
    answers = [
        f"{number} {name}"
        for number, names in CHECK.findall(text(cells, "code"))
        for name in re.findall(r"(\w+)=None", names)
    ]
    title = f"{int(file[:2])} {HEADING.search(words)[2]}"
    return {"title": title, "predictions": predictions, "answers": answers}


def load(app, pagename, templatename, context, doctree):
    """Load the script where a page has predictions or answers."""
    body = context.get("body", "")
    if app.builder.name != "html" or not re.search('class="(predict|answer)"|id="progress"', body):
        return
    context["metatags"] = context.get("metatags", "") + BEFORE
    script = context["pathto"]("_static/learning.js", resource=True)
    context["body"] += f'<script src="{script}"></script>'
