"""A plain torch.nn.Module and its batch: what is accepted, and how all of it is put back."""

import copy
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from gradutils import _checks
from gradutils._batches import Batch

#: Modules around the one that computes: attribute that holds it, and what stands around it.
_WRAPPERS = {
    "OptimizedModule": ("_orig_mod", "torch.compile"),
    "DataParallel": ("module", "DataParallel"),
    "DistributedDataParallel": ("module", "DistributedDataParallel"),
}


def unwrapped(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The module that computes, and sentences on what stood around it.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    module : torch.nn.Module
    unseen : list of str
        One sentence for each wrapper, and for code that torch.compile has compiled.

    Raises
    ------
    TypeError
        If it is no torch.nn.Module, or if a part of it does not run in Python, as a ScriptModule.
    ValueError
        If it has weights that are not initialised.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; received {type(model).__name__}")
    unseen = []
    while type(model).__name__ in _WRAPPERS:
        inner, around = _WRAPPERS[type(model).__name__]
        model = getattr(model, inner)
        unseen.append(f"{around} stands around the model: the module inside it was measured")
    for name, module in model.named_modules():
        where = name or "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                "model must run in Python, since TorchScript hides what its layers compute; "
                f"received a ScriptModule, {where}. Give the module that it was made from."
            )
        if any(isinstance(p, nn.UninitializedParameter) for p in module._parameters.values()):
            raise ValueError(
                "model must be initialised: call it once on a batch of data; the weights of "
                f"{where} have no shape yet"
            )
        if module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule":
            unseen.append(f"{where} is compiled by torch.compile: it was measured uncompiled")
    return model, unseen


def weights_of(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> list[nn.Parameter]:
    """The weights that are trained: those that want a gradient and that the optimiser holds.

    Parameters
    ----------
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer or None
        None counts as an optimiser that holds all weights of the model.

    Returns
    -------
    list of torch.nn.Parameter
        Those of the model first; then others that the optimiser holds, such as those of a loss.
    """
    mine = [p for p in model.parameters() if p.requires_grad]
    if optimizer is None:
        return mine
    held = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    ids = {id(p) for p in held}
    mine = [p for p in mine if id(p) in ids]
    known = {id(p) for p in mine}
    return mine + [p for p in held if id(p) not in known]


def check(model: nn.Module, loss: Any, optimizer: Any) -> Callable:
    """Refuse a loss that cannot be called, and an optimiser that cannot train this module alone.

    Parameters
    ----------
    model : torch.nn.Module
    loss : callable
    optimizer : torch.optim.Optimizer or None

    Returns
    -------
    callable
        The loss.

    Raises
    ------
    TypeError
        If `loss` is not callable, or `optimizer` no optimiser.
    ValueError
        If the optimiser holds no weight of the model, or needs a closure, as LBFGS does.
    """
    if not callable(loss):
        raise TypeError(
            "loss must be callable as loss(predictions, targets), as torch has it; "
            f"received {loss!r}"
        )
    if optimizer is None:
        return loss
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer or None; received {optimizer!r}"
        )
    kind = type(optimizer).__name__
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            "optimizer must take a step without a closure, since its step is tried on a copy; "
            f"received {kind}. Leave it out: the model is measured without steps."
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not held & {id(p) for p in model.parameters()}:
        raise ValueError(
            f"optimizer must hold weights of the model; received {kind} over others. "
            "Was the model made anew, or converted, after the optimiser?"
        )
    return loss


