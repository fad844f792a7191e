import numpy as np
import pytest

from gradutils import datasets, networks
from gradutils.patients import FAINT_LOSS_WEIGHT, patient, search_learning_rate


@pytest.fixture(scope="module")
def data():
    split = datasets.digits(np.random.default_rng(0))
    return split.x_train[:256], split.y_train[:256]


def decades(net, data, factor=1.0):
    """log10 of the backward signal in the first layer over that in the last."""
    signals = net.forward(data[0])
    _, grad_output = networks.cross_entropy(signals.output, data[1])
    delta = net.backward(signals, factor * grad_output).delta
    return np.log10(np.linalg.norm(delta[0]) / np.linalg.norm(delta[-1]))


# Decades over the layers, half the logarithm of chi each (for a sigmoid, chi = sigma_w^2 / 16):
# theory gives -12, -4.5, +4, +4.2; a factor of 10 for the spread over seeds and the finite width.
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("deep sigmoid", -13, -11),
        ("deep relu", -5.5, -3.5),
        ("exploding tanh", 3, 5),
        ("deep batch norm", 3, 5),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_each_patient_has_its_illness(name, low, high, seed, data):
    assert low < decades(patient(name, seed=seed), data) < high


def test_the_float16_patient_loses_its_gradient_to_rounding_alone(data):
    assert abs(decades(patient("float16", seed=0, storage=None), data, FAINT_LOSS_WEIGHT)) < 1
    net = patient("float16", seed=0)
    signals = net.forward(data[0])
    grad_output = networks.cross_entropy(signals.output, data[1])[1]
    zeros = [
        (net.backward(signals, factor * grad_output).delta[0] == 0).mean()
        for factor in (FAINT_LOSS_WEIGHT, 1.0)
    ]
    assert zeros[0] > 0.9
    assert zeros[1] < 0.01


def test_one_thing_can_be_changed(data):
    mended = patient("deep relu", seed=0, initializer="he")
    assert abs(decades(mended, data)) < 1
    assert len(mended.weights) == len(patient("deep relu", seed=0).weights)


def test_unknown_patient():
    with pytest.raises(
        ValueError, match="name must be one of deep sigmoid, .*; received 'healthy'"
    ):
        patient("healthy", seed=0)


def test_treatment_is_plain_training_at_the_rate_of_the_lowest_loss():
    split = datasets.digits(np.random.default_rng(0))
    rates, expected, losses = [1e-3, 1e-2, 1e3], [], []
    for rate in rates:
        net = patient("float16", seed=4, storage=None)
        history = networks.train(
            net, split.x_train[:128], split.y_train[:128], loss=networks.cross_entropy,
            learning_rate=rate, epochs=3, rng=np.random.default_rng(4), momentum=0.9,
        )  # fmt: skip
        losses.append(history[-1])
        expected.append(networks.accuracy(net, split.x_test, split.y_test))
    arm = search_learning_rate(
        lambda seed: patient("float16", seed=seed, storage=None),
        learning_rates=rates, seeds=[4], samples=128, epochs=3, momentum=0.9,
    )  # fmt: skip
    assert arm.accuracy[:, 0].tolist() == expected
    assert arm.learning_rate == rates[int(np.nanargmin(losses))]
    assert arm.best.tolist() == [expected[rates.index(arm.learning_rate)]]


def test_a_search_takes_three_draws_512_samples_and_ten_epochs_unless_told(monkeypatch):
    seeds, runs = [], []

    def make(seed):
        seeds.append(seed)
        return networks.MLP([64, 10], "linear", "lecun", seed=seed)

    def train(net, x, y, *, epochs, **options):
        runs.append((len(x), len(y), epochs))
        return np.ones(epochs)

    monkeypatch.setattr(networks, "train", train)
    search_learning_rate(make, learning_rates=[0.1])
    assert (seeds, runs) == ([0, 1, 2], 3 * [(512, 512, 10)])


@pytest.mark.parametrize("empty", [{"learning_rates": []}, {"seeds": []}])
def test_a_search_needs_rates_and_seeds(empty):
    with pytest.raises(ValueError, match="learning_rates and seeds must each hold one or more"):
        search_learning_rate(lambda seed: None, **({"learning_rates": [0.1]} | empty))
