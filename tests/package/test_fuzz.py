"""Every public function under random arguments: a documented result, or an error that names one.

Arguments are drawn from what a user might pass: sane values, and with them NaN, inf, zeros,
negative and huge numbers, wrong types and shapes. A warning counts as a failure. An error must be a
ValueError or a TypeError that names an argument and says what was received, and it leaves the
arguments as they were. From finite arguments of ordinary size come finite results, unless a
docstring says else.
"""

import ast
import re
from collections.abc import Callable
from typing import NamedTuple

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import traitlets
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gradutils import (
    activations,
    datasets,
    diagnosis,
    exercises,
    explorables,
    initializers,
    monitor,
    networks,
    patients,
    plots,
    probes,
    recurrent,
    theory,
)  # fmt: skip
from tests.package.test_house import MODULES

ACTIVATION = st.sampled_from(
    [*activations.ACTIVATIONS, "rleu", "", 3, None, (np.tanh,), (np.tanh, 1)]
)
STRANGE = st.sampled_from(
    [np.nan, np.inf, -np.inf, -1, -0.5, 0, 1e-300, 1e300, True, "2", None, [1.0]]
)
RULE = st.sampled_from([*initializers.RULES, "orthogonal", "ortho"]) | st.floats(0, 3) | STRANGE


def real(low, high):
    """A number of a sane range, as Python or NumPy has it, or a strange one."""
    sane = st.floats(low, high)
    return st.one_of(sane, sane.map(np.float64), sane.map(np.float32), STRANGE)


def whole(low, high):
    sane = st.integers(low, high)
    return st.one_of(
        sane, sane.map(np.int64), st.sampled_from([0, -1, 2.0, 2.5, np.nan, True, "2", None])
    )


def array(*shape, dtype=float):
    """An array of that shape and of ordinary numbers; or of another shape; or not all finite."""
    ordinary = st.floats(-100, 100, allow_subnormal=False)
    strange = ordinary | st.sampled_from([np.nan, np.inf, 1e200, 0.0])
    return st.one_of(
        arrays(dtype, shape, elements=ordinary),
        arrays(
            dtype, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4), elements=ordinary
        ),
        arrays(dtype, shape, elements=strange),
    )


def labels(count, classes):
    shapes = st.sampled_from([(count,), (count, 1), (0,), (count + 1,)])
    whole_numbers = arrays(int, shapes, elements=st.integers(-1, classes))
    return whole_numbers | arrays(float, count, elements=st.floats(0, 2))


SEED = st.integers(-1, 9) | st.sampled_from([None, 0.5, True])
RNG = st.integers(0, 9).map(np.random.default_rng) | st.sampled_from([None, 7])
WIDTHS = st.lists(st.integers(1, 5), min_size=2, max_size=4)
NETS = st.builds(
    networks.MLP,
    widths=st.lists(st.integers(1, 5), max_size=3).map(lambda hidden: [3, *hidden, 2]),
    activation=st.sampled_from([*activations.ACTIVATIONS]),
    initializer=st.sampled_from([*initializers.RULES, "orthogonal"]),
    normalization=st.sampled_from([None, "batch", "layer", "rms"]),
    branch_scale=st.sampled_from([None, 1.0, 0.1]),
    seed=st.integers(0, 9),
)
RNNS = st.builds(recurrent.RNN, st.just(2), st.just(3), st.just(1), seed=st.integers(0, 9))
LSTMS = st.builds(recurrent.LSTM, st.just(2), st.just(3), seed=st.integers(0, 9))


class Case(NamedTuple):
    """A call, its arguments, whether infinite results are documented, what errors may name too."""

    call: Callable
    arguments: dict
    may_be_infinite: bool = False
    also_named: tuple = ()


