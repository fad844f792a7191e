"""Every public function and class of the package says what it takes, returns and raises."""

import importlib
import inspect

import pytest

import gradutils

#: The rows of a table share one signature, which stands at the table.
OF_TABLES = {"checks", "remedies", "trials"}
#: These take what was checked before.
RAISE_NOTHING = {"probes.optimizer_twin", "probes.optimizer_state", "diagnosis.Diagnosis.plot"}


def public_callables():
    """Yield name -> each function and class of a module, and each method that a class adds."""
    for module in sorted(set(gradutils.__all__) - OF_TABLES):
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
    if hasattr(value, "__match_args__") or hasattr(value, "_fields"):
        return  # A record tells its fields in its first paragraph, or as Attributes.
    signature, needed = inspect.signature(value), set()
    if signature.parameters.keys() - {"self"}:
        needed = {"Parameters", "Raises"} if name not in RAISE_NOTHING else {"Parameters"}
    if inspect.isfunction(value) and signature.return_annotation is not None:
        needed |= {"Returns"}
    assert {title for title in needed if f"\n{title}\n{'-' * len(title)}\n" not in doc} == set()
