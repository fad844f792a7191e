"""What chapter 05 states, through the functions that it uses, and for cases that it leaves out."""

import numpy as np
import pytest

from gradutils import datasets, networks, theory


def digits_rounded(value, shown):
    """Whether a value is `shown` when rounded to as many decimals."""
    decimals = len(shown.split(".")[1])
    return f"{value:.{decimals}f}" == shown


@pytest.mark.parametrize(
    ("activation", "gain", "factor"),
    [
        ("relu", "1.414", "1.000"),
        ("tanh", "1.593", "1.178"),
        ("selu", "1.000", "1.0716"),
        ("gelu", "1.534", "1.072"),
        ("silu", "1.677", "1.067"),
    ],
)
def test_forward_gain_and_backward_factor(activation, gain, factor):
    # 1.5925 is 1.592 or 1.593: half a unit of the last place, and rounding, is allowed.
    assert theory.forward_gain(activation) == pytest.approx(float(gain), abs=6e-4)
    assert digits_rounded(theory.backward_factor(activation), factor)


@pytest.mark.parametrize("activation", ["leaky_relu", "elu", "softplus"])
def test_gain_and_factor_left_out_of_the_table(activation):
    """The gain keeps a wide layer's second moment; the factor is the gradient's, by simulation."""
    gain, factor = theory.forward_gain(activation), theory.backward_factor(activation)
    net = networks.MLP([1000, 1000, 1000], activation, gain, seed=0)
    rng = np.random.default_rng(1)
    # Each h has the second moment 1 if x has gain^-2.
    signals = net.forward(rng.standard_normal((100, 1000)) / gain)
    gradients = net.backward(signals, rng.standard_normal((100, 1000)))
    forward = np.mean(signals.pre[1] ** 2) / np.mean(signals.pre[0] ** 2)
    backward = np.mean(gradients.delta[0] ** 2) / np.mean(gradients.delta[1] ** 2)
    # Mean squares over 1000 units: a relative deviation of sqrt(2 / 1000) = 0.045 at most.
    assert forward == pytest.approx(1, rel=0.15)
    assert backward == pytest.approx(factor, rel=0.15)


def test_five_thirds_is_chaotic():
    assert digits_rounded(theory.fixed_point("tanh", 5 / 3), "1.178")
    assert digits_rounded(theory.chi("tanh", 5 / 3), "1.210")
    assert round(theory.chi("tanh", 5 / 3) ** 25) == 117


def test_uniform_default_costs_a_factor_of_six():
    assert theory.chi("relu", 3**-0.5) == pytest.approx(1 / 6, rel=1e-12)


def test_xavier_and_tanh_fall_like_one_over_twice_the_depth():
    q, moments = 1.0, [1.0]
    for _ in range(1000):
        q = theory.second_moment_map("tanh", q, 1.0)
        moments.append(q)
    assert digits_rounded(moments[10], "0.0522")
    assert digits_rounded(moments[100], "0.00507")
    # The correction is of order ln l / l, relative.
    assert moments[1000] * 2000 == pytest.approx(1, abs=np.log(1000) / 1000)


@pytest.mark.parametrize(
    ("bias_variance", "weight_variance"), [(0.001, "1.189"), (0.05, "1.761"), (0.1, "1.986")]
)
def test_critical_line_of_tanh(bias_variance, weight_variance):
    critical = theory.critical_sigma_w("tanh", bias_variance**0.5) ** 2
    assert digits_rounded(critical, weight_variance)


@pytest.mark.parametrize(
    ("weight_variance", "xi", "depth"), [(1.0, "3.63", 22), (1.5, "15.8", 95), (2.0, "25.2", 151)]
)
def test_depth_scale_and_trainable_depth(weight_variance, xi, depth):
    found = theory.depth_scale("tanh", weight_variance**0.5, 0.05**0.5)
    assert digits_rounded(found, xi)
    assert round(6 * found) == depth


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


