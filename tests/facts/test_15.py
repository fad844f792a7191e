"""What chapter 15 states, and cases that it leaves out."""

import numpy as np
import pytest

from gradutils import datasets, networks, patients, theory

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
        ({"branch_scale": 1.0, "normalization": "rms"}, BLOCKS + 1, 1.1),
        ({"branch_scale": BLOCKS**-0.5}, (1 + 1 / BLOCKS) ** BLOCKS, 1.1),
        ({"branch_scale": 0.0}, 1.0, 1.0 + 1e-12),
    ],
    ids=["unscaled", "layer norm", "rms norm", "scaled", "zero"],
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


def test_glorot_with_a_skip_explodes_where_it_vanished():
    assert growth("relu", "glorot", nets=4)[1] < 1e-8
    assert growth("relu", "glorot", nets=4, branch_scale=1.0)[1] > 1e4


def path_parts(net, signals, delta):
    """The backward signal at the first layer, apart by the number of branches it has taken."""
    parts = [delta]
    for W, h in zip(net.weights[:0:-1], signals.pre[-2::-1], strict=True):
        through = [net.branch_scale * (d @ W.T) * (h > 0) for d in parts]
        parts = [around + t for around, t in zip([*parts, 0], [0, *through], strict=True)]
    return parts


@pytest.mark.parametrize("a", [1.0, 0.5, BLOCKS**-0.5])
def test_path_lengths_are_binomial(a):
    """Mean number of branches L a^2 / (1 + a^2), also for an a that the chapter does not use."""
    rng = np.random.default_rng(1)
    net = networks.MLP([128] * (BLOCKS + 2), "relu", "he", rng=rng, branch_scale=a)
    signals = net.forward(rng.standard_normal((16, 128)))
    parts = path_parts(net, signals, rng.standard_normal((16, 128)))
    share = np.array([np.sum(d**2) for d in parts])
    # Width 128 scatters each factor a^2 by some 10 %; over 32 blocks the mean length by 1 block.
    mean = share @ np.arange(BLOCKS + 1) / share.sum()
    assert mean == pytest.approx(BLOCKS * a**2 / (1 + a**2), abs=0.05 * BLOCKS)


def test_paths_add_up_to_the_gradient():
    rng = np.random.default_rng(2)
    net = networks.MLP([16] * 6, "relu", "he", rng=rng, branch_scale=0.7)
    signals, delta = net.forward(rng.standard_normal((3, 16))), rng.standard_normal((3, 16))
    whole = net.backward(signals, delta).delta[0]
    assert sum(path_parts(net, signals, delta)) == pytest.approx(whole, rel=1e-12)


def correlation(angle, depth, a2, skip):
    c, r = np.cos(angle), 1.0
    for _ in range(depth):
        theta = np.arccos(np.clip(c, -1, 1))
        r *= (skip + a2 * (1 - theta / np.pi)) / (skip + a2)
        c = (skip * c + a2 * (np.sin(theta) + (np.pi - theta) * c) / np.pi) / (skip + a2)
    return r


def test_a_scaled_skip_cannot_shatter():
    for depth in (1, 10, 1000):
        for angle in (0.1, 1.0, np.pi):
            assert correlation(angle, depth, 1 / depth, 1) > 1 / np.e
    assert correlation(1.0, 1000, 1.0, 0) < 1e-4


def test_an_unscaled_skip_shatters_like_half_the_depth():
    # Equal to leading order in the angle; the corrections are of relative order 1 / ln(depth).
    assert correlation(0.1, 100, 1.0, 1) == pytest.approx(correlation(0.1, 50, 1.0, 0), rel=0.03)


def test_scaled_branches_train_thirty_layers_and_unscaled_ones_do_not():
    data = datasets.digits(np.random.default_rng(0))
    found = {}
    for a in (1.0, 28**-0.5):
        net = patients.patient("deep relu", seed=0, initializer="he", branch_scale=a)
        networks.train(
            net, data.x_train[:256], data.y_train[:256], loss=networks.cross_entropy,
            learning_rate=0.1, momentum=0.9, epochs=7, rng=np.random.default_rng(0),
        )  # fmt: skip
        found[a] = networks.accuracy(net, data.x_test, data.y_test)
    assert found[1.0] < 0.3 and found[28**-0.5] > 0.7  # chance is 0.1
