"""What a probe sees on every backend: exact cases, and NumPy's own back-propagation."""

import keras
import numpy as np
import pytest
from keras import layers

from gradutils import networks
from gradutils.diagnosis import diagnose
from gradutils.probes import probe


@pytest.fixture
def rng():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_agrees_with_numpy_backpropagation(activation, rng):
    net = networks.MLP([7, 9, 9, 3], activation, "he", bias_std=0.1, seed=0)
    model = keras.Sequential([keras.Input((7,))])
    for i, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        model.add(layers.Dense(len(b), activation if i < 2 else None))
        model.layers[-1].set_weights([W, b])
    x, y = rng.standard_normal((32, 7)), rng.standard_normal((32, 3))
    signals = net.forward(x)
    gradients = net.backward(signals, networks.squared_error(signals.output, y)[1])
    for i, record in enumerate(probe(model, x, y, "mse").layers):
        parts = np.concatenate([gradients.weights[i].ravel(), gradients.biases[i]])
        assert record.gradient_norm == pytest.approx(np.linalg.norm(parts), rel=1e-5)
        if i < 2:
            backward = gradients.delta[i + 1] @ net.weights[i + 1].T
            assert record.backward == pytest.approx(np.linalg.norm(backward), rel=1e-5)


@pytest.mark.parametrize(
    ("activation", "loss", "units"),
    [
        ("softmax", "categorical_crossentropy", 4),
        ("softmax", "sparse_categorical_crossentropy", 4),
        ("sigmoid", "binary_crossentropy", 1),
    ],
)
@pytest.mark.parametrize("form", ["argument", "layer", "Softmax"])
def test_the_signal_of_a_last_softmax_is_that_at_its_logits(activation, loss, units, form, rng):
    """At the logits of a cross-entropy the gradient is (p - y) / samples, however small p is.

    Below 1e-7 Keras clips p, and has no gradient there.
    """
    if form == "Softmax" and activation != "softmax":
        pytest.skip("Keras has no layer Sigmoid")
    last = [layers.Dense(units, activation, kernel_initializer="he_normal")]
    if form != "argument":
        of_its_own = layers.Activation(activation) if form == "layer" else layers.Softmax()
        last = [layers.Dense(units, kernel_initializer="he_normal"), of_its_own]
    model = keras.Sequential([keras.Input((5,)), *last])
    x, classes = rng.standard_normal((16, 5)), rng.integers(0, max(units, 2), 16)
    y = np.eye(units)[classes] if loss.startswith("categorical") else classes
    y = y[:, None].astype(float) if units == 1 else y
    seen = probe(model, x, y, loss=loss)
    hot = np.eye(units)[classes] if units > 1 else y
    p = keras.ops.convert_to_numpy(model(x))
    expected = np.linalg.norm(p - hot) / len(x)
    assert seen.layers[-1].backward == pytest.approx(expected, rel=1e-4)


def test_another_loss_than_a_cross_entropy_sees_the_outputs_of_a_sigmoid(rng):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1, "sigmoid")])
    x, y = rng.standard_normal((16, 5)), rng.random((16, 1))
    p = keras.ops.convert_to_numpy(model(x))
    expected = np.linalg.norm(2 * (p - y) / len(x))
    assert probe(model, x, y, "mse").layers[-1].backward == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
@pytest.mark.parametrize("sequences", [False, True])
def test_a_recurrent_layer_shows_each_time_step_and_the_recurrence(kind, sequences, rng):
    """The gradient at step t comes through all later steps: it is not only that of the outputs."""
    body = [kind(4, return_sequences=sequences)]
    body += [layers.Lambda(lambda h: h[:, -1])] if sequences else []
    model = keras.Sequential([keras.Input((9, 2)), *body, layers.Dense(1)])
    record = probe(model, rng.standard_normal((8, 9, 2)), np.ones((8, 1)), "mse").layers[0]
    assert record.kind == f"{kind.__name__}Cell"
    assert record.backward_by_call.shape == (9,)
    assert (record.backward_by_call > 0).all()


