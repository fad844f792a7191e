"""A monitor on an optimiser of torch: what it records and says, and that it changes nothing."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from gradutils.torch_monitor import GradientMonitor  # noqa: E402


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


X, Y = torch.linspace(-1, 1, 64).reshape(16, 4), torch.linspace(0, 1, 16)[:, None]


def train(model, optimizer, steps=6, before=lambda step: None, scale=1.0):
    """A loop of one's own; returns each step's gradients as the optimiser sees them."""
    seen = []
    for step in range(steps):
        optimizer.zero_grad()
        (scale * F.mse_loss(model(X), Y)).backward()
        before(step)
        seen.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        optimizer.step()
    return seen


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_norms_are_those_of_the_gradients_and_the_weights_those_without_a_monitor(make):
    model = net()
    twin = copy.deepcopy(model)
    optimizer = make(model.parameters(), lr=0.05)
    with GradientMonitor(model, optimizer, update_ratio=True) as monitor:
        seen = train(model, optimizer)
    train(twin, make(twin.parameters(), lr=0.05))
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert (monitor.layer_names, monitor.steps.tolist()) == (["0", "2"], list(range(6)))
    squares = [[float(g.double().square().sum()) for g in gradients] for gradients in seen]
    joint = np.sqrt(np.array(squares).reshape(6, 2, 2).sum(axis=2))
    np.testing.assert_allclose(monitor.norms, joint, rtol=1e-12)


def test_plain_steps_have_the_gradient_as_their_update():
    model = net().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    before = [float(torch.cat([w.flatten() for w in layer.parameters()]).detach().norm())
              for layer in (model[0], model[2])]  # fmt: skip
    with GradientMonitor(model, optimizer, update_ratio=True) as monitor:
        optimizer.zero_grad()
        F.mse_loss(model(X.double()), Y.double()).backward()
        optimizer.step()
    np.testing.assert_allclose(monitor.update_ratios[0], 0.25 * monitor.norms[0] / before)


def test_norms_are_those_after_clipping():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    clip = lambda step: nn.utils.clip_grad_norm_(model.parameters(), 1e-3)  # noqa: E731
    with GradientMonitor(model, optimizer) as monitor:
        train(model, optimizer, before=clip)
    np.testing.assert_allclose(np.linalg.norm(monitor.norms, axis=1), 1e-3, rtol=1e-4)


def test_tiny_gradients_are_not_rounded_to_0():
    """Their squares underflow in float32."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with GradientMonitor(model, optimizer) as monitor:
        train(model, optimizer, steps=1, scale=1e-30)
    assert (monitor.norms > 0).all() and (monitor.norms < 1e-25).all()


@pytest.mark.parametrize("fused", [False, True])
def test_the_scale_of_mixed_precision_is_divided_out(fused):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    expected = torch.autograd.grad(F.mse_loss(model(X), Y), list(model.parameters()))
    with GradientMonitor(model, optimizer) as monitor:
        scaler.scale(F.mse_loss(model(X), Y)).backward()
        scaler.step(optimizer)
    norms = [
        float(torch.cat([g.flatten() for g in p]).norm()) for p in (expected[:2], expected[2:])
    ]
    np.testing.assert_allclose(monitor.norms[0], norms, rtol=1e-5)


def test_every_second_step_and_nothing_after_the_block():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with GradientMonitor(model, optimizer, every=2) as monitor:
        train(model, optimizer, steps=5)
    train(model, optimizer)
    assert monitor.steps.tolist() == [0, 2, 4] and len(monitor.norms) == 3


def test_a_layer_without_a_gradient_has_no_norm_and_rings_no_bell():
    model = nn.ModuleDict({"used": nn.Linear(4, 1), "idle": nn.Linear(4, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with GradientMonitor(model, optimizer, on_alarm="raise") as monitor:
        F.mse_loss(model["used"](X), Y).backward()
        optimizer.step()
    assert np.isnan(monitor.norms[0]).tolist() == [False, True]


def test_sparse_gradients_count_each_row_once():
    model = nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientMonitor(model, optimizer) as monitor:
        model(torch.tensor([1, 1, 3])).sum().backward()
        optimizer.step()
    assert monitor.norms.tolist() == [[pytest.approx(np.sqrt(4 + 4 + 1 + 1))]]


def spoiled(model):
    """What makes the gradient of the last layer infinite at step 2."""
    return lambda step: model[2].weight.grad.fill_(torch.inf) if step == 2 else None


def test_an_alarm_warns_once_with_layer_and_step():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with (
        pytest.warns(
            UserWarning, match="gradient norm inf in layer 2 at step 2; .*diagnose"
        ) as told,
        GradientMonitor(model, optimizer, on_alarm="warn") as monitor,
    ):
        train(model, optimizer, before=spoiled(model))
    assert len(told) == 1 and not monitor.stop


def test_an_alarm_raises_before_the_step_is_taken():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(FloatingPointError, match="layer 2 at step 2"),
        GradientMonitor(model, optimizer, on_alarm="raise"),
    ):
        train(model, optimizer, before=spoiled(model))
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.filterwarnings("ignore:gradient norm")
def test_an_alarm_tells_the_loop_to_stop_or_calls():
    model, rung = net(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with GradientMonitor(model, optimizer, on_alarm="stop", limit=1e-9) as monitor:
        train(model, optimizer, steps=1)
    assert monitor.stop
    with GradientMonitor(model, optimizer, on_alarm=lambda *what: rung.append(what), limit=1e-9):
        train(model, optimizer, steps=3)
    assert [(layer, step) for layer, step, _ in rung] == [("0", 0)]


def test_it_can_be_drawn():
    import matplotlib

    matplotlib.use("agg")
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = GradientMonitor(model, optimizer)
    with pytest.raises(ValueError, match="nothing to plot"):
        monitor.plot()
    with monitor:
        train(model, optimizer)
    assert monitor.plot().get_xlabel() == "recorded step"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": 3}, TypeError, "model must be a torch.nn.Module; received int"),
        ({"optimizer": None}, TypeError, "optimizer must be a torch.optim.Optimizer"),
        ({"optimizer": torch.optim.SGD(net().parameters())}, ValueError, "weights of the model"),
        ({"every": 0}, ValueError, "every must be a positive integer; received 0"),
        ({"limit": -1.0}, ValueError, "limit must be > 0"),
        ({"on_alarm": "bell"}, ValueError, "on_alarm must be .* received 'bell'"),
    ],
)
def test_bad_options_are_errors_that_name_the_argument(options, error, message):
    model = net()
    given = {"model": model, "optimizer": torch.optim.SGD(model.parameters())} | options
    with pytest.raises(error, match=message):
        GradientMonitor(**given)


def test_update_ratios_are_there_only_where_they_were_asked_for():
    model = net()
    monitor = GradientMonitor(model, torch.optim.SGD(model.parameters()))
    with pytest.raises(ValueError, match="update_ratio must be True"):
        monitor.update_ratios  # noqa: B018