def one_batch(model: nn.Module, x: Any, y: Any = None, batch_size: int = 64) -> Batch:
    """Take the batch that is measured, as tensors on the module's device.

    Parameters
    ----------
    model : torch.nn.Module
    x, y, batch_size
        As in `gradutils.probes.probe`.

    Returns
    -------
    Batch

    Raises
    ------
    ValueError
        If the data are empty or hold NaN or inf.
    """
    if isinstance(x, Batch):
        return x
    _checks.positive_integers(batch_size=batch_size)
    if isinstance(x, torch.utils.data.DataLoader):
        if y is not None:
            raise ValueError("y must be None where x is a DataLoader: it yields both")
        with random_states_restored(model, x):
            first = next(iter(x), None)
        if not isinstance(first, tuple | list) or len(first) != 2:
            raise ValueError(
                "x must yield pairs (x, y) where it is a DataLoader; received "
                + ("nothing" if first is None else type(first).__name__)
            )
        x, y = first
        batch_size = 2**63  # all of it
    x = tuple(x) if isinstance(x, list) else x
    reference = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    x, y = pytree.tree_map(lambda a: _tensor(a, reference), (x, y))
    tensors = [a for a in pytree.tree_leaves((x, y)) if isinstance(a, torch.Tensor)]
    if not any(isinstance(a, torch.Tensor) and a.dim() for a in pytree.tree_leaves(x)):
        raise ValueError(
            f"x must be a tensor or array, or a tuple or dict of them; received {type(x).__name__}"
        )
    sizes = {len(a) for a in tensors if a.dim()}
    if 0 in sizes:
        raise ValueError("x and y must hold one sample or more; received 0")
    for name, data in (("x", x), ("y", y)):
        _check_finite(name, data)
    samples = sizes.pop() if len(sizes) == 1 else 0
    if samples <= batch_size:
        return Batch(x, y, all_targets=y)
    rows = np.unique(np.linspace(0, samples - 1, batch_size).astype(int))

    def part(a: Any) -> Any:
        return a[torch.as_tensor(rows, device=a.device)] if _has_rows(a) else a

    return Batch(pytree.tree_map(part, x), pytree.tree_map(part, y), all_targets=y)


