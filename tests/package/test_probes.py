import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from gradutils.networks import MLP, squared_error
from gradutils.probes import probe


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def as_keras(net, activation, dtype="float64"):
    """The same network in Keras; all layers but the last carry the activation."""
    model = keras.Sequential([keras.Input((net.weights[0].shape[0],), dtype=dtype)])
    for i, W in enumerate(net.weights):
        last = i == len(net.weights) - 1
        model.add(layers.Dense(W.shape[1], None if last else activation, dtype=dtype))
    model.set_weights([a for pair in zip(net.weights, net.biases, strict=True) for a in pair])
    return model


def small(*parts, inputs=(4,), **compiled):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(inputs), *parts])
    model.compile(**({"optimizer": "sgd", "loss": "mse"} | compiled))
    return model


def test_a_datasets_sample_weights_count_as_they_do_in_fit():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    rng = np.random.default_rng(0)
    x, y, weights = (rng.normal(size=size).astype("float32") for size in [(8, 3), (8, 1), 8])
    data = tf.data.Dataset.from_tensors((x, y, weights))
    losses = ("mse", keras.losses.mean_squared_error, keras.losses.MeanSquaredError())
    given = [probe(model, data, loss=loss) for loss in losses]
    model.compile("sgd", "mse")
    compiled = probe(model, data)
    for seen in given:
        assert seen.loss == pytest.approx(compiled.loss, rel=1e-6)
        assert seen.layers[0].backward == pytest.approx(compiled.layers[0].backward, rel=1e-6)
    with pytest.raises(ValueError, match="a loss by sample is needed"):
        probe(model, data, loss=lambda a, b: keras.ops.mean((a - b) ** 2))


def test_one_linear_layer_by_hand():
    """loss = (w x - y)^2: dL/dh = 2 (w x - y) and dL/dw = x dL/dh."""
    model = small(layers.Dense(1, use_bias=False), inputs=(1,))
    model.set_weights([np.array([[3.0]])])
    result = probe(model, np.array([[2.0]]), np.array([[1.0]]))
    (record,) = result.layers
    assert result.loss == 25
    assert (record.backward, record.gradient_norm, record.weight_norm) == (10, 20, 3)
    assert (record.second_moment, record.spread, record.parameters) == (36, 0, 1)
    assert record.update_ratio == pytest.approx(0.01 * 20 / 3, rel=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "silu"])
def test_agrees_with_numpy_backpropagation(activation, rng):
    net = MLP([6, 12, 9, 7, 3], activation, "he", rng=rng, bias_std=0.1)
    x, y = rng.standard_normal((20, 6)), rng.standard_normal((20, 3))
    signals = net.forward(x)
    gradients = net.backward(signals, squared_error(signals.output, y)[1])
    loss = keras.losses.MeanSquaredError(dtype="float64")
    found = probe(as_keras(net, activation), x, y, loss).layers
    for i, record in enumerate(found):
        parts = [gradients.weights[i], gradients.biases[i]]
        expected = np.sqrt(sum((g**2).sum() for g in parts))
        assert record.gradient_norm == pytest.approx(expected, rel=1e-12)
    for i, record in enumerate(found[:-1]):
        assert record.second_moment == pytest.approx((signals.inputs[i + 1] ** 2).mean(), rel=1e-12)
        backward = gradients.delta[i + 1] @ net.weights[i + 1].T
        assert record.backward == pytest.approx(np.linalg.norm(backward), rel=1e-12)


@pytest.mark.parametrize("loss", ["binary_crossentropy", "mse"])
def test_a_last_sigmoid_shows_its_logits_only_where_the_loss_uses_them(loss, rng):
    """Cross-entropy: dL/dlogits = (p - y) / batch. Squared error: dL/dp = 2 (p - y) / batch."""
    model = small(layers.Dense(1, "sigmoid"), loss=loss)
    x, y = rng.standard_normal((8, 4)).astype("float32"), np.zeros((8, 1))
    p = np.array(model(x))
    expected = np.linalg.norm(p) / 8 * (2 if loss == "mse" else 1)
    assert probe(model, x, y).layers[0].backward == pytest.approx(expected, rel=1e-5)


