"""The eight models of `models.py` as plain torch modules with the same weights."""

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.backends.models import Draws


class Net(nn.Module):
    """A module made of parts, and a function of them and the inputs as its forward pass."""

    def __init__(self, forward, **parts):
        super().__init__()
        self._function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self._function(self, *inputs)


def in_torch(name):
    """The module, its loss, its optimiser and its data."""
    draws = Draws(name)
    module = _MADE[name](draws)
    x, y = draws.data()
    if name == "cnn_bn":
        x = np.moveaxis(x, -1, 1)
    # Keras adds its epsilon before the correction of the second moment's bias.
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-3, eps=1e-7 / np.sqrt(1e-3))
    return module, _of_words if name == "embedding" else nn.CrossEntropyLoss(), optimizer, x, y


def _of_words(p, y):
    """Cross-entropy of probabilities."""
    return F.nll_loss(p.log(), y)


def _tensor(array):
    return nn.Parameter(torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32))


def _dense(draws, inputs, units):
    layer = nn.Linear(inputs, units)
    layer.weight = _tensor(draws.kernel(inputs, units).T)
    layer.bias = _tensor(draws.bias(units))
    return layer


def _conv(draws, inputs, channels):
    layer = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
    layer.weight = _tensor(draws.kernel(3, 3, inputs, channels).transpose(3, 2, 0, 1))
    return layer


def _normalized(draws, layer):
    """Keras lists the scale, then the shift."""
    shape = layer.weight.shape
    layer.weight, layer.bias = _tensor(draws.scale(*shape)), _tensor(draws.bias(*shape))
    layer.eps = 1e-3
    return layer


def _chain(draws, depth, width, activation):
    sizes = [16] + [width] * depth
    layers = [
        part for a, b in itertools.pairwise(sizes) for part in (_dense(draws, a, b), activation())
    ]
    return nn.Sequential(*layers, _dense(draws, width, 5))


def _cnn(draws):
    parts = []
    for inputs, channels in ((3, 8), (8, 16)):
        norm = nn.BatchNorm2d(channels)
        parts += [_conv(draws, inputs, channels), _normalized(draws, norm), nn.ReLU()]
        parts.append(nn.MaxPool2d(2))

    def forward(net, x):
        return net.last(net.body(x).permute(0, 2, 3, 1).flatten(1))

    return Net(forward, body=nn.Sequential(*parts), last=_dense(draws, 144, 5))


def _residual(draws):
    parts = [_dense(draws, 16, 32)]
    for _ in range(8):
        norm = _normalized(draws, nn.LayerNorm(32))
        parts += [norm, _dense(draws, 32, 32), _dense(draws, 32, 32)]
    parts += [_normalized(draws, nn.LayerNorm(32)), _dense(draws, 32, 5)]

    def forward(net, x):
        first, *blocks, norm, last = net.parts
        h = first(x)
        for normalize, up, down in zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True):
            h = h + down(F.relu(up(normalize(h))))
        return last(norm(h))

    return Net(forward, parts=nn.ModuleList(parts))


def _recurrent(draws, layer, order):
    """Keras' gates stand in another order, in columns; its LSTM has one bias, torch's two."""
    gates, both = len(order), isinstance(layer, nn.GRU)

    def moved(array):
        blocks = np.split(array, gates, axis=-1)
        return np.concatenate([blocks[i] for i in order], axis=-1)

    layer.weight_ih_l0 = _tensor(moved(draws.kernel(3, gates * 16)).T)
    layer.weight_hh_l0 = _tensor(moved(draws.kernel(16, gates * 16)).T)
    bias = moved(draws.bias(*((2, gates * 16) if both else (gates * 16,))))
    layer.bias_ih_l0 = _tensor(bias[0] if both else bias)
    layer.bias_hh_l0 = _tensor(bias[1] if both else 0 * bias)
    layer.bias_hh_l0.requires_grad_(both)
    forward = lambda net, x: net.last(net.cells(x)[0][:, -1])  # noqa: E731
    return Net(forward, cells=layer, last=_dense(draws, 16, 5))


def _attention(draws):
    layer = nn.MultiheadAttention(16, 4, batch_first=True)
    kernels, biases = [], []
    for _ in range(3):
        kernels.append(draws.kernel(16, 4, 4, fan=16).reshape(16, 16).T)
        biases.append(draws.bias(4, 4).ravel())
    layer.in_proj_weight = _tensor(np.concatenate(kernels))
    layer.in_proj_bias = _tensor(np.concatenate(biases))
    layer.out_proj.weight = _tensor(draws.kernel(4, 4, 16, fan=16).reshape(16, 16).T)
    layer.out_proj.bias = _tensor(draws.bias(16))
    return layer


def _embedding(draws):
    layer = nn.Embedding(20, 16)
    layer.weight = _tensor(draws.kernel(20, 16, fan=1))
    return layer


def _transformer(draws):
    parts = {"tokens": _embedding(draws), "attention": _attention(draws)}
    parts["norm1"] = _normalized(draws, nn.LayerNorm(16))
    parts["up"], parts["down"] = _dense(draws, 16, 32), _dense(draws, 32, 16)
    parts["norm2"] = _normalized(draws, nn.LayerNorm(16))
    parts["last"] = _dense(draws, 16, 5)

    def forward(net, ids):
        h = net.tokens(ids)
        h = net.norm1(h + net.attention(h, h, h)[0])
        h = net.norm2(h + net.down(F.gelu(net.up(h))))
        return net.last(h.mean(1))

    return Net(forward, **parts)


def _classes_of_words(draws):
    parts = {"tokens": _embedding(draws), "hidden": _dense(draws, 16, 8)}
    parts["last"] = _dense(draws, 8, 5)

    def forward(net, ids):
        h = torch.tanh(net.hidden(net.tokens(ids).mean(1)))
        return torch.softmax(net.last(h), -1)

    return Net(forward, **parts)


_MADE = {
    "deep_relu": lambda draws: _chain(draws, 22, 64, nn.ReLU),
    "sigmoid": lambda draws: _chain(draws, 12, 32, nn.Sigmoid),
    "cnn_bn": _cnn,
    "residual_ln": _residual,
    "lstm": lambda draws: _recurrent(draws, nn.LSTM(3, 16, batch_first=True), (0, 1, 2, 3)),
    "gru": lambda draws: _recurrent(draws, nn.GRU(3, 16, batch_first=True), (1, 0, 2)),
    "transformer": _transformer,
    "embedding": _classes_of_words,
}
