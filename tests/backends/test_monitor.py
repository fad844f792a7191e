"""The monitor of Keras' training on torch."""

import keras
import numpy as np
import pytest
import torch
from keras import layers

from gradutils.monitor import GradientMonitor

RNG = np.random.default_rng(0)
X, Y = (RNG.standard_normal((48, n)).astype("float32") for n in (5, 2))


def build(optimizer="adam", policy="float32"):
    keras.utils.set_random_seed(1)
    hidden = layers.Dense(6, "tanh", dtype=policy)
    model = keras.Sequential([keras.Input((5,)), hidden, layers.Dropout(0.2), layers.Dense(2)])
    optimizer = keras.optimizers.get(optimizer)
    if policy != "float32":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**10)
    model.compile(optimizer, "mse")
    return model


def fit(model, *callbacks, epochs=2):
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options)


def values(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(v) for v in variables]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_the_norms_are_those_of_the_gradients_that_the_optimiser_receives(policy):
    model, monitor, expected = build(policy=policy), GradientMonitor(), []
    apply = model.optimizer.apply

    def noting(gradients, variables=None):
        scale = 2.0**10 if policy != "float32" else 1.0
        squares = [float((g.double() ** 2).sum()) / scale**2 for g in gradients]
        expected.append([np.sqrt(squares[0] + squares[1]), np.sqrt(squares[2] + squares[3])])
        return apply(gradients, variables)

    model.optimizer.apply = noting
    fit(model, monitor)
    assert monitor.layer_names == [layer.path for layer in model.layers if layer.weights]
    np.testing.assert_allclose(monitor.norms, expected, rtol=1e-6)


def test_the_trained_weights_are_those_of_a_run_without_the_monitor():
    plain = build()
    fit(plain)
    watched = build()
    fit(watched, GradientMonitor(update_ratio=True, on_alarm="warn"))
    for one, other in zip(values(plain), values(watched), strict=True):
        np.testing.assert_array_equal(one, other)
    assert "apply" not in vars(watched.optimizer)
    assert "compute_loss" not in vars(watched)


def test_update_ratios_of_plain_steps_are_the_rate_times_the_gradient_over_the_weights():
    model, monitor = build(keras.optimizers.SGD(0.5)), GradientMonitor(update_ratio=True)
    before = model.get_weights()
    fit(model, monitor, epochs=1)
    first = np.sqrt(sum((w.astype(float) ** 2).sum() for w in before[:2]))
    expected = 0.5 * monitor.norms[0, 0] / first
    assert monitor.update_ratios[0, 0] == pytest.approx(expected, rel=1e-4)


def test_only_every_other_step_is_recorded_if_so_asked():
    monitor = GradientMonitor(every=2)
    fit(build(), monitor)
    assert monitor.steps.tolist() == [0, 2, 4] and monitor.norms.shape == (3, 2)


def test_a_layer_without_a_gradient_has_the_norm_nan():
    inputs = keras.Input((5,))
    h = layers.Lambda(keras.ops.stop_gradient)(layers.Dense(3)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(h))
    model.compile("sgd", "mse")
    monitor = GradientMonitor()
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        fit(model, monitor, epochs=1)
    assert np.isnan(monitor.norms[:, 0]).all() and (monitor.norms[:, 1] > 0).all()


def test_an_alarm_names_the_rows_and_the_place():
    inputs = keras.Input((5,))
    root = layers.Lambda(keras.ops.sqrt, name="root")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="last")(root))
    model.compile("sgd", "mse")
    x = np.abs(X)
    x[3, 0] = -1
    monitor = GradientMonitor(on_alarm="stop")
    with pytest.warns(UserWarning) as told:
        model.fit(x, Y, batch_size=16, shuffle=False, verbose=0, callbacks=[monitor])
    (message,) = [str(w.message) for w in told if "gradient norm" in str(w.message)]
    assert "of the batch's 16 rows, alone give it: 3" in message
    assert monitor.diagnosis.verdict == "non-finite" and model.stop_training


def test_a_loop_of_ones_own_is_recorded():
    model, monitor = build(), GradientMonitor()
    for _ in range(4):
        with monitor.training_step(model):
            loss = torch.mean((model(X, training=True) - torch.as_tensor(Y)) ** 2)
            model.zero_grad()
            loss.backward()
            variables = model.trainable_variables
            with torch.no_grad():
                model.optimizer.apply([v.value.grad for v in variables], variables)
    assert monitor.norms.shape == (4, 2) and (monitor.norms > 0).all()
