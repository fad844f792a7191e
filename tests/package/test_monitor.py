import csv
import subprocess
import sys
import warnings

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from gradutils.monitor import GradientMonitor

rng = np.random.default_rng(0)
Y = rng.standard_normal((96, 1)).astype("float32")
DATA = {
    "mlp": rng.standard_normal((96, 6)).astype("float32"),
    "cnn": rng.standard_normal((96, 6, 6, 1)).astype("float32"),
    "lstm": rng.integers(0, 9, (96, 5)),
}
DATA["every kind"] = DATA["lstm"]


def values(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


def build(kind="mlp", policy="float32", optimizer="sgd", **compiled):
    keras.utils.set_random_seed(3)
    dense = {"dtype": policy}
    body = {
        "mlp": [layers.Dense(8, "relu", **dense), layers.Dense(8, "tanh", **dense)],
        "cnn": [layers.Conv2D(3, 3, **dense), layers.BatchNormalization(), layers.Flatten()],
        "lstm": [layers.Embedding(9, 4, **dense), layers.LSTM(4, **dense)],
        "every kind": [
            layers.Embedding(9, 3, **dense),
            layers.Conv1D(3, 3, **dense),
            layers.BatchNormalization(),
            layers.LSTM(3, **dense),
        ],
    }[kind]
    model = keras.Sequential([keras.Input(DATA[kind].shape[1:]), *body, layers.Dropout(0.2)])
    model.add(layers.Dense(1, dtype="float32"))
    optimizer = keras.optimizers.get(optimizer)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2**10)
    model.compile(optimizer, "mse", **compiled)
    return model


def fit(model, *callbacks, kind="mlp", epochs=2, **options):
    options = {"batch_size": 16, "shuffle": False, "verbose": 0} | options
    return model.fit(DATA[kind], Y, epochs=epochs, callbacks=list(callbacks), **options)


def reference_norms(model, x, y):
    """Per-layer norms of one batch's gradient, from a tape of our own."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    grads = tape.gradient(loss, [v.value for v in model.trainable_variables])
    squares = {}
    for v, g in zip(model.trainable_variables, grads, strict=True):
        layer = v.path.rsplit("/", 1)[0]
        total = np.sum(np.asarray(tf.convert_to_tensor(g), dtype=float) ** 2)
        squares[layer] = squares.get(layer, 0) + total
    return list(squares), np.sqrt(list(squares.values()))


@pytest.mark.parametrize(
    ("kind", "policy", "optimizer", "mode"),
    [
        ("every kind", "float32", "momentum", "eager"),
        ("every kind", "float32", "adam", "graph"),
        ("mlp", "mixed_float16", "adam", "graph"),
        ("mlp", "float32", "momentum", "graph"),
        ("mlp", "float32", "momentum", "xla"),
        ("mlp", "mixed_float16", "momentum", "xla"),
    ],
)
def test_weights_are_those_of_a_run_without(kind, policy, optimizer, mode):
    """Bit for bit, or to rounding where the two runs are compiled to different arithmetic.

    XLA does so, and so does TensorFlow's arithmetic optimiser with a momentum: where it is
    switched off (`tf.config.optimizer`), these two runs agree bit for bit as well.
    """
    trained = []
    for callbacks in ([], [GradientMonitor(update_ratio=True)]):
        momentum = keras.optimizers.SGD(0.01, momentum=0.9)
        rule = momentum if optimizer == "momentum" else keras.optimizers.Adam()
        how = {"jit_compile": mode == "xla", "run_eagerly": mode == "eager"}
        model = build(kind, policy, rule, **how)
        fit(model, *callbacks, kind=kind, epochs=1)
        trained.append(values(model.variables + model.optimizer.variables))
    may_round = optimizer == "momentum" and mode != "eager"
    for a, b in zip(*trained, strict=True):
        rounding = may_round * 6 * np.finfo(a.dtype).eps if a.dtype.kind == "f" else 0
        assert np.max(np.abs(a - b)) <= rounding * np.max(np.abs(a))
    assert callbacks[0].norms.shape == (6, len(callbacks[0].layer_names))


@pytest.mark.parametrize(
    ("kind", "compiled"),
    [
        ("mlp", {"jit_compile": True}),
        ("cnn", {}),
        ("lstm", {}),
        ("lstm", {"jit_compile": True}),
        ("lstm", {"run_eagerly": True}),
    ],
)
def test_norms_are_those_of_a_tape(kind, compiled):
    """The learning rate is 0, so that every step's gradient can be taken again."""
    model = build(kind, optimizer=keras.optimizers.SGD(0.0), **compiled)
    model.layers[-2].rate = 0.0  # the dropout would draw anew
    monitor = GradientMonitor()
    fit(model, monitor, kind=kind, epochs=1)
    for step in (0, 5):
        part = slice(16 * step, 16 * step + 16)
        names, expected = reference_norms(model, DATA[kind][part], Y[part])
        assert monitor.layer_names == names
        assert monitor.norms[step] == pytest.approx(expected, rel=1e-4)
    assert monitor.steps.tolist() == list(range(6))


