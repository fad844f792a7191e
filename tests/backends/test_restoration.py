"""On every backend the model and all that is random are as before, bit by bit."""

import random

import keras
import numpy as np
import pytest
from keras import layers

from gradutils.diagnosis import diagnose
from gradutils.probes import probe
from gradutils.trials import look_ahead

#: On torch Keras assigns the state in place, which its own backward pass refuses.
STATEFUL = keras.backend.backend() != "torch"


def model_with_everything():
    """Return a model with statistics, seeds, an unseeded dropout, a frozen layer and a state."""
    keras.utils.set_random_seed(0)
    frozen = layers.Dense(8, "relu")
    frozen.trainable = False
    model = keras.Sequential(
        [
            keras.Input((6, 4), batch_size=16),
            frozen,
            layers.GRU(5, return_sequences=True, stateful=STATEFUL),
            layers.BatchNormalization(),
            layers.SpectralNormalization(layers.Dense(5, "tanh")),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l2"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 99)), loss)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 6, 4)).astype("float32")
    y = rng.integers(0, 3, 16)
    model.fit(x, y, epochs=2, batch_size=16, verbose=0)
    return model, x, y


def everything(model):
    """Return name -> a copy of all that could have been changed."""
    found = {
        f"variable {i} {v.path}": keras.ops.convert_to_numpy(v)
        for i, v in enumerate([*model.variables, *model.metrics_variables])
    }
    found |= {
        f"optimizer {v.path}": keras.ops.convert_to_numpy(v) for v in model.optimizer.variables
    }
    gru = model.layers[1]
    found["state"] = [keras.ops.convert_to_numpy(state) for state in gru.states or []]
    found["python"] = random.getstate()
    found["numpy"] = np.random.get_state()[1]  # noqa: NPY002
    found["attributes"] = {layer.name: sorted(vars(layer)) for layer in model._flatten_layers()}
    found["losses"] = [len(layer._losses) for layer in model._flatten_layers()]
    found["trainable"] = [layer.trainable for layer in model._flatten_layers()]
    if keras.backend.backend() == "torch":
        import torch

        found["torch"] = torch.get_rng_state().numpy()
        found["gradients"] = [
            None if p.grad is None else p.grad.numpy().copy() for p in model.parameters()
        ]
        found["flags"] = [p.requires_grad for p in model.parameters()]
        found["modes"] = [module.training for module in model.modules()]
    return found


@pytest.mark.parametrize("look", [probe, look_ahead, diagnose])
def test_nothing_of_the_model_changes(look):
    model, x, y = model_with_everything()
    before = everything(model)
    look(model, x, y)
    after = everything(model)
    assert [*before] == [*after]
    for name, value in before.items():
        np.testing.assert_equal(after[name], value, name)


def test_nothing_changes_where_the_data_do_not_fit():
    model, x, y = model_with_everything()
    before = everything(model)
    with pytest.raises(ValueError, match="x must fit the model"):
        probe(model, x[:, :, :3], y)
    for name, value in everything(model).items():
        np.testing.assert_equal(value, before[name], name)


def test_training_goes_on_as_if_there_had_been_no_probe():
    weights = []
    for look in (lambda *_: None, diagnose):
        model, x, y = model_with_everything()
        look(model, x, y)
        model.fit(x, y, epochs=2, batch_size=16, verbose=0)
        weights.append([keras.ops.convert_to_numpy(v) for v in model.variables])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