def _has_rows(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0


def _tensor(value: Any, like: torch.Tensor) -> Any:
    """An array as a tensor, of the weights' type if it is floating; a tensor is only moved."""
    if isinstance(value, torch.Tensor):
        return value.detach().to(like.device)
    if not isinstance(value, np.ndarray):
        return value
    kinds = {"f": like.dtype, "i": torch.int64, "u": torch.int64, "b": torch.bool}
    if value.dtype.kind not in kinds:
        raise ValueError(f"x and y must hold real numbers; received an array of {value.dtype}")
    numbers = torch.as_tensor(np.ascontiguousarray(value))
    return numbers.to(like.device, kinds[value.dtype.kind])


def _check_finite(name: str, data: Any) -> None:
    for a in pytree.tree_leaves(data):
        if isinstance(a, torch.Tensor) and a.is_floating_point():
            for what, is_bad in (("NaN", torch.isnan), ("inf", torch.isinf)):
                if count := int(is_bad(a).sum()):
                    raise ValueError(f"{name} must hold no {what}; received {count} of them")


def call(model: nn.Module, x: Any) -> Any:
    """The module's outputs for one tensor, a tuple of arguments, or a dict of named ones.

    Parameters
    ----------
    model : torch.nn.Module
    x : torch.Tensor, tuple or dict

    Returns
    -------
    whatever the module returns

    Raises
    ------
    ValueError
        If the module raises; its own words are part of the message.
    """
    args, kwargs = (x if isinstance(x, tuple) else (x,)), {}
    if isinstance(x, dict):
        args, kwargs = (), x
    torch.clear_autocast_cache()  # Under autocast, copies of earlier weights would be used.
    try:
        return model(*args, **kwargs)
    except Exception as error:
        raise ValueError(f"x must fit the model; received {described(x)}: {error}") from error


def described(data: Any) -> str:
    """Shapes and types of some tensors, in words.

    Parameters
    ----------
    data : tensors in any nest

    Returns
    -------
    str
    """
    found = [
        f"{tuple(a.shape)} {str(a.dtype).removeprefix('torch.')}"
        if isinstance(a, torch.Tensor)
        else type(a).__name__
        for a in pytree.tree_leaves(data)
    ]
    return ", ".join(found)


@contextmanager
def sandbox(
    model: nn.Module, weights: list[nn.Parameter] | None = None
) -> Iterator[Callable[[], None]]:
    """Put the module back when the block ends, and whenever what it yields is called.

    Parameters, buffers and other tensors among the attributes get their values back in place; the
    attributes themselves, `.grad`, `requires_grad` and the training flags are what they were, and
    so are the random states of torch, NumPy, Python, and of generators among the attributes.

    Parameters
    ----------
    model : torch.nn.Module
    weights : list of torch.nn.Parameter, optional
        Others that are to be put back as well, such as those of a loss.

    Returns
    -------
    context manager
        It yields a function without arguments that puts the values of the tensors back at once.
    """
    attributes = [(module, _shallow(module)) for module in model.modules()]
    found = [v for _, kept in attributes for v in pytree.tree_leaves(list(kept.values()))]
    found += list(weights or [])
    tensors = {id(v): v for v in found if isinstance(v, torch.Tensor)}.values()
    values = [(t, t.detach().clone(), t._version) for t in tensors]
    flags = [(t, t.requires_grad, t.grad) for t in tensors if t.is_leaf]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value, version in values:
                if tensor._version != version or not torch.equal(tensor, value):
                    tensor.detach().copy_(value)

    with random_states_restored(model):
        try:
            yield restore
        finally:
            for module, kept in attributes:
                _put_back(module, kept)
            restore()
            torch.clear_autocast_cache()
            for tensor, requires_grad, grad in flags:
                tensor.requires_grad_(requires_grad)
                tensor.grad = grad


_TABLES = ("_parameters", "_buffers", "_modules")


def _shallow(module: nn.Module) -> dict[str, Any]:
    """The module's attributes; its tables of weights, buffers and parts as copies of their own."""
    kept = dict(vars(module))
    return kept | {name: dict(kept[name]) for name in _TABLES}


def _put_back(module: nn.Module, kept: dict[str, Any]) -> None:
    mine = vars(module)
    for name in set(mine) - set(kept):
        del mine[name]
    for name, value in kept.items():
        if name in _TABLES:
            mine[name].clear()
            mine[name].update(value)
        else:
            mine[name] = value


@contextmanager
def random_states_restored(model: nn.Module, loader: Any = None) -> Iterator[None]:
    """Keep the random states, as `random_states` does, until the block ends.

    Parameters
    ----------
    model, loader
        As in `random_states`.

    Returns
    -------
    context manager
    """
    restore = random_states(model, loader)
    try:
        yield
    finally:
        restore()


def random_states(model: nn.Module, loader: Any = None) -> Callable[[], None]:
    """Note the random states of torch, NumPy, Python, and of generators among the attributes.

    Parameters
    ----------
    model : torch.nn.Module
        The generators of its devices are noted as well.
    loader : torch.utils.data.DataLoader, optional
        Its generators are noted as well.

    Returns
    -------
    callable
        A function without arguments that brings back what was noted.
    """
    owners = [*model.modules(), *([loader, loader.sampler] if loader is not None else [])]
    found = [v for owner in owners for v in vars(owner).values()]
    noted: list[tuple[Callable, tuple]] = [
        (random.setstate, (random.getstate(),)),
        (np.random.set_state, (np.random.get_state(),)),  # noqa: NPY002
        (torch.set_rng_state, (torch.get_rng_state(),)),
    ]
    noted += [(g.set_state, (g.get_state(),)) for g in found if isinstance(g, torch.Generator)]
    for device in {p.device for p in [*model.parameters(), *model.buffers()]}:
        if device.type == "mps":
            noted.append((torch.mps.set_rng_state, (torch.mps.get_rng_state(),)))
        elif device.type not in ("cpu", "meta"):
            kind = torch.get_device_module(device)
            noted.append((kind.set_rng_state, (kind.get_rng_state(device), device)))

    def restore() -> None:
        for set_state, arguments in noted:
            set_state(*arguments)

    return restore


def optimizer_twin(
    optimizer: torch.optim.Optimizer, weights: dict[int, torch.Tensor]
) -> torch.optim.Optimizer:
    """A copy of an optimiser with its state, over other weights.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        It stays as it is.
    weights : dict of int to torch.Tensor
        id of a weight that the optimiser holds -> the one that the copy moves in its place; the
        same tensor where it is to move that one.

    Returns
    -------
    torch.optim.Optimizer
    """
    return copy.deepcopy(optimizer, dict(weights))


def array(tensor: torch.Tensor) -> np.ndarray:
    """As float64 in NumPy, so that squares neither overflow nor vanish.

    Parameters
    ----------
    tensor : torch.Tensor

    Returns
    -------
    ndarray
    """
    dense = tensor.detach()
    dense = dense.to_dense() if dense.layout != torch.strided else dense
    return dense.to("cpu", torch.float64, copy=True).numpy()
