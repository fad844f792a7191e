"""Number formats in the page: the same bits as NumPy and ml_dtypes."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from tests.browser.draws import normals, stream

TYPES = {
    "float64": np.float64, "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16, "float16": np.float16,
}  # fmt: skip
ROUND = """([xs, name]) => xs.map((x) => {
    const rounded = G.formats.roundTo(x, name);
    return Object.is(rounded, -0) ? "-0" : String(rounded);
})"""


def numbers_of(texts):
    return np.array([float(text.replace("Infinity", "inf")) for text in texts])


def same_bits(ours, theirs):
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))


def every_number(dtype):
    """Return all finite numbers of a 16-bit format, in order."""
    with np.errstate(invalid="ignore"):
        values = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float64)
    return np.unique(values[np.isfinite(values)])


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_rounding_at_and_around_every_midpoint(script, name):
    values = every_number(TYPES[name])
    middle = (values[:-1] + values[1:]) / 2
    # Numbers of float32, so that ml_dtypes, which rounds by way of float32, rounds once.
    with np.errstate(over="ignore"):
        middle = middle.astype(np.float32)
        around = [values, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)]
        edge = np.float32(values[-1]) * np.array(
            [1 + 2**-12, 1 + 2**-9, 1 + 2**-8, 2, -2], np.float32
        )
        xs = np.concatenate([*around, edge]).astype(np.float64)
        xs = xs[np.isfinite(xs) & (xs != 0)]
        same_bits(
            numbers_of(script(ROUND, [xs.tolist(), name])), xs.astype(TYPES[name]).astype(float)
        )


@pytest.mark.parametrize("name", TYPES)
def test_what_is_not_finite_stays_so(script, name):
    found = script(
        "(name) => [Infinity, -Infinity, NaN, -0].map((x) => G.formats.roundTo(x, name))", name
    )
    np.testing.assert_array_equal(found, [np.inf, -np.inf, np.nan, 0.0])
    assert np.signbit(found[3])


@pytest.mark.parametrize("name", TYPES)
def test_products(script, name):
    rng = np.random.default_rng(0)
    spread = 8 if name == "float16" else 50
    with np.errstate(over="ignore", under="ignore"):
        a, b = rng.choice([-1, 1], 20_000) * 10 ** rng.uniform(-spread / 2, spread / 2, (2, 20_000))
        a, b = a.astype(TYPES[name]), b.astype(TYPES[name])
        expected = (a * b).astype(float)
    pairs = np.stack([a, b], axis=1).astype(float).tolist()
    found = script(
        "([pairs, name]) => pairs.map(([a, b]) => String(G.formats.times(a, b, name)))",
        [pairs, name],
    )
    np.testing.assert_array_equal(numbers_of(found), expected)
    assert name == "float64" or (np.isinf(expected).any() and (expected == 0).any())


@pytest.mark.parametrize("name", TYPES)
def test_products_of_special_numbers(script, name):
    texts = ["0", "-0", "Infinity", "-Infinity", "NaN", "1.5", "-2"]
    pairs = list(itertools.product(texts, texts))
    with np.errstate(invalid="ignore"):
        a, b = (numbers_of(column).astype(TYPES[name]) for column in zip(*pairs, strict=True))
        expected = (a * b).astype(float)
    found = script(
        """([pairs, name]) => pairs.map(([a, b]) => {
            const product = G.formats.times(Number(a), Number(b), name);
            return Object.is(product, -0) ? "-0" : String(product);
        })""",
        [pairs, name],
    )
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(numbers_of(found)), ~known)  # inf * 0, among others
    same_bits(numbers_of(found)[known], expected[known])


def once(values, name):
    """Round to a format, once: ml_dtypes would round a double to float32 first."""
    if name != "bfloat16":
        return values.astype(TYPES[name])
    fractions, exponents = np.frexp(values)
    return np.ldexp(np.round(fractions * 2**8), exponents - 8).astype(TYPES[name])


def test_a_double_is_rounded_once_to_bfloat16(script):
    x = float.fromhex("0x1.66ffff4cc0b12p+0")  # just below a midpoint; in float32, on it
    assert float(ml_dtypes.bfloat16(x)) == 1.40625
    assert script("(x) => G.formats.roundTo(x, 'bfloat16')", x) == 1.3984375
    assert float(once(np.array([x]), "bfloat16")[0]) == 1.3984375


@pytest.mark.parametrize("name", TYPES)
def test_chains_over_the_range_of_the_controls(script, name):
    controls = itertools.product(
        (0.05, 0.5, 0.6, 0.85, 1.0, 1.05, 4.0), (0.0, 0.5, 1.0), (0, 10, 24), (0, 3, 95)
    )
    for factor, spread, exponent, seed in controls:
        state = {"factor": factor, "spread": spread, "layers": 200, "seed": seed}
        drawn = factor * np.exp(spread * normals(200, stream(seed, 0)))
        factors = np.array(script("(state) => G.formats.factorsOf(state)", state))
        np.testing.assert_allclose(factors, drawn, rtol=1e-14)
        with np.errstate(all="ignore"):
            g = [np.array(2.0**exponent).astype(TYPES[name])]
            for f in once(factors, name):
                g.append(g[-1] * f)
        found = script(
            "([f, scale, name]) => G.formats.chain(f, scale, name).map(String)",
            [factors.tolist(), 2.0**exponent, name],
        )
        np.testing.assert_array_equal(numbers_of(found), np.array(g).astype(float))


@pytest.mark.parametrize(
    ("factor", "multiple"), [(0.6, 1), (0.75, 2), (0.8, 2), (0.85, 3), (0.9, 4)]
)
def test_the_verdict_names_where_float16_sticks(script, factor, multiple):
    state = {"factor": factor, "spread": 0, "layers": 200, "loss_scale": 0, "seed": 0}
    verdict, stored = script(
        """(state) => {
            const { verdict, values } = G.explorables.formats.draw(state);
            return [verdict, values.stored.float16];
        }""",
        state,
    )
    assert stored[-1] == stored[-2] == multiple * 2.0**-24
    since = stored.index(stored[-1])
    times = "" if multiple == 1 else f"{multiple} times "
    assert f"sticks at {times}its smallest number from layer {since}." in verdict
