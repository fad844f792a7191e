"""Theory in the page against gradutils.theory, and the plane under mouse and keys.

The bound. gradutils' quadrature has a relative error below 1e-9 up to q = 100, see
tests/package/test_theory.py; that of the page, double-exponential with a step of 1/32, one below
1e-10 there. So averages agree within 1e-8. A fixed point is off by the error of its map over
1 - slope, which is measured on gradutils' side.
"""

import itertools

import numpy as np
import pytest

from gradutils import theory
from gradutils.activations import ACTIVATIONS
from tests.browser.test_figures import opened

RANGE = list(itertools.product((0.1, 0.9, 1.3, 2.0, 4.0), (0.0, 0.05, 0.5, 1.0)))


def slope_of_map(name, q, sigma_w, sigma_b):
    step = 1e-4 * q
    high, low = (theory.second_moment_map(name, q + s, sigma_w, sigma_b) for s in (step, -step))
    return (high - low) / (2 * step)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_averages(script, name):
    for q in (1e-12, 0.01, 1.0, 10.0, 100.0):
        ours = script(
            "([a, q]) => [G.theory.secondMomentMap(a, q, 1.3, 0.2), G.theory.chi(a, 1.3, 0.2, q)]",
            [name, q],
        )
        theirs = [theory.second_moment_map(name, q, 1.3, 0.2), theory.chi(name, 1.3, 0.2, q=q)]
        assert ours == pytest.approx(theirs, rel=1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fixed_point_chi_and_depth_scale(script, name):
    checked = 0
    for sigma_w, sigma_b in RANGE:
        found = script("(s) => G.order.compute(s)", {
            "activation": name, "sigma_w": sigma_w, "sigma_b": sigma_b,
        })  # fmt: skip
        q = theory.fixed_point(name, sigma_w, sigma_b)
        if not 0 < q < np.inf:
            assert found["q"] == q
            continue
        if q > 100:
            continue  # beyond the promise of both quadratures
        checked += 1
        condition = 1 + 1 / abs(1 - min(slope_of_map(name, q, sigma_w, sigma_b), 1 - 1e-6))
        assert found["q"] == pytest.approx(q, rel=1e-8 * condition)
        assert found["chi"] == pytest.approx(
            theory.chi(name, sigma_w, sigma_b), rel=1e-7 * condition
        )
        c = theory.correlation_fixed_point(name, sigma_w, sigma_b)
        xi = theory.depth_scale(name, sigma_w, sigma_b)
        if np.isfinite(xi) and xi < 100:  # near the line c* and xi are badly conditioned, as xi
            assert found["c"] == pytest.approx(c, abs=1e-6 * condition * (1 + xi))
            assert found["xi"] == pytest.approx(xi, rel=1e-6 * condition * (1 + xi))
    assert checked >= 5


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu", "elu"])
def test_correlation_map(script, name):
    q = theory.fixed_point(name, 1.3, 0.5)
    if not np.isfinite(q):
        pytest.fail("choose a point with a fixed point")
    for c in (0.0, 0.3, 0.9, 0.999, 1.0):
        ours = script("([a, c, q]) => G.theory.correlationMap(a, c, 1.3, 0.5, q)", [name, c, q])
        assert ours == pytest.approx(theory.correlation_map(name, c, 1.3, 0.5), abs=1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_critical_line(script, name):
    guess = 1.0
    for sigma_b in (0.0, 0.25, 0.5, 1.0):
        guess = script("([a, b, g]) => G.theory.criticalSigmaW(a, b, g)", [name, sigma_b, guess])
        expected = theory.critical_sigma_w(name, sigma_b)
        assert guess == pytest.approx(expected, rel=1e-4), sigma_b
        # Flat or with a jump, chi is below 1 just before and above 1 just after.
        assert (
            theory.chi(name, guess * 0.999, sigma_b) < 1 < theory.chi(name, guess * 1.001, sigma_b)
        )


# The plane


def readout(figure):
    return [
        float(figure.locator(f"[name={name}]").input_value()) for name in ("sigma_w", "sigma_b")
    ]


def test_the_point_follows_the_mouse(page, book):
    figure = opened(page, book, "order")
    box = figure.locator(".point .marks").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y - 20, steps=4)
    page.mouse.up()
    sigma_w, sigma_b = readout(figure)
    assert sigma_w > 1.7 and sigma_b > 0.25
    after = figure.locator(".point .marks").bounding_box()
    assert after["x"] - box["x"] == pytest.approx(30, abs=2)
    assert after["y"] - box["y"] == pytest.approx(-20, abs=2)
    page.mouse.move(x + 90, y)  # released: it stays
    assert readout(figure) == [sigma_w, sigma_b]


def test_the_point_follows_the_arrow_keys(page, book):
    figure = opened(page, book, "order")
    point = figure.locator(".point")
    point.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert readout(figure) == [1.42, 0.21]
    assert "sigma_w 1.42, sigma_b 0.21" in point.get_attribute("aria-valuetext")
    assert page.evaluate("document.activeElement.getAttribute('class')") == "point"


def test_the_verdict_is_theorys(page, book):
    figure = opened(page, book, "order", "?order.sigma_w=1.8&order.sigma_b=0.3")
    verdict = figure.locator(".verdict").inner_text()
    chi, q = theory.chi("tanh", 1.8, 0.3), theory.fixed_point("tanh", 1.8, 0.3)
    assert verdict.startswith(f"Chaotic: χ = {chi:.3g} at q* = {q:.3g}.")


def test_the_critical_line_of_another_activation_is_completed(page, book):
    figure = opened(page, book, "order")
    figure.locator("[name=activation]").select_option("gelu")
    page.wait_for_function(
        """() => document.querySelector("svg[role=group] .line.theory")
            .getAttribute("d").replace(/[^ML]/g, "").length === 21"""
    )
