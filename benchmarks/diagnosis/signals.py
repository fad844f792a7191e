"""A few hundred Keras models whose signals vanish, explode, die or arrive, family by family.

The true state comes from two things that `diagnose` does not use: exact float64 backpropagation
through a twin of the model, and training. With one exception: a layer that is dead or saturated as
a whole makes a model ill, even where the layers above learn around it, and that is settled by the
same shares and limits as in `diagnose`. Of the other models, one whose loss falls by a third within
the budget, at the best of three learning rates, is healthy. One that does not is named after what
the twin shows: numbers that are not finite, a backward signal that falls or grows by two decades or
more. Thresholds were chosen on the families marked "tuning"; the report is about the families
marked "held out".
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tqdm import tqdm

from gradutils import datasets
from gradutils.diagnosis import diagnose

STEPS, BATCH = 120, 64
VERDICTS = ("non-finite", "exploding", "vanishing", "dead units", "saturated", "healthy")
CLASSES = 10


class Patient(NamedTuple):
    """A model to build, in any precision, and the data it is trained on."""

    family: str
    held_out: bool
    build: Callable[[str], keras.Model]
    optimizer: str
    data_scale: float = 1.0
    policy: str = "float32"
    sequence: bool = False


def normal(gain: float, seed: int) -> keras.initializers.Initializer:
    """Gaussian weights of variance gain^2 / fan-in."""
    return keras.initializers.VarianceScaling(gain**2, "fan_in", "untruncated_normal", seed=seed)


def dense_net(
    depth: int, activation: Any, gain: float, seed: int, *, width: int = 64,
    norm: Callable[[], keras.Layer] | None = None, bias: float = 0.0,
) -> Callable[[str], keras.Model]:  # fmt: skip
    """A plain net of `depth` hidden layers; with a normalisation before each activation."""

    def build(policy: str) -> keras.Model:
        h = inputs = keras.Input((64,), dtype="float64" if policy == "float64" else "float32")
        for i in range(depth):
            dense = layers.Dense(
                width, None if norm else activation, kernel_initializer=normal(gain, seed + i),
                bias_initializer=keras.initializers.Constant(bias), dtype=policy,
            )  # fmt: skip
            h = dense(h)
            if norm:
                h = layers.Activation(activation, dtype=policy)(norm(dtype=policy)(h))
        return keras.Model(inputs, head(h, policy, seed))

    return build


def head(h: Any, policy: str, seed: int) -> Any:
    """Ten logits, in float32 at least."""
    dtype = "float64" if policy == "float64" else "float32"
    initializer = keras.initializers.GlorotNormal(seed=seed + 999)
    return layers.Dense(CLASSES, kernel_initializer=initializer, dtype=dtype)(h)


def residual_net(
    depth: int, seed: int, *, norm: bool = False, scale: float = 1.0, width: int = 64
) -> Callable[[str], keras.Model]:
    """x + scale * W relu(norm(x)) with He weights."""

    def build(policy: str) -> keras.Model:
        inputs = keras.Input((64,), dtype="float64" if policy == "float64" else "float32")
        x = layers.Dense(width, kernel_initializer=normal(1, seed), dtype=policy)(inputs)
        for i in range(depth):
            h = layers.LayerNormalization(dtype=policy)(x) if norm else x
            h = layers.Activation("relu", dtype=policy)(h)
            h = layers.Dense(
                width, kernel_initializer=normal(2**0.5, seed + i + 1), dtype=policy
            )(h)  # fmt: skip
            h = layers.Rescaling(scale, dtype=policy)(h) if scale != 1 else h
            x = layers.Add(dtype=policy)([x, h])
        x = layers.LayerNormalization(dtype=policy)(x) if norm else x
        return keras.Model(inputs, head(x, policy, seed))

    return build


def conv_net(depth: int, gain: float, seed: int, activation: str = "relu") -> Callable:
    """8 x 8 images, 16 channels, 3 x 3 kernels."""

    def build(policy: str) -> keras.Model:
        inputs = keras.Input((64,), dtype="float64" if policy == "float64" else "float32")
        h = layers.Reshape((8, 8, 1), dtype=policy)(inputs)
        for i in range(depth):
            h = layers.Conv2D(
                16, 3, padding="same", activation=activation,
                kernel_initializer=normal(gain, seed + i), dtype=policy,
            )(h)  # fmt: skip
        return keras.Model(
            inputs, head(layers.GlobalAveragePooling2D(dtype=policy)(h), policy, seed)
        )

    return build


def recurrent_net(kind: Any, seed: int, gain: float = 1.0, **options: Any) -> Callable:
    """One pixel at a time, 64 steps of which the last 32 are empty; the class at the end."""

    def build(policy: str) -> keras.Model:
        inputs = keras.Input((64,), dtype="float64" if policy == "float64" else "float32")
        h = layers.Reshape((64, 1), dtype=policy)(inputs)
        cell = kind(
            32, kernel_initializer=normal(1, seed), dtype=policy,
            recurrent_initializer=keras.initializers.Orthogonal(gain, seed=seed), **options,
        )  # fmt: skip
        return keras.Model(inputs, head(cell(h), policy, seed))

    return build


def broken(build: Callable, value: float, layer: int) -> Callable:
    """The same model with one weight set to NaN or inf."""

    def built(policy: str) -> keras.Model:
        model = build(policy)
        kernel = [v for v in model.trainable_variables if v.name == "kernel"][layer]
        array = keras.ops.convert_to_numpy(kernel).copy()
        array.flat[0] = value
        kernel.assign(array)
        return model

    return built


def patients() -> Iterator[Patient]:
    """All models, family by family."""
    he, small = 2**0.5, 3**-0.5
    batch_norm, layer_norm = layers.BatchNormalization, layers.LayerNormalization
    for seed in (10_000, 20_000):
        for opt in ("sgd", "adam"):
            for depth in (3, 8, 15, 30):
                yield Patient("relu, He", False, dense_net(depth, "relu", he, seed), opt)
                yield Patient("relu, Glorot", False, dense_net(depth, "relu", 1, seed), opt)
                yield Patient("sigmoid, Glorot", False, dense_net(depth, "sigmoid", 1, seed), opt)
                yield Patient("relu, 1/(3n)", True, dense_net(depth, "relu", small, seed), opt)
                yield Patient("elu, LeCun", True, dense_net(depth, "elu", 1, seed), opt)
                yield Patient("silu, Glorot", True, dense_net(depth, "silu", 1, seed), opt)
                yield Patient("softplus", True, dense_net(depth, "softplus", 1, seed), opt)
            for gain in (0.5, 1.0, 5 / 3, 4.0):
                yield Patient("tanh, 25 layers", False, dense_net(25, "tanh", gain, seed), opt)
                yield Patient(
                    "wide tanh, 15", True, dense_net(15, "tanh", gain, seed, width=192), opt
                )
            for depth in (5, 20, 60):
                net = dense_net(depth, "relu", he, seed, norm=batch_norm)
                yield Patient("batch norm", False, net, opt)
                net = dense_net(depth, "tanh", 1, seed, norm=layer_norm)
                yield Patient("layer norm", True, net, opt)
            for depth in (10, 40, 100):
                net = residual_net(depth, seed, norm=True)
                yield Patient("pre-norm residual", False, net, opt)
                net = residual_net(depth, seed, scale=depth**-0.5)
                yield Patient("scaled residual", True, net, opt)
            for depth in (10, 40):
                yield Patient("plain residual", True, residual_net(depth, seed), opt)
            for depth, gain in ((3, he), (12, he), (12, 0.7), (20, 0.7)):
                yield Patient("convolution", True, conv_net(depth, gain, seed), opt)
            for bias in (0.0, -2.0, -6.0):
                net = dense_net(3, "relu", 1, seed, bias=bias)
                yield Patient("relu, negative bias", False, net, opt)
            for gain in (3.0, 60.0):
                yield Patient("saturated", False, dense_net(3, "tanh", gain, seed), opt)
            for scale in (1e-4, 1.0, 1e4):
                net = dense_net(2, "tanh", 1, seed)
                yield Patient("data scale", True, net, opt, data_scale=scale)
            for value in (np.nan, np.inf):
                yield Patient(
                    "one bad weight", False, broken(dense_net(5, "relu", he, seed), value, 2), opt
                )
            net = dense_net(12, "relu", 6, seed)
            yield Patient("float16 overflow", True, net, opt, policy="mixed_float16")
        for gain in (0.5, 1.0):
            net = recurrent_net(layers.SimpleRNN, seed, gain)
            yield Patient("simple RNN", False, net, "adam", sequence=True)
        for bias in (False, True):
            net = recurrent_net(layers.LSTM, seed, unit_forget_bias=bias)
            yield Patient("LSTM", True, net, "adam", sequence=True)


def digits(patient: Patient) -> tuple[np.ndarray, np.ndarray]:
    """Batches of the digits, shapes (steps, batch, 64) and (steps, batch)."""
    rng = np.random.default_rng(0)
    data = datasets.digits(rng)
    rows = np.concatenate([rng.permutation(len(data.x_train)) for _ in range(6)])
    rows = rows[: STEPS * BATCH].reshape(STEPS, BATCH)
    x = patient.data_scale * data.x_train[rows]
    if patient.sequence:
        x[..., 32:] = 0.0  # what is to be remembered comes first
    return x, data.y_train[rows]


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def trains(model: keras.Model, patient: Patient, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the loss falls by a third, at the best of three learning rates."""
    start = model.get_weights()
    rates = {"sgd": (0.003, 0.03, 0.3), "adam": (3e-4, 1e-3, 1e-2)}[patient.optimizer]
    optimizer = make_optimizer(patient.optimizer)
    optimizer.build(model.trainable_variables)
    weights = [v.value for v in model.trainable_variables]

    @tf.function
    def step(batch: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = LOSS(labels, model(batch, training=True))
        optimizer.apply(tape.gradient(loss, weights), model.trainable_variables)
        return loss

    for rate in rates[::-1]:
        model.set_weights(start)
        for variable in optimizer.variables:
            variable.assign(tf.zeros_like(variable.value))
        optimizer.learning_rate.assign(rate)
        losses = []
        for batch, labels in zip(x.astype("float32"), y, strict=True):
            losses.append(float(step(batch, labels)))
            if not np.isfinite(losses[-1]):
                break
        if len(losses) == STEPS and np.mean(losses[-10:]) < 2 / 3 * np.log(CLASSES):
            model.set_weights(start)
            return True
    model.set_weights(start)
    return False


def make_optimizer(name: str) -> keras.Optimizer:
    """SGD with momentum, or Adam."""
    return (
        keras.optimizers.SGD(0.03, momentum=0.9) if name == "sgd" else keras.optimizers.Adam(1e-3)
    )


def exact_decades(model: keras.Model, patient: Patient, x: np.ndarray, y: np.ndarray) -> float:
    """log10 of the first over the last backward signal, in a float64 twin, by a tape of its own.

    Layers that hold a kernel are compared; of a recurrent network, the first eight inputs in time
    with the last eight.
    """
    twin = patient.build("float64")
    twin.set_weights(model.get_weights())
    kernels = [layer for layer in twin.layers if hasattr(layer, "kernel")]
    inspect = keras.Model(twin.input, [layer.output for layer in kernels])
    with tf.GradientTape() as tape:
        inputs = tf.constant(x, tf.float64)
        tape.watch(inputs)
        signals = tf.nest.flatten(inspect(inputs, training=True))
        log_p = tf.nn.log_softmax(signals[-1])
        loss = -tf.reduce_mean(tf.gather(log_p, y, axis=1, batch_dims=1))
    if patient.sequence:
        gradient = np.asarray(tape.gradient(loss, inputs))
        ends = np.linalg.norm(gradient[:, :8]), np.linalg.norm(gradient[:, -8:])
    else:
        first, last = tape.gradient(loss, [signals[0], signals[-1]])
        ends = np.linalg.norm(first), np.linalg.norm(last)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.log10(ends[0]) - np.log10(ends[1]))


