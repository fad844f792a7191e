"""Every public function and class of the package says what it takes, returns and raises."""

import importlib
import inspect
import typing

import pytest

import gradutils
from gradutils.remedies import TREATMENTS

#: The functions of a table's rows share one signature, which `Remedy` explains.
ROWS = set(TREATMENTS.values())
#: These take models and optimisers that `diagnose` has checked, or nothing that could be wrong.
RAISE_NOTHING = {
    "diagnosis.Diagnosis.plot", "plots.lstm_cell", "probes.optimizer_state",
    "probes.optimizer_twin", "trials.gradients_of", "trials.sandbox", "trials.trainer",
}  # fmt: skip


def public_callables():
    """Yield name -> each function and class of a module, and each method that a class adds."""
    without_torch = set(gradutils.__all__) - {"torch_monitor"}
    for module in sorted(without_torch):
        loaded = importlib.import_module(f"gradutils.{module}")
        for name, value in vars(loaded).items():
            own = getattr(value, "__module__", "") == loaded.__name__
            own |= name in getattr(loaded, "__all__", ())
            if own and name[0] != "_" and (inspect.isfunction(value) or inspect.isclass(value)):
                yield f"{module}.{name}", value
                for method, function in vars(value).items() if inspect.isclass(value) else ():
                    inherited = any(hasattr(base, method) for base in value.__mro__[1:])
                    if inspect.isfunction(function) and method[0] != "_" and not inherited:
                        yield f"{module}.{name}.{method}", function


def is_record(kind):
    """Whether a class, or the items of a sequence, are made by the package, not by its users."""
    kind = (typing.get_args(kind) or (kind,))[0]
    return hasattr(kind, "__match_args__") or hasattr(kind, "_fields")


CALLABLES = dict(public_callables())


@pytest.mark.parametrize("name", CALLABLES)
def test_a_docstring_is_complete(name):
    value, doc = CALLABLES[name], inspect.getdoc(CALLABLES[name])
    assert doc.split("\n")[0].endswith(".")
    if value in ROWS or is_record(value):
        return  # A record tells its fields in its first paragraph, or as Attributes.
    signature, needed = inspect.signature(value), set()
    given = [p.annotation for p in signature.parameters.values() if p.name != "self"]
    if given:
        checked = name in RAISE_NOTHING or all(map(is_record, given))
        needed = {"Parameters"} if checked else {"Parameters", "Raises"}
    if inspect.isfunction(value) and signature.return_annotation is not None:
        needed |= {"Returns"}
    assert {title for title in needed if f"\n{title}\n{'-' * len(title)}\n" not in doc} == set()
