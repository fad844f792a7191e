import re
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import gradutils
import gradutils.checks
from gradutils._records import Trial
from gradutils.checks import CHECKS, Measured
from gradutils.diagnosis import THRESHOLDS, diagnose
from gradutils.probes import LayerRecord, Probe, one_batch, probe
from tools import ROOT

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((64, 16)).astype("float32"), rng.integers(0, 5, 64)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
NOTEBOOKS = ROOT / "notebooks"
static = partial(diagnose, look_ahead=0)  # what one pass shows, without the look ahead


def normal(gain, seed=0):
    return keras.initializers.VarianceScaling(gain**2, "fan_in", "untruncated_normal", seed=seed)


def net(depth, activation, gain, *, norm=None, dtype="float32", optimizer="sgd", width=32):
    model = keras.Sequential([keras.Input((16,))])
    for i in range(depth):
        dense = layers.Dense(width, kernel_initializer=normal(gain, i), dtype=dtype)
        model.add(dense)
        if norm:
            model.add(norm())
        model.add(layers.Activation(activation, dtype=dtype))
    model.add(layers.Dense(5, dtype="float32", kernel_initializer=normal(1, 99)))
    model.compile(optimizer, LOSS)
    return model


@pytest.mark.parametrize(
    ("model", "verdict"),
    [
        (lambda: net(3, "relu", 2**0.5), "healthy"),
        (lambda: net(30, "relu", 2**0.5, width=128), "healthy"),
        (lambda: net(30, "relu", 1), "vanishing"),
        (lambda: net(12, "sigmoid", 1), "vanishing"),
        (lambda: net(30, "tanh", 4), "exploding"),
        (lambda: net(60, "tanh", 1, norm=layers.LayerNormalization), "healthy"),
        (lambda: net(3, "tanh", 80), "saturated"),
    ],
)
def test_textbook_cases(model, verdict):
    found = static(model(), X, Y)
    assert found.verdict == verdict
    assert bool(found.findings) == (verdict != "healthy")


def test_healthy_hundred_layer_residual_net():
    x = inputs = keras.Input((16,))
    x = layers.Dense(32, kernel_initializer=normal(1))(x)
    for i in range(100):
        h = layers.LayerNormalization()(x)
        h = layers.Dense(32, "relu", kernel_initializer=normal(2**0.5, i))(h)
        x = layers.Add()([x, layers.Dense(32, kernel_initializer=normal(1, i))(h)])
    model = keras.Model(inputs, layers.Dense(5)(layers.LayerNormalization()(x)))
    assert static(model, X, Y, LOSS).verdict == "healthy"


def test_deep_batch_normalisation_explodes_and_is_named():
    found = static(net(60, "relu", 2**0.5, norm=layers.BatchNormalization), X, Y)
    assert found.verdict == "exploding"
    assert "batch normalisation" in found.findings[0].evidence


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_badly_scaled_data_are_named(factor):
    found = static(net(2, "relu", 2**0.5), factor * X, Y)
    assert found.verdict == "input scale"
    assert found.findings[0].remedy.startswith("Scale the inputs")


def test_dead_units():
    model = net(2, "relu", 1)
    dense = model.layers[2]
    dense.set_weights([dense.get_weights()[0], np.full(32, -50.0)])
    (finding,) = (f for f in static(model, X, Y).findings if f.kind == "dead units")
    assert finding.value == 1
    assert finding.threshold == THRESHOLDS["dead units"].limit
    assert finding.layers == [model.layers[3].name]


def test_non_finite_names_the_first_layer_and_nothing_else():
    model = net(4, "tanh", 1)
    dense = model.layers[2]
    W, b = dense.get_weights()
    W[3, 4] = np.nan
    dense.set_weights([W, b])
    found = static(model, X, Y)
    assert found.verdict == "non-finite"
    (finding,) = found.findings
    assert finding.layers[0] == dense.path
    assert "weights" in finding.evidence


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_over_finite_layers(value):
    found = diagnose(net(3, "tanh", 1), X, Y, lambda y, p: keras.ops.mean(p**2) + value)
    assert found.verdict == "non-finite"
    (finding,) = found.findings
    assert finding.layers == []
    assert "the loss is not finite, every layer is" in finding.evidence


def test_overflow_names_the_layer_whose_outputs_overflow_first():
    found = static(net(20, "relu", 60, dtype="mixed_float16"), X, Y)
    assert found.verdict == "non-finite"
    assert "outputs" in found.findings[0].evidence
    assert "float16" in found.findings[0].evidence


