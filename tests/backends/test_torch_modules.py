"""Plain torch modules: what is measured, judged, tried and refused, and that nothing is changed."""

import copy
import itertools
import json
import random
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from gradutils.diagnosis import diagnose  # noqa: E402
from gradutils.probes import probe  # noqa: E402
from tests.backends.models import FIELDS, FIGURES, NAMES, figures_of  # noqa: E402
from tests.backends.torch_models import Net, in_torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def chain(*layers):
    """Layers without biases, with the matrices given, and functions between them."""
    made = []
    for layer in layers:
        if isinstance(layer, np.ndarray):
            linear = nn.Linear(*layer.shape[::-1], bias=False, dtype=torch.float64)
            linear.weight.data = torch.tensor(layer)
            layer = linear
        made.append(layer)
    return nn.Sequential(*made)


def total(predictions, y):
    return predictions.sum()


# The signal


def test_linear_chain_has_the_signal_of_the_matrix_product():
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(shape) for shape in ((4, 3), (5, 4), (2, 5)))
    x = rng.standard_normal((6, 3))
    seen = probe(chain(a, b, c), x, x, loss=total)
    ones = np.ones((6, 2))
    expected = [ones @ c @ b, ones @ c, ones]
    np.testing.assert_allclose(
        [w.backward for w in seen.layers], list(map(np.linalg.norm, expected))
    )
    gradients = [expected[0].T @ x, expected[1].T @ (x @ a.T), ones.T @ (x @ a.T @ b.T)]
    np.testing.assert_allclose(
        [w.gradient_norm for w in seen.layers], list(map(np.linalg.norm, gradients))
    )


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu_])
def test_a_layer_includes_the_activation_after_it(activation):
    """As a Dense layer does: the signal is that at the activation's output."""
    first = nn.Linear(2, 3, bias=False, dtype=torch.float64)
    first.weight.data = torch.tensor([[1.0, 0], [0, 1], [1, 1]], dtype=torch.float64)
    last = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    last.weight.data = torch.tensor([[3.0, 4, 12]], dtype=torch.float64)
    module = Net(lambda net, x: net.last(activation(net.first(x))), first=first, last=last)
    if isinstance(activation, nn.Module):
        module.activation = activation
    x = np.array([[1.0, -2.0]])  # reaches [1, -2, -1]: two of three units are dead
    seen = probe(module, x, x, loss=total)
    layer = seen["first"]
    assert (layer.activation, layer.kind) == ("relu", "Linear")
    assert layer.backward == 13.0
    assert layer.gradient_norm == pytest.approx(3 * np.sqrt(5))
    assert layer.dead == pytest.approx(2 / 3)
    assert [w.name for w in seen.layers] == ["first", "last"]


def test_an_activation_beside_another_path_is_a_layer_of_its_own():
    """h * sigmoid(h): the signal at the sigmoid is not all that reaches h."""
    layer = nn.Linear(2, 2)
    module = Net(lambda net, x: (h := net.layer(x)) * torch.sigmoid(h), layer=layer)
    x = torch.randn(5, 2)
    seen = probe(module, x, x, loss=total)
    assert [(w.name, w.activation) for w in seen.layers] == [("layer", ""), ("sigmoid1", "sigmoid")]
    h = layer(x).detach().requires_grad_()
    (expected,) = torch.autograd.grad((h * torch.sigmoid(h)).sum(), h)
    assert seen["layer"].backward == pytest.approx(float(expected.norm()), rel=1e-6)


def test_the_signal_reaches_frozen_layers():
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
    x = torch.randn(4, 3)
    before = probe(module, x, x, loss=total).layers[0].backward
    module[0].requires_grad_(False)
    frozen = probe(module, x, x, loss=total).layers[0]
    assert (frozen.backward, frozen.parameters) == (before, 0)


def test_a_recurrence_with_a_known_factor_has_its_powers_as_signal():
    """h = tanh(w h) at h = 0: each step back multiplies by w."""
    rnn = nn.RNN(1, 2, batch_first=True, bias=False, dtype=torch.float64)
    rnn.weight_ih_l0.data.zero_()
    rnn.weight_hh_l0.data = 0.5 * torch.eye(2, dtype=torch.float64)
    module = Net(lambda net, x: net.rnn(x)[0][:, -1], rnn=rnn)
    seen = probe(module, np.ones((1, 6, 1)), np.ones((1, 2)), loss=total)
    np.testing.assert_allclose(
        seen["rnn"].backward_by_call, np.sqrt(2) * 0.5 ** np.arange(5, -1, -1)
    )


def test_each_call_of_a_shared_layer_has_its_signal():
    layer = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    layer.weight.data = 3 * torch.eye(2, dtype=torch.float64)
    module = Net(lambda net, x: net.layer(net.layer(net.layer(x))), layer=layer)
    seen = probe(module, np.ones((1, 2)), np.ones((1, 2)), loss=total)
    np.testing.assert_allclose(seen["layer"].backward_by_call, np.sqrt(2) * np.array([9, 3, 1]))


