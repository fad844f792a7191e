"""Training in the page against gradutils.networks.train.

The bound. Both sides compute in double precision, in another order, so each step brings relative
errors of about (n + 10) u per layer, u = 2^-53. What of that reaches a loss is measured on
gradutils' network: a relative change of 1e-9 in the first weights changes it by 1e-9 times a
growth. So 10 steps depth (n + 10) u growth, where the growth is below 1e6.
"""

import itertools

import numpy as np
import pytest

from gradutils import datasets, networks
from tests.browser.draws import normals, stream, uniforms
from tests.browser.test_figures import opened

U, SAMPLES, WIDTH, STEPS = 2.0**-53, 128, 16, 20
FIXES = ("initialization", "relu", "batch_norm", "residual", "clipping", "adam")
PATIENTS = {
    "deep sigmoid": ("sigmoid", 1.0),
    "deep ReLU, small weights": ("relu", 0.8),
    "deep ReLU, large weights": ("relu", 3.0),
}
RUN = """([state, fixed, steps]) => {
    const trainer = G.training.makeTrainer(G.training.recipe(state, fixed));
    for (let k = 0; k < steps; k++) G.training.advance(trainer);
    const norms = trainer.norms.map((n) => [...n]);
    return { losses: trainer.losses, norms, accuracy: trainer.accuracy, step: trainer.step };
}"""


def state_with(*fixes, patient="deep sigmoid", depth=6, learning_rate="0.03", seed=0):
    chosen = {fix: fix in fixes for fix in FIXES}
    start = {"patient": patient, "depth": depth, "learning_rate": learning_rate, "seed": seed}
    return start | chosen


def spirals(seed):
    """Return the points of the page, by the formula of datasets.spirals."""
    y = np.arange(SAMPLES) % 2
    radius = np.sqrt(0.01 + 0.99 * uniforms(SAMPLES, stream(seed, 1000)))
    angle = 2 * np.pi * radius + np.pi * y
    noise = normals((SAMPLES, 2), stream(seed, 1001))
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * noise, y


