"""The transformer in NumPy: exact cases, Keras' layers, finite differences, refusals."""

import keras
import numpy as np
import pytest

from gradutils import activations, datasets, networks
from gradutils.transformers import PLACEMENTS, Attention, FeedForward, Transformer


def tokens(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def derivative(loss, array, place, step=1e-6):
    """Central difference of a loss with respect to one entry, which is put back."""
    kept, values = array[place], []
    for change in (step, -step):
        array[place] = kept + change
        values.append(loss())
    array[place] = kept
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qk_norm": True},
        {"cap": 2.0},
        {"gated": True, "activation": "silu"},
        {"parts": ["attention"], "skip_scale": 0.0},
        {"parts": ["feedforward"], "activation": "tanh", "gain": 0.7},
        {"skip_scale": 1.2, "branch_scale": 0.3},
    ],
    ids=str,
)
@pytest.mark.parametrize("ends", [{}, {"inputs": 5, "outputs": 3}], ids=["bare", "with ends"])
def test_gradients_are_finite_differences(placement, options, ends):
    net = Transformer(8, 2, 2, placement=placement, seed=0, **options, **ends)
    x = tokens(1, 2, 4, 5 if ends else 8)
    error = tokens(2, *net.forward(x).output.shape)
    back = net.backward(net.forward(x), error)
    assert len(back.weights) == len(net.weights)
    rng = np.random.default_rng(3)
    for W, g in zip([*net.weights, x], [*back.weights, back.input], strict=True):
        assert g.shape == W.shape
        place = tuple(rng.integers(W.shape))
        found = derivative(lambda: np.sum(net.forward(x).output * error), W, place)
        assert g[place] == pytest.approx(found, rel=1e-5, abs=1e-7)


