"""The judge of the exercises: right answers are right, wrong ones get the fitting word."""

import re

import nbformat
import numpy as np
import pytest
from scipy.special import digamma

from gradutils import exercises
from tools import ROOT, rules

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def softmax_gradient(logits, label, temperature):
    p = np.exp(logits / temperature)
    p /= p.sum()
    p[label] -= 1
    return p / temperature


def rms_backward(h, g):
    rms = np.sqrt(np.mean(h**2))
    return (g - h / rms * np.mean(g * h / rms)) / rms


def leaky_ratio(alpha):
    """Return 1 / c for a leaky ReLU, c the variance of phi^2 over the square of its mean."""
    square, fourth = (1 + alpha**2) / 2, 3 * (1 + alpha**4) / 2
    return square**2 / (fourth - square**2)


#: Exercise -> right answers, from the exercises' solutions: closed forms and known numbers.
RIGHT = {
    "01.1": {"at_0_9": 132, "at_0_99": 1375, "lost": 0.0023},
    "02.1": {"rank": 3, "changed": 10},
    "02.5": {"chi": lambda s, a: s**2 * (1 + a**2) / 2, "sigma_w": (2 / 1.04) ** 0.5},
    "03.3": {"w": 0.23692, "cube": lambda theta: theta * theta},
    "03.4": {"gradient": softmax_gradient},
    "03.5": {"step_back": lambda g, slope, W: (g * slope) @ W.T + g},
    "04.1": {"s": 0.5724},
    "04.2": {"unscaled": 25, "scaled": 35},
    "04.4": {"exponents": [(np.log(2) + digamma((5 - k) / 2)) / 2 for k in (1, 2, 3, 4)]},
    "05.1": {"q_50": 5.9},
    "05.2": {"layers": 13},
    "05.3": {"sigma_w": np.pi**0.5 / 2},
    "05.4": {"exponent": -110 / 119, "ratio": leaky_ratio},
    "06.1": {"tanh": 158, "sigmoid": 12},
    "06.2": {"error": 1 / 12},
    "06.3": {"steps": lambda rho: sum(rho ** (2 * k) for k in range(999)), "chance": 1e-4},
    "07.1": {"answer": 1 / 4, "loss": np.log(4) - 0.75 * np.log(3)},
    "07.4": {"sigma_w": 4},
    "08.1": {"rate": lambda low, high: 2 / (low + high)},
    "08.2": {"limit": lambda m: (2 + 2 * m) / (1 + 2 * m)},
    "09.1": {"gain": 1 / 3, "factor": 1},
    "09.3": {"factor": np.pi / (np.pi - 1)},
    "10.1": {"deviation": 0.8796, "kept": 1.64e-3},
    "10.4": {"factor": 1 / 1.2},
    "11.1": {"steps": 19850},
    "11.2": {"w": lambda decay: 1 / (1 + decay)},
    "11.4": {"sigma_w": lambda rho: np.sqrt(2 * rho)},
    "12.1": {"power": 20},
    "12.2": {"way": 2 * np.sqrt(10_000)},
    "12.4": {"factor": lambda b: (2 + 2 * b) / (1 - b) / (2 + 2 * b)},
    "13.1": {"longest": lambda rate, m, limit: sum(rate * limit * m**k for k in range(999))},
    "13.2": {"cosine": 0.5**0.5},
    "14.1": {"share": lambda batch: 1 - 2 / batch},
    "14.2": {"backward": rms_backward},
    "15.1": {"a": (np.log(1.1) / 100) ** 0.5},
    "15.3": {"q_32": 17, "depth": 2.618},
    "16.1": {"logit": 4, "weight": 1 / (1 + 1023 * np.exp(-8))},
    "16.2": {"up": 1 / 256, "down": 1 / 512},
    "16.3": {"gain": (2 / 3) ** 0.5, "factor": 4 / 3},
    "16.4": {"step": lambda beta_1, beta_2: np.sqrt((1 - beta_1**2) ** 2 / (1 - beta_2**2))},
    "17.1": {"bias": lambda steps: np.log(1 / (2 ** (1 / steps) - 1))},
    "17.2": {"bias": np.log(7)},
    "18.3": {"decades": np.log10(np.pi / (np.pi - 1)) / 2},
    "19.1": {"layers": 15},
    "20.1": {"layers": 20, "kept": 10 / 37},
    "20.2": {"gamma": lambda p: 1 - p / (4 - 2 * p)},
    "20.3": {"steps": 52},
    "21.1": {"e5m2": 9, "e4m3": 5},
    "21.2": {"z": 9.5768},
    "21.4": {"e4m3": 458_752, "e2m1": 24},
    "22.1": {"layers": 75},
    "22.3": {"gain": 4.8013, "factor": 1.0336},
}


def verdicts(exercise, **answers):
    return dict(line.split(": ", 1) for line in exercises.check(exercise, **answers).splitlines())


@pytest.mark.parametrize("exercise", RIGHT)
def test_the_right_answer_is_right(exercise):
    assert verdicts(exercise, **RIGHT[exercise]) == dict.fromkeys(RIGHT[exercise], "right")


@pytest.mark.parametrize("exercise", RIGHT)
def test_no_answer_is_not_answered_yet(exercise):
    nothing = dict.fromkeys(RIGHT[exercise])
    assert verdicts(exercise, **nothing) == dict.fromkeys(nothing, "not answered yet")
    assert exercises.check(exercise) == exercises.check(exercise, **nothing)


def spoilt(answer, change):
    """Return an answer, or a function's values, changed."""
    if callable(answer):
        return lambda *given: change(np.asarray(answer(*given)))
    return change(np.asarray(answer))


