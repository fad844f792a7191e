"""Execute the notebooks in place and store their outputs: `python -m tools.notebooks [paths]`.

Metadata are normalised (cell ids from the cell's first words, counts from 1, no traces of the
machine), and outputs that agree with the stored ones are left as they are, so that nothing is
written where nothing changed. `--check` executes nothing and reports what breaks the house rules.
"""

import argparse
import copy
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

from tools import ROOT, rules
from tools.figures import (
    KERNEL_ARGUMENTS,
    KERNEL_ENVIRONMENT,
    figure_differences,
    split_figures,
)

WIDGET = "application/vnd.jupyter.widget-view+json"  # names a live object, so it is not stored
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
#: Cell metadata that editors and clients leave behind.
TRACES = (
    "ExecuteTime", "collapsed", "editable", "execution", "jp-MarkdownHeadingCollapsed",
    "lines_to_next_cell", "scrolled", "slideshow", "trusted", "vscode",
)  # fmt: skip


def main(arguments=None):
    """Execute or check the notebooks named, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="report what breaks the house rules")
    parser.add_argument("paths", nargs="*", type=Path, help="default: every notebook")
    options = parser.parse_args(arguments)
    paths = options.paths or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if options.check:
        return check(paths)
    failed = [path for path in paths if not refresh(path)]
    return 1 if failed else 0


def check(paths):
    """Print each breach of the house rules; return 1 if there is one."""
    breaches = [f"{path.name}: {line}" for path in paths for line in problems(path)]
    print("\n".join([*breaches, f"{len(paths)} notebooks checked, {len(breaches)} breaches"]))
    return 1 if breaches else 0


def problems(path):
    """Return what is wrong with a notebook file: rules of the house, and its stored form."""
    text = path.read_text("utf-8")
    notebook = nbformat.reads(text, as_version=4)
    found = rules.breaches(notebook)
    if serialise(normalise(notebook)) != text:
        found.append("metadata are not in normal form: run `make notebooks`")
    return found


def refresh(path):
    """Execute a notebook and write it if anything changed; return False if a cell failed."""
    start = time.perf_counter()
    text = path.read_text("utf-8")
    stored = nbformat.reads(text, as_version=4)
    try:
        drawn = execute(copy.deepcopy(stored), path)
    except CellExecutionError as error:
        print(f"{path.name}: a cell failed, nothing is written\n{error}", file=sys.stderr)
        return False
    fresh = serialise(normalise(keep_equal_outputs(stored, drawn)))
    if fresh != text:
        path.write_text(fresh, "utf-8")
    verdict = "unchanged" if fresh == text else "written"
    print(f"{path.name}: {verdict}, {time.perf_counter() - start:.0f} s", flush=True)
    return True


def execute(notebook, path):
    """Return the notebook with its outputs computed anew, reporting each cell as it starts."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    total = len(notebook.cells)

    def report(cell, cell_index):
        if sys.stderr.isatty():
            line = cell.source.partition("\n")[0][:50]
            print(f"\r\033[K{path.name} {cell_index + 1}/{total} {line}", end="", file=sys.stderr)

    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(
            kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
        ),
        timeout=1800,
        extra_arguments=list(KERNEL_ARGUMENTS),
        coalesce_streams=True,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=report,
    )
    try:
        return client.execute(cleanup_kc=True, env={**KERNEL_ENVIRONMENT, **os.environ})
    finally:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)


def keep_equal_outputs(stored, drawn):
    """Return `drawn`, with the stored outputs wherever the new ones agree with them."""
    for old, new in zip(stored.cells, drawn.cells, strict=True):
        if old.cell_type == "code" and agree(old.outputs, new.outputs):
            new.outputs = old.outputs
    return drawn


def agree(stored, drawn):
    """Tell whether outputs are the same, figures within their tolerance, pictures aside."""
    stored, stored_figures = split_figures(stored)
    drawn, drawn_figures = split_figures(drawn)
    if len(stored_figures) != len(drawn_figures) or None in stored_figures + drawn_figures:
        return False
    same_figures = not figure_differences(stored_figures, drawn_figures)
    return same_figures and without_pictures(stored) == without_pictures(drawn)


def without_pictures(outputs):
    """Return outputs without PNG pictures and execution counts."""
    plain = []
    for output in outputs:
        output = {key: value for key, value in output.items() if key != "execution_count"}
        if "data" in output:
            output["data"] = {
                k: v for k, v in output["data"].items() if k not in ("image/png", WIDGET)
            }
        plain.append(output)
    return plain


def normalise(notebook):
    """Return a copy with ids, counts and metadata that say nothing of the machine or the day."""
    notebook = copy.deepcopy(notebook)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict({**notebook.metadata, **METADATA})
    count = 0
    for cell, name in zip(notebook.cells, cell_ids(notebook.cells), strict=True):
        cell["id"] = name
        for trace in TRACES:
            cell.metadata.pop(trace, None)
        if cell.cell_type == "code" and cell.execution_count is not None:
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
                if output.output_type == "execute_result":
                    output.execution_count = count
    return notebook


def cell_ids(cells):
    """Name cells by their first words, so that inserting one renames no other."""
    taken = set()
    for cell in cells:
        words = re.findall(r"[a-z0-9]+", cell.source.lower())
        name = base = "-".join(words[:6])[:48].strip("-") or "cell"
        i = 1
        while name in taken:
            i += 1
            name = f"{base}-{i}"
        taken.add(name)
        yield name


def serialise(notebook):
    """Return the text of a notebook file."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.exit(main())