def test_frozen_layers_show_their_signal(rng):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(1)])
    x, y = rng.standard_normal((8, 4)), np.ones((8, 1))
    free = probe(model, x, y, "mse").layers
    for layer in model.layers:
        layer.trainable = False
    for layer, expected in zip(probe(model, x, y, "mse").layers, free, strict=True):
        assert layer.backward == pytest.approx(expected.backward, rel=1e-6)
        assert layer.parameters == 0 and np.isnan(layer.gradient_norm)


def test_a_layer_whose_activations_are_recomputed_shows_its_signal(rng):
    x, y = rng.standard_normal((8, 4)), np.ones((8, 1))
    keras.utils.set_random_seed(0)
    with keras.RematScope(mode="full"):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(1)])
    assert all(layer.backward > 0 for layer in probe(model, x, y, "mse").layers)


@pytest.mark.parametrize("cut", [keras.ops.stop_gradient, keras.ops.round, keras.ops.sign])
def test_a_cut_is_told_from_a_small_gradient(cut, rng):
    inputs = keras.Input((4,))
    h = layers.Dense(3, name="cut")(inputs)
    h = layers.Lambda(cut)(h)
    model = keras.Model(inputs, layers.Dense(1)(h))
    seen = probe(model, rng.standard_normal((8, 4)), np.ones((8, 1)), "mse")
    assert seen["cut"].disconnected and seen["cut"].backward == 0
    assert not seen.layers[-1].disconnected


def test_dead_units_are_not_cut_off(rng):
    dead = layers.Dense(3, "relu", bias_initializer=keras.initializers.Constant(-99.0))
    model = keras.Sequential([keras.Input((4,)), dead, layers.Dense(1)])
    record = probe(model, rng.standard_normal((8, 4)), np.ones((8, 1)), "mse").layers[0]
    assert record.gradient_norm == 0 and record.dead == 1 and not record.disconnected


def test_ids_that_an_embedding_does_not_have():
    model = keras.Sequential([keras.Input((3,), dtype="int32"), layers.Embedding(5, 2)])
    with pytest.raises(ValueError, match="ids must lie in 0 to 4"):
        probe(model, np.full((2, 3), 5), np.zeros((2, 3, 2)), "mse")


def test_losses_that_layers_add_are_penalties(rng):
    dense = layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5), name="heavy")
    noisy = layers.Dense(3, activity_regularizer=keras.regularizers.L1(0.25), name="active")
    model = keras.Sequential([keras.Input((4,)), dense, noisy])
    x, y = rng.standard_normal((8, 4)), np.zeros((8, 3))
    seen = probe(model, x, y, "mse")
    of_weights = 0.5 * float(np.sum(keras.ops.convert_to_numpy(dense.kernel) ** 2))
    of_outputs = 0.25 * np.abs(keras.ops.convert_to_numpy(model(x))).sum() / len(x)
    assert sorted(seen.penalties.values()) == pytest.approx(sorted([of_weights, of_outputs]), 1e-4)
    assert seen.regularization == pytest.approx(of_weights, 1e-4)


def test_a_healthy_softmax_net_is_healthy(rng):
    """The gradient at probabilities, 1/p, would make its layers look as if they vanished."""
    hidden = [layers.Dense(32, "relu", kernel_initializer="he_normal") for _ in range(3)]
    model = keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(10, "softmax")])
    model.layers[-1].set_weights([8 * w for w in model.layers[-1].get_weights()])
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = rng.standard_normal((64, 8)).astype("float32")
    y = keras.ops.convert_to_numpy(model(x)).argmax(axis=1)
    assert "vanishing" not in {found.kind for found in diagnose(model, x, y).findings}


def test_probabilities_that_are_nan_are_a_result(rng):
    """Torch's cross-entropy raises for them, and would blame the targets."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    model.set_weights([w * np.nan for w in model.get_weights()])
    found = diagnose(model, rng.standard_normal((8, 4)), np.ones((8, 1)))
    assert np.isnan(found.loss) and found.verdict == "non-finite"