@pytest.mark.parametrize("exercise", RIGHT)
def test_an_answer_that_is_a_twentieth_off_is_not_right(exercise):
    wrong = {name: spoilt(answer, lambda v: v * 1.05) for name, answer in RIGHT[exercise].items()}
    assert "right" not in verdicts(exercise, **wrong).values()


@pytest.mark.parametrize(
    ("exercise", "answers", "word"),
    [
        ("05.3", {"sigma_w": np.pi / 4}, "the square of what is asked for"),
        ("05.4", {"exponent": 110 / 119}, "the right size with the wrong sign"),
        ("05.4", {"ratio": lambda alpha: 1 / leaky_ratio(alpha)}, "the inverse of what"),
        ("11.4", {"sigma_w": lambda rho: 2 * rho}, "the square of what is asked for"),
        ("05.1", {"q_50": 5.9**0.5}, "the root of what is asked for"),
        ("09.1", {"gain": 3.0}, "the inverse of what is asked for"),
        ("10.4", {"factor": 1.2}, "the inverse of what is asked for"),
        ("12.4", {"factor": lambda b: 1 - b}, "the inverse of what is asked for"),
        ("12.4", {"factor": lambda b: (1 - b) ** -0.5}, "the root of what is asked for"),
        ("17.2", {"bias": -np.log(7)}, "the wrong sign"),
        ("18.3", {"decades": np.log10(np.pi / (np.pi - 1))}, "twice what is asked for"),
        ("18.3", {"decades": np.log(np.pi / (np.pi - 1)) / 2}, "a natural logarithm"),
        ("06.2", {"error": 1 / 24}, "half of what is asked for"),
        ("06.3", {"steps": lambda rho: 1 - rho**2}, "the inverse of what is asked for"),
        ("06.3", {"chance": 0.01}, "the root of what is asked for"),
        ("14.1", {"share": lambda batch: 2 / batch}, "1 minus what is asked for"),
        ("01.1", {"at_0_9": 131.1}, "off by one or less"),
        ("01.1", {"at_0_9": 133}, "off by one or less"),
        ("01.1", {"at_0_9": 1e6}, "too large, by more than a factor of 10"),
        ("10.1", {"kept": 0.0}, "too small, by more than a factor of 10"),
        ("04.1", {"s": 0.6}, "too large, but near"),
        ("04.1", {"s": 0.35}, "too small"),
        ("21.2", {"z": -2.0}, "wrong sign, and another size"),
        ("21.4", {"e4m3": 448 * 2**9}, "half of what is asked for"),
        ("21.4", {"e2m1": 12}, "half of what is asked for"),
        ("04.4", {"exponents": [-0.6352, 0.058, 0.3648, 0.558]}, "in another order"),
        ("04.4", {"exponents": [0.558, 0.3648, 0.058, -0.6]}, "1 of 4 numbers"),
        ("04.4", {"exponents": 0.558}, r"an array of shape \(4,\) is asked for"),
        ("04.1", {"s": [0.5, 0.6]}, r"a single number is asked for; received shape \(2,\)"),
        ("04.1", {"s": "about a half"}, "a single number is asked for; received str"),
        ("04.1", {"s": np.inf}, "not finite"),
        ("04.1", {"s": lambda n: n}, "a number or an array is asked for; received function"),
        ("08.1", {"rate": 0.952}, r"a function of \(lowest, highest\) is asked for"),
        ("08.1", {"rate": lambda low: low}, r"raised TypeError"),
        ("03.5", {"step_back": lambda g, slope, W: 1.0}, "returns something else: an array"),
        ("03.5", {"step_back": lambda g, slope, W: g + (g * slope) @ W}, "numbers are wrong"),
    ],
)
def test_a_wrong_answer_is_told_what_it_looks_like(exercise, answers, word):
    (name,) = answers
    assert re.search(word, verdicts(exercise, **answers)[name])


def test_a_verdict_never_holds_the_right_number():
    for exercise, answers in RIGHT.items():
        numbers = {k: v for k, v in answers.items() if not callable(v) and np.size(v) == 1}
        for factor in (-1, 0.5, 1.05, 3, 1e4):
            told = exercises.check(exercise, **{k: v * factor for k, v in numbers.items()})
            shown = re.findall(r"\d+\.?\d*", re.sub(r"1 minus|factor of 10", "", told))
            names = re.findall(r"\d+", " ".join(answers))
            assert set(shown) <= {"0", *names}, told


def test_an_unknown_exercise_or_answer_is_refused_with_what_is_known():
    with pytest.raises(ValueError, match=r"one of \['01.1'.*\]; received '99.1'"):
        exercises.check("99.1")
    with pytest.raises(ValueError, match=r"09.1 are named \['gain', 'factor'\]; .*\['gian'\]"):
        exercises.check("09.1", gian=3)


def check_cells(path):
    """Yield (cell, exercise, next cell) of the cells that check a reader's answer."""
    cells = nbformat.read(path, as_version=4).cells
    for i, cell in enumerate(cells):
        found = re.search(r'exercises\.check\("(.+?)"', cell.source)
        if cell.cell_type == "code" and found:
            yield cell, found[1], cells[i - 1 : i + 2 : 2]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_chapter_has_a_check_and_each_check_stands_between_hint_and_solution(path):
    found = list(check_cells(path))
    chapter = path.stem[:2]
    assert [name for _, name, _ in found] == [k for k in RIGHT if k.startswith(chapter)] != []
    for cell, name, (before, after) in found:
        assert re.findall(r"(\w+)=None", cell.source) == list(RIGHT[name])
        assert f"### Exercise {name.split('.')[1]}:" in before.source
        assert rules.is_solution(after)
        unanswered = "".join(f"{answer}: not answered yet\n" for answer in RIGHT[name])
        assert [output.text for output in cell.outputs] == [unanswered]