def test_float16_underflow_is_told_from_a_shrinking_product():
    """The loss is so small that float16 holds none of it; the product itself is healthy."""

    def faint(y, logits):
        return 2.0**-22 * LOSS(y, logits)

    half = static(net(6, "tanh", 1, dtype="mixed_float16"), X, Y, faint)
    assert half.verdict == "vanishing"
    assert "numbers round to 0" in half.findings[0].evidence
    assert "LossScaleOptimizer" in half.findings[0].remedy
    assert static(net(6, "tanh", 1), X, Y, faint).verdict == "healthy"
    shrinking = static(net(14, "sigmoid", 1), X, Y)
    assert "round to 0" not in shrinking.findings[0].evidence


@pytest.mark.parametrize(("gain", "kind"), [(0.6, "short reach"), (1.0, None), (3.0, "exploding")])
def test_recurrent_layers_are_judged_over_time(gain, kind):
    cell = layers.SimpleRNN(
        24, activation="linear", recurrent_initializer=keras.initializers.Orthogonal(gain, seed=0)
    )
    model = keras.Sequential([keras.Input((30, 2)), cell, layers.Dense(1)])
    x = rng.standard_normal((8, 30, 2)).astype("float32") * 1e-8
    found = static(model, x * 1e8, np.zeros((8, 1)), "mse")
    said = {f.kind: f for f in found.findings + found.notes if "time steps" in f.evidence}
    assert list(said) == ([kind] if kind else [])
    assert all("30 time steps" in f.evidence for f in said.values())


def test_report_as_text_html_and_picture():
    found = static(net(12, "sigmoid", 1), X, Y)
    text, page = str(found), found._repr_html_()
    for word in ("vanishing", "remedy", "initialization"):
        assert word in text
    assert "<strong>vanishing</strong>" in page
    lines = {line.get_label(): line.get_ydata() for line in found.plot().lines}
    weighted = [layer for layer in found.layers if layer.parameters]
    assert np.allclose(lines["backward signal"], [layer.backward for layer in weighted])
    assert np.allclose(lines["weight gradient"], [layer.gradient_norm for layer in weighted])


def test_every_chapter_that_is_named_exists():
    source = Path(gradutils.checks.__file__).read_text()
    slugs = {path.stem[3:] for path in NOTEBOOKS.glob("*.ipynb")}
    inline = set(re.findall(r'^ +"([a-z_]+)",?$', source, re.M))
    assert {page for check in CHECKS for page in (check.chapter, *check.also)} <= slugs
    assert {"clipping", "jacobian_products"} <= inline & slugs


def test_a_normalisation_in_front_mends_the_scale_of_the_data():
    front = layers.Normalization()
    front.adapt(1e4 * X)
    model = keras.Sequential([keras.Input((16,)), front, layers.Dense(8, "tanh"), layers.Dense(5)])
    assert static(model, 1e4 * X, Y, LOSS).verdict == "healthy"


def test_html_escapes_layer_names():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(4, "tanh", name="a<b")])
    model.add(layers.Dense(5))
    model.layers[0].set_weights([np.full((16, 4), 99.0), np.zeros(4)])
    page = static(model, X, Y, LOSS)._repr_html_()
    assert "a<b" not in page
    assert "a&lt;b" in page


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_thresholds_can_be_replaced(optimizer):
    model = net(8, "relu", 1)
    model.compile(optimizer, LOSS)
    assert static(model, X, Y).verdict == "healthy"
    assert static(model, X, Y, thresholds={"vanishing": 0.5}).verdict == "vanishing"


def test_every_threshold_says_what_it_limits_and_where_it_is_from():
    assert all(t.meaning and t.source and t.limit > 0 for t in THRESHOLDS.values())


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({"vanishing, adaptive": 3.0}, 3.0),
        ({"vanishing": 2.0}, 2.0),
        ({"vanishing": 2.0, "vanishing, adaptive": 3.0}, 3.0),
    ],
)
def test_the_limit_for_adaptive_optimisers_can_be_replaced(given, limit):
    model = net(20, "sigmoid", 1.0, optimizer="adam")
    x = np.random.default_rng(0).standard_normal((16, 16))
    found = static(model, x, np.zeros((16, model.output_shape[-1])), loss="mse", thresholds=given)
    assert [f.threshold for f in found.findings if f.kind == "vanishing"] == [limit]


