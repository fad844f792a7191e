"""What every layer of a torch module receives and returns in one pass; no trace is left in it."""

import functools
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

#: Functions that are activations -> the name that Keras has for them, which the checks know.
ACTIVATIONS: dict[Any, str] = {
    F.relu: "relu", F.relu_: "relu", F.relu6: "relu6", F.leaky_relu: "leaky_relu", F.elu: "elu",
    F.celu: "elu", F.selu: "selu", F.gelu: "gelu", F.silu: "silu", F.mish: "mish",
    F.softplus: "softplus", F.softsign: "softsign", F.hardsigmoid: "hard_sigmoid",
    F.hardtanh: "hard_tanh", F.tanh: "tanh", F.sigmoid: "sigmoid", F.softmax: "softmax",
    F.log_softmax: "log_softmax", F.logsigmoid: "log_sigmoid", F.hardswish: "hard_silu",
    torch.relu: "relu", torch.relu_: "relu", torch.selu: "selu", torch.tanh: "tanh",
    torch.tanh_: "tanh", torch.sigmoid: "sigmoid", torch.sigmoid_: "sigmoid",
    torch.softmax: "softmax", torch.log_softmax: "log_softmax", torch.exp: "exponential",
    torch.Tensor.relu: "relu", torch.Tensor.relu_: "relu", torch.Tensor.tanh: "tanh",
    torch.Tensor.tanh_: "tanh", torch.Tensor.sigmoid: "sigmoid", torch.Tensor.sigmoid_: "sigmoid",
    torch.Tensor.softmax: "softmax", torch.Tensor.log_softmax: "log_softmax",
    torch.Tensor.exp: "exponential",
}  # fmt: skip
_ADDITIONS = {torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__iadd__}
_CELLS = {
    "LSTM": torch.lstm_cell, "GRU": torch.gru_cell,
    "RNN_TANH": torch.rnn_tanh_cell, "RNN_RELU": torch.rnn_relu_cell,
}  # fmt: skip
#: Layers whose features stand in axis 1 of what they take and return.
_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
)


@dataclass
class Call:
    """One call of a module, of a recurrent layer's step, or of a function.

    Attributes
    ----------
    key : object
        What was called: the module, (module, place) for a step, or the name of a function's place.
    name, kind : str
        Path in the model, with dots, and class.
    activation : str
        Keras' name of the activation; "" if there is none.
    weights : list of torch.nn.Parameter
        Its own, whether they are trained or not.
    argument : torch.Tensor or None
        Copy of what it received.
    source : torch.Tensor or None
        That tensor itself, by which the call that made it is known.
    output : torch.Tensor
        What it returned, as it was then.
    given : torch.Tensor
        The copy of the output with which the model went on.
    channels_first : bool
        Whether the features stand in axis 1.
    """

    key: Any
    name: str
    kind: str
    activation: str
    weights: list[nn.Parameter]
    argument: torch.Tensor | None
    source: torch.Tensor | None
    output: torch.Tensor
    given: torch.Tensor
    channels_first: bool


class Taken(NamedTuple):
    """A function that was called outside the model, as a loss is: what it took and returned."""

    function: Any
    args: tuple
    kwargs: dict
    output: torch.Tensor