def test_a_cell_in_a_loop_of_its_own_is_a_recurrent_layer():
    def forward(net, x):
        h = x.new_zeros(len(x), 2)
        for step in x.unbind(1):
            h = net.cell(step, h)
        return h

    cell = nn.RNNCell(1, 2, bias=False, dtype=torch.float64)
    cell.weight_ih.data.zero_()
    cell.weight_hh.data = 0.5 * torch.eye(2, dtype=torch.float64)
    seen = probe(Net(forward, cell=cell), np.ones((1, 4, 1)), np.ones((1, 2)), loss=total)
    np.testing.assert_allclose(
        seen["cell"].backward_by_call, np.sqrt(2) * 0.5 ** np.arange(3, -1, -1)
    )
    assert (seen["cell"].kind, seen["cell"].activation) == ("RNNCell", "tanh")


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(3, 4, batch_first=True),
        lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True),
        lambda: nn.LSTM(3, 4, proj_size=2, batch_first=True),
        lambda: nn.LSTM(3, 4),
        lambda: nn.GRU(3, 4, num_layers=2, batch_first=True),
        lambda: nn.RNN(3, 4, nonlinearity="relu", bidirectional=True, batch_first=True),
    ],
)
def test_recurrent_layers_compute_step_by_step_what_they_compute_at_once(make):
    from gradutils._torch.recorder import Recorder

    module, x = make().double(), torch.randn(5, 7, 3, dtype=torch.float64)
    weights = list(module.parameters())

    def results():
        output, state = module(x)
        states = state if isinstance(state, tuple) else (state,)
        loss = output.square().sum() + sum(s.sum() for s in states)
        return [output, *states, *torch.autograd.grad(loss, weights)]

    with Recorder(module) as recorder:
        stepwise = results()
    torch.testing.assert_close(stepwise, results())
    steps = 7 if module.batch_first else 5
    cells = module.num_layers * (2 if module.bidirectional else 1)
    assert len(recorder.calls) == steps * cells


def test_convolutions_have_their_units_in_axis_1():
    conv = nn.Conv2d(1, 3, 1, bias=False)
    conv.weight.data[:] = torch.tensor([1.0, -1.0, -2.0])[:, None, None, None]
    module = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(12, 1))
    layer = probe(module, torch.rand(4, 1, 2, 2), torch.zeros(4, 1), loss=total).layers[0]
    assert (layer.units, layer.dead, layer.feature_means.shape) == (3, pytest.approx(2 / 3), (1,))


def test_a_batch_normalisation_passes_its_axis_on_to_the_activation():
    module = nn.Sequential(
        nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)
    )
    module[1].bias.data[:] = -100.0
    seen = probe(module, torch.randn(4, 2, 4), torch.zeros(4, 1), loss=total)
    assert [(w.kind, w.units) for w in seen.layers][:3] == [
        ("Conv1d", 3), ("BatchNorm1d", 3), ("ReLU", 3)
    ]  # fmt: skip
    assert seen.layers[2].dead == 1.0


def test_a_matrix_has_its_units_in_its_rows():
    """torch's weights are (outputs, inputs): equal rows are equal units."""
    layer = nn.Linear(3, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2, 3], [1, 2, 3]])
    assert probe(layer, torch.randn(4, 3), torch.zeros(4, 2), loss=total).layers[0].equal_units
    layer.weight.data = torch.tensor([[1.0, 1, 1], [2, 2, 2]])
    assert not probe(layer, torch.randn(4, 3), torch.zeros(4, 2), loss=total).layers[0].equal_units


def test_the_output_projection_of_attention_counts_as_the_attentions_own():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    module = Net(lambda net, x: net.attention(x, x, x)[0], attention=attention)
    x = torch.randn(3, 5, 8)
    seen = probe(module, x, x, loss=F.mse_loss)
    assert [w.name for w in seen.layers] == ["attention"]
    assert seen["attention"].parameters == sum(p.numel() for p in attention.parameters())
    F.mse_loss(module(x), x).backward()
    squares = sum(float(p.grad.square().sum()) for p in attention.parameters())
    assert seen["attention"].gradient_norm == pytest.approx(np.sqrt(squares), rel=1e-5)


def test_a_parametrised_weight_belongs_to_its_layer():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    seen = probe(nn.Sequential(layer), torch.randn(4, 3), torch.zeros(4, 2), loss=F.mse_loss)
    assert [(w.name, w.kind, w.parameters) for w in seen.layers] == [("0", "Linear", 2 + 2 + 6)]


def test_a_last_softmax_is_measured_at_its_logits():
    """d loss / d p is about 1 / p, which says nothing of the net below."""
    module = nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1))
    module[0].weight.data *= 0
    module[0].bias.data = torch.tensor([-10.0, 0, 0, 0])
    x, y = torch.randn(1, 3), torch.tensor([0])
    seen = probe(module, x, y, loss=lambda p, y: F.nll_loss(p.log(), y))
    p = torch.softmax(module[0].bias.detach().double(), -1)
    expected = p - torch.tensor([1.0, 0, 0, 0])
    assert seen.layers[0].backward == pytest.approx(float(expected.norm()), rel=1e-5)


