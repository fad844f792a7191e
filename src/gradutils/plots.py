"""The pictures of the book, from arrays. Sizes, colours and fonts live in gradutils.mplstyle.

Each function draws on `ax` (a new figure if it is None) and returns the Axes. In a notebook,
`use_style` also has every displayed figure carry the data that it draws, so that the test of a
notebook can compare pictures by content.
"""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from gradutils import _checks, activations

#: The look of each regime, told apart without colour as well.
REGIMES = {
    "vanishing": {"color": "C0", "marker": "v", "linestyle": "--"},
    "healthy": {"color": "C1", "marker": "o", "linestyle": "-"},
    "exploding": {"color": "C2", "marker": "^", "linestyle": "-."},
}
#: The look of a predicted line.
THEORY: dict[str, Any] = {"color": "C3", "linestyle": ":", "linewidth": 1.5}
#: The look of each activation, the same in every figure.
ACTIVATION_STYLES = {
    name: {"color": f"C{i % 10}", "linestyle": ("-", "--", "-.")[i % 3]}
    for i, name in enumerate(activations.ACTIVATIONS)
}
FIGURE_MIME = "application/vnd.gradutils.figure+json"
WIDE = (8.4, 3.4)
_KEPT_POINTS = 200


def use_style() -> None:
    """Use the book's style; in IPython, record what each displayed figure draws.

    Call it once, in the import cell of a notebook.
    """
    plt.style.use("gradutils.gradutils")
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is not None:
        formatter = shell.display_formatter.mimebundle_formatter
        formatter.for_type(Figure, lambda figure, **_: {FIGURE_MIME: _figure_text(figure)})


def _figure_text(figure: Figure) -> str:
    """Return the fingerprint as JSON text, which takes one line of a notebook."""
    return json.dumps(_fingerprint(figure), sort_keys=True, ensure_ascii=False)


def _fingerprint(figure: Figure) -> list[dict[str, Any]]:
    """Return what a figure draws: per Axes its labels, scales, limits, and its artists' data.

    Arrays of more than 200 numbers are thinned to evenly spaced ones.

    Examples
    --------
    >>> figure, ax = plt.subplots()
    >>> _ = ax.plot([1, 2], [3, 4])
    >>> _fingerprint(figure)[0]["lines"][0]["y"]
    [3.0, 4.0]
    >>> plt.close(figure)
    """
    return [_axes_content(ax) for ax in figure.axes]


def _axes_content(ax: Axes) -> dict[str, Any]:
    return {
        "labels": [ax.get_title(), ax.get_xlabel(), ax.get_ylabel()],
        "scales": [ax.get_xscale(), ax.get_yscale()],
        "limits": [_numbers(ax.get_xlim()), _numbers(ax.get_ylim())],
        "texts": [t.get_text() for t in ax.texts],
        "lines": [_line_content(line) for line in ax.lines],
        "images": [_numbers(image.get_array()) for image in ax.images],
        "patches": [_numbers(patch.get_path().vertices) for patch in ax.patches],
        "collections": [_collection_content(c) for c in ax.collections],
    }


def _line_content(line: Any) -> dict[str, Any]:
    return {
        "label": str(line.get_label()),
        "style": [str(line.get_color()), str(line.get_linestyle()), str(line.get_marker())],
        "x": _numbers(line.get_xdata()),
        "y": _numbers(line.get_ydata()),
    }


def _collection_content(collection: Any) -> dict[str, Any]:
    values = collection.get_array()
    paths = [path.vertices for path in collection.get_paths()]
    return {
        "offsets": _numbers(collection.get_offsets()),
        "values": _numbers([] if values is None else values),
        "paths": _numbers(np.concatenate(paths) if paths else []),
    }


def _numbers(data: Any) -> list[float | None]:
    """Flatten, thin and round to 6 digits; JSON has no NaN or inf, so these become None."""
    flat: np.ndarray = np.ma.filled(np.ma.asarray(data, dtype=float), np.nan).ravel()
    if flat.size > _KEPT_POINTS:
        flat = flat[np.linspace(0, flat.size - 1, _KEPT_POINTS).astype(int)]
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in flat]


