"""What chapter 15 states, and cases that it leaves out."""

import numpy as np
import pytest

from gradutils import networks, theory

BLOCKS = 32


def growth(activation, rule, nets=12, width=256, blocks=BLOCKS, start=1.0, **options):
    """Mean growth, over networks, of the squared signal (forward, backward) along the stream."""
    rng, forward, backward = np.random.default_rng(0), [], []
    for _ in range(nets):
        net = networks.MLP([width] * (blocks + 2), activation, rule, rng=rng, **options)
        signals = net.forward(start * rng.standard_normal((16, width)))
        delta = net.backward(signals, rng.standard_normal((16, width))).delta
        forward.append(np.mean(signals.pre[-1] ** 2) / np.mean(signals.pre[0] ** 2))
        backward.append(np.mean(delta[0] ** 2) / np.mean(delta[-1] ** 2))
    return np.mean(forward), np.mean(backward)


# The logarithm of an unscaled stream has a deviation of about 0.75 at width 256 (32 blocks, each of
# variance about 1.5 / 256 for independent samples, more because samples share weights), so the mean
# of 12 is known to about 25 %; three of these are a factor of 1.75. The other branches scatter by
# a few percent each; 10 % is more than three standard errors of their mean.
@pytest.mark.parametrize(
    ("options", "expected", "factor"),
    [
        ({"branch_scale": 1.0}, 2.0**BLOCKS, 1.75),
        ({"branch_scale": 1.0, "normalization": "layer"}, BLOCKS + 1, 1.1),
        ({"branch_scale": BLOCKS**-0.5}, (1 + 1 / BLOCKS) ** BLOCKS, 1.1),
        ({"branch_scale": 0.0}, 1.0, 1.0 + 1e-12),
    ],
    ids=["unscaled", "layer norm", "scaled", "zero"],
)
def test_second_moment_after_32_blocks_forward_and_backward(options, expected, factor):
    # He's first layer doubles the second moment: inputs of 1/2 start the stream at q = 1.
    for measured in growth("relu", "he", start=0.5**0.5, **options):
        assert expected / factor <= measured <= expected * factor


@pytest.mark.parametrize("sigma_w", [0.5, 1.5])
def test_other_weights_and_tanh(sigma_w):
    """q_l = q + a^2 E phi^2 and 1 + a^2 chi at each q, for an activation that saturates."""
    a, q, gradient = 0.5, sigma_w**2, 1.0
    for _ in range(12):
        gradient *= 1 + a**2 * theory.chi("tanh", sigma_w, q=q)
        q += a**2 * theory.second_moment_map("tanh", q, sigma_w)
    forward, backward = growth("tanh", sigma_w, nets=6, width=400, blocks=12, branch_scale=a)
    # Twelve steps of relative deviation sqrt(2 / 400) a^2 each, six networks: below 3 %.
    assert forward == pytest.approx(q / sigma_w**2, rel=0.1)
    assert backward == pytest.approx(gradient, rel=0.15)
