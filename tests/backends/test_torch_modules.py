"""Plain torch modules: what is measured, judged, tried and refused, and that nothing is changed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from gradutils.diagnosis import diagnose  # noqa: E402
from gradutils.probes import probe  # noqa: E402


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Net(nn.Module):
    """A module made of parts, and a function of them and the inputs as its forward pass."""

    def __init__(self, forward, **parts):
        super().__init__()
        self._function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self._function(self, *inputs)


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


# The eight figures that decide: sick models and their sound twins


def mlp(depth, width, activation, gain=None, bias=None, features=8, outputs=1):
    layers = []
    for fan_in in [features] + [width] * (depth - 1):
        linear = nn.Linear(fan_in, width)
        if gain is not None:
            nn.init.normal_(linear.weight, std=gain / np.sqrt(fan_in))
            nn.init.zeros_(linear.bias)
        if bias is not None:
            nn.init.constant_(linear.bias, bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def regression(samples=64, features=8):
    x = torch.randn(samples, features)
    return x, (x[:, :1] * x[:, 1:2]).tanh() + 0.1 * x[:, 2:3]


def found(module, x, y, loss, make=torch.optim.Adam, rate=1e-3, **options):
    return diagnose(module, x, y, loss=loss, optimizer=make(module.parameters(), rate), **options)