def test_delta_is_the_derivative_by_the_stream():
    """A change of the stream is a change of what the first branch adds to it."""
    net = Transformer(6, 2, placement="pre", seed=0)
    x, error = tokens(1, 2, 3, 6), tokens(2, 2, 3, 6)
    run = net.forward(x)
    back = net.backward(run, error)
    rest = Transformer(6, 2, placement="pre", seed=0)
    rest.branches = rest.branches[1:]
    h = run.stream[1].copy()
    found = derivative(lambda: np.sum(rest.forward(h).output * error), h, (1, 2, 3))
    assert back.delta[1][1, 2, 3] == pytest.approx(found, rel=1e-6)
    assert back.input == pytest.approx(back.delta[0])


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_that_of_keras(heads):
    """Keras holds 1 / sqrt(d) in float32, so d is a power of 4, of which that is exact."""
    x, ours = tokens(0, 2, 5, 16), Attention(16, heads, seed=1)
    theirs = keras.layers.MultiHeadAttention(heads, 16 // heads, use_bias=False, dtype="float64")
    theirs.build(x.shape, x.shape)
    into = [W.reshape(16, heads, -1) for W in ours.weights[:3]]
    theirs.set_weights([into[0], into[1], into[2], ours.weights[3].reshape(heads, -1, 16)])
    output, scores = theirs(x, x, return_attention_scores=True)
    seen = ours.forward(x)
    np.testing.assert_allclose(seen.output, output, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(seen.attention, scores, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_block_is_that_of_keras_layers(placement):
    norm = keras.layers.RMSNormalization(epsilon=0, dtype="float64")
    norm.build((None, None, 12))
    net, x = (
        Transformer(12, 1, 3, placement=placement, branch_scale=0.5, seed=0),
        tokens(1, 2, 5, 12),
    )

    def branch(part, h):
        return np.asarray(part.forward(np.asarray(h)).output)

    h = x
    for part in net.branches:
        h = {
            "none": lambda h, F: h + 0.5 * branch(F, h),
            "pre": lambda h, F: h + 0.5 * branch(F, norm(h)),
            "post": lambda h, F: norm(h + 0.5 * branch(F, h)),
            "sandwich": lambda h, F: h + 0.5 * np.asarray(norm(branch(F, norm(h)))),
            "output": lambda h, F: h + 0.5 * np.asarray(norm(branch(F, h))),
        }[placement](h, part)
    run = net.forward(x)
    np.testing.assert_allclose(run.stream[-1], h, rtol=1e-9, atol=1e-11)
    last = h if placement in ("none", "post") else norm(h)
    np.testing.assert_allclose(run.output, last, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("gated", [False, True])
def test_a_feedforward_net_is_its_formula(gated):
    x, net = tokens(0, 2, 3, 4), FeedForward(4, 6, "gelu", gated=gated, gain=1.5, seed=1)
    *gate, U, V = net.weights
    hidden = activations.get("gelu").phi(x @ U) * (x @ gate[0] if gated else 1)
    np.testing.assert_allclose(net.forward(x).output, hidden @ V, rtol=1e-12)
    assert len(gate) == gated


def test_weights_have_the_variance_that_is_promised():
    # The relative deviation of a variance of n Gaussians is sqrt(2 / n): 5 of them.
    for W, expected in (
        *((W, 1 / 200) for W in Attention(200, seed=0).weights),
        *zip(FeedForward(200, 300, gain=3.0, seed=1).weights, (1 / 200, 9 / 300), strict=True),
    ):
        assert W.var() == pytest.approx(expected, rel=5 * np.sqrt(2 / W.size))


def test_logits_are_bounded_by_the_norm_and_the_softmax_by_the_cap():
    x = 1000 * tokens(0, 2, 6, 16)
    assert np.abs(Attention(16, 4, qk_norm=True, seed=1).forward(x).logits).max() <= 2 + 1e-12
    a = Attention(16, 4, cap=1.5, seed=1).forward(x).attention
    assert a.max() <= 1 / (1 + 5 * np.exp(-3.0)) + 1e-12
    assert a.min() > 0


def test_entropy_is_that_of_equal_and_of_single_weights():
    attention = Attention(4, seed=0)
    assert attention.forward(np.ones((1, 7, 4))).entropy == pytest.approx(np.log(7))
    alone = attention.forward(1e6 * tokens(1, 1, 7, 4)).entropy
    assert alone == pytest.approx(0, abs=1e-12)


def test_with_equal_tokens_queries_and_keys_get_no_gradient():
    attention, x = Attention(8, 2, seed=0), np.tile(tokens(1, 3, 1, 8), (1, 5, 1))
    _, (W_q, W_k, W_v, W_o) = attention.backward(attention.forward(x), tokens(2, 3, 5, 8))
    assert np.abs(W_q).max() < 1e-13 > np.abs(W_k).max()
    assert np.abs(W_v).max() > 0.1 < np.abs(W_o).max()


def test_a_transformer_learns_with_the_packages_training():
    x, y = datasets.recall(3200, np.random.default_rng(0), pairs=3)
    net = Transformer(16, 1, inputs=6, outputs=3, qk_norm=True, seed=0)
    networks.train(
        net, x, y, loss=networks.cross_entropy, learning_rate=0.01, epochs=1, batch_size=16,
        optimizer="adam", rng=np.random.default_rng(1),
    )  # fmt: skip
    assert networks.accuracy(net, *datasets.recall(300, np.random.default_rng(2), pairs=3)) > 0.9


def test_an_overflow_is_returned():
    net = FeedForward(4, 4, gated=True, seed=0)
    assert not np.isfinite(net.forward(np.full((1, 1, 4), 1e200)).output).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Attention(0, seed=0), "width must be a positive integer; received 0"),
        (lambda: Attention(8, 3, seed=0), "width must be a multiple of 3 heads; received 8"),
        (lambda: Attention(8, cap=0, seed=0), "cap must be > 0; received 0"),
        (lambda: Attention(8), "either seed or rng must be given"),
        (lambda: FeedForward(4, 2.5, seed=0), "hidden must be a positive integer"),
        (lambda: FeedForward(4, 4, gain=-1, seed=0), "gain must be a finite number >= 0"),
        (
            lambda: Transformer(8, 1, placement="inside", seed=0),
            "placement must be one of none, pre",
        ),
        (lambda: Transformer(8, 1, parts="attention", seed=0), "parts must hold some of attention"),
        (lambda: Transformer(8, 1, parts=[], seed=0), "parts must hold some of attention"),
        (lambda: Transformer(8, 1, branch_scale=np.inf, seed=0), "branch_scale must be a finite"),
        (lambda: Transformer(8, 1, inputs=0, seed=0), "inputs must be a positive integer"),
        (lambda: Transformer(8, 1, outputs=1.5, seed=0), "outputs must be a positive integer"),
        (
            lambda: Transformer(8, 1, seed=0).forward(np.ones((2, 8))),
            r"x must have shape \(batch, tokens, 8\); received \(2, 8\)",
        ),
        (
            lambda: Attention(4, seed=0).backward(
                Attention(4, seed=0).forward(np.ones((1, 2, 4))), np.ones((1, 2, 3))
            ),
            r"grad must have the output's shape \(1, 2, 4\); received \(1, 2, 3\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
