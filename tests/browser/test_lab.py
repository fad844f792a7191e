"""In a running JupyterLab: the live figure as a widget, and a chapter from top to bottom."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from tools import ROOT

CHAPTERS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
#: One chapter is enough for each change; LAB_CHAPTERS=all runs every one.
CHOSEN = CHAPTERS if os.environ.get("LAB_CHAPTERS") == "all" else ["02_concepts.ipynb"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Start JupyterLab on a folder of its own; return (address, folder)."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--IdentityProvider.token=", f"--port={port}"]
    options += ["--expose-app-in-browser"]  # so that the tests can call the commands of the menus
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={folder}"]
    with subprocess.Popen(command, env=environment, **quiet) as server:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=1).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address, folder
        server.terminate()


def errors(cells):
    outputs = [output for c in cells if c.cell_type == "code" for output in c.outputs]
    return [output.ename for output in outputs if output.output_type == "error"]


#: Run every cell, save, and say in `window.ran` whether all went well. It is the menu's command;
#: called by name it waits for the kernel, which a click does not. All cells stay in the page.
RUN_ALL = """async () => {
    const { commands, shell } = window.jupyterapp;
    const { sessionContext, context, content } = shell.currentWidget;
    content.notebookConfig = { ...content.notebookConfig, windowingMode: "none" };
    await context.ready;
    await sessionContext.ready;
    await sessionContext.session.kernel.info;
    window.ran = commands.execute("notebook:run-all-cells")
        .then(async (well) => { await context.save(); window.ran = String(well); });
}"""


def run_all(browser, lab, name):
    """Open a notebook, run all of it, and return the page; every cell has run without an error."""
    address, folder = lab
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.goto(f"{address}/lab/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=120_000)
    page.evaluate(RUN_ALL)
    page.wait_for_function("typeof window.ran === 'string'", timeout=300_000)
    cells = nbformat.read(folder / name, 4).cells
    assert errors(cells) == []
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
    return page


def unexecuted(path, folder):
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, folder / path.name)


@pytest.mark.parametrize("name", CHOSEN)
def test_a_chapter_from_top_to_bottom(browser, lab, name):
    unexecuted(ROOT / "notebooks" / name, lab[1])
    page = run_all(browser, lab, name)
    text = page.locator(".jp-Notebook").inner_text()
    page.close()
    assert "Further reading" in text  # all of it is there, to the last heading
    assert ":::{" not in text and "```{" not in text  # directives are rendered, not raw


def test_the_widget_follows_the_reader_and_python(browser, lab):
    lines = [
        "import ipywidgets\nfrom gradutils.explorables import Explorable",
        "figure = Explorable('depth', depth=30)\nfigure",
        "heard = ipywidgets.Label()\n"
        "hear = lambda change: setattr(heard, 'value', f'depth is {change.new}')\n"
        "figure.observe(hear, 'depth')\nheard",
        "figure.activation = 'relu'",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(line) for line in lines])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab[1] / "widget.ipynb")
    page = run_all(browser, lab, "widget.ipynb")
    figure = page.locator(".explorable[data-live]")
    figure.wait_for(timeout=30_000)
    assert figure.locator("[name=depth]").input_value() == "30"
    # Python has set the activation after the figure was shown.
    page.wait_for_function(
        "document.querySelector('.explorable [name=activation]').value == 'relu'"
    )
    # What the reader sets reaches Python.
    figure.locator("[name=depth]").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("depth is 31").wait_for(timeout=20_000)
    page.close()
