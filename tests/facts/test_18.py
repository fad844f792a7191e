"""What chapter 18 rests on: the fixes before training, and the gated cell."""

import numpy as np
import pytest

from gradutils import datasets
from tools.chapters import definitions

HERE = definitions("18_choosing_a_fix")


@pytest.fixture(scope="module")
def batch():
    data = datasets.digits(np.random.default_rng(0))
    return data.x_train[:64], data.y_train[:64]


def two_numbers(name, row, batch, seed):
    return HERE.two_numbers(HERE.network(name, HERE.FIXES[row], seed), *batch)


@pytest.mark.parametrize("kind", ["weights", "biases"])
def test_gated_cell_against_finite_differences(kind):
    # Central differences with a step of 1e-6 are off by about 1e-12 / 1e-6 in rounding.
    rng = np.random.default_rng(1)
    net, u = HERE.recurrent_network({"gates": True}, rng), rng.standard_normal((3, 8, 2))
    error = rng.standard_normal((3, 1))
    gradients = getattr(net.backward(net.forward(u), error), kind)
    for p, g in zip(getattr(net, kind), gradients, strict=True):
        index = tuple(rng.integers(0, n) for n in p.shape)
        values = []
        for step in (1e-6, -2e-6):
            p[index] += step
            values.append((net.forward(u).output * error).sum())
        p[index] += 1e-6
        assert g[index] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", HERE.DENSE)
def test_scaled_skips_bring_every_signal_within_a_decade(name, batch):
    # The chapter has 0.6 at most in the mean of three draws; a single draw gets some room.
    assert all(abs(two_numbers(name, "skip, scaled", batch, seed)[0]) < 1 for seed in range(3))


@pytest.mark.parametrize(("name", "row"), [("deep relu", "weights"), ("deep relu", "layer norm")])
def test_a_gradient_that_arrives_does_not_mean_an_input_that_did(name, row, batch):
    # The cosine of two inputs under ReLU obeys 1 - c ~ 9 pi^2 / (2 l^2), 0.05 at l = 30 for wide
    # nets; narrow ones are lower. Untouched inputs would have a distance near 1.
    for seed in range(3):
        decades, distance = two_numbers(name, row, batch, seed)
        assert abs(decades) < 1.5 and distance < 0.1