def test_the_next_update_is_that_of_the_optimiser():
    module = nn.Linear(3, 2, dtype=torch.float64)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    x, y = torch.randn(8, 3).double(), torch.randn(8, 2).double()
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(module(x), y).backward()
        optimizer.step()
    seen = probe(module, x, y, loss=F.mse_loss, optimizer=optimizer)
    assert (seen.optimizer.kind, seen.optimizer.iterations, seen.optimizer.rate) == ("Adam", 3, 0.1)
    before = [p.detach().clone() for p in module.parameters()]
    optimizer.zero_grad()
    F.mse_loss(module(x), y).backward()
    optimizer.step()
    moved = sum(
        float((p.detach() - b).square().sum())
        for p, b in zip(module.parameters(), before, strict=True)
    )
    size = sum(float(b.square().sum()) for b in before)
    assert seen.layers[0].update_ratio == pytest.approx(np.sqrt(moved / size))


def test_a_loss_scale_is_divided_out():
    module, x = nn.Linear(3, 2), torch.randn(4, 3)
    plain, scaled = (
        probe(module, x, torch.zeros(4, 2), loss=F.mse_loss, loss_scale=s) for s in (None, 1024.0)
    )
    assert plain.layers[0].gradient_norm == scaled.layers[0].gradient_norm


@pytest.mark.parametrize("reentrant", [False])
def test_a_checkpoint_that_is_not_reentrant_changes_no_signal(reentrant):
    def run(net, x):
        return net.last(checkpoint(net.body, x, use_reentrant=reentrant))

    body = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.LSTM(4, 4))
    module = Net(lambda net, x: net.last(net.body(x)[0]), body=body, last=nn.Linear(4, 1))
    x = torch.randn(3, 5, 4)
    plain = probe(module, x, x, loss=total)
    module._function = lambda net, x: net.last(checkpoint(net.body, x, use_reentrant=reentrant)[0])
    again = probe(module, x, x, loss=total)
    assert [w.backward for w in plain.layers] == [w.backward for w in again.layers]
    assert min(w.backward for w in plain.layers) > 0


# What the loss is, and what it expects


@pytest.mark.parametrize(
    ("loss", "y", "name", "logits"),
    [
        (nn.MSELoss(), torch.zeros(6, 4), "mean_squared_error", False),
        (F.l1_loss, torch.zeros(6, 4), "mean_absolute_error", False),
        (nn.CrossEntropyLoss(), torch.arange(6) % 4, "sparse_categorical_crossentropy", True),
        (F.cross_entropy, torch.full((6, 4), 0.25), "categorical_crossentropy", True),
        (nn.BCEWithLogitsLoss(), torch.zeros(6, 4), "binary_crossentropy", True),
        (lambda p, y: F.mse_loss(p, y), torch.zeros(6, 4), "mean_squared_error", False),
        (nn.CrossEntropyLoss(reduction="none"), torch.arange(6) % 4,
         "sparse_categorical_crossentropy", True),
        (nn.MSELoss(reduction="sum"), torch.zeros(6, 4), "", False),
        (nn.CrossEntropyLoss(label_smoothing=0.1), torch.arange(6) % 4, "", False),
        (lambda p, y: ((p - y) ** 2).mean(), torch.zeros(6, 4), "", False),
        (lambda p, y: F.mse_loss(p, y) + p.square().mean(), torch.zeros(6, 4), "", False),
    ],
)  # fmt: skip
def test_a_loss_is_known_by_what_it_calls(loss, y, name, logits):
    seen = probe(nn.Linear(3, 4), torch.randn(6, 3), y, loss=loss)
    (head,) = seen.heads
    assert (head.loss, head.from_logits) == (name, logits)
    assert (head.activation, head.layer) == ("linear", "Linear")
    assert (seen.own_loss is None) == bool(name)


def test_a_language_models_head_is_what_the_loss_takes_of_it():
    """Padding leaves the batch's targets and class shares alone."""
    module = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 7))
    ids = torch.randint(0, 7, (4, 6))
    y = ids.clone()
    y[:, 4:] = -100
    seen = probe(module, ids, y, loss=lambda p, y: F.cross_entropy(p.view(-1, 7), y.view(-1)))
    (head,) = seen.heads
    assert head.outputs.shape == (16, 7) and head.targets.shape == (16,)
    assert head.class_shares.sum() == pytest.approx(1)
    assert head.sample_losses.mean() == pytest.approx(seen.loss, rel=1e-5)


def test_only_outputs_that_the_loss_uses_are_heads():
    module = Net(lambda net, x: net.lstm(x), lstm=nn.LSTM(3, 4, batch_first=True))
    x = torch.randn(5, 6, 3)
    seen = probe(module, x, torch.zeros(5, 6, 4), loss=lambda p, y: F.mse_loss(p[0], y))
    assert (seen.outputs, seen.heads[0].loss) == (1, "mean_squared_error")


