"""What chapter 10 states, through the functions that it uses, and for cases that it leaves out."""

import numpy as np
import pytest

from gradutils import initializers, networks, theory


@pytest.mark.parametrize(
    ("rule", "exact"), [("lecun", lambda n: 5 / n), ("orthogonal", lambda n: 3 / (n + 2))]
)
@pytest.mark.parametrize("n", [8, 24])
def test_spread_of_a_relu_layer(rule, exact, n):
    """Other widths than the chapter's. A variance of N draws has a relative error of
    sqrt((kurtosis - 1) / N), and the kurtosis is below 6: 0.035 for N = 4000; four of these."""
    rng = np.random.default_rng(0)
    v = np.ones(n) / np.sqrt(n)
    h = np.array([v @ initializers.draw(rule, (n, n), rng) for _ in range(4000)])
    factors = 2 * np.sum(np.maximum(h, 0) ** 2, axis=1)
    assert np.mean(factors) == pytest.approx(1, abs=4 * np.sqrt(exact(n) / 4000))
    assert np.var(factors) == pytest.approx(exact(n), rel=0.14)


def mirrored(V, first=False, last=False):
    H = V if last else np.hstack([V, -V])
    return H if first else np.vstack([H, -H])


def test_mirrored_weights_make_a_relu_network_an_isometry():
    """The Jacobian is the product of the V alone, at any input, and so is orthogonal."""
    rng = np.random.default_rng(0)
    net = networks.MLP([6, 12, 12, 12, 6], "relu", "he", seed=0)
    V = [initializers.orthogonal((6, 6), rng) for _ in net.weights]
    net.weights = [mirrored(v, first=i == 0, last=i == 3) for i, v in enumerate(V)]
    for x in rng.standard_normal((3, 6)):
        jacobian = net.jacobian(x)
        assert jacobian == pytest.approx(np.linalg.multi_dot(V).T, abs=1e-12)
        assert np.linalg.svd(jacobian, compute_uv=False) == pytest.approx(np.ones(6), abs=1e-12)


@pytest.mark.parametrize("activation", ["elu", "softplus"])
def test_lsuv_finds_the_forward_gain(activation):
    """In layers of width n the scale scatters by half of sqrt(Var phi^2 / n) / E phi^2, below 0.08
    at n = 400, and the mean over 12 of them by 0.025; three of these."""
    rng = np.random.default_rng(0)
    net = networks.MLP([400] * 14, activation, "orthogonal", rng=rng)
    signal, scales = rng.standard_normal((400, 400)), []
    for W in net.weights:
        scales.append(1 / np.std(signal @ W))
        signal = net.activation.phi(scales[-1] * (signal @ W))
    found = np.exp(np.mean(np.log(scales[1:])))
    assert found == pytest.approx(theory.forward_gain(activation), rel=0.075)