def hidden_shares(model: keras.Model, x: np.ndarray) -> tuple[float, float]:
    """Largest share of dead and of saturated units over the hidden layers."""
    dead = saturated = 0.0
    hidden = [layer for layer in model.layers if hasattr(layer, "activation")][:-1]
    outputs = tf.nest.flatten(keras.Model(model.input, [h.output for h in hidden])(x))
    for layer, output in zip(hidden, outputs, strict=True):
        values = np.asarray(output, float).reshape(-1, output.shape[-1])
        if layer.activation.__name__ == "relu":
            dead = max(dead, (values == 0).all(axis=0).mean())
        if layer.activation.__name__ == "tanh":
            saturated = max(saturated, (np.abs(values) > 0.97).mean())
    return dead, saturated


def true_state(model: keras.Model, patient: Patient, x: np.ndarray, y: np.ndarray) -> str:
    """The verdict that `diagnose` should reach; "unclear" models are not counted."""
    outputs = np.asarray(model(x[0].astype("float32"), training=True), float)
    if not np.isfinite(outputs).all():
        return "non-finite"
    if not patient.sequence:
        dead, saturated = hidden_shares(model, x[0].astype("float32"))
        if dead > 0.8 or saturated > 0.9:
            return "dead units" if dead > 0.8 else "saturated"
    if trains(model, patient, x, y):
        return "healthy"
    decades = exact_decades(model, patient, x[0], y[0])
    if abs(decades) >= 2:
        return "vanishing" if decades < 0 else "exploding"
    scale = np.log10(patient.data_scale)
    return "unclear" if scale == 0 else ("exploding" if scale > 0 else "vanishing")