def _array(
    name: str, values: ArrayLike, *, axes: int | None = None, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """Return an array of numbers, one or more, checked against its number of axes or its shape."""
    array = _checks.numbers(name, values, float)
    if array.size == 0 or axes not in (None, array.ndim) or shape not in (None, array.shape):
        wanted = f"shape {shape}" if shape else f"numbers along {axes or 'any'} axes"
        raise ValueError(f"{name} must hold {wanted}; received shape {array.shape}")
    return array


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots()[1] if ax is None else ax


def _label_line_ends(ax: Axes, colors: Mapping[str, str]) -> None:
    """Write each line's label beside its last point, a line of text apart from the others."""
    ends = {}
    for line in ax.lines:
        label, points = str(line.get_label()), np.column_stack(line.get_data())
        shown = np.isfinite(points[:, 1])
        if ax.get_yscale() == "log":
            shown &= points[:, 1] != 0
        points = points[shown]
        if label in colors and len(points):
            ends[label] = points[-1]
    if not ends:
        return
    ax.autoscale_view()
    places = ax.transData.transform(list(ends.values()))[:, 1] * 72 / ax.figure.dpi  # in points
    shifts, order = np.zeros(len(ends)), np.argsort(places, kind="stable")
    for _ in range(20 * len(ends)):
        for low, high in itertools.pairwise(order):
            lack = max(0.0, 12 - (places + shifts)[high] + (places + shifts)[low])
            shifts[[low, high]] += [-lack / 2, lack / 2]
    for (label, end), shift in zip(ends.items(), shifts, strict=True):
        ax.annotate(
            f" {label}", (end[0], end[1]), color=colors[label], va="center",
            xytext=(4, shift), textcoords="offset points", annotation_clip=False,
        )  # fmt: skip


def layer_profile(
    series: Mapping[str, ArrayLike],
    *,
    ylabel: str,
    theory: Mapping[str, ArrayLike] | None = None,
    regimes: Mapping[str, str] | None = None,
    xlabel: str = "layer",
    log: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw one quantity per layer, a labelled line for each network.

    Parameters
    ----------
    series : mapping of str to array_like, shape (layers,)
        Label -> value in layer 1, 2, ...
    ylabel : str
        The quantity, with its unit.
    theory : mapping of str to array_like, optional
        Label of a series -> the predicted values, drawn dotted.
    regimes : mapping of str to str, optional
        Label of a series -> "vanishing", "healthy" or "exploding", which sets its look.
    xlabel : str
    log : bool
        Logarithmic vertical axis.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If a series is not a row of numbers, a prediction has another length than its series, or a
        regime is unknown.

    Examples
    --------
    >>> ax = layer_profile({"He": [1.0, 1.1, 0.9]}, ylabel="second moment")
    >>> plt.close(ax.figure)
    """
    for label, regime in (regimes or {}).items():
        if regime not in REGIMES:
            known = ", ".join(REGIMES)
            raise ValueError(f"regimes[{label!r}] must be one of {known}; received {regime!r}")
    lines = {label: _array(f"series[{label!r}]", y, axes=1) for label, y in series.items()}
    predicted = {
        label: _array(f"theory[{label!r}]", y, shape=lines[label].shape)
        for label, y in (theory or {}).items()
        if label in lines
    }
    ax, colors = _axes(ax), {}
    for i, (label, y) in enumerate(lines.items()):
        x = np.arange(1, len(y) + 1)
        look: dict[str, Any] = dict(REGIMES.get((regimes or {}).get(label, ""), {"color": f"C{i}"}))
        ax.plot(x, y, label=label, markevery=max(1, len(y) // 12), **look)
        if label in predicted:
            ax.plot(x, predicted[label], label=f"theory, {label}", **THEORY)
        colors[label] = look["color"]
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log and any(np.any(np.greater(line.get_ydata(), 0)) for line in ax.lines):
        ax.set_yscale("log")
    _label_line_ends(ax, colors)
    return ax


def side_by_side(
    panels: Mapping[str, Mapping[str, ArrayLike]], *, xlabel: str, colors: Mapping[str, str],
    log: Sequence[str] = (), start: int = 0,
) -> np.ndarray:  # fmt: skip
    """Draw several quantities over one axis, a panel for each, with a labelled line per series.

    A series has the same colour and the same dashes in every panel. Of three panels or more only
    the last one, whose lines should end apart, has the labels.

    Parameters
    ----------
    panels : mapping of str to mapping of str to array_like, shape (points,)
        Caption of a panel's vertical axis -> label -> values. NaN leaves a gap.
    xlabel : str
    colors : mapping of str to str
        Label -> colour, for every label.
    log : sequence of str
        Captions of the panels with a logarithmic vertical axis.
    start : int
        Place of the first value on the horizontal axis.

    Returns
    -------
    ndarray of Axes, shape (len(panels),)

    Raises
    ------
    ValueError
        If there is no panel, a series is not a row of numbers or has no colour, or `start` is not
        a finite number.

    Examples
    --------
    >>> two = {"loss": {"plain": [2.0, 1.0]}, "norm": {"plain": [3.0, 0.1]}}
    >>> options = {"colors": {"plain": "C0"}, "log": ["norm"]}
    >>> axes = side_by_side(two, xlabel="step", **options)
    >>> plt.close(axes[0].figure)
    """
    if not panels:
        raise ValueError(f"panels must hold one or more quantities; received {panels!r}")
    _checks.finite(start=start)
    dashes = dict(zip(colors, itertools.cycle(("-", "--", "-.", ":")), strict=False))
    lines = {
        caption: {label: _array(f"panels[{caption!r}][{label!r}]", y, axes=1)
                  for label, y in series.items()}
        for caption, series in panels.items()
    }  # fmt: skip
    for label in {label for series in lines.values() for label in series}:
        if label not in colors:
            raise ValueError(f"colors must hold every label; received none for {label!r}")
    _, axes = plt.subplots(1, len(panels), figsize=WIDE, squeeze=False)
    for ax, (caption, series) in zip(axes[0], lines.items(), strict=True):
        for label, y in series.items():
            x = np.arange(start, start + len(y))
            ax.plot(x, y, label=label, color=colors[label], linestyle=dashes[label])
        ax.set(xlabel=xlabel, ylabel=caption, yscale="log" if caption in log else "linear")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        if len(panels) < 3 or ax is axes[0, -1]:
            _label_line_ends(ax, colors)
    return axes[0]


def step_heatmap(
    norms: ArrayLike, *, label: str = "log10 gradient norm", xlabel: str = "training step",
    limits: tuple[float, float] | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw norms by layer (upwards) and step (to the right) as a heat map of their log10.

    Parameters
    ----------
    norms : array_like, shape (steps, layers)
        Zeros, NaN and inf are drawn hatched.
    label, xlabel : str
        Captions of the colour bar and of the horizontal axis.
    limits : (float, float), optional
        log10 of the smallest and the largest norm of the colour scale.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the norms are no table with one number or more.

    Examples
    --------
    >>> ax = step_heatmap([[1e-3, 1.0], [1e-4, 1.0]])
    >>> plt.close(ax.figure)
    """
    norms = _array("norms", norms, axes=2).T  # (layers, steps)
    ax = _axes(ax)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log10(norms)
    log = np.ma.masked_invalid(log)
    low, high = limits or (None, None)
    layers, steps = norms.shape
    ax.set_facecolor("0.9")
    ax.patch.set_hatch("///")
    image = ax.imshow(
        log, origin="lower", vmin=low, vmax=high, extent=(0, steps, 0.5, layers + 0.5)
    )
    ax.figure.colorbar(image, ax=ax, label=label)
    ax.set(xlabel=xlabel, ylabel="layer")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(False)
    return ax


def activation_gallery(names: Sequence[str], *, limit: float = 4.0) -> np.ndarray:
    """Draw each activation (solid) and its derivative (dashed) on axes of one range.

    Parameters
    ----------
    names : sequence of str
        Keys of `gradutils.activations.ACTIVATIONS`.
    limit : float
        The functions are drawn from -limit to limit.

    Returns
    -------
    ndarray of Axes, shape (len(names),)

    Raises
    ------
    ValueError
        If there is no name, a name is not in the table, or `limit` is not a positive number.

    Examples
    --------
    >>> axes = activation_gallery(["sigmoid", "tanh"])
    >>> plt.close(axes[0].figure)
    """
    if not names:
        raise ValueError(f"names must hold one or more activations; received {names!r}")
    _checks.positive(limit=limit)
    _checks.finite(limit=limit)
    table = [activations.get(name) for name in names]
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDE[0], 2.4 * rows), sharex=True, sharey=True, squeeze=False
    )
    x = np.linspace(-limit, limit, 401)
    for ax, name, act in zip(axes.flat, names, table, strict=False):
        color = ACTIVATION_STYLES[name]["color"]
        with np.errstate(over="ignore"):  # Squares and exponentials may be infinite far out.
            function, slope = act.phi(x), act.derivative(x)
        ax.plot(x, function, color=color, label="function")
        ax.plot(x, slope, color=color, linestyle="--", label="slope")
        ax.text(0.04, 0.96, name, transform=ax.transAxes, va="top", color=color)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    axes[0, 0].legend(loc="lower right")
    axes[0, 0].set_ylim(-1.5, 2.5)
    figure.supxlabel("pre-activation h")
    figure.supylabel("value, slope")
    return axes.ravel()[: len(names)]


