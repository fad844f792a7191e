import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from gradutils.remedies import REMEDIES, fall, try_remedies

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
SUM = X.sum(axis=1, keepdims=True)
CLASS = (SUM > 0).astype("float32")
CLASSES = np.eye(3, dtype="float32")[np.digitize(SUM[:, 0], [-1, 1])]


@pytest.fixture(autouse=True)
def _seeded():
    """Before anything is made: a layer draws its seed when it is made, not when it is built."""
    keras.utils.set_random_seed(1)


def compiled(*parts, optimizer=None, loss="mse", inputs=(4,), kind=keras.Sequential):
    model = kind([keras.Input(inputs), *parts])
    model.compile(optimizer or Adam(0.01), loss)
    return model


def hidden(units=16, activation="relu", **options):
    return layers.Dense(units, activation, **options)


def swapped(y_pred, y_true):
    return -ops.sum(ops.log(y_pred) * y_true, -1)


class Broadcasting(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(ops.convert_to_tensor(y) - y_pred))


class Curved(keras.Sequential):
    """u'' = 1, by the second derivative alone."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                u = self(x)
            first = inner.gradient(u, x)
        second = outer.gradient(first, x)
        return tf.reduce_mean(((0.0 if second is None else second) - 1) ** 2)


def sequences():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 40, 1)).astype("float32")
    return x, np.sign(x[:, 0])


def outlier():
    y = SUM.copy()
    y[3] = 1e6
    return y


def maximised(y, p):
    return -ops.mean((y - p) ** 2, -1)


def frozen(optimizer):
    model = compiled(hidden(), layers.Dense(1), optimizer=optimizer)
    model.trainable = False
    model.compile(optimizer or Adam(0.01), "mse")
    return model


def rare():
    """One sample of 32 belongs to the class, and its inputs say so."""
    x = X.copy()
    x[0] = 2.0
    return x, (np.arange(32) == 0).astype("float32")[:, None]


def quartic(y, p):
    return ops.mean((y - p) ** 4, -1)


def faint(y, p):
    return 1e-7 * ops.mean((y - p) ** 2, -1)


def half(activation=None, gain=1.0, **options):
    scale = layers.Rescaling(gain, dtype="mixed_float16")
    net = [hidden(dtype="mixed_float16"), scale, layers.Dense(1, activation, dtype="float32")]
    return compiled(*net, **options)


def batch_norm(optimizer=None):
    normal = layers.BatchNormalization(momentum=0.999)
    parts = [hidden(activation=None), normal, layers.ReLU(), layers.Dense(3, "softmax")]
    return compiled(*parts, loss="categorical_crossentropy", optimizer=optimizer)


def small(**options):
    return hidden(kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), **options)


LARGE = keras.initializers.Orthogonal(2.0, seed=0)
DRAWN = keras.initializers.GlorotUniform(seed=0)

#: Name of the remedy -> a model that it mends, and the data; each takes an optimiser.
MENDED = {
    "a sigmoid output": lambda o=None: (
        compiled(hidden(), layers.Dense(1, "softmax"), optimizer=o), X, CLASS
    ),
    "a softmax output": lambda o=None: (
        compiled(hidden(), layers.Dense(3, "relu"), loss="categorical_crossentropy", optimizer=o),
        X, CLASSES,
    ),
    "a linear output": lambda o=None: (
        compiled(hidden(), layers.Dense(1, "tanh"), optimizer=o or SGD(0.05)), X, 5 + SUM
    ),
    "from_logits=True": lambda o=None: (
        compiled(layers.Dense(1, bias_initializer=keras.initializers.Constant(-9.0)),
                 loss="binary_crossentropy", optimizer=o or SGD(1.0)),
        X, CLASS,
    ),
    "the loss's arguments exchanged": lambda o=None: (
        compiled(hidden(), layers.Dense(3, "softmax"), loss=swapped, optimizer=o), X, CLASSES
    ),
    "targets in the shape of the outputs": lambda o=None: (
        compiled(hidden(), layers.Dense(1, kernel_initializer="zeros"), kind=Broadcasting,
                 optimizer=o),
        X, SUM[:, 0] - SUM.mean(),
    ),
    "the other sign of the loss": lambda o=None: (
        compiled(hidden(), layers.Dense(1), loss=maximised, optimizer=o), X, SUM
    ),
    "all layers trainable": lambda o=None: (frozen(o), X, SUM),
    "no regulariser": lambda o=None: (
        compiled(layers.Dense(1, kernel_regularizer=keras.regularizers.L2(9.0)),
                 optimizer=o or SGD(0.2)),
        X, SUM,
    ),
    "class weights": lambda o=None: (
        compiled(layers.Dense(1, "sigmoid", bias_initializer=keras.initializers.Constant(-3.4)),
                 loss="binary_crossentropy", optimizer=o or SGD(0.3)),
        *rare(),
    ),
    "drawn weights": lambda o=None: (
        compiled(hidden(kernel_initializer="zeros"),
                 layers.Dense(1, kernel_initializer="zeros"), optimizer=o),
        X, SUM - SUM.mean(),
    ),
    "ReLU and He weights": lambda o=None: (
        compiled(*[hidden(activation="sigmoid") for _ in range(8)], layers.Dense(1), optimizer=o),
        X, SUM - SUM.mean(),
    ),
    "layer normalisation": lambda o=None: (
        compiled(*[small() for _ in range(4)], layers.Dense(1), optimizer=o or Adam(0.03)),
        X, SUM - SUM.mean(),
    ),
    "leaky ReLU": lambda o=None: (
        compiled(hidden(bias_initializer=keras.initializers.Constant(-9.0)),
                 layers.Dense(1), optimizer=o),
        X, SUM - SUM.mean(),
    ),
    "ReLU between the layers": lambda o=None: (
        compiled(hidden(activation=None), layers.Dense(1), inputs=(1,), optimizer=o),
        X[:, :1], abs(X[:, :1]) - abs(X[:, :1]).mean(),
    ),
    "tanh in the hidden layers": lambda o=None: (
        compiled(hidden(), hidden(), layers.Dense(1), kind=Curved, inputs=(1,), optimizer=o),
        X[:, :1], SUM,
    ),
    "tanh in the recurrent layer": lambda o=None: (
        compiled(layers.SimpleRNN(8, "relu", kernel_initializer=DRAWN, recurrent_initializer=LARGE),
                 layers.Dense(1, kernel_initializer=DRAWN),
                 inputs=(40, 1), optimizer=o or Adam(0.1)),
        sequences()[0], np.full((32, 1), 3.0),
    ),
    "scaled inputs": lambda o=None: (
        compiled(layers.Dense(1), optimizer=o or SGD(0.05)), 100 * X, SUM
    ),
    "scaled targets": lambda o=None: (compiled(layers.Dense(1), optimizer=o), X, 1e5 * (1 + SUM)),
    "a learning rate": lambda o=None: (compiled(layers.Dense(1), optimizer=o or SGD(9.0)), X, SUM),
    "a forget bias of ln(steps)": lambda o=None: (
        compiled(layers.LSTM(16), layers.Dense(1), inputs=(40, 1), optimizer=o), *sequences()
    ),
    "clipping by global norm": lambda o=None: (
        compiled(layers.Dense(1, kernel_initializer="ones"), loss=quartic,
                 optimizer=o or SGD(0.5)),
        X, -2 * SUM,
    ),
    "float32": lambda o=None: (half(gain=1e5, optimizer=o), X, SUM),
    "an epsilon of 1e-3": lambda o=None: (
        compiled(hidden(dtype="float16"), layers.Dense(1, dtype="float16"),
                 optimizer=o or Adam(1e-3)),
        X, np.tanh(SUM) / 10,
    ),
    "a loss scale": lambda o=None: (
        half(loss=faint, optimizer=o or Adam(0.01, epsilon=1e-15)), X, SUM
    ),
    "the bad rows dropped": lambda o=None: (
        compiled(hidden(), layers.Dense(1), optimizer=o), X, outlier()
    ),
    "a momentum of 0.5 in batch normalisation": lambda o=None: (batch_norm(o), 5 + X, CLASSES),
}  # fmt: skip


#: Where the outcome has another name than the row.
ROWS = {"from_logits=True": "the other from_logits", "a learning rate": "another learning rate"}


def outcome(name, optimizer=None):
    """What becomes of one remedy; the model must be as it was."""
    model, x, y = MENDED[name](optimizer)
    row = next(row for row in REMEDIES if row.name == ROWS.get(name, name))
    before = [v.numpy().tobytes() for v in model.variables]
    attributes = [dict(vars(layer)) for layer in model._flatten_layers()]
    found = [o for o in try_remedies(row.checks[:1], model, x, y) if o.remedy.startswith(name)]
    assert [v.numpy().tobytes() for v in model.variables] == before
    for layer, kept in zip(model._flatten_layers(), attributes, strict=True):
        assert vars(layer).keys() - kept.keys() <= {"_dropout_mask", "_recurrent_dropout_mask"}
        assert all(vars(layer)[key] is kept[key] for key in ("call", "activation") if key in kept)
    assert not model.optimizer.built
    return found


def test_every_remedy_has_a_model_that_it_mends():
    assert {ROWS.get(name, name) for name in MENDED} == {row.name for row in REMEDIES}


@pytest.mark.filterwarnings("ignore:You are using a softmax", "ignore:.*received `from_logits")
@pytest.mark.parametrize("name", MENDED)
def test_a_remedy_helps_the_model_that_needs_it(name):
    (found,) = outcome(name)
    assert found.helped, found.text
    assert np.isfinite(found.trial.losses).all()
    assert found.text.startswith(f"with {name}")
    assert " instead of " in found.text or "; without, it " in found.text


#: What helps with a learning rate of 0 as well: moving averages follow without a step.
MOVES = {"a learning rate", "a momentum of 0.5 in batch normalisation"}


@pytest.mark.filterwarnings("ignore:You are using a softmax", "ignore:.*received `from_logits")
@pytest.mark.parametrize("name", sorted(MENDED.keys() - MOVES))
def test_a_remedy_does_not_help_a_model_that_does_not_move(name):
    """With a learning rate of 0, what makes the loss fall is another rate only."""
    found = outcome(name, Adam(0.0) if name == "an epsilon of 1e-3" else SGD(0.0))
    assert not any(o.helped for o in found)


def test_no_rate_helps_where_the_loss_is_flat():
    model = compiled(layers.Dense(1), loss=lambda y, p: 0 * ops.sum(p, -1) + 1, optimizer=SGD(0.1))
    (found,) = try_remedies(["G34"], model, X, SUM)
    assert not found.helped
    assert fall(found.trial) == 0


def test_the_rate_is_named_and_the_best_of_six_decades():
    """w = 3 and loss w^2: a rate of 1/2 solves it at once, and 5e-4 is 1000 times too low."""
    model = compiled(layers.Dense(1, use_bias=False), inputs=(1,), optimizer=SGD(5e-4))
    model.set_weights([np.array([[3.0]])])
    (found,) = try_remedies(["G34"], model, np.ones((4, 1)), np.zeros((4, 1)))
    assert found.remedy == "a learning rate of 5e-01"
    assert found.advice == "Raise the learning rate to about 5e-01."
    assert found.trial.losses[1] == pytest.approx(0, abs=1e-10)


def test_drawn_weights_have_the_variance_of_he_and_glorot():
    """Seen through the first loss: with x = 1 and y = 0, it is the variance of the outputs."""
    model = compiled(
        layers.Dense(1000, kernel_initializer="zeros"), inputs=(1000,), optimizer="sgd"
    )
    found = try_remedies(["G19"], model, np.ones((1, 1000)), np.zeros((1, 1000)), steps=1)
    assert found[0].trial.losses[0] == pytest.approx(1, rel=0.2)  # Glorot: 2 / (1000 + 1000)


def test_a_silent_check_counts_as_help_where_the_loss_falls():
    """Twice as fast is more than the scaled inputs manage here; the judge is content with less."""
    model = compiled(layers.Dense(1), optimizer=SGD(0.01))
    given = ["G27"], model, X, SUM
    assert not try_remedies(*given)[0].helped
    assert try_remedies(*given, judge=lambda seen, trial: [])[0].helped
    assert not try_remedies(*given, judge=lambda seen, trial: ["G27"])[0].helped


def test_without_an_optimiser_or_a_remedy_nothing_is_tried():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    assert try_remedies(["G22"], model, X, SUM, "mse") == []
    model.compile("sgd", "mse")
    assert try_remedies(["G99"], model, X, SUM) == []


def test_derivatives_that_are_undefined_are_not_blamed_on_weights_or_rates():
    """sqrt has no derivative at 0, and its outputs are finite: only half precision is looked at."""
    root = layers.Lambda(lambda h: ops.sqrt(ops.relu(h)), output_shape=(8,))
    model = compiled(hidden(8), root, layers.Dense(1))
    assert try_remedies(["G14"], model, X, SUM) == []


def test_a_remedy_that_the_model_cannot_take_is_left_out():
    """A copy in float32 of a layer that cannot be made again from its configuration."""

    class Own(layers.Dense):
        def get_config(self):
            raise NotImplementedError("no configuration")

    model = compiled(Own(8, dtype="float16"), layers.Dense(1, dtype="float16"))
    assert "float32" not in [o.remedy for o in try_remedies(["G10"], model, X, SUM)]


def test_a_schedule_that_has_ended_is_raised_to_where_it_began():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 1, 0.1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    model.optimizer.iterations.assign(40)  # by now the rate is 5e-42
    x = np.linspace(-1, 1, 16)[:, None]
    (outcome,) = try_remedies(["G34"], model, x, 1 + 2 * x)
    assert outcome.helped
    assert outcome.advice.startswith("Raise the learning rate")