THEORY = {"activation": ACTIVATION, "sigma_w": real(0, 5), "sigma_b": real(0, 2)}
CASES = {
    "activations.get": Case(activations.get, {"activation": ACTIVATION}),
    "initializers.orthogonal": Case(
        initializers.orthogonal, {"shape": st.lists(whole(1, 9), max_size=3).map(tuple), "rng": RNG}
    ),
    "initializers.draw": Case(
        initializers.draw,
        {"rule": RULE, "shape": st.lists(whole(1, 9), max_size=3).map(tuple), "rng": RNG},
    ),
    "theory.gaussian_average": Case(
        lambda q: theory.gaussian_average(np.tanh, q), {"q": real(0, 100)}
    ),
    "theory.second_moment_map": Case(theory.second_moment_map, THEORY | {"q": real(0, 100)}),
    "theory.fixed_point": Case(theory.fixed_point, THEORY, may_be_infinite=True),
    "theory.chi": Case(theory.chi, THEORY | {"q": st.none() | real(0, 100)}),
    "theory.critical_sigma_w": Case(
        theory.critical_sigma_w, {"activation": ACTIVATION, "sigma_b": real(0, 2)}
    ),
    "theory.correlation_map": Case(theory.correlation_map, THEORY | {"c": real(-1, 1)}),
    "theory.correlation_fixed_point": Case(theory.correlation_fixed_point, THEORY),
    "theory.depth_scale": Case(theory.depth_scale, THEORY, may_be_infinite=True),
    "theory.forward_gain": Case(theory.forward_gain, {"activation": ACTIVATION}),
    "theory.backward_factor": Case(theory.backward_factor, {"activation": ACTIVATION}),
    "datasets.spirals": Case(
        datasets.spirals,
        {"samples": whole(1, 50), "rng": RNG, "turns": real(-3, 3), "noise": real(0, 2)},
    ),
    "datasets.digits": Case(datasets.digits, {"rng": RNG, "test_share": real(0, 1)}),
    "datasets.adding_problem": Case(
        datasets.adding_problem, {"samples": whole(1, 9), "length": whole(1, 9), "rng": RNG}
    ),
    "networks.MLP": Case(
        networks.MLP,
        {
            "widths": st.lists(whole(1, 5), max_size=4),
            "activation": ACTIVATION,
            "initializer": RULE,
            "seed": SEED,
            "bias_std": real(0, 2),
            "normalization": st.sampled_from([None, "batch", "layer", "rms", "group", 3]),
            "branch_scale": st.none() | real(-1, 1),
            "dtype": st.sampled_from([float, "float32", np.float16, int, "float7", None]),
            "storage": st.sampled_from([None, np.float16, "float16", int, "float7"]),
        },
    ),
    "networks.MLP.forward": Case(networks.MLP.forward, {"self": NETS, "x": array(4, 3)}),
    "networks.MLP.backward": Case(
        lambda net, x, grad_output: net.backward(net.forward(x), grad_output),
        {"net": NETS, "x": array(4, 3), "grad_output": array(4, 2)},
    ),
    "networks.MLP.jacobian": Case(
        networks.MLP.jacobian, {"self": NETS, "x": array(3), "layer": whole(-4, 4)},
        also_named=("normalization",),
    ),
    "networks.cross_entropy": Case(
        networks.cross_entropy, {"logits": array(4, 3), "labels": labels(4, 3)}
    ),
    "networks.squared_error": Case(
        networks.squared_error, {"outputs": array(4, 2), "targets": array(4, 2)}
    ),
    "networks.layer_norms": Case(
        networks.layer_norms, {"net": NETS, "x": array(4, 3), "y": labels(4, 2)},
        also_named=("labels",),
    ),
    "networks.train": Case(
        networks.train,
        {
            "net": NETS, "x": array(4, 3), "y": labels(4, 2),
            "loss": st.just(networks.cross_entropy),
            "learning_rate": real(0, 0.1), "epochs": whole(1, 3), "rng": RNG,
            "batch_size": whole(1, 5),
            "optimizer": st.sampled_from([*networks.OPTIMIZERS, "Adam", None]),
            "momentum": real(0, 0.99), "clip_norm": real(0.1, 9),
        },
        may_be_infinite=True,
        also_named=("labels",),
    ),
    "networks.clip": Case(
        networks.clip, {"gradients": st.lists(array(2, 2), max_size=3), "norm": real(0, 9)}
    ),
    "networks.accuracy": Case(
        networks.accuracy, {"net": NETS, "x": array(4, 3), "labels": labels(4, 2)}
    ),
    "recurrent.RNN": Case(
        recurrent.RNN,
        {"inputs": whole(1, 4), "units": whole(1, 4), "outputs": whole(1, 4),
         "activation": ACTIVATION, "recurrent": RULE, "kernel": RULE, "seed": SEED},
    ),
    "recurrent.RNN.forward": Case(
        recurrent.RNN.forward,
        {"self": RNNS, "u": array(2, 4, 2), "x0": st.none() | array(2, 3)},
    ),
    "recurrent.RNN.backward": Case(
        lambda net, u, grad_output: net.backward(net.forward(u), grad_output),
        {"net": RNNS, "u": array(2, 4, 2), "grad_output": array(2, 1)},
    ),
    "recurrent.RNN.jacobians": Case(
        recurrent.RNN.jacobians, {"self": RNNS, "u": array(4, 2), "x0": st.none() | array(3)}
    ),
    "recurrent.LSTM": Case(
        recurrent.LSTM,
        {"inputs": whole(1, 4), "units": whole(1, 4), "forget_bias": real(-5, 5),
         "recurrent": RULE, "kernel": RULE, "seed": SEED},
    ),
    "recurrent.LSTM.forward": Case(recurrent.LSTM.forward, {"self": LSTMS, "u": array(2, 4, 2)}),
    "recurrent.LSTM.cell_jacobians": Case(
        recurrent.LSTM.cell_jacobians, {"self": LSTMS, "u": array(4, 2)}
    ),
    "recurrent.spectral_radius": Case(recurrent.spectral_radius, {"W": array(3, 3)}),
    "patients.patient": Case(
        patients.patient,
        {"name": st.sampled_from([*patients.PATIENTS, "deep", None]), "seed": SEED},
    ),
    "patients.search_learning_rate": Case(
        patients.search_learning_rate,
        {
            "make": st.just(lambda seed: networks.MLP([64, 10], "linear", "lecun", seed=seed)),
            "learning_rates": st.lists(real(0, 1), max_size=2),
            "seeds": st.lists(st.integers(0, 3), max_size=2),
            "samples": whole(1, 20), "epochs": whole(1, 2),
        },
        may_be_infinite=True,
        also_named=("learning_rate",),
    ),
    "exercises.check": Case(
        lambda exercise, answer: exercises.check(exercise, **answer),
        {
            "exercise": st.sampled_from(["01.1", "04.4", "19.1", "02.5", "99.1", "", None]),
            "answer": st.dictionaries(
                st.sampled_from(["at_0_9", "at_0_99", "exponents", "layers", "chi", "sigma_w"]),
                real(0, 100) | array(4) | st.just(max), max_size=2,
            ),
        },
    ),
    "explorables.Explorable": Case(
        lambda name, setting: explorables.Explorable(name, **setting),
        {
            "name": st.sampled_from([*explorables.EXPLORABLES, "deep"]),
            "setting": st.dictionaries(
                st.sampled_from(["depth", "seed", "activation", "sigma_w", "colour"]),
                whole(1, 100) | real(0, 3) | ACTIVATION, max_size=1,
            ),
        },
    ),
    "plots.layer_profile": Case(
        plots.layer_profile,
        {
            "series": st.dictionaries(st.sampled_from("ab"), array(5), max_size=2),
            "ylabel": st.just("norm"),
            "theory": st.none() | st.dictionaries(st.sampled_from("ab"), array(5), max_size=2),
            "regimes": st.none() | st.dictionaries(
                st.sampled_from("ab"), st.sampled_from([*plots.REGIMES, "fine"]), max_size=2
            ),
            "log": st.booleans(),
        },
    ),
    "plots.step_heatmap": Case(plots.step_heatmap, {"norms": array(4, 3)}),
    "plots.activation_gallery": Case(
        plots.activation_gallery, {"names": st.lists(ACTIVATION, max_size=3), "limit": real(1, 9)},
        also_named=("activation",),
    ),
    "plots.histogram_row": Case(
        plots.histogram_row,
        {
            "samples": st.dictionaries(
                st.sampled_from("ab"), arrays(float, (5,), elements=st.floats(-9, 9)), max_size=2
            ),
            "xlabel": st.just("value"), "bins": whole(1, 20),
            "limits": st.sampled_from([None, (0, 1), (1, 0), (0, np.nan)]),
        },
    ),
    "plots.phase_diagram": Case(
        plots.phase_diagram, {"sigma_w": array(4), "sigma_b": array(3), "chi": array(3, 4)}
    ),
}  # fmt: skip

