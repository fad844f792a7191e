"""What chapter 05 states, through the functions that it uses, and for cases that it leaves out."""

import numpy as np
import pytest

from gradutils import networks, theory


def test_xavier_and_tanh_fall_like_one_over_twice_the_depth():
    q = 1.0
    for _ in range(1000):
        q = theory.second_moment_map("tanh", q, 1.0)
    # The correction is of order ln l / l, relative.
    assert q * 2000 == pytest.approx(1, abs=np.log(1000) / 1000)


def test_depth_scale_measured_on_a_wide_network():
    """Ordered phase, other scales than the table's: 1 - c falls by chi per layer."""
    sigma_w, sigma_b = 1.2, 0.5
    rng = np.random.default_rng(0)
    width, pairs = 800, rng.standard_normal((2, 800))
    net = networks.MLP([width] * 13, "tanh", sigma_w, rng=rng, bias_std=sigma_b)
    distance = []
    for h in net.forward(np.stack([pairs[0], pairs[0] + 0.1 * pairs[1]])).pre:
        distance.append(1 - h[0] @ h[1] / np.linalg.norm(h[0]) / np.linalg.norm(h[1]))
    rate = (distance[11] / distance[3]) ** (1 / 8)
    # Each factor scatters by about 2 / sqrt(800) = 7 %, the mean of eight by 3 %.
    assert rate == pytest.approx(theory.chi("tanh", sigma_w, sigma_b), rel=0.1)