def test_unknown_threshold():
    with pytest.raises(
        ValueError, match=r"thresholds must be named among .*; received \['slope'\]"
    ):
        static(net(2, "relu", 1), X, Y, thresholds={"slope": 1})


@pytest.mark.parametrize("limit", [np.nan, np.inf, "low", None])
def test_a_threshold_that_is_no_number(limit):
    with pytest.raises(ValueError, match=r"thresholds\['exploding'\] must be a finite number"):
        static(net(2, "relu", 1), X, Y, thresholds={"exploding": limit})


def test_errors_of_the_probe_pass_through():
    with pytest.raises(ValueError, match="x must hold no NaN"):
        static(net(2, "relu", 1), np.full_like(X, np.nan), Y)


@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize(("bias", "noted"), [(0.0, True), (6.0, False)])
def test_padded_steps_do_not_count(padding, bias, noted):
    sequences = np.zeros((8, 60, 2), "float32")
    steps = slice(10, 60) if padding == "pre" else slice(0, 50)
    sequences[:, steps] = rng.standard_normal((8, 50, 2))
    inputs = keras.Input((60, 2))
    lstm = layers.LSTM(32, unit_forget_bias=False, bias_initializer=_forget(32, bias))
    model = keras.Model(inputs, layers.Dense(1)(lstm(layers.Masking()(inputs))))
    model.compile("sgd", "mse")
    found = static(model, sequences, np.ones((8, 1)))
    said = [f for f in found.findings + found.notes if "time steps" in f.evidence]
    assert bool(said) == noted
    assert all("over 50 time steps" in f.evidence and "inf" not in f.evidence for f in said)


def _forget(units, value):
    def initializer(shape, dtype=None):
        bias = np.zeros(shape, "float32")
        bias[units : 2 * units] = value
        return keras.ops.convert_to_tensor(bias)

    return initializer


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_heads_the_loudest_is_the_yardstick(order):
    x = inputs = keras.Input((16,))
    for i in range(4):
        x = layers.Dense(32, "tanh", kernel_initializer=normal(1, i))(x)
    heads = [layers.Dense(5, name=name)(x) for name in ("main", "aux")]
    model = keras.Model(inputs, heads[::order])
    model.compile("sgd", [LOSS, LOSS], loss_weights=[1.0, 1e-6][::order])
    assert static(model, X, [Y, Y]).verdict == "healthy"


def test_zero_that_the_first_step_leaves_is_no_illness():
    def last_layer(*zeros):
        model = net(3, "tanh", 1)
        for i in zeros:
            layer = [part for part in model.layers if isinstance(part, layers.Dense)][i]
            layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
        return static(model, X, Y).verdict

    assert last_layer(-1) == "healthy"
    assert last_layer(-1, -2) == "equal units"  # two zeros in a row never learn


def test_batch_normalisation_beside_skip_connections_is_not_blamed():
    x = inputs = keras.Input((16,))
    x = layers.Dense(32)(x)
    for i in range(40):
        h = layers.BatchNormalization()(layers.Dense(32, kernel_initializer=normal(6, i))(x))
        x = layers.Add()([x, layers.Dense(32, kernel_initializer=normal(2, i))(h)])
    model = keras.Model(inputs, layers.Dense(5)(x))
    (finding,) = static(model, X, Y, LOSS, thresholds={"exploding": 0.5}).findings
    assert finding.kind == "exploding" and "without skip" not in finding.evidence


# Judgement on measurements that are made up, so that each limit can be met exactly


def record(**changes):
    healthy = {
        "name": "dense", "kind": "Dense", "activation": "tanh", "parameters": 4,
        "input_second_moment": 1.0, "second_moment": 1.0, "spread": 1.0, "backward": 1.0,
        "weight_norm": 1.0, "gradient_norm": 1.0, "update_ratio": 0.01, "dead": np.nan,
        "saturated": 0.0, "nonfinite_weights": 0, "nonfinite_outputs": 0, "nonfinite_backward": 0,
        "units": 64,
    }  # fmt: skip
    changes = healthy | changes
    return LayerRecord(**{"backward_by_call": np.array([changes["backward"]])} | changes)


