"""The remedies of `gradutils.remedies.REMEDIES` that a torch module can take, by their names."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gradutils._batches import Batch
from gradutils._courses import Treated
from gradutils._records import LayerRecord, Probe
from gradutils._torch.modules import array, call, random_states_restored
from gradutils._torch.recorder import ACTIVATIONS

_HE = {"relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "softplus", "mish"}
_PIECEWISE_LINEAR = {"relu", "relu6", "leaky_relu"}
_SQUASHING = {"sigmoid", "tanh", "hard_sigmoid"}
_PASSING = {"Dropout", "Flatten", "Add", "Identity"}
_CATEGORICAL = {"sparse_categorical_crossentropy", "categorical_crossentropy"}
#: What a module raises that cannot take a remedy.
UNFIT = (ValueError, TypeError, RuntimeError, NotImplementedError)
RATES = (1.0, 0.1, 1e-2, 1e-3, 10.0, 100.0, 1000.0)


class Patient(NamedTuple):
    """The module, its optimiser, the loss and the batch, in the sandbox, that a remedy treats."""

    model: nn.Module
    batch: Batch
    loss: Callable
    optimizer: torch.optim.Optimizer
    seen: Probe
    undo: ExitStack


def redraw(patient: Patient, replaced: dict[str, str] | None = None) -> Iterator[Treated]:
    """Weights drawn for each layer's activation, biases 0: He, Glorot, or LeCun for SELU.

    replaced names the activations that have been put in place of others.
    """
    reached = {
        name: (replaced or {}).get(a, a) for name, a in _reached(patient.seen.layers).items()
    }
    with random_states_restored(patient.model), torch.no_grad():
        for i, (path, module) in enumerate(patient.model.named_modules()):
            if "Norm" in type(module).__name__ or isinstance(module, nn.Embedding):
                continue
            torch.manual_seed(i)
            for name, weight in module.named_parameters(recurse=False):
                _draw(name, weight, reached.get(path, ""))
            _raise_forget_bias(module, 1.0 if isinstance(module, nn.LSTM | nn.LSTMCell) else 0.0)
    yield Treated()


def _draw(name: str, weight: torch.Tensor, activation: str) -> None:
    if "bias" in name:
        nn.init.zeros_(weight)
    elif name.startswith("weight_hh"):
        nn.init.orthogonal_(weight)
    elif "weight" in name and weight.dim() > 1:
        if activation in _HE:
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        elif activation == "selu":
            nn.init.kaiming_normal_(weight, nonlinearity="linear")
        else:
            nn.init.xavier_normal_(weight)


def _reached(layers: list[LayerRecord]) -> dict[str, str]:
    """Layer -> the activation that its outputs reach first, past normalisation and the like."""
    found, activation = {}, ""
    for layer in reversed(layers):
        if layer.activation or not ("Norm" in layer.kind or layer.kind in _PASSING):
            activation = layer.activation
        found[layer.name] = activation
    return found


def _raise_forget_bias(module: nn.Module, value: float) -> bool:
    """Set the bias of the gate that keeps the state; whether there is one."""
    if not isinstance(module, nn.LSTM | nn.GRU | nn.LSTMCell | nn.GRUCell) or not module.bias:
        return False
    gate = slice(module.hidden_size, 2 * module.hidden_size)
    for name, weight in module.named_parameters(recurse=False):
        if name.startswith("bias"):
            weight[gate] = value if name.startswith("bias_ih") else 0.0
    return True


class _Exchange(TorchFunctionMode):
    """Gives every activation from the first to the last place to a function that may replace it."""

    def __init__(self, places: range, change: Callable) -> None:
        super().__init__()
        self.places, self.change, self.count = places, change, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = ACTIVATIONS.get(func)
        if name is None:
            return func(*args, **kwargs)
        self.count += 1
        if self.count - 1 not in self.places:
            return func(*args, **kwargs)
        h = args[0] if args else kwargs["input"]
        return self.change(name, h, lambda h: func(*((h, *args[1:]) if args else ()), **kwargs))


def _exchange(patient: Patient, change: Callable, *, last: bool = False) -> None:
    """Change the hidden activations, or the last one, until the stack is unwound.

    change is a function (name, h, activation) -> activated h.
    """
    counted = _Exchange(range(0), change)
    with counted:
        call(patient.model, patient.batch.x)
    heads = patient.seen.heads
    ends = len(heads) == 1 and heads[0].activation not in ("", "linear")
    hidden = counted.count - ends
    places = range(hidden, counted.count) if last else range(hidden)
    _forward(patient, lambda forward: _exchanged(forward, places, change))


def _exchanged(forward: Callable, places: range, change: Callable) -> Callable:
    def exchanged(*args: Any, **kwargs: Any) -> Any:
        with _Exchange(places, change):
            return forward(*args, **kwargs)

    return exchanged


def _forward(patient: Patient, wrap: Callable[[Callable], Callable]) -> None:
    """Wrap the module's forward method until the stack is unwound."""
    own = vars(patient.model)
    before = own.get("forward")
    own["forward"] = wrap(patient.model.forward)
    patient.undo.callback(
        *((own.pop, "forward") if before is None else (own.__setitem__, "forward", before))
    )