# The same models and the same weights as in TensorFlow


def attention_joined(layers):
    """Keras has four layers in an attention, where torch has one."""
    parts = [layer for layer in layers if layer["kind"] == "EinsumDense"]
    if not parts:
        return layers
    norms = {
        f: float(np.linalg.norm([p[f] for p in parts])) for f in ("weight_norm", "gradient_norm")
    }
    place = layers.index(parts[0])
    rest = [layer for layer in layers if layer not in parts]
    # The attention's output is that of its last part.
    joined = parts[-1] | norms | {"input_second_moment": parts[0]["input_second_moment"]}
    return [*rest[:place], joined | {"update_ratio": None}, *rest[place:]]


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_tensorflow(name):
    module, loss, optimizer, x, y = in_torch(name)
    found = diagnose(module, x, y, loss=loss, optimizer=optimizer, try_remedies=False)
    ours, theirs = figures_of(found), json.loads(FIGURES.read_text("utf-8"))[name]
    assert (ours["verdict"], ours["evidence"]) == (theirs["verdict"], theirs["evidence"])
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    for mine, other in zip(ours["layers"], attention_joined(theirs["layers"]), strict=True):
        for field in FIELDS:
            if other[field] is not None:
                # An update is the difference of two weights, in float32.
                rel = 1e-4 if field == "update_ratio" else 5e-6
                np.testing.assert_allclose(mine[field], other[field], rtol=rel, err_msg=field)


# Sick models and their sound twins


def mlp(depth, activation=nn.ReLU, *, gain=None, bias=None, outputs=1, last=None):
    layers, features = [], 8
    for _ in range(depth):
        linear = nn.Linear(features, 32)
        if gain is not None:
            nn.init.normal_(linear.weight, std=gain / np.sqrt(features))
        if bias is not None:
            nn.init.constant_(linear.bias, bias)
        layers += [linear, activation()]
        features = 32
    return nn.Sequential(*layers, nn.Linear(features, outputs), *([last] if last else []))


def adam(module, rate=1e-3):
    return torch.optim.Adam(module.parameters(), rate)


def sgd(module, rate=1e-2):
    return torch.optim.SGD(module.parameters(), rate, momentum=0.9)


def vectors():
    x = torch.randn(64, 8)
    return x, (x[:, :1] * x[:, 1:2]).tanh() + 0.1 * x[:, 2:3]


def waves():
    phase = 6 * torch.rand(64, 1)
    return torch.sin(1.3 * torch.linspace(0, 6, 30) + phase)[..., None], torch.sin(8 + phase)


def sentences():
    """A word in each of them tells its class."""
    ids, y = torch.randint(5, 50, (64, 12)), torch.randint(0, 2, (64,))
    ids[torch.arange(64), torch.randint(0, 12, (64,))] = y
    return ids, y


def images():
    """The left half is bright in one class."""
    x, y = torch.rand(64, 1, 12, 12), torch.arange(64) % 2
    x[y == 0, :, :, :6] += 1
    return x, y


def recurrent(kind):
    return Net(
        lambda net, x: net.last(net.cells(x)[0][:, -1]),
        cells=kind(1, 32, batch_first=True),
        last=nn.Linear(32, 1),
    )


def transformer(norm_first):
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first)
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    tokens, last = nn.Embedding(50, 32), nn.Linear(32, 2)
    forward = lambda net, ids: net.last(net.body(net.tokens(ids)).mean(1))  # noqa: E731
    return Net(forward, tokens=tokens, body=body, last=last)


def residual():
    parts = {"first": nn.Conv2d(1, 8, 3, padding=1), "last": nn.Linear(8, 2)}
    for i in range(3):
        parts[f"conv{i}"] = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        parts[f"norm{i}"] = nn.BatchNorm2d(8)

    def forward(net, x):
        h = net.first(x)
        for i in range(3):
            branch = getattr(net, f"norm{i}")(getattr(net, f"conv{i}")(F.relu(h)))
            branch += h
            h = F.relu(branch, inplace=True)
        return net.last(h.mean((2, 3)))

    return Net(forward, **parts)


