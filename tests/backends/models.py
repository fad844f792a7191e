"""Eight models with weights and data from one NumPy generator, and what TensorFlow finds in them.

Run in the environment with TensorFlow, ``python -m tests.backends.models`` writes `figures.json`
anew; the tests compare every other backend with it.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

NAMES = [
    "deep_relu", "sigmoid", "cnn_bn", "residual_ln", "lstm", "gru", "transformer", "embedding",
]  # fmt: skip
FIGURES = Path(__file__).with_name("figures.json")
#: Fields of a layer's record that are compared.
FIELDS = [
    "input_second_moment", "second_moment", "spread", "backward", "backward_by_call",
    "weight_norm", "gradient_norm", "update_ratio",
]  # fmt: skip
_SHAPES = {"cnn_bn": (12, 12, 3), "lstm": (30, 3), "gru": (30, 3)}
_TOKENS = ("transformer", "embedding")


class Draws:
    """The weights of one model, asked for in the order in which Keras lists them, then its data."""

    def __init__(self, name):
        self.name, self.rng = name, np.random.default_rng(sum(map(ord, name)))

    def kernel(self, *shape, fan=None):
        fan = np.prod(shape[:-1]) if fan is None else fan
        return self.rng.standard_normal(shape) / np.sqrt(fan)

    def scale(self, *shape):
        return 1 + 0.1 * self.rng.standard_normal(shape)

    def bias(self, *shape):
        return 0.05 * self.rng.standard_normal(shape)

    def data(self):
        """x and y of 64 samples; images have their channels last."""
        if self.name in _TOKENS:
            x = self.rng.integers(0, 20, (64, 12)).astype("int32")
        else:
            x = self.rng.standard_normal((64, *_SHAPES.get(self.name, (16,)))).astype("float32")
        return x, self.rng.integers(0, 5, 64).astype("int32")


def in_keras(name):
    """The model in Keras, compiled with Adam, and its data."""
    import keras

    inputs, h = _body(name)
    h = keras.layers.Dense(5, "softmax" if name == "embedding" else None)(h)
    model, draws = keras.Model(inputs, h), Draws(name)
    for variable in model.trainable_variables:
        shape, role = tuple(variable.shape), variable.path.split("/")[-1]
        if role == "gamma":
            value = draws.scale(*shape)
        elif "bias" in role or role == "beta":
            value = draws.bias(*shape)
        else:
            fan = 1 if role == "embeddings" else 16 if "attention" in variable.path else None
            value = draws.kernel(*shape, fan=fan)
        variable.assign(value)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=name != "embedding")
    model.compile(keras.optimizers.Adam(1e-3), loss)
    return model, *draws.data()


def _body(name):
    """The inputs, and what reaches the last layer."""
    import keras
    from keras import layers

    tokens = name in _TOKENS
    shape, kind = ((12,), "int32") if tokens else (_SHAPES.get(name, (16,)), "float32")
    h = inputs = keras.Input(shape, dtype=kind)
    if name == "deep_relu":
        for _ in range(22):
            h = layers.Dense(64, "relu")(h)
    elif name == "sigmoid":
        for _ in range(12):
            h = layers.Dense(32, "sigmoid")(h)
    elif name == "cnn_bn":
        for channels in (8, 16):
            h = layers.Conv2D(channels, 3, padding="same", use_bias=False)(h)
            h = layers.Activation("relu")(layers.BatchNormalization()(h))
            h = layers.MaxPooling2D()(h)
        h = layers.Flatten()(h)
    elif name == "residual_ln":
        h = layers.Dense(32)(h)
        for _ in range(8):
            branch = layers.Dense(32, "relu")(layers.LayerNormalization()(h))
            h = layers.Add()([h, layers.Dense(32)(branch)])
        h = layers.LayerNormalization()(h)
    elif name in ("lstm", "gru"):
        h = (layers.LSTM if name == "lstm" else layers.GRU)(16)(h)
    elif name == "transformer":
        h = layers.Embedding(20, 16)(h)
        h = layers.LayerNormalization()(layers.Add()([h, layers.MultiHeadAttention(4, 4)(h, h)]))
        branch = layers.Dense(16)(layers.Dense(32, "gelu")(h))
        h = layers.LayerNormalization()(layers.Add()([h, branch]))
        h = layers.GlobalAveragePooling1D()(h)
    elif name == "embedding":
        h = layers.GlobalAveragePooling1D()(layers.Embedding(20, 16)(h))
        h = layers.Dense(8, "tanh")(h)
    return inputs, h


def figures_of(diagnosis):
    """What is compared of a diagnosis, in plain types."""
    layers = [dataclasses.asdict(layer) for layer in diagnosis.layers if layer.parameters]
    return {
        "verdict": diagnosis.verdict,
        "evidence": [found.evidence for found in diagnosis.findings],
        "loss": diagnosis.loss,
        "layers": [
            {"kind": layer["kind"]} | {field: _plain(layer[field]) for field in FIELDS}
            for layer in layers
        ],
    }


def _plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if np.isnan(value) else float(value)


def main():
    from gradutils.diagnosis import diagnose

    found = {}
    for name in NAMES:
        model, x, y = in_keras(name)
        found[name] = figures_of(diagnose(model, x, y, try_remedies=False))
        print(name, found[name]["verdict"], len(found[name]["layers"]), flush=True)
    FIGURES.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