def test_clipping_is_not_seen_and_loss_scale_is_divided_out():
    plain = build(optimizer=keras.optimizers.SGD(0.0))
    clipped = build(optimizer=keras.optimizers.SGD(0.0, clipnorm=1e-3))
    factor = build(optimizer=keras.optimizers.SGD(0.0, loss_scale_factor=1024.0))
    half = build(policy="mixed_float16", optimizer=keras.optimizers.SGD(0.0))
    found = []
    for model in (plain, clipped, factor, half):
        monitor = GradientMonitor()
        fit(model, monitor, epochs=1)
        found.append(monitor.norms)
    assert np.array_equal(found[1], found[0])
    assert found[2] == pytest.approx(found[0], rel=1e-5)
    assert found[3] == pytest.approx(found[0], rel=0.02)  # float16 keeps 11 bits


def test_norms_far_outside_float32_squares():
    """Gradients of 1e-25 and 1e+25: their squares are not float32 numbers, their norms are."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.zeros((1, 1))])
    for scale in (1e-25, 1e25):
        monitor = GradientMonitor()
        model.compile(keras.optimizers.SGD(0.0), loss=lambda y, p: p * scale)  # noqa: B023
        model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0, callbacks=[monitor])
        assert monitor.norms[0, 0] == pytest.approx(scale, rel=1e-5)


def test_every_so_many_steps():
    all_steps = GradientMonitor()
    fit(build(), all_steps)
    for every, expected in ((1, range(12)), (5, [0, 5, 10]), (100, [0])):
        some = GradientMonitor(every)
        fit(build(), some)
        assert some.steps.tolist() == list(expected)
        assert some.norms == pytest.approx(all_steps.norms[some.steps], rel=1e-6)


def test_steps_per_execution_and_a_short_last_one():
    one, four = GradientMonitor(), GradientMonitor()
    fit(build(), one)
    fit(build(steps_per_execution=4), four)  # 6 steps an epoch: 4 + 2
    assert four.steps.tolist() == list(range(12))
    assert four.norms == pytest.approx(one.norms, rel=1e-5)


def test_more_steps_in_an_epoch_than_the_buffer_holds():
    """The loss is y p, the input 1, a batch one sample: the norms are |y|."""
    monitor, y = GradientMonitor(), np.linspace(-1, 1, 300, dtype="float32")[:, None]
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.0), loss=lambda y, p: y * p)
    for epochs in (2, 1):
        model.fit(
            np.ones_like(y), y, batch_size=1, epochs=epochs, shuffle=False, verbose=0,
            callbacks=[monitor],
        )  # fmt: skip
    assert monitor.steps.tolist() == list(range(900))
    assert monitor.norms == pytest.approx(np.abs(np.tile(y, (3, 1))), rel=1e-6)


def test_data_of_unknown_length():
    monitor = GradientMonitor()
    data = tf.data.Dataset.from_generator(
        lambda: ((DATA["mlp"][i : i + 16], Y[i : i + 16]) for i in range(0, 96, 16)),
        output_signature=(tf.TensorSpec((16, 6)), tf.TensorSpec((16, 1))),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras' remark on the generator's end
        build().fit(data, epochs=2, verbose=0, callbacks=[monitor])
    assert monitor.norms.shape == (12, 3)
    assert np.isfinite(monitor.norms).all()


def test_update_ratio_is_what_the_weights_do():
    model = build(optimizer=keras.optimizers.SGD(0.1))
    before = values(model.trainable_variables)
    monitor = GradientMonitor(update_ratio=True)
    model.fit(DATA["mlp"][:16], Y[:16], batch_size=16, verbose=0, callbacks=[monitor])
    change = [a - b for a, b in zip(values(model.trainable_variables), before, strict=True)]
    for layer in range(3):
        own = slice(2 * layer, 2 * layer + 2)
        expected = np.sqrt(sum((c**2).sum() for c in change[own]))
        expected /= np.sqrt(sum((b**2).sum() for b in before[own]))
        assert monitor.update_ratios[0, layer] == pytest.approx(expected, rel=1e-4)


def test_frozen_layers_have_no_column():
    model = build()
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    monitor = GradientMonitor()
    fit(model, monitor)
    assert len(monitor.layer_names) == 2
    assert not any(model.layers[0].name in name.split("/") for name in monitor.layer_names)


def test_gradient_accumulation_records_every_step():
    monitor = GradientMonitor()
    model = build(optimizer=keras.optimizers.SGD(0.0, gradient_accumulation_steps=3))
    fit(model, monitor)
    plain = GradientMonitor()
    fit(build(optimizer=keras.optimizers.SGD(0.0)), plain)
    assert monitor.norms == pytest.approx(plain.norms, rel=1e-5)


class Adversarial(keras.Model):
    """Two networks, two optimisers, a train_step of its own."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="g")])
        self.critic = keras.Sequential([keras.Input((4,)), layers.Dense(1, name="c")])
        self.opt_g, self.opt_c = keras.optimizers.SGD(0.1), keras.optimizers.Adam()
        self.built = True

    def train_step(self, data):
        with tf.GradientTape(persistent=True) as tape:
            score = tf.reduce_mean(self.critic(self.generator(data[0])) ** 2)
        for net, optimizer in ((self.generator, self.opt_g), (self.critic, self.opt_c)):
            weights = net.trainable_variables
            grads = tape.gradient(score, [v.value for v in weights])
            optimizer.apply_gradients(zip(grads, weights, strict=True))
        return {"loss": score}