def judged(monkeypatch, *records, outputs=1, loss=1.0, model=None, rescued=(), **options):
    """What `diagnose` says of these layers, and of `rescued` at a larger loss scale."""
    scales = []

    def measured(*arguments, loss_scale=None, **options):
        scales.append(loss_scale)
        return Probe(loss, list(records if loss_scale is None else rescued), outputs)

    monkeypatch.setattr("gradutils._keras_diagnosis.probe", measured)
    model = net(1, "relu", 1) if model is None else model
    found = static(model, X, Y, **options)
    return found, scales


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["vanishing", "exploding"])
def test_the_limits_of_a_trend_are_met_exactly(monkeypatch, kind, optimizer):
    adaptive = kind == "vanishing" and optimizer == "adam"
    limit = THRESHOLDS["vanishing, adaptive" if adaptive else kind].limit
    sign = -1 if kind == "vanishing" else 1
    for decades, verdict in ((limit * 1.001, kind), (limit * 0.999, "healthy")):
        layers = [record(backward=10 ** (sign * decades)), record(), record(dead=0.0)]
        model = net(1, "relu", 1, optimizer=optimizer)
        found, _ = judged(monkeypatch, *layers, model=model)
        assert found.verdict == verdict, decades
        if found.findings:
            assert found.findings[0].value == pytest.approx(decades)
            assert f"by {decades:.1f} decades over 3 layers" in found.findings[0].evidence


def trial(losses, spreads):
    return Trial(
        losses=np.array(losses), inference_losses=np.array(losses)[[0, -1]],
        layer_names=["dense"], update_ratios=np.full((len(losses) - 1, 1), 0.01),
        learning_rates=np.full(len(losses) - 1, 0.001), output_spreads=np.array(spreads),
        output_sizes=np.ones(2), dead=np.full(2, np.nan),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("look", "limit"),
    [
        (trial([1.0, 0.5], [1.0, 1.0]), "vanishing, adaptive"),
        (trial([1.0, 0.999], [1.0, 1.0]), "vanishing, no progress"),
        (trial([1.0, 0.999], [1e-4, 1e-4]), "vanishing, constant output"),
    ],
)
def test_how_far_an_adaptive_optimiser_lets_the_signal_fall_depends_on_the_look_ahead(look, limit):
    limits = {name: row.limit for name, row in THRESHOLDS.items()}
    (check,) = (c for c in CHECKS if c.id == "G22")
    for factor, found in ((1.001, True), (0.999, False)):
        layers = [record(backward=10 ** (-limits[limit] * factor)), record(), record(dead=0.0)]
        measured = Measured(Probe(1.0, layers, 1), limits, adaptive=True, trial=look)
        assert (check.test(measured) is not None) == found


def test_a_limit_that_is_met_is_passed(monkeypatch):
    found, _ = judged(monkeypatch, record(backward=1e-3), record(), thresholds={"vanishing": 3.0})
    assert found.verdict == "vanishing"
    for kind, field in (("dead units", "dead"), ("saturated", "saturated")):
        share = THRESHOLDS[kind].limit
        found, _ = judged(monkeypatch, record(**{field: share}), record())
        assert found.verdict == kind
        noun = "units are dead" if field == "dead" else "outputs are saturated"
        assert f"{share:.0%} of a layer's {noun}, in 1 layer" in found.findings[0].evidence
        below = record(**{field: 0.999 * share})
        assert judged(monkeypatch, below, record())[0].verdict == "healthy"


def test_dead_units_of_the_last_layer_do_not_count(monkeypatch):
    assert judged(monkeypatch, record(), record(dead=1.0))[0].verdict == "healthy"


@pytest.mark.parametrize(("steps", "noted"), [(9, False), (10, True)])
def test_ten_steps_are_a_sequence(monkeypatch, steps, noted):
    cell = record(backward_by_call=np.geomspace(1e-5, 1, steps), name="cell")
    found, _ = judged(monkeypatch, cell, record())
    assert found.verdict == "healthy"
    assert bool(found.notes) == noted
    for note in found.notes:
        assert (note.kind, note.layers) == ("short reach", ["cell"])
        assert "falls by 5.0 decades over 10 time steps" in note.evidence


def test_masked_steps_do_not_count(monkeypatch):
    norms = np.concatenate([np.zeros(5), np.geomspace(1, 0.5, 10), np.zeros(5)])
    assert judged(monkeypatch, record(backward_by_call=norms), record())[0].verdict == "healthy"
    assert judged(monkeypatch, record(backward_by_call=0 * norms))[0].verdict == "healthy"


@pytest.mark.parametrize(
    ("square", "verdict"),
    [(0.0, "healthy"), (0.9e4, "healthy"), (1e4, "input scale"), (1.1e-4, "healthy"),
     (1e-4, "input scale")],
)  # fmt: skip
def test_the_scale_of_the_inputs(monkeypatch, square, verdict):
    first = record(input_second_moment=square, name="first")
    found, _ = judged(monkeypatch, record(parameters=0, input_second_moment=1e9), first, record())
    assert found.verdict == verdict
    if found.findings:
        assert found.findings[0].layers == ["first"]