def _replace(patient: Patient, old: set[str], new: Callable) -> bool:
    """Put a function in the place of some hidden activations; whether there is one of them."""
    hidden = {layer.activation for layer in patient.seen.layers[:-1]}
    if not hidden & old:
        return False
    _exchange(patient, lambda name, h, activation: new(h) if name in old else activation(h))
    return True


def relu(patient: Patient) -> Iterator[Treated]:
    """ReLU for sigmoid and tanh in the hidden layers, with He weights."""
    if _replace(patient, _SQUASHING, F.relu):
        yield from redraw(patient, dict.fromkeys(_SQUASHING, "relu"))


def leaky_relu(patient: Patient) -> Iterator[Treated]:
    """Leaky ReLU for ReLU in the hidden layers."""
    if _replace(patient, {"relu", "relu6"}, lambda h: F.leaky_relu(h, 0.2)):
        yield Treated()


def hidden_tanh(patient: Patient) -> Iterator[Treated]:
    """tanh, which is smooth, for piecewise linear activations in the hidden layers."""
    if _replace(patient, _PIECEWISE_LINEAR, torch.tanh):
        yield Treated()


def hidden_relu(patient: Patient) -> Iterator[Treated]:
    """ReLU after every hidden layer that has no activation."""
    modules = dict(patient.model.named_modules())
    weighted = [layer for layer in patient.seen.layers if layer.parameters]
    plain = [modules[w.name] for w in weighted[:-1] if not w.activation and w.name in modules]
    for module in plain:
        handle = module.register_forward_hook(lambda m, args, output: F.relu(output))
        patient.undo.callback(handle.remove)
    if plain:
        yield Treated()


def layer_normalization(patient: Patient) -> Iterator[Treated]:
    """What reaches each hidden activation is brought to mean 0 and variance 1, row by row."""
    if any(layer.activation and "Cell" not in layer.kind for layer in patient.seen.layers[:-1]):
        _exchange(patient, _normalized)
        yield Treated()


def _normalized(name: str, h: torch.Tensor, activation: Callable) -> torch.Tensor:
    if name in ("softmax", "log_softmax"):
        return activation(h)
    axis = 1 if h.dim() > 3 else -1
    rows = h.movedim(axis, -1)
    return activation(F.layer_norm(rows, rows.shape[-1:], eps=1e-3).movedim(-1, axis))


def scale_inputs(patient: Patient) -> Iterator[Treated]:
    """Each feature of the inputs brought to mean 0 and variance 1 over the batch."""
    x = patient.batch.x
    if torch.is_tensor(x) and x.is_floating_point():
        layers = patient.seen.layers
        channels = x.dim() > 3 or (layers and layers[0].kind.startswith("Conv"))
        yield Treated(batch=patient.batch._replace(x=_standard(x, 1 if channels else -1)))


def scale_targets(patient: Patient) -> Iterator[Treated]:
    """Each target that is far from unit scale brought to mean 0 and variance 1."""
    y = patient.batch.y
    classes = any("crossentropy" in head.loss for head in patient.seen.heads)
    if torch.is_tensor(y) and y.is_floating_point() and not classes:
        yield Treated(batch=patient.batch._replace(y=_standard(y, -1, far=True)), scale=True)