def _histogram_values(
    samples: Mapping[str, ArrayLike], bins: int, limits: tuple[float, float] | None
) -> tuple[dict[str, np.ndarray], tuple[float, float]]:
    """Return the samples, checked and flat, and the range of their histograms."""
    if not samples:
        raise ValueError(f"samples must hold one or more arrays; received {samples!r}")
    _checks.positive_integers(bins=bins)
    flat = {title: _array(f"samples[{title!r}]", v).ravel() for title, v in samples.items()}
    _checks.finite_arrays(**{f"samples[{title!r}]": values for title, values in flat.items()})
    limits = limits or (
        min(v.min() for v in flat.values()), max(v.max() for v in flat.values())
    )  # fmt: skip
    if not -np.inf < limits[0] <= limits[1] < np.inf:
        raise ValueError(f"limits must be finite and in order; received {limits!r}")
    return flat, limits


def histogram_row(
    samples: Mapping[str, ArrayLike], *, xlabel: str, bins: int = 60,
    limits: tuple[float, float] | None = None,
) -> np.ndarray:  # fmt: skip
    """Draw histograms side by side, on one range: share of the values per bin.

    Parameters
    ----------
    samples : mapping of str to array_like
        Title of the panel -> values, of any shape.
    xlabel : str
    bins : int
    limits : (float, float), optional
        Range of the values; that of all samples by default.

    Returns
    -------
    ndarray of Axes, shape (len(samples),)

    Raises
    ------
    ValueError
        If there are no samples, one of them is empty or not finite, `bins` is not a positive
        integer, or `limits` are not finite and in order.

    Examples
    --------
    >>> samples = {"layer 1": [0.1, 0.2], "layer 2": [0.3]}
    >>> axes = histogram_row(samples, xlabel="activation")
    >>> plt.close(axes[0].figure)
    """
    flat, limits = _histogram_values(samples, bins, limits)
    figure, axes = plt.subplots(
        1, len(samples), figsize=WIDE, sharex=True, sharey=True, squeeze=False
    )
    for ax, (title, values) in zip(axes[0], flat.items(), strict=True):
        ax.hist(
            values, bins=bins, range=limits, weights=np.full(len(values), 1 / len(values)),
            color="C9",
        )  # fmt: skip
        ax.text(0.5, 0.98, title, transform=ax.transAxes, ha="center", va="top")
    axes[0, 0].set_ylabel("share of values")
    figure.supxlabel(xlabel)
    return axes[0]