def test_a_layer_that_the_loss_does_not_see_has_no_gradient(rng):
    inputs = keras.Input((4,))
    idle = layers.Dense(2, name="idle")(inputs)
    model = keras.Model(inputs, [layers.Dense(1)(inputs), idle])
    record = probe(model, np.ones((3, 4)), None, lambda _, p: keras.ops.mean(p[0]))["idle"]
    assert (record.backward, record.gradient_norm) == (0, 0)


def everything():
    """A model whose training pass touches every kind of state."""
    keras.utils.set_random_seed(2)  # the layers draw their seeds when they are made
    return small(
        layers.Dense(8, "relu"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.GaussianNoise(0.1),
        layers.Dense(1, kernel_regularizer="l2"),
        optimizer=keras.optimizers.Adam(0.01),
        metrics=["mae"],
    )


def test_leaves_the_model_as_it_was(rng):
    x, y = rng.standard_normal((64, 4)), rng.standard_normal((64, 1))
    runs = []
    for probed in (False, True):
        model = everything()
        model.fit(x, y, epochs=1, verbose=0, shuffle=False)
        function = model.train_function
        before = [
            keras.ops.convert_to_numpy(v) for v in model.variables + model.optimizer.variables
        ]
        if probed:
            probe(model, x, y)
            after = [
                keras.ops.convert_to_numpy(v) for v in model.variables + model.optimizer.variables
            ]
            assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
            assert model.train_function is function
            assert not any("call" in vars(layer) for layer in model.layers)
            assert not tf.config.functions_run_eagerly()
        model.fit(x, y, epochs=2, verbose=0, shuffle=False)
        runs.append([keras.ops.convert_to_numpy(v) for v in model.variables])
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


def test_leaves_the_model_as_it_was_when_it_fails(rng):
    model = everything()
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    with pytest.raises(ValueError, match="y must fit the loss"):
        probe(model, rng.standard_normal((8, 4)), np.zeros((8, 1)), loss=lambda y, p: 1 / 0)
    assert all(
        np.array_equal(a, keras.ops.convert_to_numpy(v))
        for a, v in zip(before, model.variables, strict=True)
    )
    assert not any("call" in vars(layer) for layer in model.layers)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adamw"])
def test_update_ratio_is_that_of_the_next_step(optimizer, rng):
    model = small(layers.Dense(3, "tanh"), layers.Dense(1), optimizer=optimizer)
    x, y = rng.standard_normal((32, 4)), rng.standard_normal((32, 1))
    model.fit(x, y, epochs=3, verbose=0)  # the optimiser has a history
    expected = probe(model, x, y)
    before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    model.train_on_batch(x, y)
    change = [
        keras.ops.convert_to_numpy(v) - b
        for v, b in zip(model.trainable_variables, before, strict=True)
    ]
    for i, record in enumerate(expected.layers):
        own = slice(2 * i, 2 * i + 2)
        ratio = np.sqrt(sum((c**2).sum() for c in change[own]))
        ratio /= np.sqrt(sum((b**2).sum() for b in before[own]))
        # float32 steps of relative size 1e-3: rounding shows at 1e-7 / 1e-3.
        assert record.update_ratio == pytest.approx(ratio, rel=1e-3)


def test_dead_and_saturated_shares():
    dense = layers.Dense(4, "relu")
    squash = layers.Dense(2, "tanh")
    model = small(dense, squash, layers.Dense(1, "sigmoid"), inputs=(1,))
    dense.set_weights([np.array([[1.0, 1, 1, -1]]), np.array([0, 0, -9.0, 0])])
    squash.set_weights([np.array([[9.0, 0]] * 4), np.zeros(2)])
    found = probe(model, np.array([[1.0], [2.0]]), np.zeros((2, 1)))
    assert found.layers[0].dead == 0.5  # one below its threshold, one with the wrong sign
    assert found.layers[1].saturated == 0.5  # one unit of two
    assert found.layers[2].saturated == 0
    assert np.isnan(found.layers[0].saturated)
    assert np.isnan(found.layers[1].dead)


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_recurrent_layers_give_a_gradient_for_every_time_step(kind, rng):
    model = small(kind(5), layers.Dense(1), inputs=(7, 3))
    x, y = rng.standard_normal((6, 7, 3)).astype("float32"), rng.standard_normal((6, 1))
    cell, _ = probe(model, x, y).layers
    assert cell.kind == f"{kind.__name__}Cell"
    assert cell.backward_by_call.shape == (7,)
    # The last state is the layer's output: its gradient is the dense layer's.
    dense = model.layers[-1]
    error = 2 * (model(x) - y) / len(x)
    expected = np.linalg.norm(np.array(error) @ keras.ops.convert_to_numpy(dense.kernel).T)
    assert cell.backward_by_call[-1] == pytest.approx(expected, rel=1e-5)
    assert cell.backward == pytest.approx(np.linalg.norm(cell.backward_by_call), rel=1e-6)


def test_simple_rnn_time_steps_agree_with_the_recurrence(rng):
    """delta_t = (delta_{t+1} * (1 - h_{t+1}^2)) W^T for the gradient at the states h_t."""
    model = small(layers.SimpleRNN(4, return_sequences=False), layers.Dense(1), inputs=(5, 2))
    x, y = rng.standard_normal((3, 5, 2)).astype("float32"), np.zeros((3, 1))
    U, W, b = (
        keras.ops.convert_to_numpy(v).astype(float) for v in model.layers[0].trainable_variables
    )
    states, h = [], np.zeros((3, 4))
    for t in range(5):
        h = np.tanh(x[:, t] @ U + h @ W + b)
        states.append(h)
    V = keras.ops.convert_to_numpy(model.layers[1].kernel).astype(float)
    delta = 2 * (h @ V) / 3 @ V.T
    norms = [np.linalg.norm(delta)]
    for h in states[:0:-1]:
        delta = (delta * (1 - h**2)) @ W.T
        norms.append(np.linalg.norm(delta))
    found = probe(model, x, y).layers[0].backward_by_call
    assert found == pytest.approx(norms[::-1], rel=1e-4)


def test_functional_model_with_two_inputs_and_outputs_and_a_shared_layer(rng):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    shared = layers.Dense(4, "tanh", name="shared")
    merged = layers.Concatenate(name="merged")([shared(a), shared(b)])
    out = {"p": layers.Dense(1, name="p")(merged), "q": layers.Dense(2, name="q")(merged)}
    model = keras.Model({"a": a, "b": b}, out)
    model.compile("sgd", {"p": "mse", "q": "mae"}, loss_weights={"p": 1.0, "q": 0.5})
    x = {"a": rng.standard_normal((9, 3)), "b": rng.standard_normal((9, 3))}
    y = {"p": rng.standard_normal((9, 1)), "q": rng.standard_normal((9, 2))}
    result = probe(model, x, y)
    assert result["shared"].backward_by_call.shape == (2,)
    assert result["merged"].parameters == 0
    expected = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert result.loss == pytest.approx(expected, rel=1e-5)


class Residual(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = keras.Sequential([layers.Dense(4, "relu", name="first"), layers.Dense(4)])
        self.head = layers.Dense(1, name="head")

    @tf.function
    def call(self, x):
        return self.head(x + self.inner(x))


def test_subclassed_and_nested_models_even_under_tf_function(rng):
    model = Residual()
    x, y = rng.standard_normal((8, 4)), rng.standard_normal((8, 1))
    model(x)
    result = probe(model, x, y, loss="mse")
    assert [r.kind for r in result.layers] == ["Dense"] * 3
    assert result["head"].backward > 0
    assert np.isnan(result["head"].update_ratio)  # not compiled: no optimiser


def test_convolution_embedding_attention_normalisation(rng):
    tokens = keras.Input((6,), dtype="int32")
    h = layers.Embedding(20, 8)(tokens)
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, 4)(h, h))
    h = layers.Conv1D(5, 3, activation="relu")(h)
    model = keras.Model(tokens, layers.Dense(1)(layers.Flatten()(h)))
    x, y = rng.integers(0, 20, (16, 6)), rng.standard_normal((16, 1))
    found = probe(model, x, y, loss="mse").layers
    kinds = {record.kind for record in found}
    assert {"Embedding", "LayerNormalization", "Conv1D", "EinsumDense", "Dense"} <= kinds
    trained = sum(record.parameters for record in found)
    assert trained == sum(v.value.shape.num_elements() for v in model.trainable_variables)
    assert all(record.gradient_norm > 0 for record in found if record.parameters)


