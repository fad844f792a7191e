import re

import numpy as np
import pytest

from gradutils import initializers, networks, recurrent
from gradutils.recurrent import LSTM, RNN


def small(activation="tanh", seed=0):
    """A network of 3 units, all of whose parameters are drawn, with its sequences and targets."""
    rng = np.random.default_rng(seed)
    net = RNN(2, 3, 2, activation, recurrent=1.2, kernel=1.0, rng=rng)
    net.b[:], net.c[:] = rng.standard_normal(3), rng.standard_normal(2)
    return net, rng.standard_normal((4, 6, 2)), rng.standard_normal((4, 2))


def loss_of(net, u, y, x0=None):
    return networks.squared_error(net.forward(u, x0).output, y)[0]


def test_states_follow_the_recurrence():
    net = RNN(1, 1, 1, "linear", seed=0)
    net.U[:], net.W[:], net.V[:], net.b[:], net.c[:] = 3, 2, 10, 1, 7
    run = net.forward(np.array([[[1.0], [0.0]]]), [[5.0]])
    assert run.states.ravel().tolist() == [5, 14, 29]  # x = 2 x + 3 u + 1
    assert run.output.item() == 297


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "gelu"])
def test_backward_equals_finite_differences(activation):
    net, u, y = small(activation)
    x0 = np.random.default_rng(1).standard_normal((4, 3))
    run = net.forward(u, x0)
    gradients = net.backward(run, networks.squared_error(run.output, y)[1])
    pairs = [
        *zip(net.weights + net.biases, gradients.weights + gradients.biases, strict=True),
        (x0, gradients.initial),
    ]
    for parameter, gradient in pairs:
        assert parameter.shape == gradient.shape
        for index in np.ndindex(parameter.shape):
            kept, losses = parameter[index], []
            for step in (1e-5, -1e-5):
                parameter[index] = kept + step
                losses.append(loss_of(net, u, y, x0))
            parameter[index] = kept
            slope = (losses[0] - losses[1]) / 2e-5
            assert gradient[index] == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_the_signal_at_step_0_is_the_last_one_times_the_jacobian():
    net, u, y = small("sigmoid")
    run = net.forward(u)
    grad_output = networks.squared_error(run.output, y)[1]
    initial = net.backward(run, grad_output).initial
    for sample in range(4):
        J = net.jacobians(u[sample])[-1]
        assert initial[sample] == pytest.approx(grad_output[sample] @ net.V.T @ J, rel=1e-12)


def test_jacobians_equal_finite_differences():
    net, u, _ = small()
    x0 = np.array([0.3, -0.2, 0.1])
    J = net.jacobians(u[0], x0)
    for j in range(3):
        step = 1e-6 * np.eye(3)[j]
        up, down = (net.forward(u[:1], [x0 + s]).states[0, 1:] for s in (step, -step))
        assert J[:, :, j] == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-9)


def test_jacobians_of_a_linear_network_are_the_powers_of_its_matrix():
    net = RNN(1, 5, 1, "linear", recurrent=1.0, seed=0)
    J = net.jacobians(np.ones((7, 1)))
    for t in (1, 2, 7):
        assert J[t - 1] == pytest.approx(np.linalg.matrix_power(net.W.T, t), rel=1e-12)


def test_draws_are_seeded_and_follow_the_rules():
    net, again = RNN(4, 50, 1, seed=3), RNN(4, 50, 1, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(net.weights, again.weights, strict=True))
    assert np.allclose(net.W @ net.W.T, np.eye(50), rtol=0, atol=1e-12)
    lstm = LSTM(4, 50, forget_bias=2.5, recurrent="glorot", seed=0)
    assert lstm.b.tolist() == [0] * 50 + [2.5] * 50 + [0] * 100
    assert LSTM(4, 50, seed=0).b[50:100].tolist() == [1.0] * 50
    sigma = initializers._standard_deviation("glorot", (50, 200))
    assert lstm.W.std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * lstm.W.size))