def _standard(values: torch.Tensor, axis: int, far: bool = False) -> torch.Tensor:
    """Mean 0 and variance 1 over all axes but one; with `far`, only for what is far away."""
    h = array(values)
    axes = tuple(i for i in range(max(1, h.ndim)) if h.ndim < 2 or i != axis % h.ndim)
    mean, std = h.mean(axis=axes, keepdims=True), h.std(axis=axes, keepdims=True)
    if far:
        rms = np.sqrt(mean**2 + std**2)
        near = (rms < 10) & (rms > 0.1)
        mean, std = np.where(near, 0.0, mean), np.where(near, 1.0, std)
    return torch.as_tensor((h - mean) / np.where(std > 0, std, 1.0)).to(values)


def other_rates(patient: Patient) -> Iterator[Treated]:
    """The learning rate over six decades; a negative one turned round first."""
    rate = patient.seen.optimizer.rate if patient.seen.optimizer else 0.0
    for factor in RATES if rate <= 0 else RATES[1:]:
        new = factor * (abs(rate) or 1e-3)
        advice = f"{'Lower' if factor < 1 else 'Raise'} the learning rate to about {new:.0e}."
        if factor == 1:
            advice = f"Make the learning rate positive: {new:.0e}."
        yield Treated(rate=new, name=f"a learning rate of {new:.0e}", advice=advice)


def forget_bias(patient: Patient) -> Iterator[Treated]:
    """The bias of the gate that keeps the state raised to ln(steps), in LSTM and GRU."""
    steps = 0
    with torch.no_grad():
        for name, module in patient.model.named_modules():
            path = name or type(module).__name__
            calls = [
                len(layer.backward_by_call)
                for layer in patient.seen.layers
                if layer.name == path or layer.name.startswith(f"{path}.layer")
            ]
            if max(calls, default=0) > 1 and _raise_forget_bias(module, np.log(max(calls))):
                steps = max(calls)
    if steps:
        yield Treated(advice=f"Raise the forget bias to ln({steps}) = {np.log(steps):.1f}.")


