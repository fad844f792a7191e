"""The facts that chapter 01 shows: depth, with tolerances from the statistics of each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils.networks import MLP


def padded(activation, extra, seed):
    """Return a network of 3 layers, and the same with identity layers before its last one."""
    shallow = MLP([8, 16, 16, 4], activation, "glorot", seed=seed, bias_std=0.5)
    deep = MLP([8, 16, 16] + [16] * extra + [4], activation, "glorot", seed=seed)
    deep.weights = [*shallow.weights[:2], *[np.eye(16)] * extra, shallow.weights[2]]
    deep.biases = [*shallow.biases[:2], *[np.zeros(16)] * extra, shallow.biases[2]]
    return shallow, deep


@given(extra=st.integers(0, 40), seed=st.integers(0, 10**6))
def test_identity_layers_change_nothing_with_relu(extra, seed):
    x = np.random.default_rng(seed).standard_normal((5, 8))
    shallow, deep = padded("relu", extra, seed)
    assert np.array_equal(shallow.forward(x).output, deep.forward(x).output)
    deltas = [net.backward(net.forward(x), np.ones((5, 4))).delta[0] for net in (shallow, deep)]
    np.testing.assert_array_equal(*deltas)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "leaky_relu", "gelu"])
def test_identity_layers_are_no_identity_with_other_activations(activation):
    # Leaky ReLU fails too: it is linear only on numbers that are above zero already.
    x = np.random.default_rng(0).standard_normal((5, 8))
    shallow, deep = padded(activation, 10, seed=0)
    assert not np.allclose(shallow.forward(x).output, deep.forward(x).output, atol=1e-2)