def network(state, shake=0.0):
    activation, sigma_w = PATIENTS[state["patient"]]
    activation = "relu" if state["relu"] else activation
    if state["initialization"]:
        sigma_w = {"sigmoid": 4.0, "relu": 2**0.5}[activation]
    widths = [2, *[WIDTH] * state["depth"], 2]
    net = networks.MLP(
        widths, activation, 0.0, seed=0,
        normalization="batch" if state["batch_norm"] else None,
        branch_scale=1.0 if state["residual"] else None,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for layer, shape in enumerate(itertools.pairwise(widths)):
        W = normals(shape, stream(state["seed"], 2 * layer + 2)) * sigma_w / np.sqrt(shape[0])
        net.weights[layer] = W * (1 + shake * rng.standard_normal(shape))
        if layer and state["initialization"] and activation == "sigmoid":
            net.biases[layer] = -net.weights[layer].sum(axis=0) / 2
    return net


def losses(state, shake=0.0):
    x, y = spirals(state["seed"])
    return networks.train(
        network(state, shake), x, y,
        loss=networks.cross_entropy, learning_rate=float(state["learning_rate"]), epochs=STEPS,
        rng=np.random.default_rng(0), batch_size=SAMPLES,
        optimizer="adam" if state["adam"] else "sgd",
        clip_norm=1.0 if state["clipping"] else np.inf,
    )  # fmt: skip


def compare(script, state):
    ours = np.array(script(RUN, [state, True, STEPS - 1])["losses"])
    theirs = losses(state)
    finite = np.isfinite(theirs)
    assert np.isfinite(ours[: finite.sum()]).all()
    if not finite.all():
        assert len(ours) == finite.sum() + 1 and not np.isfinite(ours[-1])  # it stopped there
    ours, theirs = ours[: finite.sum()], theirs[finite]
    change = np.abs(losses(state, 1e-9)[finite] / theirs - 1)
    growth = np.maximum.accumulate(np.maximum(1, change / 1e-9))
    bound = 10 * np.arange(1, len(theirs) + 1) * state["depth"] * (WIDTH + 10) * U * growth
    steady = growth < 1e6
    assert steady[0]
    assert np.all(np.abs(ours / theirs - 1)[steady] <= bound[steady])


def test_the_points_are_two_spirals(script):
    found = script("() => { const {x, labels} = G.training.spirals(5); return [[...x], labels]; }")
    x, y = spirals(5)
    np.testing.assert_allclose(np.reshape(found[0], (-1, 2)), x, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(found[1], y)
    theirs, _ = datasets.spirals(SAMPLES, np.random.default_rng(0))
    assert np.linalg.norm(x, axis=1).max() == pytest.approx(
        np.linalg.norm(theirs, axis=1).max(), abs=0.2
    )


@pytest.mark.parametrize("patient", PATIENTS)
@pytest.mark.parametrize("fixes", [(), *[(fix,) for fix in FIXES], FIXES, ("batch_norm", "adam")])
def test_steps_are_those_of_gradutils(script, patient, fixes):
    compare(script, state_with(*fixes, patient=patient))


@pytest.mark.parametrize("depth", [2, 24])
@pytest.mark.parametrize("learning_rate", ["0.001", "0.3"])
def test_other_depths_rates_and_seeds(script, depth, learning_rate):
    for seed in (1, 99):
        fixes = ("initialization", "clipping")
        compare(script, state_with(*fixes, depth=depth, learning_rate=learning_rate, seed=seed))


def test_the_patient_is_left_without_the_fixes(script):
    everything = state_with(*FIXES)
    assert script(RUN, [everything, False, 5]) == script(RUN, [state_with(), True, 5])


def test_gradient_norms_are_those_of_gradutils(script):
    state = state_with("relu", "initialization")
    x, y = spirals(0)
    expected = networks.layer_norms(network(state), x, y).weights
    found = script(RUN, [state, True, 0])["norms"][0]
    np.testing.assert_allclose(found, expected, rtol=10 * 6 * (WIDTH + 10) * U)


def test_the_default_is_sick_and_mended(script):
    state = state_with("initialization", "relu", depth=12)
    sick, mended = (script(RUN, [state, fixed, 400]) for fixed in (False, True))
    assert sick["losses"][-1] == pytest.approx(np.log(2), abs=0.01)
    assert mended["accuracy"] > 0.95


def test_a_run_that_diverges_stops_and_says_so(script):
    state = state_with(
        "residual", patient="deep ReLU, large weights", depth=24, learning_rate="0.3"
    )
    run = script(RUN, [state, True, 50])
    assert run["step"] < 50
    assert not np.isfinite(run["losses"][-1])


def test_answers_with_batch_normalization_keep_the_training_statistics(script):
    # On a grid that holds a training point, its answer is the one that it got in training.
    found = script(
        """(state) => {
            const trainer = G.training.makeTrainer(G.training.recipe(state, true));
            const { engine, net, points } = trainer;
            const [x, y] = points[7];
            const pre = net.layers[net.layers.length - 1].pre;
            const logits = G.engine.view(engine, pre, 4 * points.length).slice(28, 30);
            // The middle of the cell in the left upper corner of 2 x 2 is (-reach/2, reach/2).
            const p = G.training.probabilities(trainer, 2, 2, [-2 * x, 2 * y]);
            return [p[0], 1 / (1 + Math.exp(logits[0] - logits[1]))];
        }""",
        state_with("batch_norm", "relu"),
    )
    assert found[0] == pytest.approx(found[1], rel=1e-9)


# In the page


def step_of(figure):
    return int(figure.locator(".verdict").inner_text().split()[1].strip("."))


def test_play_pause_step_and_reset(page, book):
    figure = opened(page, book, "train")
    assert step_of(figure) == 0
    figure.locator("[data-action=play]").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        """() => parseInt(document.querySelector("[data-explorable=train] .verdict")
            .innerText.slice(5)) > 30"""
    )
    assert figure.locator("[data-action=play]").inner_text() == "Pause"
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    paused = step_of(figure)
    page.wait_for_timeout(300)
    assert step_of(figure) == paused
    figure.locator("[data-action=step]").click()
    assert step_of(figure) == paused + 1
    figure.locator("[data-action=reset]").click()
    assert step_of(figure) == 0


def test_another_setting_starts_anew(page, book):
    figure = opened(page, book, "train")
    figure.locator("[data-action=step]").click()
    figure.locator("[name=adam]").check()
    assert step_of(figure) == 0


def test_training_leaves_the_page_its_time(page, book):
    figure = opened(page, book, "train")
    figure.locator("[data-action=play]").click()
    frames = page.evaluate(
        """() => new Promise((done) => {
            let frames = 0;
            const count = () => { frames++; requestAnimationFrame(count); };
            requestAnimationFrame(count);
            setTimeout(() => done(frames), 2000);
        })"""
    )
    assert frames > 3  # a loop that blocks leaves 1; a free machine shows 120, a busy one some ten


def test_it_rests_when_it_is_out_of_view(page, book):
    figure = opened(page, book, "train")
    verdict = figure.locator(".verdict")
    start = verdict.inner_text()
    figure.locator("[data-action=play]").click()
    page.wait_for_timeout(500)
    assert verdict.inner_text() != start
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(500)
    resting = verdict.inner_text()
    page.wait_for_timeout(500)
    assert verdict.inner_text() == resting
