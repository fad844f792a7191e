"""What chapter 17 rests on: the fixes before training, the float16 floor, the gated cell."""

import ast

import nbformat
import numpy as np
import pytest

from benchmarks import tournament
from gradutils import datasets, networks, patients
from gradutils.patients import FAINT_LOSS_WEIGHT
from tools import ROOT

NOTEBOOK = ROOT / "notebooks" / "17_choosing_a_fix.ipynb"
DENSE = ["deep sigmoid", "deep relu", "exploding tanh", "deep batch norm"]
AFTERWARDS = ["weight decay", "Adam", "clipping"]  # these act on the finished gradient


@pytest.fixture(scope="module")
def batch():
    data = datasets.digits(np.random.default_rng(0))
    return data.x_train[:64], data.y_train[:64]


@pytest.fixture(scope="module")
def chapter():
    """The names that the chapter's definitions make; no arm is run."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    nodes = ast.parse("\n".join(c.source for c in cells if c.cell_type == "code")).body
    kinds = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
    kept = [node for node in nodes if isinstance(node, kinds) or is_constant(node)]
    space = {}
    exec(compile(ast.Module(kept, []), "chapter", "exec"), space)
    return space


def is_constant(node):
    """FIXES = ..., and Gated.backward = ..."""
    if not isinstance(node, ast.Assign):
        return False
    target = node.targets[0]
    name = target.id if isinstance(target, ast.Name) else ""
    return isinstance(target, ast.Attribute) or name.isupper()


def decades(name, row, batch, seed):
    net = tournament.network(name, tournament.merged(row), seed)
    backward = networks.layer_norms(net, *batch).backward
    return np.log10(backward[0] / backward[-1])


def test_chapter_and_benchmark_define_the_same_arms(chapter):
    assert chapter["FIXES"] == tournament.FIXES
    assert set(chapter["PAIRS"]) <= set(tournament.PAIRS)
    assert chapter["SUITED"] == tournament.SUITED
    assert chapter["OWN"] == tournament.OWN


@pytest.mark.parametrize("name", DENSE)
def test_chapter_and_benchmark_build_the_same_networks(chapter, name):
    for fix in tournament.FIXES.values():
        ours, theirs = tournament.network(name, fix, 3), chapter["network"](name, fix, 3)
        for a, b in zip(ours.weights + ours.biases, theirs.weights + theirs.biases, strict=True):
            np.testing.assert_array_equal(a, b)
        assert ours.branch_scale == theirs.branch_scale
        assert ours.normalization == theirs.normalization


def test_chapter_and_benchmark_have_the_same_gated_cell(chapter):
    u = np.random.default_rng(0).standard_normal((3, 7, 2))
    ours = tournament.recurrent_network({"gates": True}, np.random.default_rng(5))
    theirs = chapter["recurrent_network"]({"gates": True}, np.random.default_rng(5))
    runs = ours.forward(u), theirs.forward(u)
    np.testing.assert_array_equal(runs[0].output, runs[1].output)
    found = [n.backward(r, np.ones((3, 1))) for n, r in zip((ours, theirs), runs, strict=True)]
    for a, b in zip(found[0].weights + found[0].biases, found[1].weights + found[1].biases,
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["weights", "biases"])
def test_gated_cell_against_finite_differences(kind):
    # Central differences with a step of 1e-6 are off by about 1e-12 / 1e-6 in rounding.
    rng = np.random.default_rng(1)
    net, u = tournament.Gated(2, 5, 2, rng=rng), rng.standard_normal((3, 8, 2))
    error = rng.standard_normal((3, 2))
    gradients = getattr(net.backward(net.forward(u), error), kind)
    for p, g in zip(getattr(net, kind), gradients, strict=True):
        index = tuple(rng.integers(0, n) for n in p.shape)
        values = []
        for step in (1e-6, -2e-6):
            p[index] += step
            values.append((net.forward(u).output * error).sum())
        p[index] += 1e-6
        assert g[index] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("row", AFTERWARDS)
def test_what_acts_on_the_gradient_leaves_the_signal(name, row, batch):
    assert decades(name, row, batch, 0) == decades(name, tournament.DEFAULT, batch, 0)


@pytest.mark.parametrize("name", DENSE)
def test_scaled_skips_bring_every_signal_within_a_decade(name, batch):
    # The chapter has 0.6 at most in the mean of three draws; a single draw gets some room.
    assert all(abs(decades(name, "skip, scaled", batch, seed)) < 1 for seed in range(3))


@pytest.mark.parametrize(("name", "row"), [("deep relu", "weights"), ("deep relu", "layer norm")])
def test_a_gradient_that_arrives_does_not_mean_an_input_that_did(name, row, batch):
    # The cosine of two inputs under ReLU obeys 1 - c ~ 9 pi^2 / (2 l^2), 0.05 at l = 30 for wide
    # nets; narrow ones are lower. Untouched inputs would have a distance near 1.
    for seed in range(3):
        assert abs(decades(name, row, batch, seed)) < 1.5
        net = tournament.network(name, tournament.FIXES[row], seed)
        h = net.forward(batch[0]).pre[-2]
        h = h / np.linalg.norm(h, axis=1, keepdims=True)
        assert 1 - (h @ h.T)[np.triu_indices(len(h), 1)].mean() < 0.1


@pytest.mark.parametrize("row", list(tournament.FIXES))
def test_no_fix_but_loss_scaling_gets_a_gradient_into_float16(row, batch):
    # |p - t| / 32 * 2^-20 <= 2^-25, half of the smallest number, which rounds to even: to zero.
    fix = tournament.effective("float16", tournament.FIXES[row])
    if fix is None:
        return
    weight = FAINT_LOSS_WEIGHT * fix.get("loss_scale", 1.0)
    net = tournament.network("float16", fix, 0)
    signals = net.forward(batch[0][:32])
    grad_output = weight * networks.cross_entropy(signals.output, batch[1][:32])[1]
    found = net.backward(signals, grad_output).weights
    assert any(g.any() for g in found) == (row == "loss scaling")


def test_the_float16_floor():
    assert np.float16(2.0**-24) > 0
    assert np.float16(2.0**-25) == 0
    assert np.float16(np.nextafter(2.0**-25, 1)) > 0


@pytest.mark.parametrize("exponent", [10, 20, -20])
def test_loss_scaling_by_a_power_of_two_changes_no_float64_run(exponent, batch):
    trained = []
    for scale in (1.0, 2.0**exponent):

        def loss(outputs, labels, scale=scale):
            value, gradient = networks.cross_entropy(outputs, labels)
            return value, scale * gradient

        net = patients.patient("deep relu", seed=0, initializer="he")
        networks.train(
            net, *batch, loss=loss, learning_rate=0.01 / scale, momentum=0.9, epochs=2,
            rng=np.random.default_rng(0), batch_size=16,
        )  # fmt: skip
        trained.append(net.weights)
    for a, b in zip(*trained, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weight_decay_is_the_derivative_of_its_penalty(batch):
    plain = patients.patient("deep relu", seed=0)
    decayed = tournament.with_decay(patients.patient("deep relu", seed=0), 0.25)
    found = []
    for net in (plain, decayed):
        signals = net.forward(batch[0])
        found.append(net.backward(signals, networks.cross_entropy(signals.output, batch[1])[1]))
    for W, a, b in zip(plain.weights, found[0].weights, found[1].weights, strict=True):
        np.testing.assert_allclose(b - a, 0.25 * W, rtol=1e-12, atol=1e-15)


def test_arms_that_change_nothing_are_settled():
    assert tournament.effective("deep relu", tournament.FIXES["ReLU"]) == {}
    assert tournament.effective("deep batch norm", tournament.FIXES["weights"]) == {}
    assert tournament.effective("deep sigmoid", tournament.FIXES["loss scaling"]) == {}
    assert tournament.effective("deep sigmoid", tournament.FIXES["gates"]) is None
    assert tournament.effective("recurrent", tournament.FIXES["layer norm"]) is None
    assert tournament.effective("recurrent", tournament.merged("gates + Adam")) == {
        "gates": True,
        "optimizer": "adam",
    }


def test_gates_and_adam_learn_to_add_where_adam_alone_does_not():
    # 0.27 and 0.77 are the chapter's borders; the scores are 0.00 and about 0.96.
    assert tournament.recurrent_run({"optimizer": "adam"}, 0.01, 5, 500)[1] < 0.27
    assert tournament.recurrent_run({"optimizer": "adam", "gates": True}, 0.01, 5, 500)[1] > 0.77
