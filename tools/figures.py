"""A pytest plugin that completes nbval: figures are compared by the data they draw.

nbval compares text byte for byte and pictures not at all. `gradutils.plots.use_style` has every
displayed figure carry its data beside the picture, under `FIGURE_MIME`. Here the stored data are
compared with the recomputed data: strings and structure exactly, numbers within a tolerance that
survives another processor and that no eye would see. A picture without data fails.
"""

import functools
import json
import os
from itertools import zip_longest

import numpy as np
from nbval import kernel as nbval_kernel
from nbval.plugin import IPyNbCell

from gradutils.plots import FIGURE_MIME

#: Share of the range of the stored numbers by which a number may differ.
LINEAR_TOLERANCE = 1e-3
#: Share of each stored number, on Axes with a logarithmic scale.
LOG_TOLERANCE = 1e-2
#: What kernels run with, unless the user has set it otherwise.
KERNEL_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # more threads than free cores are slower, many times over
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # when on, TensorFlow says so on stderr at every import
    "TQDM_DISABLE": "1",  # progress is for whoever watches; it leaves no trace in outputs
    "JUPYTER_PLATFORM_DIRS": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
#: No entry in the history of whoever runs this, and no word from the kernel itself.
KERNEL_ARGUMENTS = ["--HistoryManager.hist_file=:memory:", "--log-level=ERROR"]


def figure_data(data):
    """Return the data of the figure in an output's data; None if it carries none."""
    return json.loads(data[FIGURE_MIME]) if FIGURE_MIME in data else None


def figure_differences(stored, drawn):
    """Return what differs between two figures' data, a line for each artist; [] if nothing."""
    return list(_differences(stored, drawn, "", log=False))


def split_figures(outputs):
    """Return (outputs without figure data, list of figure data; None for a picture without)."""
    plain, figures = [], []
    for output in outputs:
        data = output.get("data", {})
        if FIGURE_MIME in data or "image/png" in data:
            figures.append(figure_data(data))
            rest = {mime: value for mime, value in data.items() if mime != FIGURE_MIME}
            output = type(output)({**output, "data": rest})
        plain.append(output)
    return plain, figures


def _differences(stored, drawn, where, log):
    if isinstance(stored, dict) and isinstance(drawn, dict):
        log = log or "log" in str(stored.get("scales", ""))
        for key in sorted(stored.keys() | drawn.keys()):
            yield from _differences(stored.get(key), drawn.get(key), f"{where}, {key}", log)
    elif _is_numeric(stored) and _is_numeric(drawn):
        yield from _number_differences(stored, drawn, where, log)
    elif isinstance(stored, list) and isinstance(drawn, list):
        for i, (a, b) in enumerate(zip_longest(stored, drawn)):
            yield from _differences(a, b, _name(where, i, a), log)
    elif stored != drawn:
        yield f"{where.lstrip(', ')}: stored {_short(stored)}, drawn {_short(drawn)}"


def _name(where, index, item):
    """Name an item of a list: "axes 1" at the top, else by its number and label."""
    if not where:
        return f"axes {index + 1}"
    label = item.get("label") if isinstance(item, dict) else None
    return f"{where} {index + 1}" + (f" ({label!r})" if label else "")


def _is_numeric(value):
    values = value if isinstance(value, list) else [value]
    return any(_is_number(v) for v in values) and all(v is None or _is_number(v) for v in values)


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number_differences(stored, drawn, where, log):
    a = np.atleast_1d(np.array(stored, dtype=float))  # None becomes NaN
    b = np.atleast_1d(np.array(drawn, dtype=float))
    if a.shape != b.shape:
        yield f"{where.lstrip(', ')}: stored {a.size} numbers, drawn {b.size}"
        return
    finite = a[np.isfinite(a)]
    if log:
        tolerance = LOG_TOLERANCE * np.abs(a)
    else:
        spread = np.ptp(finite) if finite.size else 0.0
        magnitude = np.abs(finite).max() if finite.size else 0.0
        tolerance = np.full(a.shape, LINEAR_TOLERANCE * (spread or magnitude))
    with np.errstate(invalid="ignore"):  # inf - inf
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= tolerance)
        distance = np.where(same, 0.0, np.nan_to_num(np.abs(a - b) - tolerance, nan=np.inf))
    if not same.all():
        worst = int(np.argmax(distance))
        yield (
            f"{where.lstrip(', ')}: {np.sum(~same)} of {a.size} numbers differ, most at index "
            f"{worst}: stored {a[worst]:g}, drawn {b[worst]:g}, tolerance {tolerance[worst]:.2g}"
        )


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


nbval_compare_outputs = IPyNbCell.compare_outputs


def compare_outputs(cell, test, ref, skip_compare=None):
    """Compare as nbval does, and the figures by their data."""
    test, drawn_figures = split_figures(test)
    ref, stored_figures = split_figures(ref)
    same = nbval_compare_outputs(cell, test, ref, skip_compare)
    messages = []
    if len(stored_figures) != len(drawn_figures):
        messages.append(f"stored {len(stored_figures)} figures, drawn {len(drawn_figures)}")
    for i, (stored, drawn) in enumerate(zip(stored_figures, drawn_figures, strict=False), start=1):
        if stored is None or drawn is None:
            side = "stored" if stored is None else "drawn"
            messages.append(
                f"figure {i}: the {side} picture carries no data to compare; "
                "call gradutils.plots.use_style() in the import cell"
            )
        else:
            messages += [f"figure {i}, {line}" for line in figure_differences(stored, drawn)]
    cell.comparison_traceback.extend(messages)
    return same and not messages


def execute_cell_input(kernel, cell_input, allow_stdin=None):
    """Execute as JupyterLab does, with history: a final `;` silences a cell only then."""
    return kernel.kc.execute(cell_input, allow_stdin=allow_stdin, stop_on_error=False)


def pytest_configure():
    """Set the environment of kernels and tests, and complete nbval."""
    os.environ.update({**KERNEL_ENVIRONMENT, **os.environ})
    IPyNbCell.compare_outputs = compare_outputs
    nbval_kernel.RunningKernel.execute_cell_input = execute_cell_input
    nbval_kernel.start_new_kernel = functools.partial(
        nbval_kernel.start_new_kernel, extra_arguments=KERNEL_ARGUMENTS
    )