def clip(patient: Patient) -> Iterator[Treated]:
    """Gradients clipped to a global norm of 1."""

    def clipped(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        nn.utils.clip_grad_norm_(weights, 1.0)

    yield Treated(optimizer=lambda twin: twin.register_step_pre_hook(clipped))


def epsilon(patient: Patient) -> Iterator[Treated]:
    """The optimiser's epsilon at 1e-3, a number that float16 can hold."""
    if patient.seen.optimizer is not None and patient.seen.optimizer.epsilon < 1e-3:
        yield Treated(optimizer=lambda twin: [g.update(eps=1e-3) for g in twin.param_groups])


def linear_output(patient: Patient) -> Iterator[Treated]:
    """The last activation taken away."""
    heads = patient.seen.heads
    if len(heads) == 1 and heads[0].activation not in ("", "linear"):
        _exchange(patient, lambda name, h, activation: h.clone(), last=True)
        yield Treated(scale=True)


def sigmoid_output(patient: Patient) -> Iterator[Treated]:
    """A sigmoid in place of the last activation."""
    yield from _last(patient, "sigmoid", torch.sigmoid)


def softmax_output(patient: Patient) -> Iterator[Treated]:
    """A softmax in place of the last activation, where there are several units."""
    if len(patient.seen.heads) == 1 and patient.seen.heads[0].outputs.shape[-1] > 1:
        yield from _last(patient, "softmax", lambda h: torch.softmax(h, -1))


def _last(patient: Patient, name: str, activation: Callable) -> Iterator[Treated]:
    heads = patient.seen.heads
    if len(heads) != 1 or heads[0].activation == name:
        return
    if heads[0].activation not in ("", "linear"):
        _exchange(patient, lambda name, h, old: activation(h), last=True)
    else:
        _forward(patient, lambda forward: lambda *a, **k: activation(forward(*a, **k)))
    yield Treated(scale=True)


def other_logits(patient: Patient) -> Iterator[Treated]:
    """The binary cross-entropy of logits for that of probabilities, and the other way round."""
    heads = patient.seen.heads
    if len(heads) == 1 and heads[0].loss == "binary_crossentropy":
        logits = not heads[0].from_logits
        name = "BCEWithLogitsLoss" if logits else "BCELoss"
        loss = F.binary_cross_entropy_with_logits if logits else F.binary_cross_entropy
        yield Treated(loss=loss, scale=True, name=name, advice=f"Use {name} as the loss.")


def swap_arguments(patient: Patient) -> Iterator[Treated]:
    """The arguments of a loss of one's own the other way round."""
    loss = patient.loss
    if patient.seen.own_loss is not None:
        yield Treated(loss=lambda p, y: loss(y.to(p.dtype), p), scale=True)


def negated_loss(patient: Patient) -> Iterator[Treated]:
    """The sign of the loss changed."""
    loss = patient.loss
    yield Treated(loss=lambda p, y: -loss(p, y), scale=True)


def shape_targets(patient: Patient) -> Iterator[Treated]:
    """Targets in the shape of the outputs."""
    heads, y = patient.seen.heads, patient.batch.y
    if len(heads) == 1 and torch.is_tensor(y):
        shape = heads[0].outputs.shape
        if y.shape != shape and y.numel() == np.prod(shape):
            yield Treated(batch=patient.batch._replace(y=y.reshape(shape)))


def drop_rows(patient: Patient) -> Iterator[Treated]:
    """The batch without the rows whose loss is not finite or far above the median."""
    heads, (x, y) = patient.seen.heads, patient.batch[:2]
    losses = heads[0].sample_losses if len(heads) == 1 else np.empty(0)
    if not (torch.is_tensor(x) and torch.is_tensor(y)) or len(losses) != len(x):
        return
    with np.errstate(invalid="ignore"):
        good = np.isfinite(losses) & (losses <= 5 * np.nanmedian(losses))
    if 0 < good.sum() < len(x):
        kept = torch.as_tensor(good, device=x.device)
        yield Treated(batch=patient.batch._replace(x=x[kept], y=y[kept]), scale=True)


def less_momentum(patient: Patient) -> Iterator[Treated]:
    """Batch normalisation whose moving averages follow within ten steps."""
    norms = [m for m in patient.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    slow = [m for m in norms if m.momentum is not None and m.momentum < 0.5]
    for module in slow:
        patient.undo.callback(setattr, module, "momentum", module.momentum)
        module.momentum = 0.5
    if slow:
        yield Treated()


def class_weights(patient: Patient) -> Iterator[Treated]:
    """Weights in the loss that make all classes count alike."""
    heads = patient.seen.heads
    shares = heads[0].class_shares if len(heads) == 1 else np.empty(0)
    if len(shares) < 2 or not shares.all() or not heads[0].from_logits:
        return
    weights = torch.as_tensor(1 / (len(shares) * shares)).to(next(patient.model.parameters()))
    if heads[0].loss in _CATEGORICAL:
        yield Treated(loss=lambda p, y: F.cross_entropy(p, y, weight=weights), scale=True)
    elif heads[0].loss == "binary_crossentropy":
        ratio = weights[1] / weights[0]
        yield Treated(
            loss=lambda p, y: F.binary_cross_entropy_with_logits(p, y, pos_weight=ratio), scale=True
        )


#: Name of a row of `gradutils.remedies.REMEDIES` -> the function that treats a torch module.
TREATMENTS: dict[str, Callable[[Patient], Iterable[Treated]]] = {
    "a sigmoid output": sigmoid_output,
    "a softmax output": softmax_output,
    "a linear output": linear_output,
    "the other from_logits": other_logits,
    "the loss's arguments exchanged": swap_arguments,
    "targets in the shape of the outputs": shape_targets,
    "the other sign of the loss": negated_loss,
    "class weights": class_weights,
    "drawn weights": redraw,
    "ReLU and He weights": relu,
    "layer normalisation": layer_normalization,
    "leaky ReLU": leaky_relu,
    "ReLU between the layers": hidden_relu,
    "tanh in the hidden layers": hidden_tanh,
    "scaled inputs": scale_inputs,
    "scaled targets": scale_targets,
    "another learning rate": other_rates,
    "a forget bias of ln(steps)": forget_bias,
    "clipping by global norm": clip,
    "an epsilon of 1e-3": epsilon,
    "the bad rows dropped": drop_rows,
    "a momentum of 0.5 in batch normalisation": less_momentum,
}
