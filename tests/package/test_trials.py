import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops, tree

from gradutils.trials import look_ahead


def compiled(*parts, inputs=(4,), seed=1, **options):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input(inputs), *parts])
    model.compile(**({"optimizer": "sgd", "loss": "mse", "jit_compile": False} | options))
    return model


def two_heads():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, "relu")
    hidden = shared(shared(inputs))
    heads = {"a": layers.Dense(1, name="a")(hidden), "b": layers.Dense(1, name="b")(hidden)}
    model = keras.Model(inputs, heads)
    model.compile("adam", {"a": "mse", "b": "mae"}, metrics={"a": ["mae"]})
    return model


def frozen():
    model = compiled(layers.Dense(8, "relu"), layers.Dense(1), optimizer="adam")
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    return model


def half():
    model = compiled(layers.Dense(8, "relu", dtype="mixed_float16"), layers.Dense(1))
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), "mse")
    return model


def own_schedule():
    class Warmup(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.01 * (ops.cast(step, "float32") + 1)

    return compiled(layers.Dense(1), optimizer=keras.optimizers.Adam(Warmup()))


def stateful():
    model = keras.Sequential([keras.Input(batch_shape=(16, 4)), layers.Reshape((4, 1))])
    model.add(layers.GRU(4, stateful=True))
    model.add(layers.Dense(1))
    model.compile("sgd", "mse", jit_compile=False)
    return model


class Counting(layers.Layer):
    """Counts its calls in a variable that Keras does not know of."""

    def build(self, _):
        self.states = [tf.Variable(0.0)]

    def call(self, x):
        self.states[0].assign_add(1.0)
        return x


def deep(optimizer):
    """16 weights or more, so that the steps are taken on one vector where the optimiser allows."""
    hidden = [layers.Dense(4, "tanh") for _ in range(8)]
    return compiled(*hidden, layers.Dense(1), optimizer=optimizer)


SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
DECAY = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
MODELS = {
    "dropout": lambda: compiled(layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(1)),
    "noise": lambda: compiled(layers.GaussianNoise(1.0), layers.Dense(1), optimizer="rmsprop"),
    "batch norm": lambda: compiled(layers.Dense(8), layers.BatchNormalization(), layers.Dense(1)),
    "spectral norm": lambda: compiled(
        layers.SpectralNormalization(layers.Dense(8)), layers.Dense(1)
    ),
    "momentum": lambda: compiled(layers.Dense(1), optimizer=SGD(0.1, momentum=0.9)),
    "schedule": lambda: compiled(layers.Dense(1), optimizer=SGD(DECAY)),
    "schedule of one's own": own_schedule,
    "callable rate": lambda: compiled(layers.Dense(1), optimizer=SGD(lambda: 0.1)),
    "clipping": lambda: compiled(layers.Dense(1), optimizer=Adam(global_clipnorm=0.1)),
    "moving average": lambda: compiled(
        layers.Dense(1), optimizer=Adam(use_ema=True, ema_overwrite_frequency=3)
    ),
    "accumulation": lambda: compiled(
        layers.Dense(1), optimizer=Adam(gradient_accumulation_steps=2)
    ),
    "weight decay": lambda: compiled(layers.Dense(1), optimizer="adamw"),
    "regulariser": lambda: compiled(
        layers.Dense(1, kernel_regularizer="l2", activity_regularizer="l2")
    ),
    "constraint": lambda: compiled(layers.Dense(8, kernel_constraint="unit_norm"), layers.Dense(1)),
    "eager": lambda: compiled(layers.Dense(1), run_eagerly=True),
    "many weights, Adam": lambda: deep(Adam(0.01, global_clipnorm=1.0)),
    "many weights, SGD": lambda: deep(SGD(DECAY, momentum=0.9, nesterov=True)),
    "many weights, Nadam": lambda: deep(keras.optimizers.Nadam(0.01, weight_decay=0.1)),
    "many weights, clipped by weight": lambda: deep(Adam(0.01, clipnorm=0.1)),
    "recurrent": lambda: compiled(
        layers.Reshape((4, 1)), layers.LSTM(4), layers.Dense(1)
    ),
    "stateful": stateful,
    "two heads": two_heads,
    "frozen": frozen,
    "half precision": half,
    "own variable": lambda: compiled(Counting(), layers.Dense(1)),
}  # fmt: skip


def data(rng, model):
    x = rng.normal(size=(16, 4)).astype("float32")
    y = x[:, :1] * x[:, 1:2]
    return (x, {"a": y, "b": -y}) if len(model.outputs) > 1 else (x, y)


def everything(model):
    """All numbers that belong to a model, by name, and the state of every random generator."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    variables += [v for layer in model.layers for v in tree.flatten(getattr(layer, "states", []))]
    numbers = {
        getattr(v, "path", v.name): keras.ops.convert_to_numpy(v)
        for v in variables
        if v is not None
    }
    numbers["numpy"] = np.random.get_state()[1]  # noqa: NPY002
    numbers["python"] = np.array(random.getstate()[1])
    return numbers


def drawn():
    """The next draws of Keras and TensorFlow without a seed of their own."""
    return keras.random.normal((3,)).numpy().tobytes(), tf.random.normal((3,)).numpy().tobytes()


@pytest.mark.parametrize("trained", [False, True], ids=["new", "trained"])
@pytest.mark.parametrize("name", MODELS)
def test_everything_is_put_back_bit_by_bit(name, trained):
    model = MODELS[name]()
    x, y = data(np.random.default_rng(0), model)
    if trained:
        model.fit(x, y, verbose=0, shuffle=False)
    keras.utils.set_random_seed(3)
    expected = drawn()
    keras.utils.set_random_seed(3)
    built, function, losses = model.optimizer.built, model.train_function, len(model.losses)
    trainable = [layer.trainable for layer in model._flatten_layers()]
    before = everything(model)
    look_ahead(model, x, y, steps=2)
    after = everything(model)
    assert all(before[k].tobytes() == after[k].tobytes() for k in before)
    assert not any(after[k].any() for k in after.keys() - before.keys())  # metrics of several heads
    assert drawn() == expected
    assert model.optimizer.built == built
    assert model.train_function is function
    assert len(model.losses) == losses
    assert [layer.trainable for layer in model._flatten_layers()] == trainable


@pytest.mark.parametrize("name", MODELS)
def test_the_steps_are_those_of_fit(name):
    """To the last bit where both run eagerly; up to rounding where each has its own graph."""
    model = MODELS[name]()
    x, y = data(np.random.default_rng(0), model)
    trial = look_ahead(model, x, y, steps=3)
    losses = model.fit(x, y, batch_size=len(x), epochs=3, verbose=0, shuffle=False).history["loss"]
    if model.run_eagerly:
        assert trial.losses[:-1].tolist() == losses
    tolerance = 1e-2 if name == "half precision" else 1e-5
    np.testing.assert_allclose(trial.losses[:-1], losses, rtol=tolerance)


def test_what_a_step_does_by_hand():
    """w = 3, loss (2 w)^2: the gradient is 24, a step of 1/24 makes w 2, which is a third less."""
    model = compiled(layers.Dense(1, use_bias=False), inputs=(1,), optimizer=SGD(1 / 24))
    model.set_weights([np.array([[3.0]])])
    trial = look_ahead(model, np.array([[2.0]]), np.array([[0.0]]), steps=1)
    np.testing.assert_allclose(trial.losses, [36, 16], rtol=1e-6)
    np.testing.assert_allclose(trial.inference_losses, [36, 16], rtol=1e-6)
    np.testing.assert_allclose(trial.update_ratios, [[1 / 3]], rtol=1e-6)
    np.testing.assert_allclose(trial.learning_rates, [1 / 24], rtol=1e-6)
    np.testing.assert_allclose(trial.output_sizes, [6, 4], rtol=1e-6)
    assert trial.output_spreads.tolist() == [0, 0]
    assert np.isnan(trial.dead).all()


def test_units_that_die_are_seen():
    """The step of 10 times the gradient carries the bias of the only unit far below 0."""
    unit = layers.Dense(1, "relu", bias_initializer="ones")
    model = compiled(unit, optimizer=SGD(10.0))
    trial = look_ahead(model, np.ones((8, 4)) / 100, np.zeros((8, 1)), steps=1)
    assert trial.dead.tolist() == [0, 1]


def test_numbers_that_are_not_finite_are_results():
    model = compiled(layers.Dense(1), optimizer=SGD(1e20))
    trial = look_ahead(model, np.ones((8, 4)), np.ones((8, 1)), steps=10)
    assert np.isfinite(trial.losses[0])
    assert not np.isfinite(trial.losses[-1])


def test_random_layers_draw_the_same_at_both_ends():
    """With a rate of 0 the first loss and the last are equal, those between are not."""
    model = compiled(layers.Dropout(0.5), layers.Dense(1), optimizer=SGD(0.0))
    trial = look_ahead(model, np.ones((8, 4)), np.ones((8, 1)), steps=3)
    assert trial.losses[0] == trial.losses[-1]
    assert len(set(trial.losses)) == 3


def test_a_model_that_no_graph_can_hold_runs_eagerly():
    class Own(layers.Layer):
        def call(self, x):
            return x * float(ops.convert_to_numpy(x).shape[0])

    model = compiled(layers.Dense(1), Own())
    assert len(look_ahead(model, np.ones((8, 4)), np.ones((8, 1)), steps=2).losses) == 3


def test_data_may_come_in_every_form_that_fit_takes():
    x, y = np.ones((8, 4), "float32"), np.zeros((8, 1), "float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    weighted = tf.data.Dataset.from_tensor_slices((x, y, np.full(8, 2.0))).batch(8)
    trials = [
        look_ahead(compiled(layers.Dense(1)), *given, steps=1)
        for given in [(x, y), (dataset,), (weighted,), (x, y, lambda y, p: (y - p) ** 2)]
    ]
    first = [trial.losses[0] for trial in trials]
    np.testing.assert_allclose(first, [first[0], first[0], 2 * first[0], first[0]], rtol=1e-6)


def test_without_an_optimiser_or_weights_there_is_no_look_ahead():
    x, y = np.ones((8, 4)), np.zeros((8, 1))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    assert look_ahead(model, x, y, "mse") is None
    model.trainable = False
    model.compile("sgd", "mse")
    assert look_ahead(model, x, y) is None


def test_bad_arguments_are_named():
    model = compiled(layers.Dense(1))
    with pytest.raises(ValueError, match="steps"):
        look_ahead(model, np.ones((8, 4)), np.ones((8, 1)), steps=0)
    with pytest.raises(ValueError, match="x must hold no NaN"):
        look_ahead(model, np.full((8, 4), np.nan), np.ones((8, 1)))
