"""The engine against gradutils.networks and gradutils.theory, over the range of every control.

The bound. Both sides compute in double precision, in another order. Layer l brings a relative
error of at most about (n + 10) u into its signal: n terms of a dot product, and a few operations
of some u = 2^-53 each in activation and normalisation. Further layers multiply it by what they do
to a small perturbation, which `growth` measures on the network itself. Errors of all layers add
up: depth (n + 10) u growth, times 10 for the spread between units. Where the growth exceeds 1e8
(deep in the chaotic phase) the two are draws from one distribution, and statistics are compared.
"""

import itertools

import numpy as np
import pytest

from gradutils import activations, networks, theory
from tests.browser.draws import normals, stream, uniforms

U = 2.0**-53
BATCH = 64
BACKENDS = ["fused", "simd", "plain"]
PROFILE = "(s) => G.engine.profile(G.engine.makeEngine(s), s)"


def settings(**changes):
    start = {
        "depth": 50, "width": 32, "batch": BATCH, "activation": "tanh", "sigmaW": 1.0,
        "sigmaB": 0.0, "seed": 0, "normalization": False, "residual": False, "backend": "fused",
    }  # fmt: skip
    return start | changes


def network(s):
    """Return gradutils' network with the engine's weights, its input, and the gradient."""
    width, seed = s["width"], s["seed"]
    net = networks.MLP(
        [width] * (s["depth"] + 1), s["activation"], 0.0, seed=0,
        normalization="batch" if s["normalization"] else None,
        branch_scale=1.0 if s["residual"] else None,
    )  # fmt: skip
    for layer in range(s["depth"]):
        weights = normals((width, width), stream(seed, 2 * layer + 2))
        net.weights[layer] = weights * (s["sigmaW"] / np.sqrt(width))
        net.biases[layer] = normals(width, stream(seed, 2 * layer + 3)) * s["sigmaB"]
    grad_output = normals((BATCH, width), stream(seed, 1))
    grad_output /= np.linalg.norm(grad_output)
    return net, normals((BATCH, width), stream(seed, 0)), grad_output


def reference(s):
    """Return forward, backward and weight norms by layer, as networks.layer_norms has them."""
    net, x, grad_output = network(s)
    return networks.layer_norms(net, x, grad_output, loss=lambda output, target: (0.0, target))


def growth(s):
    """Return how much a small relative error grows on its way through the network, on average.

    Measured on the network itself: a perturbation of 1e-7 of the input.
    """
    net, x, _ = network(s)
    noise = 1e-7 * np.random.default_rng(0).standard_normal(x.shape)
    with np.errstate(all="ignore"):
        pairs = zip(net.forward(x).pre, net.forward(x + noise * x.std()).pre, strict=True)
        ratios = [np.linalg.norm(b - a) / np.linalg.norm(a) / 1e-7 for a, b in pairs]
    return max(1.0, np.nanmax(ratios))


def compare(script, s):
    ours, theirs = script(PROFILE, s), reference(s)
    factor = growth(s)
    for kind in ("forward", "backward", "weights"):
        a, b = np.array(ours[kind]), getattr(theirs, kind)
        if factor < 1e8:
            bound = 10 * s["depth"] * (s["width"] + 10) * U * factor
            np.testing.assert_allclose(a, b, rtol=bound, err_msg=f"{kind} {s}")
        else:
            # Two draws: the logarithms of the norms walk apart with 1 / width a layer (chapter 4).
            spread = np.sqrt(10 * s["depth"] / s["width"])
            finite = np.isfinite(b) & (b > 0)
            assert np.abs(np.log(a[finite] / b[finite])).max() < 4 * spread, f"{kind} {s}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_chromium_has_every_backend(script, backend):
    assert script("(backend) => G.engine.makeEngine({backend}).backend", backend) == backend


# Draws


def test_uniform_numbers_are_the_same_bits(script):
    ours = script(
        "() => Array.from({length: 1000}, (_, i) => G.random.uniform(G.random.stream(7, 3), i))"
    )
    np.testing.assert_array_equal(ours, uniforms(1000, stream(7, 3)))


