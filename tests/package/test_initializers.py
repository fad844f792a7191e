import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradutils import initializers
from gradutils.initializers import RULES, _fans, _standard_deviation, draw, orthogonal

sizes = st.integers(1, 40)


def test_fans_of_dense_and_convolution():
    assert _fans((3, 5)) == (3, 5)
    assert _fans((3, 3, 16, 32)) == (144, 288)  # 3 * 3 * 16 inputs reach one output


@pytest.mark.parametrize(
    ("rule", "variance"),
    [("lecun", 1 / 200), ("glorot", 2 / 300), ("he", 2 / 200), ("uniform_third", 1 / 600)],
)
def test_variance_of_each_rule(rule, variance):
    assert _standard_deviation(rule, (200, 100)) ** 2 == pytest.approx(variance, rel=1e-14)


@pytest.mark.parametrize("rule", ["lecun", "glorot", "he"])
def test_rules_agree_with_keras(rule):
    import keras

    initializer = keras.initializers.get(f"{rule}_normal")
    initializer.seed = 1
    kernel = np.asarray(initializer((300, 200)))
    # The sample deviation of m values has a relative error of about sqrt(1 / 2m); five of those.
    tolerance = 5 * np.sqrt(1 / (2 * kernel.size))
    assert kernel.std() == pytest.approx(_standard_deviation(rule, (300, 200)), rel=tolerance)


@given(fan_in=sizes, fan_out=sizes, seed=st.integers(0, 99))
def test_orthogonal_has_singular_values_one(fan_in, fan_out, seed):
    W = orthogonal((fan_in, fan_out), np.random.default_rng(seed))
    assert W.shape == (fan_in, fan_out)
    assert np.linalg.svd(W, compute_uv=False) == pytest.approx(1, abs=1e-12)


def test_orthogonal_is_uniform():
    """The trace of a uniform orthogonal matrix has mean 0 and variance 1 (Diaconis 1994)."""
    rng = np.random.default_rng(0)
    traces = np.array([np.trace(orthogonal((5, 5), rng)) for _ in range(4000)])
    assert abs(traces.mean()) < 5 / np.sqrt(4000)
    assert abs(traces.var() - 1) < 5 * np.sqrt(2 / 4000)


@given(rule=st.one_of(st.sampled_from([*RULES]), st.floats(0.1, 5)))
def test_draw_has_the_rules_deviation(rule):
    W = draw(rule, (200, 100), np.random.default_rng(7))
    expected = _standard_deviation(rule, (200, 100))
    assert W.std() == pytest.approx(expected, rel=5 * np.sqrt(1 / (2 * W.size)))
    assert abs(W.mean()) < 5 * expected / np.sqrt(W.size)


def test_draw_depends_on_the_generator_alone():
    one, two, other = (draw("he", (4, 4), np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("rule", ["kaiming", -1.0, np.nan, np.inf, None, True])
def test_bad_rule(rule):
    with pytest.raises(ValueError, match=r"rule must be one of lecun, .*; received"):
        initializers._standard_deviation(rule, (3, 3))


@pytest.mark.parametrize("shape", [(3,), (), (0, 3), (3, -1)])
def test_bad_shape(shape):
    with pytest.raises(ValueError, match="shape must have two or more positive sizes"):
        _fans(shape)


def test_orthogonal_is_for_matrices():
    with pytest.raises(ValueError, match="shape must have two sizes, rows and columns; received"):
        orthogonal((3, 3, 4, 4), np.random.default_rng(0))