def test_overflow_is_a_result():
    net = RNN(1, 2, 1, "linear", seed=0)
    net.W *= 1e200
    run = net.forward(np.ones((1, 5, 1)))
    assert not np.isfinite(run.output).any()
    assert not np.isfinite(net.backward(run, np.ones((1, 1))).weights[1]).all()


def test_spectral_radius():
    assert recurrent.spectral_radius(np.array([[0.0, -2.0], [2.0, 0.0]])) == pytest.approx(2)
    assert recurrent.spectral_radius(np.array([[0.0, 9.0], [0.0, 0.0]])) == 0


@pytest.fixture(scope="module")
def keras():
    import keras

    return keras


def test_rnn_equals_keras(keras):
    import tensorflow as tf

    net, u, y = small()
    layer = keras.layers.SimpleRNN(3, dtype="float64")
    layer.build(u.shape)
    layer.set_weights([net.U, net.W, net.b])
    with tf.GradientTape() as tape:
        outputs = layer(tf.constant(u)) @ net.V + net.c
        loss = tf.reduce_mean((outputs - y) ** 2)
    run = net.forward(u)
    assert run.output == pytest.approx(outputs.numpy(), rel=1e-12)
    ours = net.backward(run, networks.squared_error(run.output, y)[1])
    theirs = [g.numpy() for g in tape.gradient(loss, layer.trainable_weights)]
    for a, b in zip([*ours.weights[:2], ours.biases[0]], theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-10, abs=1e-14)


def test_lstm_equals_keras_forward_and_in_its_jacobian(keras):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    net = LSTM(3, 4, forget_bias=0.7, kernel=2.0, recurrent=2.0, rng=rng)
    net.b += rng.standard_normal(16)
    u = rng.standard_normal((1, 9, 3))
    layer = keras.layers.LSTM(4, dtype="float64", return_state=True)
    layer.build(u.shape)
    layer.set_weights([net.U, net.W, net.b])
    h0, c0 = tf.zeros((1, 4), "float64"), tf.zeros((1, 4), "float64")
    with tf.GradientTape() as tape:
        tape.watch(c0)
        _, h, c = layer(tf.constant(u), initial_state=[h0, c0])
    J = tape.jacobian(c, c0).numpy()[0, :, 0]
    run = net.forward(u)
    assert run.h[:, -1] == pytest.approx(h.numpy(), rel=1e-12)
    assert run.c[:, -1] == pytest.approx(c.numpy(), rel=1e-12)
    assert net.cell_jacobians(u[0])[-1] == pytest.approx(J, rel=1e-10, abs=1e-14)


ONE, TWO = RNN(1, 3, 1, seed=0), RNN(2, 3, 1, seed=0)
RUN = ONE.forward(np.ones((2, 5, 1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RNN(0, 3, 1, seed=0), "inputs must be a positive integer; received 0"),
        (lambda: RNN(2, 3.5, 1, seed=0), "units must be a positive integer; received 3.5"),
        (lambda: LSTM(2, -1, seed=0), "units must be a positive integer; received -1"),
        (lambda: RNN(2, 3, 1, "tan", seed=0), "activation must be one of"),
        (lambda: TWO.forward(np.ones((4, 2))), "shape (batch, time, 2); received (4, 2)"),
        (lambda: LSTM(2, 3, seed=0).forward(np.ones((4, 5, 3))),
         "u must have shape (batch, time, 2); received (4, 5, 3)"),
        (lambda: ONE.forward([[[np.nan], [np.inf], [1]]]), "u must be finite; received 2 NaN"),
        (lambda: ONE.forward(np.ones((2, 5, 1)), np.ones(3)), "x0 must have shape (2, 3);"),
        (lambda: ONE.backward(RUN, np.ones(2)), "the output's shape (2, 1); received (2,)"),
        (lambda: ONE.backward(RUN, np.ones((2, 2))), "grad_output must have the output's shape"),
    ],
)  # fmt: skip
def test_errors_name_the_argument_and_what_was_received(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