def test_frozen_layers_still_show_their_signal(rng):
    model = small(layers.Dense(4, name="frozen"), layers.Dense(1))
    model.layers[0].trainable = False
    record = probe(model, rng.standard_normal((5, 4)), np.zeros((5, 1)))["frozen"]
    assert record.backward > 0
    assert record.parameters == 0
    assert np.isnan(record.gradient_norm)


def test_loss_scaling_of_mixed_precision_is_divided_out(rng):
    x, y = rng.standard_normal((32, 4)), rng.standard_normal((32, 1))
    results = []
    for policy in ("float32", "mixed_float16"):
        half = small(
            layers.Dense(16, "tanh", dtype=policy),
            layers.Dense(1, dtype="float32"),
            optimizer=keras.optimizers.SGD()
            if policy == "float32"
            else keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        )
        results.append(probe(half, x, y).layers[0])
    # float16 keeps 11 bits; sums of 32 terms of either sign lose a few of them.
    assert results[1].gradient_norm == pytest.approx(results[0].gradient_norm, rel=0.01)
    assert results[1].update_ratio == pytest.approx(results[0].update_ratio, rel=0.01)


def test_loss_scale_rescues_what_float16_rounds_to_zero():
    """The gradient is 1e-4 * 1e-4; float16 rounds below 3e-8 to zero, but 2^15 * 1e-8 is kept."""
    model = small(
        layers.Dense(1, use_bias=False, dtype="mixed_float16"),
        layers.Rescaling(1e-4, dtype="mixed_float16"),
        layers.Rescaling(1e-4, dtype="mixed_float16"),
        layers.Activation("linear", dtype="float32"),
        inputs=(1,),
    )

    def total(_, predictions):
        return keras.ops.sum(predictions)

    x = np.ones((1, 1))
    assert probe(model, x, x, total, loss_scale=1.0).layers[0].backward == 0
    scaled = probe(model, x, x, total, loss_scale=2.0**15).layers[0].backward
    assert scaled == pytest.approx(1e-8, rel=2**-9)  # four roundings to 11 bits


