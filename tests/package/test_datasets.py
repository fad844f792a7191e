import numpy as np
import pytest

from gradutils import datasets


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_spirals_without_noise_lie_on_their_arms(rng):
    x, y = datasets.spirals(500, rng, turns=1.5, noise=0)
    radius = np.hypot(*x.T)
    angle = np.arctan2(x[:, 1], x[:, 0])
    expected = 2 * np.pi * 1.5 * radius + np.pi * y
    assert np.cos(angle - expected) == pytest.approx(1)


def test_spirals_are_balanced_and_bounded(rng):
    x, y = datasets.spirals(301, rng, noise=0)
    assert np.bincount(y).tolist() == [151, 150]
    assert np.hypot(*x.T).max() <= 1


def test_spirals_noise_has_its_deviation():
    clean, _ = datasets.spirals(4000, np.random.default_rng(3), noise=0)
    noisy, _ = datasets.spirals(4000, np.random.default_rng(3), noise=0.2)
    assert (noisy - clean).std() == pytest.approx(0.2, rel=5 / np.sqrt(2 * 8000))


def test_digits_are_all_there_and_scaled_by_the_training_part(rng):
    data = datasets.digits(rng, test_share=0.2)
    assert len(data.x_train) + len(data.x_test) == 1797
    assert len(data.x_test) == pytest.approx(1797 * 0.2, abs=1)
    varying = data.x_train.std(axis=0) > 0
    assert data.x_train.mean(axis=0) == pytest.approx(0, abs=1e-12)
    assert data.x_train.std(axis=0)[varying] == pytest.approx(1)
    assert not data.x_test[:, ~varying].any()
    assert set(data.y_train) == set(range(10))


def test_digits_labels_stay_with_their_images():
    """A nearest class mean finds over 80 % of the digits, and 10 % if labels were shuffled."""
    data = datasets.digits(np.random.default_rng(5))
    means = np.stack([data.x_train[data.y_train == k].mean(axis=0) for k in range(10)])
    distance = ((data.x_test[:, None] - means) ** 2).sum(axis=-1)
    assert (distance.argmin(axis=1) == data.y_test).mean() > 0.8


def test_adding_problem_marks_one_step_in_each_half(rng):
    x, y = datasets.adding_problem(200, 9, rng)
    markers = x[..., 1]
    assert (markers[:, :4].sum(axis=1) == 1).all()
    assert (markers[:, 4:].sum(axis=1) == 1).all()
    assert y == pytest.approx((x[..., 0] * markers).sum(axis=1))


def test_adding_problem_baseline(rng):
    """The variance of a sum of two uniforms is 2/12; its estimate from m samples has a relative
    deviation of sqrt((kurtosis - 1) / m) = sqrt(1.4 / m)."""
    m = 20_000
    _, y = datasets.adding_problem(m, 10, rng)
    assert ((y - 1) ** 2).mean() == pytest.approx(1 / 6, rel=5 * np.sqrt(1.4 / m))


def test_recall_asks_for_the_value_beside_one_of_different_keys(rng):
    x, y = datasets.recall(300, rng, pairs=5)
    keys, values = x[:, :5, :5].argmax(axis=2), x[:, :5, 5:].argmax(axis=2)
    assert set(np.unique(x)) == {0, 2}
    assert (np.sort(keys, axis=1) == np.arange(5)).all()
    assert (x[:, 5, 5:] == 0).all()
    place = (keys == x[:, 5, :5].argmax(axis=1)[:, None]).argmax(axis=1)
    assert (values[np.arange(300), place] == y).all()
    assert set(y) == set(place) == set(range(5))


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: datasets.spirals(50, rng),
        lambda rng: datasets.digits(rng).x_train,
        lambda rng: datasets.adding_problem(5, 8, rng),
        lambda rng: datasets.recall(5, rng),
    ],
)
def test_a_seed_fixes_the_data(draw):
    def flat(seed):
        data = draw(np.random.default_rng(seed))
        return np.concatenate([np.ravel(part) for part in data])

    assert np.array_equal(flat(1), flat(1))
    assert not np.array_equal(flat(1), flat(2))


@pytest.mark.parametrize(
    ("draw", "arguments", "message"),
    [
        (datasets.spirals, {"samples": 0}, "samples must be a positive integer; received 0"),
        (datasets.spirals, {"samples": 2.5}, "samples must be a positive integer"),
        (datasets.spirals, {"samples": 5, "noise": -1}, "noise must be a finite number >= 0"),
        (datasets.spirals, {"samples": 5, "noise": np.nan}, "noise must be a finite .* nan"),
        (datasets.digits, {"test_share": 0.9999}, "test_share must leave samples"),
        (datasets.digits, {"test_share": 1.0}, "test_share must lie between 0 and 1"),
        (datasets.adding_problem, {"samples": 0, "length": 5}, "samples must be a positive"),
        (datasets.adding_problem, {"samples": 5, "length": 1}, "length must be at least 2; .* 1"),
        (datasets.recall, {"samples": 0}, "samples must be a positive integer; received 0"),
        (datasets.recall, {"samples": 5, "pairs": 2.5}, "pairs must be a positive integer"),
    ],
)
def test_bad_input(draw, arguments, message, rng):
    with pytest.raises(ValueError, match=message):
        draw(rng=rng, **arguments)


def test_spirals_cover_the_disc_evenly():
    # Area grows with the square of the radius: (0.25 - 0.01) / 0.99 of the points lie within 1/2.
    # 4 standard errors of a share of 0.242 over 10,000 draws: 0.017.
    x, _ = datasets.spirals(10_000, np.random.default_rng(5), noise=0)
    within = np.mean(np.linalg.norm(x, axis=1) < 0.5)
    assert within == pytest.approx(0.24 / 0.99, abs=0.017)
