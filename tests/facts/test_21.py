"""The facts that chapter 21 shows: steps, widths, number formats and gated recurrences."""

import ml_dtypes
import numpy as np
import pytest

from gradutils import datasets, networks
from gradutils.patients import FAINT_LOSS_WEIGHT, patient


def digits(samples=128):
    data = datasets.digits(np.random.default_rng(0))
    return data.x_train[:samples], data.y_train[:samples]


def gradient_norms(storage, power):
    x, y = digits()
    net = patient("float16", seed=0, storage=storage)
    signals = net.forward(x)
    gradient = FAINT_LOSS_WEIGHT * 2.0**power * networks.cross_entropy(signals.output, y)[1]
    return np.array([np.linalg.norm(g) for g in net.backward(signals, gradient).weights])


@pytest.mark.parametrize("storage", [np.float16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn])
def test_a_faint_loss_is_lost_and_scaling_restores_it(storage):
    # The faintest gradients are 2^-24 to 2^-35: below every one of these formats unscaled. Scaled
    # by 2^24 they differ from the exact ones by rounding: at most 2^-3 for each of the 10 layers.
    exact = gradient_norms(None, 24)
    assert (gradient_norms(storage, 0) == 0).any()
    assert np.allclose(gradient_norms(storage, 24), exact, rtol=0.5)
    assert (gradient_norms(ml_dtypes.bfloat16, 0) > 0).all()


@pytest.mark.parametrize(
    ("dtype", "memory"), [(ml_dtypes.bfloat16, 2**8), (np.float16, 2**11), (np.float32, 2**24)]
)
def test_longest_memory_of_a_stored_gate(dtype, memory):
    assert float(np.array(1 - 1 / memory).astype(dtype)) == 1 - 1 / memory
    assert float(np.array(1 - 0.49 / memory).astype(dtype)) == 1