def test_custom_train_step_with_two_optimisers():
    trained = []
    for callbacks in ([], [GradientMonitor()]):
        keras.utils.set_random_seed(0)
        model = Adversarial()
        model.compile(loss="mse")  # leaves an optimiser of its own, unused
        fit(model, *callbacks)
        trained.append(values(model.trainable_variables))
    (monitor,) = callbacks
    assert all(np.array_equal(a, b) for a, b in zip(*trained, strict=True))
    assert sorted(name.split("/")[-1] for name in monitor.layer_names) == ["c", "g"]
    assert monitor.norms.shape == (12, 2)
    assert (monitor.norms > 0).all()


def test_an_optimiser_that_is_never_called_is_named():
    monitor = GradientMonitor(optimizers=[keras.optimizers.SGD(name="idle")])
    with pytest.warns(UserWarning, match="optimiser 'idle' was never called"):
        fit(build(), monitor, epochs=1)


class Hidden(keras.Model):
    """A train_step whose optimiser is no attribute of the model."""

    def __init__(self):
        super().__init__()
        self.dense, self.tools = layers.Dense(1), [keras.optimizers.SGD(0.1)]
        self.dense.build((None, 6))
        self.built = True

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.dense(data[0]) ** 2)
        weights = self.dense.trainable_variables
        self.tools[0].apply(tape.gradient(loss, [v.value for v in weights]), weights)
        return {"loss": loss}