MODEL = keras.Sequential(
    [
        keras.Input((3,)),
        keras.layers.Dense(4, "relu", kernel_initializer=keras.initializers.HeNormal(0)),
        keras.layers.Dense(2, kernel_initializer=keras.initializers.HeNormal(0)),
    ]
)
LOSSES = st.sampled_from(["mse", "cross", None, 3, keras.losses.MeanSquaredError()])
DATA = {"model": st.sampled_from([MODEL, None]), "x": array(4, 3), "y": st.none() | array(4, 2)}
CASES |= {
    "probes.probe": Case(
        probes.probe,
        DATA | {"loss": LOSSES, "batch_size": whole(1, 9), "loss_scale": st.none() | real(1, 1e4)},
    ),
    "diagnosis.diagnose": Case(
        diagnosis.diagnose,
        DATA
        | {
            "loss": LOSSES,
            "thresholds": st.none()
            | st.dictionaries(
                st.sampled_from([*diagnosis.THRESHOLDS, "sick"]), real(0, 9), max_size=1
            ),
        },
    ),
    "monitor.GradientMonitor": Case(
        monitor.GradientMonitor,
        {
            "every": whole(1, 9),
            "probe_every": whole(0, 9),
            "probe_data": st.sampled_from([None, (np.ones((4, 3)), np.ones((4, 2)))]),
            "on_alarm": st.sampled_from([None, "stop", "warn", "raise", "shout", 3, print]),
            "limit": real(1, 1e9),
        },
    ),
}
#: These are called by `diagnose` alone, with what it has checked, or take no arguments.
CALLED_BY_DIAGNOSE = {"checks", "remedies", "trials"}
WITHOUT_ARGUMENTS = {"plots.use_style", "probes.optimizer_state", "probes.optimizer_twin"}


