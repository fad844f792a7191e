"""Judge a reader's own answers to the exercises, without giving the answers away.

What is expected is computed when an answer is checked; it stands nowhere in a notebook.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import special, stats

from gradutils import activations, networks, theory

#: Relative error up to which an answer is right; whole numbers must be exact.
TOLERANCE = 0.01

#: How a wrong answer can be related to the right one, r.
_LOOKS: dict[str, Callable] = {
    "the right size with the wrong sign": lambda r: -r,
    "the inverse of what is asked for": lambda r: 1 / r,
    "the square of what is asked for (a variance for a deviation?)": lambda r: r**2,
    "the root of what is asked for (a deviation for a variance?)": lambda r: np.sqrt(np.abs(r)),
    "twice what is asked for": lambda r: 2 * r,
    "half of what is asked for": lambda r: r / 2,
    "1 minus what is asked for (what is lost for what is kept?)": lambda r: 1 - r,
    "a natural logarithm in place of a decimal one": lambda r: r * np.log(10),
    "a decimal logarithm in place of a natural one": lambda r: r / np.log(10),
}


def _layers(factor: float, left: float) -> int:
    """Return the number of layers after which 1 has first become less than `left`."""
    return int(np.floor(np.log(left) / np.log(factor) + 1e-9)) + 1


def _zero_after(factor: float, scale: float = 1.0) -> int:
    """Return the first layer behind which float16 holds a zero; ties go to zero."""
    return next(k for k in range(200) if np.float16(scale * factor**k * (1 - 1e-9)) == 0)


def _leaky(a: float) -> tuple[Callable, Callable]:
    return (lambda h: np.where(h > 0, h, a * h)), (lambda h: np.where(h > 0, 1.0, a))


def _shifted(name: str, shift: float) -> tuple[Callable, Callable]:
    phi, derivative = activations.get(name)
    return (lambda h: phi(h) - shift), derivative


def _inner_path(w: float, u: float) -> float:
    """Return what the inner w of tanh(w tanh(w u)) adds to the derivative by w."""
    x = np.tanh(w * u)
    return u * (1 - x**2) * w * (1 - np.tanh(w * x) ** 2)


def _vanishing_limit() -> float:
    from gradutils.diagnosis import THRESHOLDS  # This import loads TensorFlow, so it waits.

    return THRESHOLDS["vanishing"].limit


_RELU_MEAN = (2 * np.pi) ** -0.5
_LINE = (lambda h: 3 * h), (lambda h: np.full_like(h, 3.0))
_RELU_SQUARED = (lambda h: np.maximum(h, 0) ** 2), (lambda h: 2 * np.maximum(h, 0))
_ERF = special.erf, (lambda h: 2 / np.sqrt(np.pi) * np.exp(-(h**2)))

#: "exercise answer" -> what is expected: of a lambda without parameters the value, of one with
#: parameters the function itself.
_EXPECTED: dict[str, Callable] = {
    "01.1 at_0_9": lambda: _layers(0.9, 1e-6),
    "01.1 at_0_99": lambda: _layers(0.99, 1e-6),
    "01.1 lost": lambda: -np.expm1(np.log(0.1) / 1000),
    "02.1 rank": lambda: 3,  # Units with equal weights in and out are one.
    "02.1 changed": lambda: 10,  # From zeros only the last biases have a gradient.
    "02.5 chi": lambda sigma_w, a: theory.chi(_leaky(a), sigma_w, q=1.0),
    "02.5 sigma_w": lambda: theory.critical_sigma_w("leaky_relu"),
    "03.3 w": lambda: _inner_path(1.5, 0.4),
    "03.3 cube": lambda theta: theta**2,
    "03.4 gradient": lambda logits, label, temperature: (
        networks.cross_entropy(logits[None] / temperature, np.array([label]))[1][0] / temperature
    ),
    "03.5 step_back": lambda g, slope, W: g + (g * slope) @ W.T,
    "04.1 s": lambda: np.exp(-(np.log(2) + special.digamma(2)) / 2),
    "04.2 unscaled": lambda: _zero_after(0.5),
    "04.2 scaled": lambda: _zero_after(0.5, scale=1024),
    "04.4 exponents": lambda: (np.log(2) + special.digamma(np.arange(4, 0, -1) / 2)) / 2,
    "05.1 q_50": lambda: 1 + 49 * theory.second_moment_map("relu", 0.0, 2**0.5, 0.1**0.5),
    "05.2 layers": lambda: _layers(theory.chi("tanh", 3**-0.5) ** 0.5, 1e-3),
    "05.3 sigma_w": lambda: theory.critical_sigma_w(_ERF),
    "05.4 exponent": lambda: (10 * 0.3**2 - 2) / (2 - 9 * 0.3**2),
    "05.4 ratio": lambda alpha: 1 / (6 * (1 + alpha**4) / (1 + alpha**2) ** 2 - 1),
    "06.1 tanh": lambda: _layers(0.9, 2**-24),
    "06.1 sigmoid": lambda: _layers(0.9 / 4, 2**-24),
    "06.2 error": lambda: stats.uniform.var(),
    "06.3 steps": lambda rho: 1 / (1 - rho**2),
    "06.3 chance": lambda: 0.01**2,
    "07.1 answer": lambda: 0.25,
    "07.1 loss": lambda: stats.bernoulli(0.25).entropy(),
    "07.4 sigma_w": lambda: 1 / activations.get("sigmoid").derivative(np.zeros(1))[0],
    "08.1 rate": lambda lowest, highest: 2 / (lowest + highest),
    "08.2 limit": lambda momentum: 2 * (1 + momentum) / (1 + 2 * momentum),
    "09.1 gain": lambda: theory.forward_gain(_LINE),
    "09.1 factor": lambda: theory.backward_factor(_LINE),
    "09.3 factor": lambda: theory.backward_factor(_shifted("relu", _RELU_MEAN)),
    "10.1 deviation": lambda: stats.truncnorm(-2, 2).std(),
    "10.1 kept": lambda: stats.truncnorm(-2, 2).std() ** 50,
    "10.4 factor": lambda: 1 / np.ptp(activations.get("leaky_relu").phi(np.array([1.0, -1.0]))),
    "11.1 steps": lambda: np.log(10) / 29 / -np.log1p(-0.001 * 0.004),
    "11.2 w": lambda decay: 1 / (1 + decay),
    "11.4 sigma_w": lambda rho: theory.critical_sigma_w("relu") * rho**0.5,
    "12.1 power": lambda: int(np.ceil(np.log2(99 * 1e-8 / 1e-12))),
    "12.2 way": lambda: (np.arange(1, 10_001) ** -0.5).sum(),
    "12.4 factor": lambda beta_1: 1 / (1 - beta_1),
    "13.1 longest": lambda rate, momentum, limit: rate * limit / (1 - momentum),
    "13.2 cosine": lambda: 1 / stats.laplace.std(),
    "14.1 share": lambda batch: (batch - 2) / batch,
    "14.2 backward": lambda h, g: (g - h * (g @ h) / (h @ h)) / np.sqrt((h**2).mean()),
    "15.1 a": lambda: np.sqrt(1.1**0.01 - 1),
    "15.3 q_32": lambda: 1 + 32 / 2,
    "15.3 depth": lambda: (1 / np.arange(3, 35)).sum(),
    "16.1 logit": lambda: 16**0.5,
    "16.1 weight": lambda: special.softmax([4.0] + 1023 * [-4.0])[0],
    "16.2 up": lambda: 2.0**-8,
    "16.2 down": lambda: 2.0**-9,
    "16.3 gain": lambda: theory.forward_gain(_RELU_SQUARED),
    "16.3 factor": lambda: theory.backward_factor(_RELU_SQUARED),
    "16.4 step": lambda beta_1, beta_2: (1 - beta_1**2) / (1 - beta_2**2) ** 0.5,
    "17.1 bias": lambda steps: -np.log(2 ** (1 / steps) - 1),
    "17.2 bias": lambda: special.logit(7 / 8),
    "18.3 decades": lambda: np.log10(theory.backward_factor(_shifted("relu", _RELU_MEAN))) / 2,
    "19.1 layers": lambda: _layers(theory.chi("relu", 1.0) ** 0.5, 10 ** -_vanishing_limit()),
    "20.1 layers": lambda: _layers(0.7, 1e-3),
    "20.1 kept": lambda: 0.1 / (1 - 0.9 * 0.7),
    "20.2 gamma": lambda p: (4 - 3 * p) / (4 - 2 * p),
    "20.3 steps": lambda: 53 - 1,  # Of 53 doublings the last one ends at 1, not at 1/2.
    "21.1 e5m2": lambda: _layers(0.25, 1.000001 * 2**-17),  # Half of 2^-16 rounds to 0.
    "21.1 e4m3": lambda: _layers(0.25, 1.000001 * 2**-10),  # Half of 2^-9 rounds to 0.
    "21.2 z": lambda: -np.log(np.expm1(np.log(2) / 10_000)),
    "21.4 e4m3": lambda: 448 * 2.0**10,  # 448 / M is half of the smallest subnormal, 2^-9.
    "21.4 e2m1": lambda: 6 * 2.0**2,  # 6 / M is half of the smallest subnormal, 1/2.
    "22.1 layers": lambda: _layers(0.8, 2**-24),
    "22.3 gain": lambda: theory.forward_gain(_shifted("sigmoid", 0.5)),
    "22.3 factor": lambda: theory.backward_factor(_shifted("sigmoid", 0.5)),
}

#: What a function is tried on, by the name of its parameter; others get a number in (0.1, 0.9).
_DRAWS: dict[str, Callable] = {
    **{name: lambda rng: rng.standard_normal(6) for name in ("g", "h", "logits")},
    "W": lambda rng: rng.standard_normal((6, 6)),
    "slope": lambda rng: rng.uniform(size=6),
    "label": lambda rng: int(rng.integers(6)),
    "batch": lambda rng: int(rng.integers(3, 100)),
    "steps": lambda rng: int(rng.integers(10, 1000)),
    "highest": lambda rng: rng.uniform(1, 3),
}
_TRIALS = 5


def check(exercise: str, **answers: Any) -> str:
    """Say of each answer whether it is right, or else what it looks like.

    Numbers and arrays are right within 1 percent (`TOLERANCE`), whole numbers if they are equal.
    A function is right if it agrees with the package on random input.

    Parameters
    ----------
    exercise : str
        Chapter and exercise, such as "09.1".
    **answers : number, ndarray, callable or None
        The reader's answers, under the names that the exercise gives them; None is no answer yet.

    Returns
    -------
    str
        One line per answer: "not answered yet", "right", or what is wrong.

    Raises
    ------
    ValueError
        If there is no check for the exercise, or it asks for other answers.

    Examples
    --------
    >>> print(check("09.1", gain=3, factor=None))
    gain: this looks like the inverse of what is asked for
    factor: not answered yet
    """
    _known(exercise)
    names = [key.split()[1] for key in _EXPECTED if key.startswith(f"{exercise} ")]
    if not answers.keys() <= set(names):
        raise ValueError(
            f"the answers to exercise {exercise} are named {names}; received {sorted(answers)}"
        )
    return "\n".join(
        f"{name}: {_verdict(answers.get(name), _EXPECTED[f'{exercise} {name}'])}" for name in names
    )


def _known(exercise: str) -> None:
    known = {key.split()[0] for key in _EXPECTED}
    if exercise not in known:
        raise ValueError(f"exercise must be one of {sorted(known)}; received {exercise!r}")


def exported(exercise: str) -> dict[str, dict]:
    """Return what a page needs to judge answers by itself: what they are compared with.

    Parameters
    ----------
    exercise : str
        Chapter and exercise, such as "09.1".

    Returns
    -------
    dict
        Of each answer that is a number, an array or a function of numbers: `looks`, a list of what
        to say and the numbers that it is said of, the right ones first; `whole`, whether they must
        be equal; of a function its `parameters` and the `draws` that it is tried on.

    Raises
    ------
    ValueError
        If no such exercise is known.

    Examples
    --------
    >>> exported("08.2")["limit"]["parameters"]
    ['momentum']
    """
    _known(exercise)
    table = {}
    for key, expected in _EXPECTED.items():
        number, name = key.split()
        if number != exercise:
            continue
        parameters = list(inspect.signature(expected).parameters)
        draws = list(_draws(parameters))
        if any(np.ndim(value) for draw in draws for value in draw):
            continue
        right = [expected(*draw) for draw in draws] if parameters else np.ravel(expected()).tolist()
        with np.errstate(invalid="ignore"):
            looks = [("right", right), *((text, f(np.array(right))) for text, f in _LOOKS.items())]
        table[name] = {
            "looks": [(text, np.asarray(numbers, float).tolist()) for text, numbers in looks],
            "whole": isinstance(right[0], int),
            **({"parameters": parameters, "draws": np.array(draws).tolist()} if parameters else {}),
        }
    return table


def _draws(parameters: list[str]) -> Iterator[list]:
    """Yield the values of its parameters that a function is tried on."""
    rng = np.random.default_rng(0)
    for _ in range(_TRIALS):
        yield [_DRAWS.get(name, lambda rng: rng.uniform(0.1, 0.9))(rng) for name in parameters]


def _verdict(answer: Any, expected: Callable) -> str:
    """Judge one answer."""
    parameters = list(inspect.signature(expected).parameters)
    if answer is None:
        return "not answered yet"
    if bool(parameters) != callable(answer):
        wanted = (
            f"a function of ({', '.join(parameters)})" if parameters else "a number or an array"
        )
        return f"{wanted} is asked for; received {type(answer).__name__}"
    if not parameters:
        return _compare(answer, expected())
    given, right = [], []
    for draw in _draws(parameters):
        right.append(expected(*draw))
        try:
            given.append(answer(*draw))
        except Exception as error:  # The reader's code may raise anything.
            return f"the function of ({', '.join(parameters)}) raised {error!r}"
        if complaint := _misfit(given[-1], right[-1]):
            return f"the function returns something else: {complaint}"
    return _compare(given, right)


def _misfit(given: Any, right: Any) -> str:
    """Return what is wrong with the form of an answer, if anything."""
    shape = np.shape(right)
    wanted = f"an array of shape {shape}" if shape else "a single number"
    try:
        found = np.asarray(given, float)
    except (TypeError, ValueError):
        return f"{wanted} is asked for; received {type(given).__name__}"
    if found.shape != shape:
        return f"{wanted} is asked for; received shape {found.shape}"
    if not np.isfinite(found).all():
        return "not finite: look for an overflow or a division by zero"
    return ""


def _compare(given: Any, right: Any) -> str:
    """Compare numbers, or arrays of the same shape."""
    if complaint := _misfit(given, right):
        return complaint
    whole = isinstance(right, int)
    given, right = np.asarray(given, float), np.asarray(right, float)
    if np.allclose(given, right, rtol=0 if whole else TOLERANCE, atol=0):
        return "right"
    if whole and np.abs(given - right) <= 1:
        return "off by one or less: count again, and give a whole number"
    if right.ndim and np.allclose(np.sort(given, None), np.sort(right, None), rtol=TOLERANCE):
        return "the right numbers in another order"
    looks = [
        text for text, change in _LOOKS.items() if np.allclose(given, change(right), rtol=TOLERANCE)
    ]
    return f"this looks like {', or '.join(looks)}" if looks else _size(given, right)


def _size(given: np.ndarray, right: np.ndarray) -> str:
    """Say in which direction an answer is wrong."""
    with np.errstate(divide="ignore"):
        ratio = given / right
        if np.all(ratio < 0):
            return "wrong sign, and another size"
        for direction, off in (("large", ratio), ("small", 1 / ratio)):
            if np.all(off > 10):
                return f"too {direction}, by more than a factor of 10"
            if np.all(off > 1 + TOLERANCE):
                return f"too {direction}{', but near' if np.all(off < 1.1) else ''}"
    return f"{np.sum(np.abs(ratio - 1) > TOLERANCE)} of {right.size} numbers are wrong"