@pytest.mark.parametrize("form", ["arrays", "dataset", "pydataset"])
def test_data_may_come_as_arrays_or_datasets(form, rng):
    x, y = rng.standard_normal((10, 4)).astype("float32"), rng.standard_normal((10, 1))

    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, _):
            return x, y

    data = {
        "arrays": (x, y),
        "dataset": (tf.data.Dataset.from_tensor_slices((x, y)).batch(10),),
        "pydataset": (Data(),),
    }[form]
    model = small(layers.Dense(1))
    error = np.array(model(x)) - y
    assert probe(model, *data).loss == pytest.approx((error**2).mean(), rel=1e-5)


def test_batch_size_takes_evenly_spaced_samples(rng):
    x = np.arange(100.0)[:, None]
    model = small(layers.Dense(1, use_bias=False), inputs=(1,))
    model.set_weights([np.ones((1, 1))])
    found = probe(model, x, x, batch_size=4).layers[0]
    assert found.second_moment == pytest.approx(np.mean([0, 33**2, 66**2, 99**2]))


def test_nan_in_the_weights_is_a_result(rng):
    model = small(layers.Dense(3, "relu", name="sick"), layers.Dense(1, name="after"))
    W, b = model.layers[0].get_weights()
    W[0, 0] = np.nan
    model.layers[0].set_weights([W, b])
    result = probe(model, rng.standard_normal((5, 4)), np.zeros((5, 1)))
    assert np.isnan(result.loss)
    assert result["sick"].nonfinite_weights == 1
    assert result["sick"].nonfinite_outputs == 5
    assert result["after"].nonfinite_weights == 0


def test_unknown_layer_lists_the_known_ones(rng):
    result = probe(small(layers.Dense(1, name="d")), np.ones((2, 4)), np.ones((2, 1)))
    with pytest.raises(KeyError, match="no layer 'e'; the model called .*d"):
        result["e"]


def test_a_layer_is_found_by_its_whole_path_and_ambiguous_names_are_errors(rng):
    one, two = (
        keras.Sequential([keras.Input((4,)), layers.Dense(4, name="d")], name=name)
        for name in ("one", "two")
    )
    result = probe(small(one, two), np.ones((2, 4)), np.ones((2, 4)))
    paths = [layer.name for layer in result.layers]
    assert [result[path].name for path in paths] == paths
    with pytest.raises(KeyError, match="'d' is ambiguous; name one of one/d, two/d"):
        result["d"]