def is_record(node):
    """Whether a class only names the fields of a result."""
    return isinstance(node, ast.ClassDef) and (
        any(ast.unparse(base) == "NamedTuple" for base in node.bases)
        or any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    )


def public_calls():
    """Yield the names of the package's functions and classes, and of its networks' methods."""
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not is_record(node):
                yield f"{module}.{node.name}"
                methods = node.body if module in ("networks", "recurrent") else []
                for method in (m for m in methods if isinstance(m, ast.FunctionDef)):
                    if "property" not in map(ast.unparse, method.decorator_list):
                        yield f"{module}.{node.name}.{method.name}"


def test_every_public_function_is_tried():
    public = {name for name in public_calls() if "._" not in name}
    public -= {name for name in public if name.split(".")[0] in CALLED_BY_DIAGNOSE}
    assert public == CASES.keys() | WITHOUT_ARGUMENTS


def leaves(value):
    """Yield the arrays and numbers in an argument or a result."""
    if isinstance(value, float | np.ndarray | np.floating):
        yield np.asarray(value)
    elif isinstance(value, dict):
        yield from leaves(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, networks.MLP | recurrent.RNN):
        yield from leaves(value.weights + value.biases)


def ordinary(arguments):
    """Whether all numbers among the arguments are finite and of ordinary size."""
    return all((np.abs(a) <= 1e5).all() for a in leaves(arguments) if a.dtype.kind == "f")


def unchanged(before, after):
    return np.array_equal(before, after, equal_nan=before.dtype.kind == "f")


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40, phases=[Phase.generate, Phase.shrink])
@given(data=st.data())
def test_a_documented_result_or_a_documented_error(name, data):
    case = CASES[name]
    arguments = {key: data.draw(strategy, key) for key, strategy in case.arguments.items()}
    inputs = [np.copy(a) for a in leaves(arguments)]
    try:
        result = case.call(**arguments)
    except (ValueError, TypeError) as error:
        words = re.findall(r"\w+", str(error))
        assert {*arguments, *case.also_named} & {*words}, error
        assert "received" in str(error), error
        assert all(map(unchanged, inputs, leaves(arguments)))
    except (
        traitlets.TraitError
    ) as error:  # "The 'depth' trait ... expected an int, not the str '2'."
        assert name == "explorables.Explorable" and any(
            key in str(error) for key in arguments["setting"]
        )
    else:
        if ordinary(arguments) and not case.may_be_infinite:
            assert all(np.isfinite(a).all() for a in leaves(result) if a.dtype.kind == "f")
    finally:
        plt.close("all")