SOUND = {
    "relu": (lambda: mlp(3), vectors, F.mse_loss, adam),
    "relu, sgd": (lambda: mlp(3), vectors, F.mse_loss, sgd),
    "tanh": (lambda: mlp(3, nn.Tanh), vectors, F.mse_loss, adam),
    "a loss by hand": (lambda: mlp(3), vectors, lambda p, y: (p - y).square().mean(), adam),
    "lstm": (lambda: recurrent(nn.LSTM), waves, F.mse_loss, lambda m: adam(m, 3e-3)),
    "gru": (lambda: recurrent(nn.GRU), waves, F.mse_loss, lambda m: adam(m, 3e-3)),
    "transformer": (lambda: transformer(True), sentences, F.cross_entropy, adam),
    "transformer, normalised last": (
        lambda: transformer(False), sentences, F.cross_entropy, adam
    ),
    "residual": (residual, images, F.cross_entropy, adam),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_module_is_healthy(name):
    make, data, loss, optimizer = SOUND[name]
    module, (x, y) = make(), data()
    found = diagnose(module, x, y, loss=loss, optimizer=optimizer(module))
    assert found.verdict == "healthy", str(found)


def binary():
    x, _ = vectors()
    return x, (x[:, :1] > 0).float()


def classes():
    x, _ = vectors()
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def changed(data, x=lambda x: x, y=lambda y: y):
    def make():
        given = data()
        return x(given[0]), y(given[1])

    return make


def zero_initialised():
    module = mlp(2)
    for weight in module.parameters():
        weight.data.zero_()
    return module


def cut(operation):
    return Net(
        lambda net, x: net.last(operation(net.first(x))),
        first=nn.Linear(8, 8),
        last=nn.Linear(8, 1),
    )


def root_of_zero():
    root = lambda net, x: (0 * net.body(x)).square().sum(1, keepdim=True).sqrt()  # noqa: E731
    return Net(root, body=mlp(2))


SICK = {
    "vanishing": (lambda: mlp(10, nn.Sigmoid), vectors, F.mse_loss, sgd),
    "exploding": (lambda: mlp(20, gain=2.5), vectors, F.mse_loss, sgd),
    "dead units": (lambda: mlp(2, bias=-20.0), vectors, F.mse_loss, sgd),
    "step too large": (lambda: mlp(2), vectors, F.mse_loss, lambda m: sgd(m, 30.0)),
    "step too small": (lambda: mlp(2), vectors, F.mse_loss, lambda m: sgd(m, 1e-9)),
    "target scale": (
        lambda: mlp(2), changed(vectors, y=lambda y: 1e5 + 1e4 * y), F.mse_loss, adam
    ),
    "input scale": (lambda: mlp(2), changed(vectors, x=lambda x: 1e-4 * x), F.mse_loss, sgd),
    "saturated": (
        lambda: mlp(2, nn.Tanh), changed(vectors, x=lambda x: 300 * x), F.mse_loss, sgd
    ),
    "non-finite": (root_of_zero, vectors, F.mse_loss, adam),
    "disconnected": (lambda: cut(torch.detach), vectors, F.mse_loss, adam),
    "equal units": (zero_initialised, vectors, F.mse_loss, adam),
    "wrong sign": (lambda: mlp(2), vectors, lambda p, y: -F.mse_loss(p, y), adam),
    "output range": (
        lambda: mlp(2, last=nn.Sigmoid()), changed(vectors, y=lambda y: 10 * y), F.mse_loss, adam
    ),
    "loss mismatch": (
        lambda: mlp(2, outputs=3, last=nn.Softmax(-1)), classes, F.cross_entropy, sgd
    ),
}  # fmt: skip
MENDED = {
    "vanishing": "ReLU and He weights", "dead units": "drawn weights",
    "step too large": "a learning rate of", "step too small": "a learning rate of",
    "target scale": "scaled targets", "input scale": "scaled inputs",
    "saturated": "scaled inputs", "loss mismatch": "a linear output",
    "equal units": "drawn weights", "output range": "a linear output",
    "wrong sign": "the other sign",
}  # fmt: skip


@pytest.mark.parametrize("verdict", SICK)
def test_a_sick_module_is_told_what_ails_it_and_what_helped(verdict):
    make, data, loss, optimizer = SICK[verdict]
    module, (x, y) = make(), data()
    found = diagnose(module, x, y, loss=loss, optimizer=optimizer(module))
    assert found.verdict == verdict, str(found)
    assert MENDED.get(verdict, "") in "".join(found.findings[0].tried), str(found)


@pytest.mark.parametrize(
    ("module", "data", "loss"),
    [
        (lambda: mlp(2, last=nn.Sigmoid()), binary, F.binary_cross_entropy_with_logits),
        (lambda: mlp(2, outputs=3), classes, F.nll_loss),
        (lambda: mlp(2, outputs=3, last=nn.Softmax(-1)), classes, F.nll_loss),
    ],
)
def test_a_loss_that_expects_something_else_is_told(module, data, loss):
    module, (x, y) = module(), data()
    assert diagnose(module, x, y, loss=loss, optimizer=sgd(module)).verdict == "loss mismatch"


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_targets_without_the_outputs_last_axis_are_told():
    module, (x, y) = mlp(2), vectors()
    found = diagnose(module, x, y[:, 0], loss=nn.MSELoss(), optimizer=adam(module))
    assert found.verdict == "broadcast"


# Reports from the web, rewritten for torch


def line():
    """keras-team/keras#3040: y = 2 x on x = 0 to 199 with one layer and plain steps of 0.001."""
    x = torch.arange(200.0)[:, None]
    return nn.Linear(1, 1), x, 2 * x, F.mse_loss, lambda m: torch.optim.SGD(m.parameters(), 1e-3)


def dying_relu():
    """community.deeplearning.ai/t/324182: ReLU at the output too, for targets of -3 to 9."""
    sizes = [1, 4, 2, 1]
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    x = torch.arange(-1.0, 6.0)[:, None]
    return nn.Sequential(*layers), x, 2 * x - 1, F.mse_loss, adam


def far_targets_of_an_lstm():
    """keras-team/keras#4563: regression with targets of 1e5."""
    x = torch.randn(64, 60, 8)
    net = Net(
        lambda net, x: net.last(net.cells(x)[0][:, -1]),
        cells=nn.LSTM(8, 64, batch_first=True),
        last=nn.Linear(64, 1),
    )
    y = 1e5 + 2e4 * x[:, -12:, 0].mean(1, keepdim=True)
    return net, x, y, F.l1_loss, lambda m: sgd(m, 8e-4)


def saturated_actor():
    """floodsung/DDPG#6: raw states of very different sizes drive the last tanh to its ends."""
    states = torch.randn(64, 29) * torch.logspace(0, 2.5, 29)
    best = 0.8 * torch.tanh(torch.randn(64, 3))
    sizes = [29, 300, 600, 3]
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    actor = nn.Sequential(*layers[:-1], nn.Tanh())
    return actor, states, best, lambda a, y: (a - y).square().sum(-1), adam


REPORTED = {
    line: {"step too large", "input scale"},
    dying_relu: {"output range", "dead units", "vanishing"},
    far_targets_of_an_lstm: {"target scale"},
    saturated_actor: {"feature scales", "input scale"},
}


@pytest.mark.parametrize("case", REPORTED, ids=lambda case: case.__name__)
def test_a_reported_failure_is_told(case):
    module, x, y, loss, optimizer = case()
    found = diagnose(module, x, y, loss=loss, optimizer=optimizer(module))
    assert {f.kind for f in found.findings} & REPORTED[case], str(found)


# Nothing is changed


def state_of(module, optimizer):
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    states = [optimizer.state[p] for p in module.parameters() if p in optimizer.state]
    return copy.deepcopy(
        {
            "tensors": {name: t.detach().clone() for name, t in tensors.items()},
            "wants gradients": [p.requires_grad for p in module.parameters()],
            "gradients": [p.grad for p in module.parameters()],
            "training": [m.training for m in module.modules()],
            "attributes": [sorted(vars(m)) for m in module.modules()],
            "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()],
            "optimiser": [groups, states],
            "generators": [torch.get_rng_state(), random.getstate(), np.random.get_state()],  # noqa: NPY002
        }
    )


def same(a, b):
    """Whether two states are equal, bit by bit."""
    if isinstance(a, torch.Tensor):
        return a.numpy().tobytes() == b.numpy().tobytes() and a.dtype == b.dtype
    if isinstance(a, np.ndarray):
        return a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def trained(module, x, y, optimizer):
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(module(x), y).backward()
        optimizer.step()


class Stateful(nn.Module):
    """Keeps its last state, counts its calls, and draws from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.state, self.calls = torch.zeros(1), 0
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x):
        self.calls += 1
        self.state = self.state + x.mean().detach()
        return x + 0.01 * torch.randn(x.shape, generator=self.generator)


@pytest.mark.parametrize(
    "make",
    [
        lambda: mlp(10, nn.Sigmoid),
        lambda: nn.Sequential(mlp(2, bias=-20.0)),
        lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1)),
        lambda: nn.Sequential(Stateful(), nn.utils.parametrizations.spectral_norm(nn.Linear(8, 1))),
        lambda: Net(
            lambda net, x: net.cells(x[:, :, None])[0][:, -1],
            cells=nn.LSTM(1, 1, batch_first=True),
        ),
    ],
)
@pytest.mark.parametrize("rate", [1e-3, 100.0])
def test_everything_is_as_before_bit_by_bit(make, rate):
    module, (x, y) = make(), vectors()
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    trained(module, x, y, optimizer)
    optimizer.param_groups[0]["lr"] = rate
    list(module.modules())[-1].eval()
    next(module.parameters()).requires_grad_(False)
    gradients = [p.grad for p in module.parameters()]
    before = state_of(module, optimizer)
    diagnose(module, x, y, loss=F.mse_loss, optimizer=optimizer)
    after = state_of(module, optimizer)
    assert [name for name in before if not same(before[name], after[name])] == []
    assert all(p.grad is g for p, g in zip(module.parameters(), gradients, strict=True))
    stateful = [m for m in module.modules() if isinstance(m, Stateful)]
    assert all(m.calls == 3 and m.generator.initial_seed() == 1 for m in stateful)


def test_a_loss_that_waits_for_its_backward_pass_can_still_have_it():
    module, (x, y) = mlp(2), vectors()
    loss = F.mse_loss(module(x), y)
    probe(module, x, y, loss=F.mse_loss, optimizer=adam(module))
    loss.backward()
    assert all(p.grad is not None for p in module.parameters())


def test_everything_is_as_before_after_an_error_in_the_module():
    module, (x, y) = mlp(2), vectors()
    before = state_of(module, sgd(module))
    with pytest.raises(ValueError, match="x must fit the model"):
        diagnose(module, x[:, :3], y, loss=F.mse_loss, optimizer=sgd(module))
    assert same(state_of(module, sgd(module)), before)


# What cannot be measured, or is no input


def test_a_compiled_module_is_measured_uncompiled_and_says_so():
    module, (x, y) = mlp(4), vectors()
    plain = probe(module, x, y, loss=F.mse_loss)
    wrapped = torch.compile(module, backend="eager")
    wrapped(x)
    inside = mlp(4)
    inside.load_state_dict(module.state_dict())
    inside.compile(backend="eager")
    inside(x)
    part = nn.Sequential(torch.compile(copy.deepcopy(module), backend="eager"))
    part(x)
    for compiled in (wrapped, inside, part):
        seen = probe(compiled, x, y, loss=F.mse_loss)
        assert [w.backward for w in seen.layers] == [w.backward for w in plain.layers]
        assert "torch.compile" in seen.unseen[0]
        assert f"not seen: {seen.unseen[0]}" in str(diagnose(compiled, x, y, loss=F.mse_loss))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_script_module_is_refused_by_name():
    module, (x, y) = mlp(2), vectors()
    for script in (torch.jit.script(module), torch.jit.trace(module, x)):
        with pytest.raises(TypeError, match="ScriptModule"):
            diagnose(script, x, y, loss=F.mse_loss)
        with pytest.raises(TypeError, match="ScriptModule, 0"):
            probe(nn.Sequential(script), x, y, loss=F.mse_loss)


def test_a_reentrant_checkpoint_is_refused_by_name():
    body = mlp(2)
    module = Net(lambda net, x: checkpoint(net.body, net.first(x), use_reentrant=True),
                 first=nn.Linear(8, 8), body=body)  # fmt: skip
    with pytest.raises(ValueError, match="re-entrant checkpoint"):
        probe(module, *vectors(), loss=F.mse_loss)


def test_an_optimiser_that_needs_a_closure_is_refused_by_name():
    module, (x, y) = mlp(2), vectors()
    optimizer = torch.optim.LBFGS(module.parameters())
    with pytest.raises(ValueError, match="closure.*LBFGS"):
        diagnose(module, x, y, loss=F.mse_loss, optimizer=optimizer)


def test_a_wrapper_is_looked_through_and_said():
    module, (x, y) = mlp(2), vectors()
    wrapped = probe(nn.DataParallel(module), x, y, loss=F.mse_loss)
    plain = probe(module, x, y, loss=F.mse_loss)
    assert [w.backward for w in wrapped.layers] == [w.backward for w in plain.layers]
    assert wrapped.unseen == [
        "DataParallel stands around the model: the module inside it was measured"
    ]


def test_a_tied_weight_is_seen_where_its_module_is_called():
    tied = Net(
        lambda net, ids: F.linear(net.tokens(ids), net.tokens.weight), tokens=nn.Embedding(9, 4)
    )
    ids = torch.randint(0, 9, (8, 5))
    seen = probe(tied, ids, ids, loss=lambda p, y: F.cross_entropy(p.flatten(0, 1), y.flatten()))
    F.cross_entropy(tied(ids).flatten(0, 1), ids.flatten()).backward()
    assert seen["tokens"].gradient_norm == pytest.approx(float(tied.tokens.weight.grad.norm()))


def test_layers_that_are_never_called_are_an_error_not_a_zero():
    hidden = Net(lambda net, x: net.last(F.linear(x, net.first.weight)),
                 first=nn.Linear(8, 8), last=nn.Linear(8, 1))  # fmt: skip
    bypassed = Net(lambda net, x: net.body.forward(x), body=nn.Linear(8, 1))
    for module, name in ((hidden, "first"), (bypassed, "body")):
        with pytest.raises(ValueError, match=f"the weights of {name} .* have a gradient, but no"):
            probe(module, *vectors(), loss=F.mse_loss)


def test_a_packed_sequence_hides_its_steps_and_that_is_said():
    def forward(net, x):
        lengths = torch.full((len(x),), x.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return net.last(net.cells(packed)[1][0][-1])

    cells, last = nn.LSTM(1, 8, batch_first=True), nn.Linear(8, 1)
    seen = probe(Net(forward, cells=cells, last=last), *waves(), loss=F.mse_loss)
    assert "PackedSequence" in seen.unseen[0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"loss": None}, TypeError, "loss must be callable"),
        ({"loss": "mse"}, TypeError, "loss must be callable"),
        ({"loss": lambda p, y: 1.0}, ValueError, "loss must return a floating tensor"),
        ({"optimizer": "adam"}, TypeError, "optimizer must be a torch.optim.Optimizer"),
        ({"x": torch.empty(0, 8), "y": torch.empty(0, 1)}, ValueError, "one sample or more"),
        ({"x": torch.full((64, 8), torch.nan)}, ValueError, "x must hold no NaN; received 512"),
        ({"y": torch.full((64, 1), torch.inf)}, ValueError, "y must hold no inf; received 64"),
        ({"x": 3.0}, ValueError, "x must be a tensor or array"),
        ({"x": np.array(["a"] * 64)}, ValueError, "real numbers; received an array of <U1"),
        ({"x": torch.zeros(64, 7)}, ValueError, r"x must fit the model; received \(64, 7\)"),
        ({"y": torch.zeros(64, 5, 2)}, ValueError, "y must fit the loss"),
        ({"look_ahead": -1}, ValueError, "look_ahead must be a positive integer"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_bad_input_is_an_error_that_names_the_argument(change, error, message):
    module, (x, y) = mlp(2), vectors()
    given = {"x": x, "y": y, "loss": F.mse_loss, "optimizer": adam(module)} | change
    with pytest.raises(error, match=message):
        diagnose(module, **given)


def test_an_optimiser_of_another_model_is_an_error():
    module, (x, y) = mlp(2), vectors()
    with pytest.raises(ValueError, match="optimizer must hold weights of the model"):
        diagnose(module, x, y, loss=F.mse_loss, optimizer=adam(mlp(2)))


def test_a_lazy_module_is_an_error_before_its_first_call():
    with pytest.raises(ValueError, match="model must be initialised"):
        probe(nn.LazyLinear(1), *vectors(), loss=F.mse_loss)


# Data as torch has them


def test_a_loader_gives_its_first_batch_and_keeps_its_order():
    x, y = vectors()
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    module = mlp(2)
    before = torch.get_rng_state()
    first = probe(module, loader, loss=F.mse_loss)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.loss == probe(module, *next(iter(loader)), loss=F.mse_loss).loss
    with pytest.raises(ValueError, match="y must be None"):
        probe(module, loader, y, loss=F.mse_loss)


def test_inputs_with_time_first_are_used_whole():
    cells, last = nn.LSTM(1, 8), nn.Linear(8, 1)
    module = Net(lambda net, x: net.last(net.cells(x)[0][-1]), cells=cells, last=last)
    x, y = waves()
    seen = probe(module, x.transpose(0, 1), y, loss=F.mse_loss)
    assert len(seen["cells"].backward_by_call) == 30


def test_several_inputs_are_positional_in_a_tuple_and_named_in_a_dict():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 1)

        def forward(self, a, b):
            return self.layer(a + 2 * b)

    module, (x, y) = Sum(), vectors()
    both = probe(module, (x, 3 * x), y, loss=F.mse_loss)
    assert both.loss == probe(module, {"b": 3 * x, "a": x}, y, loss=F.mse_loss).loss


def test_weights_that_the_optimiser_does_not_hold_count_as_frozen():
    module, (x, y) = mlp(2), vectors()
    seen = probe(module, x, y, loss=F.mse_loss, optimizer=adam(module[4]))
    assert [w.parameters for w in seen.layers] == [0, 0, 33]


def test_under_autocast_the_steps_see_the_weights_that_they_have_moved():
    """Its cache keeps low-precision copies of weights until it is left."""
    module, (x, y) = mlp(2), vectors()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(x)
        found = diagnose(module, x, y, loss=lambda p, y: F.mse_loss(p.float(), y),
                         optimizer=adam(module, 1e-2))  # fmt: skip
        after = module(x)
    assert found.verdict == "healthy" and found.trial.losses[-1] < 0.9 * found.trial.losses[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(after, module(x))


def test_weights_in_half_precision_are_told():
    module, (x, y) = mlp(2).half(), vectors()
    found = diagnose(module, x.half(), y.half(), loss=F.mse_loss, optimizer=adam(module))
    assert (found.verdict, found.findings[0].id) == ("half precision", "G10")
    assert "an epsilon of 1e-3" in found.findings[0].tried[0]


# Words


def test_findings_speak_of_torch():
    from gradutils._courses import REMEDIES
    from gradutils._torch.diagnosis import WORDS
    from gradutils.checks import CHECKS

    # Torch has no logits behind an activation, which G42 is about.
    checks = [check for check in CHECKS if check.id != "G42"]
    texts = [t for check in checks for t in (check.cause, check.remedy)]
    texts += [row.advice for row in REMEDIES]
    for text in texts:
        for theirs, ours in WORDS.items():
            text = text.replace(theirs, ours)
        for word in ("Keras calls", "from_logits", "then compile", "global_clipnorm", "y_true"):
            assert word not in text


def test_plain_modules_need_no_keras():
    program = (
        "import sys; sys.modules['keras'] = None; import torch; from gradutils.diagnosis import "
        "diagnose; m = torch.nn.Linear(2, 1); print(diagnose(m, torch.randn(8, 2), "
        "torch.randn(8, 1), loss=torch.nn.MSELoss(), optimizer=torch.optim.Adam(m.parameters()))"
        ".verdict, 'tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "healthy False\n", result.stderr