@pytest.mark.parametrize(
    ("own", "reason"),
    [("sgd", "optimiser 'sgd\\S*' was never called"), (None, "the model has no optimiser")],
)
def test_a_monitor_that_records_nothing_says_it_once(own, reason):
    """The optimiser that trains stands in a list, where the monitor does not look for it."""
    model, monitor = Hidden(), GradientMonitor()
    model.compile(own, "mse")
    with pytest.warns(UserWarning, match=f"{reason}.*: nothing recorded") as told:
        fit(model, monitor, epochs=1)
        fit(model, monitor, epochs=1)
    assert len(told) == 1
    assert np.isnan(monitor.norms).all()


def test_sparse_gradients_sum_repeated_rows():
    """Both samples use row 1: its gradient is twice each one's, not sqrt(2) times."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), layers.Embedding(3, 1), layers.Flatten()])
    model.compile(keras.optimizers.SGD(0.0), loss=lambda y, p: p)
    monitor = GradientMonitor()
    model.fit(np.ones((2, 1)), np.ones((2, 1)), verbose=0, callbacks=[monitor])
    assert monitor.norms[0, 0] == pytest.approx(1.0)  # two times 1/2, the mean over the batch


def test_logs_reach_other_callbacks(tmp_path):
    monitor, path = GradientMonitor(), tmp_path / "log.csv"
    history = fit(build(), monitor, keras.callbacks.CSVLogger(str(path)))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert float(rows[1]["grad/norm"]) == pytest.approx(history.history["grad/norm"][1])
    second = monitor.norms[6:]
    assert history.history["grad/first"][1] == pytest.approx(second[:, 0].mean())
    assert history.history["grad/last"][1] == pytest.approx(second[:, -1].mean())
    total = np.sqrt((second**2).sum(axis=1)).mean()
    assert history.history["grad/norm"][1] == pytest.approx(total)


def test_logs_hold_every_layer_where_asked_for():
    monitor = GradientMonitor(log_layers=True)
    history = fit(build(), monitor).history
    for layer, norms in zip(monitor.layer_names, monitor.norms.T, strict=True):
        means = norms.reshape(2, 6).mean(axis=1)
        assert history[f"grad/layers/{layer}"] == pytest.approx(means)
    assert sum(name.startswith("grad/layers/") for name in history) == 3


def test_everything_is_as_it_was_after_fit_and_after_an_exception():
    class Bang(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise RuntimeError("bang")

    model = build()
    fit(model, GradientMonitor())
    assert "apply" not in vars(model.optimizer)
    first = model.train_function
    fit(model)
    assert model.train_function is first
    monitor = GradientMonitor()
    with pytest.raises(RuntimeError, match="bang"):
        fit(model, monitor, Bang())
    assert "apply" not in vars(model.optimizer)
    assert model.train_function is first
    assert monitor.norms.shape[0] == 3
    fit(model)
    assert monitor.norms.shape[0] == 3  # a later fit without the monitor leaves it alone


def test_a_step_that_raises_leaves_the_optimiser_as_it_was():
    model = build(run_eagerly=True)
    monitor = GradientMonitor()
    with pytest.raises(Exception, match="shape|compatible"):
        model.fit(DATA["mlp"], np.ones((96, 2, 5)), verbose=0, callbacks=[monitor])
    assert "apply" not in vars(model.optimizer)


def exploding():
    return build(optimizer=keras.optimizers.SGD(1e6))


def test_alarm_stops_training_and_names_layer_and_step():
    model = exploding()
    monitor = GradientMonitor(on_alarm="stop", limit=1e6)
    with pytest.warns(UserWarning, match=r"gradient norm \S+ in layer \S*dense\S* at step 1"):
        fit(model, monitor, epochs=5)
    assert len(monitor.steps) == 2  # the step that rang is the last one


def test_alarm_raises():
    model, monitor = exploding(), GradientMonitor(on_alarm="raise")
    with pytest.raises(FloatingPointError, match=r"gradient norm \S+ in layer \S+ at step 1"):
        fit(model, monitor, epochs=5)
    assert len(monitor.steps) == 2
    assert "apply" not in vars(model.optimizer)


def test_alarm_calls_back_once():
    calls = []
    monitor = GradientMonitor(on_alarm=lambda *call: calls.append(call), limit=1e6)
    fit(exploding(), monitor)
    ((layer, step, norm),) = calls
    assert layer in monitor.layer_names
    assert step == 1
    assert not norm <= 1e6


def two_heads(losses):
    """Return a model whose heads `a` and `b` stand on one hidden layer."""
    keras.utils.set_random_seed(0)
    start = keras.Input((6,))
    hidden = layers.Dense(4, name="hidden")(start)
    model = keras.Model(start, [layers.Dense(1, name=name)(hidden) for name in "ab"])
    model.compile("sgd", loss=losses)
    return model


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_head_without_a_loss_raises_no_alarm():
    """Its norm is NaN because there is no gradient, not because the gradient is NaN."""
    monitor = GradientMonitor(on_alarm="stop")
    history = two_heads(["mse", None]).fit(
        DATA["mlp"], [Y, Y], batch_size=16, verbose=0, callbacks=[monitor]
    )
    assert len(monitor.steps) == 6
    hidden, head, idle = monitor.norms.T
    assert np.isnan(idle).all()
    assert history.history["grad/first"] == pytest.approx([hidden.mean()])
    assert history.history["grad/last"] == pytest.approx([head.mean()])
    assert history.history["grad/norm"] == pytest.approx([np.hypot(hidden, head).mean()])


def test_a_gradient_that_is_nan_raises_the_alarm_and_stands_in_the_logs():
    model = two_heads(["mse", lambda y, p: p * np.nan])
    monitor = GradientMonitor(on_alarm="stop")
    with pytest.warns(UserWarning, match="gradient norm nan in layer hidden at step 0"):
        history = model.fit(DATA["mlp"], [Y, Y], batch_size=16, verbose=0, callbacks=[monitor])
    assert len(monitor.steps) == 1
    assert np.isnan(history.history["grad/norm"]).all()
    assert np.isfinite(history.history["grad/first"]).tolist() == [False]


class Length(layers.Layer):
    """The Euclidean length of each row, whose derivative is undefined at a row of zeros."""

    def call(self, x):
        return keras.ops.sqrt(keras.ops.sum(x**2, axis=-1, keepdims=True))


def with_a_length(**compiled):
    keras.utils.set_random_seed(0)
    body = [layers.Dense(4, use_bias=False, name="below"), Length(name="length")]
    model = keras.Sequential([keras.Input((6,)), *body, layers.Dense(1)], name="net")
    model.compile("sgd", "mse", **compiled)
    return model


@pytest.mark.parametrize(
    "compiled", [{}, {"run_eagerly": True}, {"steps_per_execution": 2}], ids=["graph", "eager", "2"]
)
def test_the_alarm_names_the_row_and_the_operation_where_numbers_end(compiled):
    x = DATA["mlp"].copy()
    x[[37, 45]] = 0  # rows 5 and 13 of the third batch of 16
    model, monitor = with_a_length(**compiled), GradientMonitor(on_alarm="stop")
    with pytest.warns(UserWarning, match="gradient norm nan in layer net/below at step 2") as told:
        model.fit(x, Y, batch_size=16, shuffle=False, verbose=0, callbacks=[monitor])
    (message,) = [str(w.message) for w in told if w.category is UserWarning]
    assert "of the batch's 16 rows, alone give it: 5, 13;" in message
    assert "first in the backward signal of net/below" in message
    assert "derivative that is undefined" in message
    assert monitor.diagnosis.verdict == "non-finite"
    # The look at the batch took nothing back of what the spoilt step did, and left no hook.
    assert np.isnan(values(model.trainable_variables)[0]).any()
    assert not {"compute_loss", "apply"} & (vars(model).keys() | vars(model.optimizer).keys())


def test_the_alarm_in_a_loop_of_ones_own_names_the_row_too():
    x = DATA["mlp"][:16].copy()
    x[3] = 0
    model, monitor = with_a_length(), GradientMonitor(on_alarm="raise")
    refusal = pytest.raises(FloatingPointError, match="alone give it: 3; ")
    with refusal, monitor.training_step(model):
        model.train_on_batch(x, Y[:16])


def test_the_alarm_says_so_where_the_data_are_not_finite():
    x = DATA["mlp"].copy()
    x[0, 0] = np.nan
    model = build()
    with pytest.raises(FloatingPointError, match="at step 0; .*NaN"):
        model.fit(x, Y, verbose=0, shuffle=False, callbacks=[GradientMonitor(on_alarm="raise")])


def test_the_alarm_says_so_where_no_batch_can_be_kept():
    model = EverySecondStep()  # Its train_step calls no compute_loss.
    model.compile("sgd")
    x = np.full((16, 6), np.inf, "float32")
    with pytest.raises(FloatingPointError, match="batch could not be kept, but .* looks into one"):
        model.fit(x, Y[:16], verbose=0, callbacks=[GradientMonitor(on_alarm="raise")], epochs=2)


class EverySecondStep(keras.Model):
    """A train_step that calls its optimiser at every second step only."""

    def __init__(self):
        super().__init__()
        self.dense, self.calls = layers.Dense(1), 0
        self.dense.build((None, 6))
        self.built = True

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.dense(data[0]) ** 2)
        self.calls += 1
        if self.calls % 2:
            weights = self.dense.trainable_variables
            self.optimizer.apply(tape.gradient(loss, [v.value for v in weights]), weights)
        return {"loss": loss}


def test_a_step_that_calls_no_optimiser_raises_no_alarm():
    model, monitor = EverySecondStep(), GradientMonitor(on_alarm="stop")
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, monitor)
    assert len(monitor.steps) == 12
    assert np.isfinite(monitor.norms).sum() == 6


def test_no_gradient_at_all_is_told_in_words_of_keras():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    model.compile("sgd", loss=lambda y, p: tf.stop_gradient(p))
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        fit(model, GradientMonitor())
    assert "apply" not in vars(model.optimizer)


def test_probes_at_an_interval_hold_time_steps():
    data = (DATA["lstm"][:8], Y[:8])
    monitor = GradientMonitor(probe_every=4, probe_data=data)
    fit(build("lstm"), monitor, kind="lstm")
    assert sorted(monitor.probes) == [4, 8, 12]
    assert monitor.probes[8]["lstm_cell"].backward_by_call.shape == (5,)


def test_plot_draws_the_norms():
    monitor = GradientMonitor()
    with pytest.raises(ValueError, match="the monitor has recorded nothing to plot"):
        monitor.plot()
    fit(build(), monitor, epochs=1)
    (image,) = monitor.plot().images
    assert np.allclose(image.get_array(), np.log10(monitor.norms.T))


def test_live_redraws_one_picture_after_every_epoch(monkeypatch):
    """What is shown is measured while it is shown: the figure is closed right afterwards."""
    steps = []

    class Shown:
        def update(self, figure):
            (image,) = figure.axes[0].images
            steps.append(image.get_array().shape[1])

    def display(figure, display_id):
        shown = Shown()
        shown.update(figure)
        return shown

    monkeypatch.setattr("IPython.display.display", display)
    open_before = plt.get_fignums()
    fit(build(), GradientMonitor(live=True), epochs=3)
    assert steps == [6, 12, 18]
    assert plt.get_fignums() == open_before


REPLICAS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from gradutils.monitor import GradientMonitor
from tests.package.test_monitor import build, fit

with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    mirrored = build(optimizer=keras.optimizers.SGD(0.0))
single = build(optimizer=keras.optimizers.SGD(0.0))
single.set_weights(mirrored.get_weights())
found = []
for model in (mirrored, single):
    model.layers[-2].rate = 0.0
    monitor = GradientMonitor()
    fit(model, monitor)
    found.append(monitor.norms)
assert found[0].shape == (12, 3), found[0].shape
np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
"""