def test_the_strongest_of_several_outputs_is_where_the_signal_starts(monkeypatch):
    layers = [record(backward=1e-3), record(backward=1.0), record(backward=1e-3)]
    assert judged(monkeypatch, *layers, outputs=1)[0].verdict == "healthy"
    assert judged(monkeypatch, *layers, outputs=2)[0].verdict == "vanishing"


@pytest.mark.parametrize(("last", "scale"), [(1.0, 256.0), (1.01, 128.0), (1e-3, 2.0**17)])
def test_the_loss_scale_that_is_tried_lifts_the_last_signal_to_256(monkeypatch, last, scale):
    half = net(1, "relu", 1, dtype="mixed_float16")
    layers = [record(backward=0.0), record(backward=last)]
    rescued = [record(backward=last), record(backward=last)]
    found, scales = judged(monkeypatch, *layers, model=half, rescued=rescued)
    assert scales == [None, scale]
    assert 128 < last * scale <= 256
    assert "with a larger loss scale, by 0.0: numbers round to 0" in found.findings[0].evidence
    assert found.findings[0].chapter == "outlook"
    assert judged(monkeypatch, *layers)[1] == [None]


def test_weights_at_zero_are_about_to_leave_it(monkeypatch):
    zero = {"weight_norm": 0.0}
    first, last = record(backward=0.0), record()
    assert judged(monkeypatch, first, record(**zero), last)[0].verdict == "healthy"
    stuck = record(**zero, gradient_norm=0.0)
    assert judged(monkeypatch, first, stuck, last)[0].verdict == "vanishing"
    assert judged(monkeypatch, first, last)[0].verdict == "vanishing"


def test_up_to_three_layers_are_named_and_more_are_counted(monkeypatch):
    for count, text in ((2, "layers: a, b\n"), (3, "layers: a, b, c\n"), (4, "layers: a to d (4)")):
        layers = [record(name=name, backward=10.0 ** (-3 + i)) for i, name in enumerate("abcd")]
        found, _ = judged(monkeypatch, *layers[:count], thresholds={"vanishing": 0.5})
        assert text in f"{found}\n"


# Causes that one probe shows: a model that has it, and a sound twin


def test_a_layer_that_the_loss_does_not_depend_on_is_named():
    def cut(h):
        return keras.ops.cast(keras.ops.argmax(h, -1), "float32")[:, None]

    def model(*middle):
        return keras.Sequential(
            [keras.Input((16,)), layers.Dense(8), *middle, layers.Dense(5, name="head")]
        )

    found = static(model(layers.Lambda(cut, output_shape=(1,), name="decode")), X, Y, LOSS)
    assert found.verdict == "disconnected"
    assert "ends at" in found.findings[0].evidence and "decode" in found.findings[0].evidence
    assert static(model(), X, Y, LOSS).verdict == "healthy"


def test_nothing_returns_from_the_loss():
    def diagnosed(bias, target):
        start = keras.initializers.Constant(bias)
        last = layers.Dense(1, "relu", bias_initializer=start)
        model = keras.Sequential([keras.Input((16,)), layers.Dense(8, "tanh"), last])
        return static(model, X, np.full((64, 1), target), "mse")

    dead = diagnosed(bias=-99.0, target=1.0)
    assert dead.verdict == "vanishing"
    assert "nothing comes back" in dead.findings[0].evidence
    assert diagnosed(bias=0.5, target=1.0).verdict == "healthy"
    assert diagnosed(bias=-99.0, target=0.0).verdict == "healthy"  # solved: its gradients are 0 too


@pytest.mark.parametrize(("epsilon", "verdict"), [(0.0, "non-finite"), (1e-6, "healthy")])
def test_a_derivative_that_is_undefined_at_some_rows(epsilon, verdict):
    def length(h):
        return keras.ops.sqrt(keras.ops.sum(h * h, -1, keepdims=True) + epsilon)

    own = layers.Lambda(length, output_shape=(1,))
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(8, use_bias=False), own, layers.Dense(1)]
    )
    x = X.copy()
    x[::4] = 0
    found = static(model, x, np.ones((64, 1)), "mse")
    assert found.verdict == verdict
    if found.findings:
        assert "25% of the rows" in found.findings[0].evidence
        assert "epsilon" in found.findings[0].remedy