def phase_diagram(
    sigma_w: ArrayLike, sigma_b: ArrayLike, chi: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Draw log10 chi over the plane of weight and bias scale, with the critical line chi = 1.

    Parameters
    ----------
    sigma_w : array_like, shape (columns,)
    sigma_b : array_like, shape (rows,)
    chi : array_like, shape (rows, columns)
        Backward factor; the colour scale is symmetric about chi = 1.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the shapes do not fit, a number is not finite, or one of `chi` is not positive.

    Examples
    --------
    >>> chi = [[0.2, 0.9, 1.5], [0.3, 0.8, 1.4]]
    >>> ax = phase_diagram([0.5, 1.0, 1.5], [0.0, 0.1], chi)
    >>> plt.close(ax.figure)
    """
    sigma_w, sigma_b = _array("sigma_w", sigma_w, axes=1), _array("sigma_b", sigma_b, axes=1)
    chi = _array("chi", chi, shape=(len(sigma_b), len(sigma_w)))
    _checks.finite_arrays(sigma_w=sigma_w, sigma_b=sigma_b, chi=chi)
    if chi.min() <= 0 or min(chi.shape) < 2:
        raise ValueError(f"chi must be a table of positive numbers; received {chi!r}")
    ax = _axes(ax)
    # On the critical line chi is 1 up to rounding, and a contour of rounding errors is no line.
    log_chi = np.round(np.log10(chi), 9)
    bound = np.abs(log_chi).max()
    mesh = ax.pcolormesh(
        sigma_w, sigma_b, log_chi, cmap="RdBu_r", vmin=-bound, vmax=bound, shading="gouraud"
    )
    ax.contour(sigma_w, sigma_b, log_chi, levels=[0], colors="C3", linewidths=2)
    ax.figure.colorbar(mesh, ax=ax, label=r"$\log_{10}\chi$")
    ax.set(xlabel=r"weight scale $\sigma_w$", ylabel=r"bias scale $\sigma_b$")
    ax.grid(False)
    return ax


def diagram(
    nodes: Mapping[str, tuple[float, float]],
    arrows: Sequence[tuple[str, str, str]],
    *,
    texts: Mapping[str, str] | None = None,
    boxes: Collection[str] = (),
    thick: Collection[tuple[str, str]] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw a graph: named places, and arrows between them that may carry a text.

    Parameters
    ----------
    nodes : mapping of str to (float, float)
        Name -> place; any unit, because the axes fit themselves to the places.
    arrows : sequence of (str, str, str)
        (from, to, text beside the arrow); "" for none.
    texts : mapping of str to str, optional
        Name -> what stands at that place; the name itself by default, "" for a mere corner.
    boxes : collection of str
        Names that get a square frame; others get a round one.
    thick : collection of (str, str)
        (from, to) of arrows that are drawn with a heavy line.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If there are no nodes, a place is not two finite numbers, or something names a node that
        is not there.

    Examples
    --------
    >>> ax = diagram({"w": (0, 0), "loss": (1, 0)}, [("w", "loss", "0.5")])
    >>> plt.close(ax.figure)
    """
    if not nodes:
        raise ValueError(f"nodes must hold one or more places; received {nodes!r}")
    places = _array("nodes", list(nodes.values()), shape=(len(nodes), 2))
    _checks.finite_arrays(nodes=places)
    named = {*itertools.chain(*(arrow[:2] for arrow in arrows), *thick), *boxes, *(texts or {})}
    if strays := sorted(named - set(nodes)):
        raise ValueError(
            f"arrows, texts, boxes and thick must name {sorted(nodes)}; received {strays}"
        )
    texts = {name: (texts or {}).get(name, name) for name in nodes}
    ax = _axes(ax)
    frames = {}
    for name, (x, y) in nodes.items():
        style = "square,pad=0.35" if name in boxes else "round,pad=0.35,rounding_size=0.8"
        frame = {"boxstyle": style, "facecolor": "white", "edgecolor": "C3", "linewidth": 1.2}
        frames[name] = ax.text(
            x, y, texts[name], ha="center", va="center", zorder=3,
            bbox=frame if texts[name] else None,
        )  # fmt: skip
    for start, end, text in arrows:
        head = "-|>" if texts[end] else "-"
        look = {
            "arrowstyle": head, "color": "C3", "linewidth": 4 if (start, end) in thick else 1.2,
            "mutation_scale": 14, "shrinkA": 0, "shrinkB": 0,
            "patchA": frames[start].get_bbox_patch(), "patchB": frames[end].get_bbox_patch(),
        }  # fmt: skip
        ax.annotate("", nodes[end], nodes[start], arrowprops=look)
        x, y = np.mean([nodes[start], nodes[end]], axis=0)
        if text:
            ax.text(
                x, y, text, ha="center", va="center",
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            )  # fmt: skip
    across, up = places.T
    ax.set(xlim=(across.min() - 0.4, across.max() + 0.4), ylim=(up.min() - 0.4, up.max() + 0.4))
    ax.set_axis_off()
    return ax


def layer_histograms(
    samples: Mapping[str, ArrayLike], *, xlabel: str, bins: int = 60,
    limits: tuple[float, float] | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw one histogram above another, on one range, each as high as its row.

    Parameters
    ----------
    samples : mapping of str to array_like
        Name of the row -> values, of any shape; the first row is the lowest.
    xlabel : str
    bins : int
    limits : (float, float), optional
        Range of the values; that of all samples by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If there are no samples, one of them is empty or not finite, `bins` is not a positive
        integer, or `limits` are not finite and in order.

    Examples
    --------
    >>> samples = {"layer 1": [0.1, 0.2], "layer 2": [0.3]}
    >>> ax = layer_histograms(samples, xlabel="activation")
    >>> plt.close(ax.figure)
    """
    flat, limits = _histogram_values(samples, bins, limits)
    ax = _axes(ax)
    for row, values in enumerate(flat.values()):
        counts, edges = np.histogram(values, bins, limits)
        ax.stairs(
            row + 0.9 * counts / max(1, counts.max()), edges, baseline=row, fill=True, color="C9"
        )
        ax.axhline(row, color="C3", linewidth=0.6)
    ax.set(xlabel=xlabel, ylim=(-0.1, len(flat)))
    ax.set_yticks(np.arange(len(flat)), flat)
    ax.grid(False)
    return ax


def lstm_cell(*, ax: Axes | None = None) -> Axes:
    """Draw one step of an LSTM: c_t = f c_{t-1} + i g along a heavy line, h_t = o tanh(c_t).

    Parameters
    ----------
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> plt.close(lstm_cell().figure)
    """
    gates = {"f": 1.7, "i": 3.1, "g": 4.5, "o": 5.9}
    below = {f"below {gate}": (x, 0.0) for gate, x in gates.items()}
    nodes = {
        "past": (0, 3.6), "keep": (1.7, 3.6), "add": (3.8, 3.6), "fork": (7.1, 3.6),
        "cell": (8.3, 3.6), "write": (3.8, 2.6), "tanh": (7.1, 2.4), "read": (7.1, 1.2),
        "output": (8.3, 1.2), "input": (0, 0), **below, **{g: (x, 1.2) for g, x in gates.items()},
    }  # fmt: skip
    texts = {
        "past": "$c_{t-1}$", "keep": "×", "add": "+", "cell": "$c_t$", "write": "×", "read": "×",
        "output": "$h_t$", "input": "$h_{t-1}$\n$u_t$", **dict.fromkeys([*below, "fork"], ""),
        **{gate: f"${gate}$\n{'tanh' if gate == 'g' else 'sigmoid'}" for gate in gates},
    }  # fmt: skip
    path = list(itertools.pairwise(["past", "keep", "add", "fork", "cell"]))
    ways = [
        ("f", "keep"), ("i", "write"), ("g", "write"), ("write", "add"), ("fork", "tanh"),
        ("tanh", "read"), ("o", "read"), ("read", "output"),
    ]  # fmt: skip
    links = [*path, *itertools.pairwise(["input", *below]), *zip(below, gates, strict=True), *ways]
    arrows = [(start, end, "") for start, end in links]
    return diagram(nodes, arrows, texts=texts, boxes=gates, thick=path, ax=ax)
