"""Every public function and class of the package says what it takes, returns and raises."""

import importlib
import inspect

import pytest

import gradutils
from gradutils.remedies import REMEDIES

#: The functions of a table's rows share one signature, which `Remedy` explains.
ROWS = {row.treat for row in REMEDIES}
#: These take what `diagnose` has made or checked.
RAISE_NOTHING = {
    "checks.trunk", "diagnosis.Diagnosis.plot", "probes.optimizer_state", "probes.optimizer_twin",
    "remedies.closes_gap", "remedies.fall", "remedies.falls_faster", "trials.sandbox",
    "trials.trainer",
}  # fmt: skip


def public_callables():
    """Yield name -> each function and class of a module, and each method that a class adds."""
    for module in sorted(gradutils.__all__):
        for name, value in vars(importlib.import_module(f"gradutils.{module}")).items():
            own = getattr(value, "__module__", "") == f"gradutils.{module}"
            if own and name[0] != "_" and (inspect.isfunction(value) or inspect.isclass(value)):
                yield f"{module}.{name}", value
                for method, function in vars(value).items() if inspect.isclass(value) else ():
                    inherited = any(hasattr(base, method) for base in value.__mro__[1:])
                    if inspect.isfunction(function) and method[0] != "_" and not inherited:
                        yield f"{module}.{name}.{method}", function


CALLABLES = dict(public_callables())


@pytest.mark.parametrize("name", CALLABLES)
def test_a_docstring_is_complete(name):
    value, doc = CALLABLES[name], inspect.getdoc(CALLABLES[name])
    assert doc.split("\n")[0].endswith(".")
    if value in ROWS or hasattr(value, "__match_args__") or hasattr(value, "_fields"):
        return  # A record tells its fields in its first paragraph, or as Attributes.
    signature, needed = inspect.signature(value), set()
    if signature.parameters.keys() - {"self"}:
        needed = {"Parameters", "Raises"} if name not in RAISE_NOTHING else {"Parameters"}
    if inspect.isfunction(value) and signature.return_annotation is not None:
        needed |= {"Returns"}
    assert {title for title in needed if f"\n{title}\n{'-' * len(title)}\n" not in doc} == set()
