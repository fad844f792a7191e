"""The live figures of the book as widgets: real networks, computed in the page at each turn.

Needs anywidget (``pip install '.[lab]'``). The script, the style and the controls
beside this file are built from book/explorables.
"""

import html
import json
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

from gradutils import _checks

_FILES = files(__name__)
_SPECIFICATION = json.loads((_FILES / "explorables.json").read_text("utf-8"))
#: The names of the live figures.
EXPLORABLES = tuple(_SPECIFICATION)


class Explorable(anywidget.AnyWidget):
    """A live figure: sliders and switches, computed and drawn by the browser.

    Every control is an attribute that follows the reader's hand and can be set from Python.

    Parameters
    ----------
    name : str
        One of `EXPLORABLES`.
    **settings
        What the controls start with; their own defaults otherwise.

    Attributes
    ----------
    shown : dict
        The numbers that the figure shows now, lists by layer or by step, and as "look" the regime
        that it names; empty until it is drawn.

    Raises
    ------
    ValueError
        If there is no such figure or control.
    traitlets.TraitError
        If a setting is outside its control's range.

    Examples
    --------
    >>> figure = Explorable("depth", activation="relu", sigma_w=1.41)
    >>> figure.depth, figure.activation
    (50, 'relu')
    >>> figure.depth = 80
    """

    _esm = (_FILES / "explorables.js").read_text(
        "utf-8"
    ) + "\nexport default { render: gradutilsExplorables.render };\n"
    _css = _FILES / "explorables.css"
    name = traitlets.Unicode().tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)

    def __init__(self, name: str, **settings: Any) -> None:
        _checks.names(EXPLORABLES, name=name)
        controls = {control["name"]: control for control in _SPECIFICATION[name]["controls"]}
        for setting in settings:
            if setting not in controls:
                known = ", ".join(controls)
                raise ValueError(f"a setting must be one of {known}; received {setting!r}")
        self.add_traits(**{key: _trait(control) for key, control in controls.items()})
        start = {key: control["default"] for key, control in controls.items()} | settings
        super().__init__(name=name, settings=start, **start)

    def __repr__(self) -> str:
        changed = "".join(f", {key}={value!r}" for key, value in self._changed().items())
        return f"Explorable({self.name!r}{changed})"

    def _changed(self) -> dict[str, Any]:
        controls = _SPECIFICATION[self.name]["controls"]
        return {c["name"]: v for c in controls if (v := getattr(self, c["name"])) != c["default"]}

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Return the widget, and beside it the place that the book's page fills without Python."""
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        data["text/plain"] = repr(self)
        data["text/html"] = (
            f'<div class="explorable" data-explorable="{self.name}" '
            f'data-settings="{html.escape(json.dumps(self._changed()))}">'
            f"<p>{_SPECIFICATION[self.name]['title']}: a live figure. It shows when the cell is "
            "run, and in the pages of the book.</p></div>"
        )
        return data, metadata


def _trait(control: dict[str, Any]) -> traitlets.TraitType:
    """Return the attribute that a control is in Python: a choice, a switch or a bounded number."""
    default = control["default"]
    if "options" in control:
        return traitlets.Enum(control["options"], default_value=default).tag(sync=True)
    if isinstance(default, bool):
        return traitlets.Bool(default).tag(sync=True)
    whole = isinstance(control["step"], int) and isinstance(control["min"], int)
    number = traitlets.Int if whole else traitlets.Float
    return number(default, min=control["min"], max=control["max"]).tag(sync=True)