def test_normal_numbers_are_normal_and_numpys(script):
    ours = np.array(
        script("() => [...G.random.normals(new Float64Array(9999), G.random.stream(0, 5))]")
    )
    np.testing.assert_allclose(ours, normals(9999, stream(0, 5)), rtol=1e-12, atol=1e-15)
    assert abs(ours.mean()) < 4 / np.sqrt(9999)
    assert abs(np.mean(ours**2) - 1) < 4 * np.sqrt(2 / 9999)
    assert abs(np.mean(ours**4) - 3) < 4 * np.sqrt(96 / 9999)


# Activations, over all sizes


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_activations(script, name, backend):
    positive = np.geomspace(1e-300, 700, 4000)
    x = np.concatenate([-positive[::-1], [0.0, -0.0], positive])
    values, slopes = script(
        """([x, name, backend]) => {
            const engine = G.engine.makeEngine({backend});
            const shape = {widths: [4, 4], batch: x.length, activation: name};
            const net = G.engine.makeNetwork(engine, shape);
            const {pre, output, slope} = net.layers[0];
            G.engine.view(engine, pre, x.length).set(x);
            engine.ops.activate(net.kind, x.length, pre, output, slope);
            return [output, slope].map((a) => [...G.engine.view(engine, a, x.length)]);
        }""",
        [x.tolist(), name, backend],
    )
    phi, derivative = activations.get(name)
    # GELU's distribution function is exact to 1e-15, absolutely, and counts up to |x| = 8.8.
    absolute = 8.8e-15 if name == "gelu" else 1e-300
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(values, phi(x), rtol=16 * U, atol=absolute)
        np.testing.assert_allclose(slopes, derivative(x), rtol=32 * U, atol=8 * U + absolute)


# Networks


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_profile_of_every_activation(script, name, backend):
    for sigma_w, sigma_b in [(0.1, 0.0), (1.0, 0.0), (1.5, 0.3), (4.0, 1.0)]:
        compare(
            script,
            settings(activation=name, sigmaW=sigma_w, sigmaB=sigma_b, backend=backend, depth=20),
        )


@pytest.mark.parametrize(("normalization", "residual"), itertools.product([False, True], repeat=2))
@pytest.mark.parametrize("name", ["tanh", "relu", "gelu", "linear"])
def test_profile_with_normalization_and_skips(script, name, normalization, residual):
    for sigma_w in (0.3, 1.4):
        compare(script, settings(
            activation=name, sigmaW=sigma_w, sigmaB=0.1, depth=30,
            normalization=normalization, residual=residual,
        ))  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        *[{"depth": depth, "sigmaW": sigma_w} for depth in (2, 3, 100) for sigma_w in (0.1, 1.0)],
        *[{"width": width, "activation": "relu", "sigmaW": 2**0.5} for width in (16, 64, 128)],
        {"seed": 99},
    ],
    ids=str,
)
def test_profile_of_other_sizes_and_seeds(script, changes):
    compare(script, settings(**changes))


def test_a_deeper_network_has_the_same_first_layers(script):
    shallow, deep = (script(PROFILE, settings(depth=d))["forward"] for d in (10, 20))
    assert deep[:10] == shallow


# Theory


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_theory_of_the_profile(script, name):
    for sigma_w, sigma_b in [(0.1, 0.0), (1.0, 0.2), (2.0, 0.0)]:
        s = settings(activation=name, sigmaW=sigma_w, sigmaB=sigma_b, depth=12)
        ours = script("(s) => G.theory.profileTheory(s)", s)
        q, factors = sigma_w**2 + sigma_b**2, []
        moments = [q]
        for _ in range(11):
            if q > 100:  # beyond, the package's quadrature promises no digits
                break
            factors.append(theory.chi(name, sigma_w, sigma_b, q=q))
            q = theory.second_moment_map(name, q, sigma_w, sigma_b)
            moments.append(q)
        np.testing.assert_allclose(np.square(ours["forward"])[: len(moments)], moments, rtol=1e-8)
        back = np.array(ours["backward"])
        measured = (back[:-1] / back[1:]) ** 2
        np.testing.assert_allclose(measured[: len(factors)], factors, rtol=1e-8)