def test_two_replicas_give_the_norms_of_one_device():
    """In a process of its own: logical devices are set before TensorFlow's first use."""
    run = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_monitor_belongs_to_one_model():
    monitor = GradientMonitor()
    fit(build(), monitor)
    with pytest.raises(ValueError, match="the monitor has recorded another optimiser"):
        fit(build(), monitor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a positive integer; received 0"),
        ({"limit": float("nan")}, "limit must be > 0; received nan"),
        ({"every": True}, "every must be a positive integer; received True"),
        ({"every": 1.5}, "every must be a positive integer; received 1.5"),
        ({"probe_every": 5}, "probe_data must be a pair"),
        ({"probe_every": -1}, "probe_every must be a positive integer; received -1"),
        ({"on_alarm": "ring"}, "on_alarm must be 'warn', 'stop', 'raise' or a callable"),
        ({"optimizers": "sgd"}, "optimizers must be a sequence of keras.Optimizer"),
        ({"optimizers": []}, "optimizers must be a sequence of keras.Optimizer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        GradientMonitor(**options)


def test_update_ratios_must_be_asked_for():
    with pytest.raises(ValueError, match="update_ratio must be True"):
        _ = GradientMonitor().update_ratios


def test_a_second_fit_compiles_nothing():
    model, monitor = build(), GradientMonitor()
    fit(model, monitor)
    recording = monitor._recording_function
    fit(model, monitor)
    assert monitor._recording_function is recording
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="another optimiser"):
        fit(model, monitor)


def test_a_model_that_the_first_step_builds():
    keras.utils.set_random_seed(0)
    monitored = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(1)])
    keras.utils.set_random_seed(0)
    plain = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(1)])
    monitor = GradientMonitor()
    for model, callbacks in ((monitored, [monitor]), (plain, [])):
        model.compile("sgd", "mse")
        fit(model, *callbacks)
    assert monitor.norms.shape == (12, 2) and np.isfinite(monitor.norms).all()
    for a, b in zip(values(monitored.weights), values(plain.weights), strict=True):
        np.testing.assert_array_equal(a, b)


