"""Every public function under random arguments: a documented result, or an error that names one.

Arguments are drawn from what a user might pass: sane values, and with them NaN, inf, zeros,
negative and huge numbers, wrong types and shapes. A warning counts as a failure. An error must be a
ValueError or a TypeError that names an argument and says what was received, and it leaves the
arguments as they were. From finite arguments of ordinary size come finite results, unless a
docstring says else.
"""

import inspect
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
    diagnosis,
    exercises,
    explorables,
    initializers,
    networks,
    patients,
    plots,
    recurrent,
    transformers,
)
from tests.package.test_docstrings import RAISE_NOTHING, public_callables

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


MODEL = keras.Sequential(
    [
        keras.Input((3,)),
        keras.layers.Dense(4, "relu", kernel_initializer=keras.initializers.HeNormal(0)),
        keras.layers.Dense(2, kernel_initializer=keras.initializers.HeNormal(0)),
    ]
)
BY_NAME = st.dictionaries(st.sampled_from("ab"), array(5), max_size=2)
SHAPE = st.lists(whole(1, 9), max_size=3).map(tuple)
#: Argument -> what a user might pass for it, whichever function takes it.
ARGUMENTS = {
    "activation": ACTIVATION, "f": st.just(np.tanh), "q": real(0, 100), "c": real(-1, 1),
    "sigma_w": real(0, 5), "sigma_b": real(0, 2), "rng": RNG, "seed": SEED, "shape": SHAPE,
    "rule": RULE, "initializer": RULE, "recurrent": RULE, "kernel": RULE,
    "samples": whole(1, 20), "length": whole(1, 9), "turns": real(-3, 3), "noise": real(0, 2),
    "test_share": real(0, 1), "widths": st.lists(whole(1, 5), max_size=4), "bias_std": real(0, 2),
    "normalization": st.sampled_from([None, "batch", "layer", "rms", "group", 3]),
    "branch_scale": st.none() | real(-1, 1),
    "dtype": st.sampled_from([float, "float32", np.float16, int, "float7", None]),
    "storage": st.sampled_from([None, np.float16, "float16", int, "float7"]),
    "net": NETS, "x": array(4, 3), "y": labels(4, 2), "layer": whole(-4, 4),
    "grad_output": array(4, 2), "logits": array(4, 2), "labels": labels(4, 2),
    "outputs": array(4, 2), "targets": array(4, 2), "loss": st.just(networks.cross_entropy),
    "learning_rate": real(0, 0.1), "epochs": whole(1, 3), "batch_size": whole(1, 9),
    "optimizer": st.sampled_from([*networks.OPTIMIZERS, "Adam", None]),
    "momentum": real(0, 0.99), "clip_norm": real(0.1, 9),
    "gradients": st.lists(array(2, 2), max_size=3), "norm": real(0, 9),
    "inputs": whole(1, 4), "units": whole(1, 4), "forget_bias": real(-5, 5),
    "rnn": RNNS, "u": array(2, 4, 2), "x0": st.none() | array(2, 3), "W": array(3, 3),
    "make": st.just(lambda seed: networks.MLP([64, 10], "linear", "lecun", seed=seed)),
    "learning_rates": st.lists(real(0, 1), max_size=2),
    "seeds": st.lists(st.integers(0, 3), max_size=2),
    "exercise": st.sampled_from(["01.1", "04.4", "19.1", "02.5", "99.1", "", None]),
    "answer": st.dictionaries(
        st.sampled_from(["at_0_9", "at_0_99", "exponents", "layers", "chi", "sigma_w"]),
        real(0, 100) | array(4) | st.just(max), max_size=2,
    ),
    "setting": st.dictionaries(
        st.sampled_from(["depth", "seed", "activation", "sigma_w", "colour"]),
        whole(1, 100) | real(0, 3) | ACTIVATION, max_size=1,
    ),
    "series": BY_NAME, "theory": st.none() | BY_NAME, "ylabel": st.just("norm"),
    "regimes": st.none() | st.dictionaries(
        st.sampled_from("ab"), st.sampled_from([*plots.REGIMES, "fine"]), max_size=2
    ),
    "log": st.booleans(), "norms": array(4, 3), "xlabel": st.just("value"), "bins": whole(1, 20),
    "nodes": st.dictionaries(st.sampled_from("ab"), st.tuples(real(0, 9), real(0, 9)), max_size=2),
    "arrows": st.lists(st.tuples(*map(st.sampled_from, ("ab", "abc", ["", "0.5"]))), max_size=2),
    "names": st.lists(ACTIVATION, max_size=3), "limit": real(1, 9),
    "model": st.sampled_from([MODEL, None]), "loss_scale": st.none() | real(1, 1e4),
    "thresholds": st.none() | st.dictionaries(
        st.sampled_from([*diagnosis.THRESHOLDS, "sick"]), real(0, 9), max_size=1
    ),
    "every": whole(1, 9), "probe_every": whole(0, 9),
    "probe_data": st.sampled_from([None, (np.ones((4, 3)), np.ones((4, 2)))]),
    "width": whole(1, 8), "heads": whole(1, 3), "hidden": whole(1, 5), "blocks": whole(1, 3),
    "gain": real(0, 3), "cap": real(0.1, 9), "pairs": whole(1, 6), "skip_scale": real(-1, 1),
    "placement": st.sampled_from([*transformers.PLACEMENTS, "inside", None]),
    "parts": st.lists(st.sampled_from(["attention", "feedforward", "mlp"]), max_size=2),
    "on_alarm": st.sampled_from([None, "stop", "warn", "raise", "shout", 3, print]),
}  # fmt: skip


