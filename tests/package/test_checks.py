"""Every check speaks of a model that fails by its cause, and not of the twin that trains."""

import keras
import pytest

pytest.importorskip("tensorflow")

from benchmarks.diagnosis import kinds
from gradutils.checks import CHECKS
from gradutils.diagnosis import diagnose

# Check -> cause and name of a pair in the tuning half, and training steps before the diagnosis.
PAIRS = {
    "G01": ("loss and activation", "softmax over one unit", 0),
    "G02": ("loss and activation", "logits as probabilities", 0),
    "G03": ("loss and activation", "softmax twice", 0),
    "G04": ("loss and activation", "tanh into a logarithm", 0),
    "G05": ("loss not finite", "arguments swapped", 0),
    "G06": ("out of reach", "tanh, 1 to 4", 0),
    "G07": ("scaled labels", "divided by 255", 0),
    "G08": ("broadcast", "targets without their axis", 0),
    "G09": ("wrong sign", "negative squared error", 0),
    "G10": ("half precision", "Adam", 0),
    "G11": ("recurrent activation", "relu in an LSTM", 0),
    "G12": ("penalty not finite", "root of an activity", 0),
    "G13": ("bad rows", "CTC labels too long", 0),
    "G14": ("undefined derivative", "branch not taken", 0),
    "G15": ("step too small", "all frozen", 0),
    "G16": ("disconnected", "argmax", 0),
    "G17": ("nothing returns", "certain critic", 0),
    "G18": ("second derivative", "relu, 2 layers", 0),
    "G19": ("equal units", "zeros, relu", 0),
    "G20": ("dead or saturated", "dead layer", 0),
    "G21": ("dead or saturated", "saturated tanh", 0),
    "G22": ("vanishing", "8 sigmoid layers", 0),
    "G23": ("exploding", "10 relu layers, SGD", 0),
    "G24": ("reach", "simple RNN, 120 steps", 0),
    "G25": ("exploding", "simple RNN over 60 steps", 0),
    "G26": ("variance of one", "batch of 1", 0),
    "G27": ("input scale", "30, SGD", 0),
    "G28": ("input scale", "3, spread of 0.03", 400),
    "G29": ("feature scale", "300, Adam", 0),
    "G30": ("target scale", "1e5, Adam", 0),
    "G31": ("penalty", "L2 of 1", 0),
    "G32": ("wrong sign", "negative rate", 0),
    "G33": ("step too large", "SGD", 0),
    "G34": ("step too small", "SGD of 1e-6", 0),
    "G35": ("inference", "one norm", 60),
    "G36": ("target scale", "1e5, Adam", 60),
    "G37": ("rare class", "pixels, Adam", 60),
    "G38": ("affine", "sign of a product", 80),
}
# Failing models that an earlier form of their check missed.
MORE = [
    ("G34", ("step too small", "SGD of 1e-5", 0)),
    ("G37", ("rare class", "table, SGD", 400)),
]


def said(cause: str, name: str, steps: int, sick: bool) -> set[str]:
    """The ids of the findings on one model of a pair."""
    pair = next(p for p, held_out in kinds.pairs() if (p.cause, p.name) == (cause, name))
    keras.utils.set_random_seed(0)
    case = pair.build(sick)
    if steps:
        kinds.trainer(case)(kinds.batches(case, steps, seed=0))
    found = diagnose(case.model, *kinds.given(case), try_remedies=False)
    return {finding.id for finding in found.findings}


def test_every_check_has_a_failing_model_and_a_sound_twin():
    assert {check.id for check in CHECKS if not check.note} == set(PAIRS)


# Keras warns of one of the causes itself.
@pytest.mark.filterwarnings("ignore:.*softmax over axis:UserWarning")
@pytest.mark.parametrize(("check", "pair"), [*PAIRS.items(), *MORE])
def test_a_check_tells_a_failing_model_from_its_sound_twin(check, pair):
    assert check in said(*pair, sick=True)
    assert said(*pair, sick=False) == set()