@pytest.mark.parametrize(
    ("initial", "verdict"), [(0.05, "equal units"), (0.0, "equal units"), (None, "healthy")]
)
def test_units_that_are_copies(initial, verdict):
    draw = normal(1) if initial is None else keras.initializers.Constant(initial)
    dense = [layers.Dense(n, a, kernel_initializer=draw) for n, a in ((8, "tanh"), (5, None))]
    assert static(keras.Sequential([keras.Input((16,)), *dense]), X, Y, LOSS).verdict == verdict


def test_sparse_inputs_are_no_fault():
    rows = np.eye(64, 20_000, dtype="float32")
    model = keras.Sequential([keras.Input((20_000,)), layers.Dense(8, "relu"), layers.Dense(5)])
    assert static(model, rows, Y, LOSS).verdict == "healthy"
    dense = np.full_like(rows, 5e-5)
    assert static(model, dense, Y, LOSS).verdict == "input scale"


def test_a_batch_is_taken_once():
    """A shuffled dataset would give each part of the diagnosis another batch."""
    taken = []

    class Counting(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, number):
            taken.append(number)
            return X[:16], Y[:16]

    model = net(1, "relu", 2**0.5, optimizer=keras.optimizers.SGD(-0.1))
    found = diagnose(model, Counting(workers=0))
    assert found.verdict == "step too large"
    assert found.findings[0].tried
    assert taken == [0]


def test_class_shares_are_those_of_all_targets():
    labels = (np.arange(64) == 5).astype("float32")[:, None]
    model = keras.Sequential([keras.Input((16,)), layers.Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    (head,) = probe(model, one_batch(X, labels, 4)).heads
    assert head.class_shares.tolist() == [63 / 64, 1 / 64]


def test_a_class_that_does_not_occur_is_not_rare():
    """The critic's labels are all 1 where a generator is trained."""
    model = keras.Sequential([keras.Input((16,)), layers.Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    model.fit(X, np.ones((64, 1)), epochs=15, verbose=0)
    found = diagnose(model, X, np.ones((64, 1)))
    assert found.verdict == "healthy" and not found.notes


def test_a_remedy_counts_the_decades_as_its_finding_does():
    """An embedding in front has a signal too, and it is no link of the chain."""
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(50, 16)])
    model.add(layers.Flatten())
    for i in range(9):
        model.add(layers.Dense(16, "sigmoid", kernel_initializer=normal(1, i)))
    model.add(layers.Dense(5, kernel_initializer=normal(1, 99)))
    model.compile("sgd", LOSS)
    tokens = np.random.default_rng(1).integers(50, size=(64, 4))
    found = diagnose(model, tokens, Y)
    (decades,) = re.findall(r"falls by ([\d.]+) decades", found.findings[0].evidence)
    assert any(f"instead of -{decades}" in line for line in found.findings[0].tried)


def test_remedies_are_combined_where_one_alone_is_slow():
    """y = 2x for x = 0 to 199: scaled inputs are stable, and learn at a larger rate only."""
    x = np.arange(200.0)[:, None]
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    first = diagnose(model, x, 2 * x).findings[0]
    assert "and a learning rate of" in first.tried[0]
    assert first.remedy.startswith("Scale the inputs") and "Raise the learning rate" in first.remedy


@pytest.mark.parametrize(("attends", "also"), [(True, ["transformers"]), (False, [])])
def test_the_chapter_about_transformers_is_named_where_the_model_attends(attends, also):
    inputs = keras.Input((4, 16))
    h = layers.MultiHeadAttention(2, 8)(inputs, inputs) if attends else inputs
    model = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(h)))
    model.compile(keras.optimizers.SGD(1e3), LOSS)
    x = np.stack([X] * 4, axis=1)
    found = {f.id: f for f in diagnose(model, x, Y, try_remedies=False).findings}
    assert found["G33"].also == also
    assert ("transformers" in str(found["G33"])) == attends


def test_updates_that_bfloat16_rounds_away_are_named():
    """With float32 weights the same steps are small, and no fault of the number type."""
    texts = {}
    for dtype in ("bfloat16", "float32"):
        model = net(2, "relu", 2**0.5, dtype=dtype, optimizer=keras.optimizers.Adam(1e-6))
        (found,) = diagnose(model, X, Y, try_remedies=False).findings
        assert found.kind == "step too small"
        texts[dtype] = found.evidence
    assert "bfloat16" in texts["bfloat16"]
    assert "bfloat16" not in texts["float32"]