def examine(patient: Patient) -> tuple[str, str]:
    """The true state and the verdict."""
    model = patient.build(patient.policy)
    x, y = digits(patient)
    state = true_state(model, patient, x, y)
    optimizer = make_optimizer(patient.optimizer)
    if patient.policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, LOSS)
    verdict = diagnose(model, x[0].astype("float32"), y[0]).verdict
    keras.backend.clear_session()
    return state, verdict


def report(title: str, pairs: list[tuple[str, str]]) -> None:
    """Print a confusion matrix, true states in rows, and the two figures that are the goal."""
    counts = Counter(pairs)
    print(f"\n{title}: {len(pairs)} models")
    print(f"{'true state':12s}" + "".join(f"{v:>12s}" for v in VERDICTS))
    for state in VERDICTS:
        print(f"{state:12s}" + "".join(f"{counts[state, verdict]:12d}" for verdict in VERDICTS))
    right = sum(n for (state, verdict), n in counts.items() if state == verdict)
    healthy = [verdict for state, verdict in pairs if state == "healthy"]
    alarms = sum(verdict in ("vanishing", "exploding") for verdict in healthy)
    print(f"right: {right / len(pairs):.1%}; ", end="")
    print(f"healthy models called vanishing or exploding: {alarms} of {len(healthy)}")


def run(quick: bool) -> None:
    """Examine every patient, or one of each family, and print the two halves' reports."""
    chosen = list(patients())
    if quick:
        chosen = list({patient.family: patient for patient in chosen}.values())
    pairs: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
    unclear = 0
    for patient in tqdm(chosen):
        state, verdict = examine(patient)
        if state == "unclear":
            unclear += 1
            continue
        pairs[patient.held_out].append((state, verdict))
        if state != verdict:
            tqdm.write(f"{patient.family}, {patient.optimizer}: {state}, called {verdict}")
    report("Signals, tuning half", pairs[False])
    report("Signals, half set aside", pairs[True])
    print(f"\nnot counted, since their true state is unclear: {unclear}")