class Recorder(TorchFunctionMode):
    """Watches every call of every layer, activation function and loss while it is open.

    The output of each call becomes a tensor whose gradient can be asked for, and the model goes on
    with a copy of it, since an operation in place may follow. Outputs that need no gradient, those
    of frozen layers, get one all the same. Compiled code runs uncompiled, and nn.LSTM, nn.GRU and
    nn.RNN run step by step, since their fused kernel shows no step.

    A backward pass must be made while the recorder is open: code under a checkpoint that is not
    re-entrant runs again in it, and must do what it did before. `watching` is False by then.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls: list[Call] = []
        self.losses: list[Taken] = []
        self.unseen: list[str] = []
        self.differentiates_twice = False
        self.watching = True
        self.uses: Counter[int] = Counter()  # id of a given tensor -> functions that took it
        self._names = {m: name or type(m).__name__ for name, m in model.named_modules()}
        self._counts: Counter[str] = Counter()
        self._seen: set[Any] = set()
        self._stack: list[nn.Module] = []
        self._activated: dict[int, tuple[torch.Tensor, str]] = {}
        self._by_storage: dict[int, Call] = {}
        self._undo = ExitStack()

    def __enter__(self) -> "Recorder":
        super().__enter__()
        if "torch._dynamo" in sys.modules:
            self._undo.enter_context(torch.compiler.set_stance("force_eager"))
        for name, module in self.model.named_modules():
            if module._compiled_call_impl is not None:
                self._undo.callback(
                    setattr, module, "_compiled_call_impl", module._compiled_call_impl
                )
                module._compiled_call_impl = None
            if ".parametrizations" in f".{name}":
                continue  # It computes a weight: no layer of its own.
            before = module.register_forward_pre_hook(self._before, prepend=True)
            after = module.register_forward_hook(self._after, with_kwargs=True)
            self._undo.callback(before.remove)
            self._undo.callback(after.remove)
            if isinstance(module, nn.RNNBase):
                vars(module)["forward"] = functools.partial(self._stepwise, module)
                self._undo.callback(vars(module).pop, "forward")
        return self

    def __exit__(self, *error: Any) -> None:
        self._undo.close()
        super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not self.watching:
            return output
        if func is torch.autograd.grad:
            self.differentiates_twice |= bool((kwargs or {}).get("create_graph"))
        if not isinstance(output, torch.Tensor):
            return output
        if output.requires_grad:
            taken = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
            self.uses.update({id(a) for a in taken})
        if not self._stack:
            self.losses.append(Taken(func, args, kwargs or {}, output))
            return output
        where, name = self._stack[-1], ACTIVATIONS.get(func, "")
        if isinstance(where, nn.RNNBase):
            return output
        kind = name or ("Add" if func in _ADDITIONS and _adds_branches(args) else "")
        if not kind:
            return output
        if not _is_composite(where) and where is not self.model:
            self._activated[id(output)] = output, name
            return output
        source = args[0]
        place = kind.lower() if where is self.model else f"{self._names[where]}.{kind.lower()}"
        self._counts[place] += 1
        key = f"{place}{self._counts[place]}"
        return self._watch(key, key, kind, name, [], source, output)

    def _before(self, module: nn.Module, args: Any) -> None:
        self._stack.append(module)

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        self._stack.pop()
        own = own_weights(module)
        if isinstance(module, nn.RNNBase) or (_is_composite(module) and not own):
            return None
        leaves, tree = pytree.tree_flatten(output)
        places = [i for i, a in enumerate(leaves) if _is_floating(a)]
        if not places:
            return None
        first = leaves[places[0]]
        source = args[0] if args else next(iter(kwargs.values()), None)
        known = self._activated.get(id(first), (None, ""))[1]
        activation = known or _cell_activation(module)
        kind = type_before_parametrizations(module).__name__
        seen = self._watch(module, self._names[module], kind, activation, own, source, first)
        # A tensor that is returned twice, as output and as state, is replaced in both places.
        return pytree.tree_unflatten([seen if a is first else a for a in leaves], tree)

    def _watch(
        self,
        key: Any,
        name: str,
        kind: str,
        activation: str,
        weights: list[nn.Parameter],
        source: Any,
        output: torch.Tensor,
    ) -> torch.Tensor:
        """Keep the output, and return a copy to go on with."""
        watching, self.watching = (
            self.watching,
            False,
        )  # What is called here is no part of the model.
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        given = output.clone()
        if watching:
            source = source if isinstance(source, torch.Tensor) else None
            first = key not in self._seen
            self._seen.add(key)
            argument = source.detach().clone() if source is not None and first else None
            channels = self._channels_first(key, source, output)
            call = Call(
                key, name, kind, activation, weights, argument, source, output, given, channels
            )
            self.calls.append(call)
            self._by_storage[_storage(given)] = call
            self.uses[id(given)] = 0
        self.watching = watching
        return given

    def _channels_first(self, key: Any, source: Any, output: torch.Tensor) -> bool:
        """Convolutions have their channels in axis 1, and what follows inherits that."""
        if isinstance(key, _CHANNELS_FIRST):
            return output.dim() > 2
        if isinstance(key, nn.Module) and own_weights(key):
            return False
        before = self._by_storage.get(_storage(source)) if source is not None else None
        return before is not None and before.channels_first and before.output.dim() == output.dim()

    def origin(self, tensor: torch.Tensor) -> Call | None:
        """The call that made a tensor; past views of it, and what returned it unchanged.

        Parameters
        ----------
        tensor : torch.Tensor

        Returns
        -------
        Call or None
            None if no call made it, as where functions that are no activations did.
        """
        call = self._by_storage.get(_storage(tensor))
        while call is not None and not call.activation:
            inner = self._by_storage.get(_storage(call.output))
            if inner is None or inner is call:
                break
            call = inner
        return call

    def folded(self, has_gradient: set[int]) -> list[tuple[Call, Call]]:
        """The calls, each with the one whose output counts as its output.

        That is an activation, where it is all that follows a layer of weights: then the two are
        one layer, as a Dense layer with its activation is.

        Parameters
        ----------
        has_gradient : set of int
            ids of the outputs that the loss depends on.

        Returns
        -------
        list of (Call, Call)
        """
        by_given = {id(call.given): call for call in self.calls}
        partner: dict[int, Call] = {}
        for call in self.calls:
            layer = by_given.get(id(call.source))
            if (
                layer is not None
                and call.activation
                and not call.weights
                and _takes_activation(layer)
                and self.uses[id(layer.given)] == 1
                and id(call.output) in has_gradient
            ):
                partner[id(layer)] = call
        taken = {id(call) for call in partner.values()}
        return [(c, partner.get(id(c), c)) for c in self.calls if id(c) not in taken]

    def _stepwise(self, module: nn.RNNBase, x: Any, state: Any = None) -> Any:
        """nn.LSTM, nn.GRU and nn.RNN one step at a time, with the cells of the same weights."""
        name = self._names[module]
        if isinstance(x, nn.utils.rnn.PackedSequence):
            output, state = type(module).forward(module, x, state)
            if self.watching:
                self.unseen.append(f"{name} receives a PackedSequence, which hides its time steps")
            kind, own = type(module).__name__, own_weights(module)
            data = self._watch(module, name, kind, "", own, x.data, output.data)
            last = state if isinstance(state, tuple) else (state,)
            last = tuple(self._watch(module, name, kind, "", own, x.data, part) for part in last)
            return output._replace(data=data), last if isinstance(state, tuple) else last[0]
        batched = x.dim() == 3
        x = x if batched else x.unsqueeze(1)
        x = x.transpose(0, 1) if module.batch_first and batched else x  # (steps, samples, features)
        lstm, ways = module.mode == "LSTM", 2 if module.bidirectional else 1
        wide, projected = module.hidden_size, module.proj_size
        rows = module.num_layers * ways
        if state is None:
            sizes = (projected or wide, wide)
            zeros = tuple(x.new_zeros(rows, x.shape[1], size) for size in sizes)
            state = zeros if lstm else zeros[0]
        elif not batched:
            state = tuple(s.unsqueeze(1) for s in state) if lstm else state.unsqueeze(1)
        last_h, last_c = [], []
        for layer in range(module.num_layers):
            sides = []
            for way in range(ways):
                place = layer * ways + way
                path = f".layer{layer}" if module.num_layers > 1 else ""
                path = f"{name}{path}{'.reverse' if way else ''}"
                h, c = (state[0][place], state[1][place]) if lstm else (state[place], None)
                outputs = []
                for step in x if way == 0 else x.flip(0):
                    h, c = self._step(module, place, path, step, h, c)
                    outputs.append(h)
                last_h.append(h)
                last_c.append(c)
                sides.append(torch.stack(outputs if way == 0 else outputs[::-1]))
            x = torch.cat(sides, dim=2)
            if module.dropout and layer < module.num_layers - 1:
                x = F.dropout(x, module.dropout, module.training)
        h = torch.stack(last_h)
        if not batched:
            x, h = x.squeeze(1), h.squeeze(1)
        elif module.batch_first:
            x = x.transpose(0, 1)
        if not lstm:
            return x, h
        c = torch.stack(last_c)
        return x, (h, c if batched else c.squeeze(1))

    def _step(
        self, module: nn.RNNBase, place: int, name: str, x: torch.Tensor, h: Any, c: Any
    ) -> tuple[torch.Tensor, Any]:
        weights = module.all_weights[place]
        gates = weights[:-1] if module.proj_size else weights
        if module.mode == "LSTM":
            h, c = _lstm_step(x, h, c, gates, weights[-1] if module.proj_size else None)
        else:
            h = _CELLS[module.mode](x, h, *gates)
        kind = f"{type(module).__name__}Cell"
        activation = "relu" if module.mode == "RNN_RELU" else "tanh"
        return self._watch((module, place), name, kind, activation, weights, x, h), c


def _lstm_step(x: Any, h: Any, c: Any, weights: Any, projection: Any) -> tuple[Any, Any]:
    if projection is None:
        return torch.lstm_cell(x, (h, c), *weights)
    gates = F.linear(x, weights[0], *weights[2:3]) + F.linear(h, weights[1], *weights[3:4])
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return F.linear(o.sigmoid() * c.tanh(), projection), c


def own_weights(module: nn.Module) -> list[nn.Parameter]:
    """The weights that belong to a module itself, or to a part of it that is never called.

    Such parts are lists of parameters, parametrisations, and the output projection of
    nn.MultiheadAttention.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    list of torch.nn.Parameter
    """
    found = list(module.parameters(recurse=False))
    for name, part in module.named_children():
        hidden = isinstance(part, nn.ParameterList | nn.ParameterDict)
        hidden |= isinstance(module, nn.MultiheadAttention) or name == "parametrizations"
        if hidden:
            found += list(part.parameters())
    return found


def _is_composite(module: nn.Module) -> bool:
    """Whether it is made of other modules that are called."""
    return not isinstance(module, nn.MultiheadAttention) and any(
        name != "parametrizations" and not isinstance(part, nn.ParameterList | nn.ParameterDict)
        for name, part in module.named_children()
    )


def _takes_activation(call: Call) -> bool:
    """Whether it is a layer of weights that an activation may belong to."""
    plain = "Norm" not in call.kind and not call.kind.startswith("Embedding")
    return bool(call.weights) and plain and not call.activation


def _cell_activation(module: nn.Module) -> str:
    if isinstance(module, nn.RNNCell):
        return module.nonlinearity
    return "tanh" if isinstance(module, nn.LSTMCell | nn.GRUCell) else ""


def _adds_branches(args: Any) -> bool:
    """Whether two results of the same shape are added, as at the end of a residual branch."""
    a, b = (*args, None)[:2]
    tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
    return tensors and a.shape == b.shape and a.requires_grad and b.requires_grad


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _storage(value: Any) -> int:
    """Address of a tensor's memory, by which its views are known; 0 if it has none."""
    strided = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return value.untyped_storage().data_ptr() if strided else 0