def test_glorot_and_bengio_flat_weight_gradients():
    rng = np.random.default_rng(7)
    net = networks.MLP([1000] * 7, "tanh", "uniform_third", rng=rng)
    signals = net.forward(0.5 * rng.standard_normal((256, 1000)))
    gradients = net.backward(signals, rng.standard_normal((256, 1000)) * 3**0.5)
    forward = [a.std() for a in signals.inputs[1:6]]
    backward = [d.std() for d in gradients.delta[:5]]
    weight = [w.std() / 256 for w in gradients.weights[1:6]]
    # Widths of 1000 scatter by 1 / sqrt(1000) = 3 % per layer; five layers, 7 %.
    assert forward == pytest.approx([0.269, 0.151, 0.087, 0.050, 0.029], rel=0.07)
    assert backward == pytest.approx([0.100, 0.186, 0.329, 0.573, 0.997], rel=0.07)
    assert weight == pytest.approx([0.0031] * 5, rel=0.07)


def test_relu_with_xavier_dies_behind_flat_weight_gradients():
    """29 factors of 1/2 in the square; the scatter over draws is exp(sqrt(5 * 29 / 500) / 2)."""
    net = networks.MLP([500] * 31, "relu", "glorot", seed=0)
    rng = np.random.default_rng(1)
    signals = net.forward(rng.standard_normal((100, 500)))
    gradients = net.backward(signals, rng.standard_normal((100, 500)))
    backward = np.linalg.norm(gradients.delta[0]) / np.linalg.norm(gradients.delta[-1])
    weight = np.linalg.norm(gradients.weights[0]) / np.linalg.norm(gradients.weights[-1])
    assert np.log(backward) == pytest.approx(np.log(3.6e-5), abs=3 * (5 * 29 / 500) ** 0.5 / 2)
    assert 0.3 < weight < 3


def test_he_arithmetic():
    deviation = np.sqrt(2 / (9 * np.array([64, 128, 256, 512])))
    assert deviation == pytest.approx([0.0589, 0.0417, 0.0295, 0.0208], abs=5e-5)
    factors = np.round(deviation / 0.01, 1)
    assert (
        round(factors @ [1, 0, 0, 0] * factors[1] ** 2 * factors[2] ** 2 * factors[3] ** 4) == 17023
    )


def centred_sigmoid(seed, sigma_w, depth=20):
    net = networks.MLP([64] * depth + [10], "sigmoid", sigma_w, seed=seed)
    for W, b in zip(net.weights[1:], net.biases[1:], strict=True):
        b -= W.sum(axis=0) / 2
    return net


def test_a_centred_sigmoid_net_is_a_tanh_net():
    """h = 2 g, with quarter weights behind the first layer: exact, for any input."""
    sigmoid = centred_sigmoid(0, 4.0, depth=5)
    tanh = networks.MLP([64] * 5 + [10], "tanh", 1.0, seed=0)
    tanh.weights = [sigmoid.weights[0] / 2, *(W / 4 for W in sigmoid.weights[1:])]
    x = np.random.default_rng(0).standard_normal((7, 64))
    assert sigmoid.forward(x).output == pytest.approx(2 * tanh.forward(x).output, rel=1e-9)


def test_critical_scale_of_the_centred_sigmoid_is_four():
    pair = (lambda h: np.tanh(h / 2) / 2, lambda h: (1 - np.tanh(h / 2) ** 2) / 4)
    assert theory.critical_sigma_w(pair) == pytest.approx(4, rel=1e-6)


def test_a_sigmoid_net_of_twenty_layers_trains():
    data = datasets.digits(np.random.default_rng(0))
    net = centred_sigmoid(0, 4.4)
    networks.train(
        net,
        data.x_train,
        data.y_train,
        loss=networks.cross_entropy,
        learning_rate=0.03,
        momentum=0.9,
        epochs=8,
        rng=np.random.default_rng(1),
    )
    assert networks.accuracy(net, data.x_test, data.y_test) > 0.7  # chance is 0.1
