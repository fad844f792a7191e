"""Facts of the chapter on regularization: decay, dropout, and penalties on singular values."""

import keras
import numpy as np
import pytest

from gradutils import networks


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear"])
def test_scaling_all_weights_of_a_homogeneous_network_is_a_power_law(activation):
    c, x = 0.8, np.random.default_rng(0).standard_normal((16, 32))
    net = networks.MLP([32] * 11, activation, "he", seed=1)
    grad = np.ones((16, 32))
    before = net.forward(x)
    deltas = net.backward(before, grad).delta
    net.weights = [c * W for W in net.weights]
    after = net.forward(x)
    np.testing.assert_allclose(after.output, c**10 * before.output, rtol=1e-10)
    for layer, (old, new) in enumerate(zip(deltas, net.backward(after, grad).delta, strict=True)):
        np.testing.assert_allclose(new, c ** (9 - layer) * old, rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_with_spectral_norm_one_the_backward_signal_never_grows(activation):
    for seed in range(3):
        net = networks.MLP([48] * 12, activation, 2.0, seed=seed)
        net.weights = [W / np.linalg.norm(W, 2) for W in net.weights]
        x = np.random.default_rng(seed).standard_normal((1, 48))
        delta = net.backward(net.forward(x), np.ones((1, 48))).delta
        norms = np.array([np.linalg.norm(d) for d in delta])
        assert (np.diff(norms) >= -1e-12).all()


def test_keras_l2_has_twice_its_argument_as_decay():
    W = keras.Variable(np.array([3.0, -1.0], "float32"))
    steps = []
    for options, gradient in (({}, 2 * 0.05 * W.numpy()), ({"weight_decay": 0.1}, 0 * W.numpy())):
        variable = keras.Variable(W.numpy())
        sgd = keras.optimizers.SGD(0.1, **options)
        sgd.build([variable])
        sgd.apply([gradient], [variable])
        steps.append(variable.numpy())
    np.testing.assert_allclose(*steps, rtol=1e-6)
    penalty = float(keras.regularizers.L2(0.05)(W))
    assert penalty == pytest.approx(0.1 / 2 * 10)
