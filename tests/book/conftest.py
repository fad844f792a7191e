"""Small notebooks with stored outputs."""

import copy

import nbformat
import numpy as np
import pytest

from tools import ROOT
from tools.notebooks import execute, normalise

SINE = (
    "import matplotlib.pyplot as plt\nimport numpy as np\n"
    "from gradutils import plots\nplots.use_style()",
    "x = np.linspace(0, 6, 50)\nprint(f'{np.sin(x).sum():.4f}')",
    "_, ax = plt.subplots()\nax.plot(x, np.sin(x), label='sine');",
)


@pytest.fixture(scope="session")
def _sine():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in SINE])
    return normalise(execute(notebook, ROOT / "notebooks" / "sine.ipynb"))


@pytest.fixture
def executed(_sine):
    """A small notebook that prints a number and draws a sine, with its outputs."""
    return copy.deepcopy(_sine)


@pytest.fixture
def plain():
    """A small notebook that prints the first random number, in full and rounded."""
    number = np.random.default_rng(0).random()
    texts = {
        "import numpy as np": "",
        "print(np.random.default_rng(0).random())": f"{number}\n",
        "print(f'{np.random.default_rng(0).random():.12f}')": f"{number:.12f}\n",
    }
    cells = [
        nbformat.v4.new_code_cell(
            source,
            execution_count=1,
            outputs=[nbformat.v4.new_output("stream", text=text)] if text else [],
        )
        for source, text in texts.items()
    ]
    return normalise(nbformat.v4.new_notebook(cells=cells))