def test_train_on_batch_is_recorded_like_fit():
    """Weights and norms are those of `fit` on the same batches; one step in 2 is recorded."""
    fitted, batched, monitor, some = build(), build(), GradientMonitor(), GradientMonitor(2)
    fit(fitted, monitor, epochs=1)
    for start in range(0, 96, 16):
        with some.training_step(batched):
            batched.train_on_batch(DATA["mlp"][start : start + 16], Y[start : start + 16])
    for a, b in zip(values(fitted.variables), values(batched.variables), strict=True):
        assert np.array_equal(a, b)
    assert some.steps.tolist() == [0, 2, 4]
    assert np.array_equal(some.norms, monitor.norms[::2])
    plain = batched.train_function
    fit(batched, some, epochs=1)  # goes on where the loop ended
    assert some.steps.tolist() == [0, 2, 4, 6, 8, 10]
    assert batched.train_function is plain


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_a_loop_of_ones_own_is_recorded(compiled):
    """The model is not compiled: the optimiser is given to the monitor."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, "tanh"), layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.0)
    monitor = GradientMonitor(every=2, optimizers=[optimizer])

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in weights]), weights)

    step = tf.function(step) if compiled else step
    model.compile(loss="mse")  # only for the reference
    for start in range(0, 80, 16):
        batch = DATA["mlp"][start : start + 16], Y[start : start + 16]
        with monitor.training_step(model):
            step(*batch)
        step(*batch)  # outside: is not recorded, and disturbs nothing
    assert monitor.steps.tolist() == [0, 2, 4]
    for row, start in enumerate((0, 32, 64)):
        names, expected = reference_norms(
            model, DATA["mlp"][start : start + 16], Y[start : start + 16]
        )
        assert monitor.layer_names == names
        assert monitor.norms[row] == pytest.approx(expected, rel=1e-4)


def test_alarms_and_probes_work_in_a_loop_of_ones_own():
    model, data = exploding(), (DATA["mlp"], Y)
    monitor = GradientMonitor(on_alarm="raise", probe_every=1, probe_data=data)
    with monitor.training_step(model):
        model.train_on_batch(*data)
    assert list(monitor.probes) == [1]
    with pytest.raises(FloatingPointError, match="at step 1"), monitor.training_step(model):
        model.train_on_batch(*data)


def test_an_exception_in_a_training_step_leaves_the_model_as_it_was():
    model, monitor = build(), GradientMonitor()
    with pytest.raises(RuntimeError, match="bang"), monitor.training_step(model):
        recording = model.train_function
        raise RuntimeError("bang")
    assert "apply" not in vars(model.optimizer)
    assert model.train_function is not recording
    assert monitor.norms.shape[0] == 0
    with monitor.training_step(model):
        model.train_on_batch(DATA["mlp"], Y)
    assert monitor.steps.tolist() == [0]


def test_a_training_step_that_records_nothing_says_it_once():
    model, monitor = build(), GradientMonitor()
    with pytest.warns(
        UserWarning, match="no call of a watched optimiser.*nothing recorded"
    ) as told:
        for _ in range(3):
            with monitor.training_step(model):
                pass
    assert len(told) == 1
    assert monitor.norms.shape[0] == 0


def test_a_model_compiled_anew_trains_with_its_new_loss_in_a_training_step():
    model, monitor = build(optimizer=keras.optimizers.SGD(0.0)), GradientMonitor()
    optimizer, scale = model.optimizer, (1.0, 3.0)
    for factor in scale:
        model.compile(optimizer, loss=lambda y, p, f=factor: f * p)
        model.layers[-2].rate = 0.0
        with monitor.training_step(model):
            model.train_on_batch(DATA["mlp"], Y)
    assert monitor.norms[1] == pytest.approx(3 * monitor.norms[0], rel=1e-5)


class _Root(layers.Layer):
    def call(self, x):
        return keras.ops.sqrt(keras.ops.relu(x))


@pytest.mark.parametrize("broken", [False, True])
def test_under_xla_the_alarm_rings_where_weights_become_nan_and_nowhere_else(broken):
    """The derivative of the root at 0 is NaN by the chain rule; XLA may find 0 instead."""
    keras.utils.set_random_seed(0)
    parts = [layers.Dense(4, use_bias=False), _Root(), layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *parts])
    model.compile("sgd", "mse", jit_compile=True)
    if broken:
        parts[0].kernel.assign(np.full((3, 4), np.nan))
    told = []
    monitor = GradientMonitor(on_alarm=lambda *alarm: told.append(alarm))
    x, y = np.zeros((8, 3), "float32"), np.zeros((8, 1), "float32")
    model.fit(x, y, verbose=0, callbacks=[monitor])
    spoiled = any(np.isnan(weights).any() for weights in model.get_weights())
    assert bool(told) == spoiled
    assert spoiled or not broken