GOOD = {"x": np.ones((2, 4)), "y": np.ones((2, 1))}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.ones((2, 5))}, r"x must fit the model; received shapes \[\(2, 5\)\]"),
        ({"y": np.ones((2, 3, 5))}, r"y must fit .* \[\(2, 3, 5\)\] and \[\(2, 1\)\]"),
        ({"y": np.ones((3, 1))}, r"x and y must hold as many samples"),
        ({"x": np.ones((0, 4)), "y": np.ones((0, 1))}, r"one or more; received \{0\}"),
        ({"x": np.full((2, 4), np.nan)}, "x must hold no NaN; received 8"),
        ({"y": np.array([[0.0], [np.nan]])}, "y must hold no NaN; received 1"),
        ({"x": np.full((2, 4), -np.inf)}, "x must hold no inf; received 8"),
        ({"batch_size": 0}, "batch_size must be a positive integer; received 0"),
        (
            {"loss": "sparse_categorical_crossentropy", "y": np.array([0, 7])},
            "y must fit the loss .* labels 0 to 7",
        ),
    ],
)
def test_bad_input(changed, message):
    with pytest.raises(ValueError, match=message):
        probe(small(layers.Dense(1)), **(GOOD | changed))


def test_targets_without_a_column():
    with pytest.raises(ValueError, match=r"y must fit .*\[\(2, 0\)\].*, labels none"):
        probe(small(layers.Dense(2)), np.ones((2, 4)), np.ones((2, 0)))


def test_no_loss():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    with pytest.raises(ValueError, match="loss must be given, or the model compiled with one"):
        probe(model, **GOOD)


def test_unbuilt_model():
    model = keras.Sequential([layers.Dense(1)])
    with pytest.raises(ValueError, match="model must be built: give it a keras.Input"):
        probe(model, **GOOD, loss="mse")


def test_not_a_model():
    with pytest.raises(TypeError, match="model must be a keras.Model; received str"):
        probe("model", **GOOD, loss="mse")


def test_empty_dataset():
    empty = tf.data.Dataset.from_tensor_slices((np.ones((0, 4)), np.ones((0, 1)))).batch(2)
    with pytest.raises(ValueError, match="received an empty dataset"):
        probe(small(layers.Dense(1)), empty)


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
def test_recurrent_layers_are_kept_from_the_fused_kernel_of_a_gpu(kind, rng, monkeypatch):
    def fused(*args, **kwargs):
        raise AssertionError("the fused kernel does not call the cell")

    monkeypatch.setattr(f"keras.src.backend.{kind.__name__.lower()}", fused)
    model = small(kind(3), layers.Dense(1), inputs=(12, 2))
    recurrent = model.layers[0]
    seen = probe(model, rng.standard_normal((4, 12, 2)), rng.standard_normal((4, 1)))
    assert len(seen[f"{kind.__name__.lower()}_cell"].backward_by_call) == 12
    assert recurrent.use_cudnn == "auto"


def test_layers_of_one_name_keep_their_own_weights(rng):
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(2, name="twin"), layers.Dense(7, name="twin")

        def call(self, x):
            return self.b(self.a(x))

    model = Twins()
    x = rng.standard_normal((5, 3))
    model(x)
    records = probe(model, x, rng.standard_normal((5, 7)), "mse").layers
    assert [record.parameters for record in records] == [3 * 2 + 2, 2 * 7 + 7]


def test_weights_of_the_model_itself_are_seen(rng):
    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.gain = layers.Dense(2), self.add_weight(name="gain", shape=())

        def call(self, x):
            return self.gain * self.dense(x)

    model = Scaled()
    x = rng.standard_normal((5, 3))
    model(x)
    records = probe(model, x, rng.standard_normal((5, 2)), "mse").layers
    assert [record.parameters for record in records] == [3 * 2 + 2, 1]


def test_number_of_outputs(rng):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {"a": layers.Dense(1)(inputs), "b": layers.Dense(1)(inputs)})
    model.compile("sgd", {"a": "mse", "b": "mse"})
    y = {name: rng.standard_normal((4, 1)) for name in "ab"}
    assert probe(model, rng.standard_normal((4, 3)), y).outputs == 2


@pytest.mark.parametrize("bad", [[[1.0, 2.0], [3.0, 4.0]], 3.0, (row for row in np.ones((4, 4)))])
def test_data_that_are_no_arrays(bad):
    with pytest.raises(ValueError, match="x and y must be arrays, or lists or dicts of them"):
        probe(small(layers.Dense(1)), bad, np.ones((2, 1)))


