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


def test_level_weight_gradients_of_glorot_and_bengio():
    # Inputs of deviation 0.5, error behind the last tanh, batch of 256. Averages over 256 x 1000
    # numbers stray by about sqrt(2 / 1000) per layer or less: 4 % after four; half a last digit.
    rng = np.random.default_rng(0)
    net = networks.MLP([1000] * 6, "tanh", "uniform_third", seed=0)
    signals = net.forward(0.5 * rng.standard_normal((256, 1000)))
    slopes = 1 - np.tanh(signals.output) ** 2
    back = net.backward(signals, rng.standard_normal((256, 1000)) * slopes)
    rows = [
        ([np.tanh(h) for h in signals.pre], (0.269, 0.151, 0.087, 0.050, 0.029), 5e-4),
        (back.delta, (0.100, 0.186, 0.329, 0.573, 0.997), 5e-4),
        ([g / 256 for g in back.weights], [0.0031] * 5, 5e-5),
    ]
    for arrays, figures, half_digit in rows:
        for array, figure in zip(arrays, figures, strict=True):
            assert np.sqrt(np.mean(array**2)) == pytest.approx(figure, rel=0.04, abs=half_digit)