class Case(NamedTuple):
    """What a call takes, whether infinite results are documented, what errors may name too."""

    arguments: dict = {}  # noqa: RUF012
    call: Callable | None = None
    may_be_infinite: bool = False
    also_named: tuple = ()


TO_A_MODEL = {
    "y": st.none() | array(4, 2),
    "loss": st.sampled_from(["mse", "cross", None, 3, keras.losses.MeanSquaredError()]),
}
IN_BINS = {
    "samples": st.dictionaries(
        st.sampled_from("ab"), arrays(float, (5,), elements=st.floats(-9, 9)), max_size=2
    ),
    "limits": st.sampled_from([None, (0, 1), (1, 0), (0, np.nan)]),
}
#: Calls with arguments that their names do not tell, or that need a line around them.
OWN = {
    "theory.chi": Case({"q": st.none() | real(0, 100)}),
    "theory.fixed_point": Case(may_be_infinite=True),
    "theory.depth_scale": Case(may_be_infinite=True),
    "networks.MLP.forward": Case({"self": NETS}),
    "networks.MLP.backward": Case(
        call=lambda net, x, grad_output: net.backward(net.forward(x), grad_output)
    ),
    "networks.MLP.jacobian": Case({"self": NETS, "x": array(3)}, also_named=("normalization",)),
    "networks.layer_norms": Case(also_named=("labels",)),
    "networks.train": Case(may_be_infinite=True, also_named=("labels",)),
    "recurrent.RNN": Case({"outputs": whole(1, 4)}),
    "recurrent.RNN.forward": Case({"self": RNNS}),
    "recurrent.RNN.backward": Case(
        {"grad_output": array(2, 1)},
        lambda rnn, u, grad_output: rnn.backward(rnn.forward(u), grad_output),
    ),
    "recurrent.RNN.jacobians": Case({"self": RNNS, "u": array(4, 2), "x0": st.none() | array(3)}),
    "recurrent.LSTM.forward": Case({"self": LSTMS}),
    "recurrent.LSTM.cell_jacobians": Case({"self": LSTMS, "u": array(4, 2)}),
    "patients.patient": Case({"name": st.sampled_from([*patients.PATIENTS, "deep", None])}),
    "patients.search_learning_rate": Case(may_be_infinite=True, also_named=("learning_rate",)),
    "exercises.check": Case(call=lambda exercise, answer: exercises.check(exercise, **answer)),
    "explorables.Explorable": Case(
        {"name": st.sampled_from([*explorables.EXPLORABLES, "deep"])},
        lambda name, setting: explorables.Explorable(name, **setting),
    ),
    "transformers.Transformer": Case({"outputs": st.none() | whole(1, 4)}),
    "plots.side_by_side": Case(
        {
            "panels": st.dictionaries(st.sampled_from(["loss", "norm"]), BY_NAME, max_size=2),
            "colors": st.dictionaries(st.sampled_from("ab"), st.just("C1"), max_size=2),
            "log": st.sampled_from([(), ["loss"], ["other"]]),
            "start": whole(0, 9),
        }
    ),
    "plots.activation_gallery": Case(also_named=("activation",)),
    "plots.histogram_row": Case(IN_BINS),
    "plots.layer_histograms": Case(IN_BINS),
    "plots.phase_diagram": Case({"sigma_w": array(4), "sigma_b": array(3), "chi": array(3, 4)}),
    "probes.probe": Case(TO_A_MODEL),
    "diagnosis.diagnose": Case(TO_A_MODEL),
}
#: Modules that `diagnose` alone calls.
OF_DIAGNOSE = {"checks", "remedies", "trials"}


def cases():
    """Yield name -> the case of each public function, class and method of a network."""
    for name, value in public_callables():
        module, _, *method = name.split(".")
        record = hasattr(value, "__match_args__") or hasattr(value, "_fields")
        tried = name not in RAISE_NOTHING and module not in OF_DIAGNOSE
        tried &= not method or module in ("networks", "recurrent")
        parameters = inspect.signature(value).parameters
        if tried and parameters and not record:
            yield name, complete(OWN.get(name, Case()), value)


def complete(case, value):
    """Return a case with its call and with all arguments whose names tell what they are."""
    call, given = case.call or value, dict(case.arguments)
    for name, parameter in inspect.signature(call).parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
        if name not in given and (needed or name in ARGUMENTS):
            given[name] = ARGUMENTS[name]
    if "seed" in given:
        given.pop("rng", None)  # the other way to give the same
    return case._replace(call=call, arguments=given)


CASES = dict(cases())


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
