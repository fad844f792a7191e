"""Write the notebooks for students: `make student`. Each solution gives way to an empty attempt."""

import re
import shutil

import nbformat

from tools import ROOT
from tools.offline import NAME, pack

FOLDER = ROOT / "_build" / "student"
STUDENT = f"{NAME}-student"
ARCHIVE = ROOT / "dist" / f"{STUDENT}.zip"

#: What is said of a solution behind it.
IN_WORDS = re.compile(r":::\{admonition\} Solution \d+, in words\n.*?\n:::\n*", re.DOTALL)


def without_solutions(notebook):
    """Replace the solutions of a notebook, which fold under a title of their own, by attempts."""
    for cell in notebook.cells:
        cell.source = IN_WORDS.sub("", cell.source)
        title = cell.metadata.get("mystnb", {}).get("code_prompt_show", "")
        if found := re.fullmatch(r"Solution (\d+)", title):
            cell.source = f"# Your attempt at exercise {found[1]}"
            cell.outputs, cell.execution_count, cell.metadata = [], None, {}
    return notebook


def main():
    """Write the notebooks and pack them."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        nbformat.write(without_solutions(nbformat.read(path, 4)), FOLDER / path.name)
    pack(FOLDER, ARCHIVE, STUDENT)
    print(f"{ARCHIVE.relative_to(ROOT)}: {ARCHIVE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