def test_a_dataset_without_targets_is_told_apart_from_an_empty_one(rng):
    model = small(layers.Dense(1))
    data = tf.data.Dataset.from_tensor_slices(rng.standard_normal((8, 4))).batch(4)
    with pytest.raises(ValueError, match="y must fit the loss"):
        probe(model, data)


@pytest.mark.parametrize("mode", ["full", "activations"])
def test_layers_that_recompute_their_activations_still_show_their_signal(mode, rng):
    def model():
        keras.utils.set_random_seed(3)
        return small(layers.Dense(6, "relu"), layers.Dense(6, "tanh"), layers.Dense(1))

    x, y = rng.standard_normal((16, 4)), rng.standard_normal((16, 1))
    expected = probe(model(), x, y)
    with keras.RematScope(mode=mode):
        saving = model()
    found = probe(saving, x, y)
    for mine, theirs in zip(found.layers, expected.layers, strict=True):
        assert mine.backward == pytest.approx(theirs.backward, rel=1e-6) and mine.backward > 0
    assert saving.layers[0]._remat_mode is not None


def test_a_spectral_normalisation_keeps_its_kernel(rng):
    model = small(layers.SpectralNormalization(layers.Dense(5)), layers.Dense(1))
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    probe(model, rng.standard_normal((8, 4)), rng.standard_normal((8, 1)))
    after = [keras.ops.convert_to_numpy(v) for v in model.variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_row_is_asked_for_nan_not_the_batch_alone():
    x = np.ones((1000, 4))
    x[1] = np.inf
    with pytest.raises(ValueError, match="x must hold no inf; received 4"):
        probe(small(layers.Dense(1)), x, np.ones((1000, 1)))


def test_ids_that_an_embedding_does_not_have():
    model = small(layers.Embedding(10, 2, name="words"), layers.Flatten(), layers.Dense(1))
    with pytest.raises(ValueError, match=r"ids must lie in 0 to 9, .*words; received 3 to 12"):
        probe(model, np.array([[3, 4, 5, 12]]), np.ones((1, 1)))


def test_what_an_own_loss_says_at_outputs_of_our_choice():
    """loss = mean over all pairs of (p - y)^2, for targets 0, 2; outputs near them: 0.1, 1.9."""
    model = small(layers.Dense(1, kernel_initializer="zeros"), inputs=(1,))

    def paired(y, p):
        return keras.ops.mean((p - keras.ops.reshape(y, (1, -1))) ** 2)

    x, y = np.ones((2, 1)), np.array([[0.0], [2.0]], "float32")
    own = probe(model, x, y, paired).own_loss
    assert own.rows == pytest.approx(0.1**2)
    assert (own.pairs, own.together) == pytest.approx(2 * ((0.1**2 + 1.9**2) / 2,))
    assert own.at_targets == 2  # of the pairs (0, 0), (0, 2), (2, 0), (2, 2), two are off by 2
    assert probe(model, x, y).own_loss is None


@pytest.mark.parametrize(
    ("loss", "units", "y", "shares"),
    [
        ("binary_crossentropy", 1, [[1], [0], [0], [0]], [0.75, 0.25]),
        ("categorical_crossentropy", 2, [[1, 0], [0, 1], [0, 1], [0, 1]], [0.25, 0.75]),
        ("sparse_categorical_crossentropy", 3, [[0], [2], [2], [2]], [0.25, 0, 0.75]),
        ("mse", 1, [[0], [1], [1], [1]], []),
    ],
)
def test_how_often_each_class_is_the_target(loss, units, y, shares, rng):
    model = small(layers.Dense(units, "sigmoid" if units == 1 else "softmax"), loss=loss)
    (head,) = probe(model, rng.standard_normal((4, 4)), np.array(y, "float32")).heads
    assert head.class_shares.tolist() == shares


@pytest.mark.parametrize(("activation", "affine"), [(None, True), ("relu", False)])
def test_whether_the_outputs_are_an_affine_function_of_the_inputs(activation, affine, rng):
    model = small(layers.Dense(8, activation), layers.Dense(2))
    assert probe(model, rng.standard_normal((16, 4)), rng.standard_normal((16, 2))).affine == affine
