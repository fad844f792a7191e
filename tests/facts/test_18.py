"""What chapter 18 rests on: the gated cell that it defines."""

import numpy as np
import pytest

from tools.chapters import definitions

HERE = definitions("18_choosing_a_fix")


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
