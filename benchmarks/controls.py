"""Claims of chapters 1 to 15 that need more seeds, rates or arms than a notebook has time for.

    python -m benchmarks.controls            all of them: two hours or more
    python -m benchmarks.controls NAME ...   those named; --list prints the names

Each table has 8 seeds, a search of the learning rate that reaches beyond the best one on either
side, and the arms that a chapter's sentence needs. For every rate it prints the median over the
seeds, the lowest and the highest.
"""

import argparse
from collections.abc import Callable, Iterable
from types import ModuleType

import numpy as np
from tqdm import tqdm

from gradutils import activations, datasets, initializers, networks, patients, theory
from tools.chapters import definitions

SEEDS = tuple(range(8))
Make = Callable[[int], networks.MLP]


def quiet() -> np.errstate:
    """Return a context without warnings: a run that diverges is a result."""
    return np.errstate(over="ignore", invalid="ignore")


def row(label: str, rate: float, values: Iterable[float]) -> None:
    """Print one line of a table: the median of the values, their range and their number."""
    v = np.array(list(values))
    spread = f"{np.median(v):.2f} ({v.min():.2f} to {v.max():.2f}), n = {len(v)}"
    print(f"{label:28s} {rate:<8g} {spread}", flush=True)


def search(arms: dict[str, Make], rates: Iterable[float], **settings) -> None:
    """Train every arm on digits at every rate with 8 seeds; print the test accuracies."""
    for label, make in arms.items():
        for rate in rates:
            with quiet():
                arm = patients.search_learning_rate(
                    make, learning_rates=[rate], seeds=SEEDS, **settings
                )
            row(label, rate, arm.accuracy[0])


def mlp(widths, activation, rule, **options) -> Make:
    """Return a function from a seed to a network."""
    return lambda seed: networks.MLP(widths, activation, rule, seed=seed, **options)


def with_identity(seed: int) -> networks.MLP:
    """Return 30 ReLU layers: three drawn ones, and 27 identities before the last."""
    net = networks.MLP([64] * 30 + [10], "relu", "glorot", seed=seed)
    shallow = networks.MLP([64] * 3 + [10], "relu", "glorot", seed=seed)
    net.weights = shallow.weights[:-1] + [np.eye(64) for _ in range(27)] + shallow.weights[-1:]
    return net


def starts() -> None:
    """Chapter 1: thirty ReLU layers from three starts, and one layer; test accuracy, 10 epochs."""
    deep = [64] * 30 + [10]
    arms = {
        "usual weights": mlp(deep, "relu", "glorot"),
        "larger weights": mlp(deep, "relu", "he"),
        "identity layers": with_identity,
        "one linear layer": mlp([64, 10], "linear", "glorot"),
    }
    search(arms, (0.001, 0.005, 0.02), samples=1348, momentum=0.9)


def trainable_depth() -> None:
    """Chapter 5: which tanh networks fit 64 digits within 64 steps, with 8 seeds each."""
    data = datasets.digits(np.random.default_rng(0))
    x, y = data.x_train[:64], data.y_train[:64]
    counts = {"below": np.zeros(3, int), "above": np.zeros(3, int)}
    for depth in (5, 10, 20, 40, 80):
        for sigma_w in (0.6, 0.8, 1.0, 1.327, 1.7, 2.2, 3.0):
            found = []
            for seed in SEEDS:
                net = networks.MLP([64] + [48] * (depth - 1) + [10], "tanh", sigma_w,
                                   seed=seed, bias_std=0.05**0.5)  # fmt: skip
                networks.train(net, x, y, loss=networks.cross_entropy, learning_rate=0.04,
                               momentum=0.9, epochs=64, batch_size=64, clip_norm=0.3,
                               rng=np.random.default_rng(1))  # fmt: skip
                found.append(networks.accuracy(net, x, y))
            v, border = np.array(found), 6 * theory.depth_scale("tanh", sigma_w, 0.05**0.5)
            row(f"depth {depth}, 6 xi {border:.0f}", sigma_w, v)
            counts["below" if depth < border else "above"] += [
                (v >= 0.9).sum(), ((v > 0.4) & (v < 0.9)).sum(), (v <= 0.4).sum()
            ]  # fmt: skip
    for side, (fits, between, fails) in counts.items():
        print(f"{side} 6 xi: {fits} fitted, {between} between, {fails} not fitted")


def centred_sigmoid() -> None:
    """Chapters 5 and 9: twenty sigmoid layers, centred or not, small or large weights."""
    phi = activations.get("sigmoid")
    centred = (lambda h: phi.phi(h) - 0.5, phi.derivative)
    deep = [64] * 20 + [10]
    arms = {
        "as it is": mlp(deep, "sigmoid", "glorot"),
        "sigma_w = 4 alone": mlp(deep, "sigmoid", 4.0),
        "sigma_w = 10.15 alone": mlp(deep, "sigmoid", theory.critical_sigma_w("sigmoid")),
        "centred alone": mlp(deep, centred, "glorot"),
        "centred, sigma_w = 4": mlp(deep, centred, 4.0),
        "tanh, Glorot": mlp(deep, "tanh", "glorot"),
        "SELU, Glorot": mlp(deep, "selu", "glorot"),
    }
    search(arms, (0.003, 0.01, 0.03, 0.1, 0.3), momentum=0.9)


def centred_digits() -> None:
    """Chapter 5: twenty centred sigmoid layers on all digits for 20 epochs; test accuracy."""

    def make(seed: int) -> networks.MLP:
        net = networks.MLP([64] * 20 + [10], "sigmoid", 4.0, seed=seed)
        net.biases[1:] = [-W.sum(axis=0) / 2 for W in net.weights[1:]]
        return net

    rates = (0.01, 0.03, 0.1)
    search({"centred, sigma_w = 4": make}, rates, samples=1348, epochs=20, momentum=0.9)


def isometry() -> None:
    """Chapter 5: steps until a linear network fits 256 digits, by depth, rule and rate."""
    data = datasets.digits(np.random.default_rng(0))
    x, targets = data.x_train[:256], np.eye(10)[data.y_train[:256]]
    x = x / np.sqrt(np.mean(x**2))
    for depth in (10, 30):
        for rule in ("orthogonal", "lecun"):
            for rate in (0.5, 1.0, 2.0, 4.0):
                found = []
                for seed in SEEDS:
                    net = networks.MLP([64] * depth + [10], "linear", rule, seed=seed)
                    with quiet():
                        loss = networks.train(
                            net, x, targets, loss=networks.squared_error, epochs=120,
                            learning_rate=rate / depth, batch_size=256,
                            rng=np.random.default_rng(0),
                        )  # fmt: skip
                    below = np.flatnonzero(loss < 0.055)
                    found.append(below[0] if len(below) else np.inf)
                row(f"{depth} layers, {rule}", rate, found)


def worked_example() -> None:
    """Chapter 7: twenty layers of ten units on two spirals under Adam; accuracy on fresh points."""
    x, y = datasets.spirals(1000, np.random.default_rng(0))
    fresh = datasets.spirals(1000, np.random.default_rng(1))
    deep = [2] + [10] * 20 + [2]
    arms = {
        "sigmoid": mlp(deep, "sigmoid", "glorot"),
        "ReLU": mlp(deep, "relu", "glorot"),
        "ReLU, He": mlp(deep, "relu", "he"),
        "ReLU, skip": mlp(deep, "relu", "glorot", branch_scale=20**-0.5),
        "one linear layer": mlp([2, 2], "linear", "glorot"),
    }
    for label, make in arms.items():
        for rate in (0.001, 0.003, 0.01, 0.03, 0.1):
            found = []
            for seed in SEEDS:
                net = make(seed)
                with quiet():
                    networks.train(net, x, y, loss=networks.cross_entropy, learning_rate=rate,
                                   optimizer="adam", epochs=10, batch_size=100,
                                   rng=np.random.default_rng(seed))  # fmt: skip
                    found.append(networks.accuracy(net, *fresh))
            row(label, rate, found)


def rates() -> None:
    """Chapter 8: two sick networks and a healthy one at eight rates; test accuracy."""
    arms = {
        "deep sigmoid": lambda seed: patients.patient("deep sigmoid", seed=seed),
        "deep relu": lambda seed: patients.patient("deep relu", seed=seed),
        "healthy tanh": lambda seed: patients.patient("deep sigmoid", seed=seed, activation="tanh"),
    }
    search(arms, np.geomspace(1e-5, 1e2, 8), samples=256, momentum=0.9)


def plain_activations() -> None:
    """Chapter 9: thirty layers of each activation at its gain, 6 epochs; test accuracy."""
    names = ("sigmoid", "relu", "gelu", "silu", "tanh", "elu", "selu")
    arms = {n: mlp([64] * 30 + [10], n, theory.forward_gain(n)) for n in names}
    search(arms, (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), epochs=6, momentum=0.9)


def dead_units() -> None:
    """Chapter 9: the share of the units dead at the start that live after three epochs."""
    data = datasets.digits(np.random.default_rng(0))
    x, y = data.x_train[:512], data.y_train[:512]
    for rate in (0.001, 0.003, 0.01):
        shares, first = [], []
        for seed in SEEDS:
            net = networks.MLP([64] + [128] * 30 + [10], "relu", "he", seed=seed)
            before = [np.all(h <= 0, axis=0) for h in net.forward(x).pre[:-1]]
            networks.train(net, x, y, loss=networks.cross_entropy, learning_rate=rate, epochs=3,
                           rng=np.random.default_rng(seed))  # fmt: skip
            after = [np.all(h <= 0, axis=0) for h in net.forward(x).pre[:-1]]
            dead = np.concatenate(before[1:])
            shares.append(np.mean(~np.concatenate(after[1:])[dead]))
            first.append(before[0].sum())
        row("dead at first, alive later", rate, shares)
    print("dead units of layer 1 at the start, by seed:", first)


def looks_linear(net: networks.MLP, rng: np.random.Generator) -> networks.MLP:
    """Give a ReLU network the mirrored weights of chapter 10."""
    shapes, final = [W.shape for W in net.weights], len(net.weights) - 1
    for i, (n_in, n_out) in enumerate(shapes):
        half = (n_in if i == 0 else n_in // 2, n_out if i == final else n_out // 2)
        V = initializers.orthogonal(half, rng)
        H = V if i == final else np.hstack([V, -V])
        net.weights[i] = H if i == 0 else np.vstack([H, -H])
    return net


def lsuv(net: networks.MLP, x: np.ndarray) -> networks.MLP:
    """Divide each matrix by the deviation of its output on a batch, as in chapter 10."""
    signal = x
    for W in net.weights:
        W /= np.std(signal @ W)
        signal = net.activation.phi(signal @ W)
    return net


def deep_starts() -> None:
    """Chapter 10: four starts of thirty ReLU layers and one layer, on digits; test accuracy."""
    x = datasets.digits(np.random.default_rng(0)).x_train[:512]

    def rotated(seed: int) -> networks.MLP:
        return patients.patient("deep relu", seed=seed, initializer="orthogonal")

    def orthogonal(seed: int) -> networks.MLP:
        net = rotated(seed)
        net.weights = [2**0.5 * W for W in net.weights]
        return net

    arms = {
        "He": lambda seed: patients.patient("deep relu", seed=seed, initializer="he"),
        "orthogonal": orthogonal,
        "LSUV": lambda seed: lsuv(rotated(seed), x),
        "looks-linear": lambda seed: looks_linear(
            patients.patient("deep relu", seed=seed), np.random.default_rng(seed)
        ),
        "one layer": mlp([64, 10], "linear", "lecun"),
    }
    search(arms, (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1), momentum=0.9)


def spirals() -> None:
    """Chapter 10: looks-linear, He and one layer on two spirals; accuracy on fresh points."""
    x, y = datasets.spirals(500, np.random.default_rng(0))
    fresh = datasets.spirals(1000, np.random.default_rng(1))

    def mirrored(seed: int) -> networks.MLP:
        net = networks.MLP([2] + [64] * 29 + [2], "relu", "he", seed=seed)
        looks_linear(net, np.random.default_rng(seed)).weights[0] *= 4
        return net

    arms = {
        "one layer": mlp([2, 2], "linear", "lecun"),
        "He": mlp([2] + [64] * 29 + [2], "relu", "he"),
        "looks-linear": mirrored,
    }
    for label, make in arms.items():
        for rate in (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1):
            found = []
            for seed in SEEDS:
                net = make(seed)
                with quiet():
                    networks.train(net, x, y, loss=networks.cross_entropy, learning_rate=rate,
                                   momentum=0.9, epochs=10,
                                   rng=np.random.default_rng(seed))  # fmt: skip
                    found.append(networks.accuracy(net, *fresh))
            row(label, rate, found)


def depths() -> None:
    """Chapter 10: 22 and 30 ReLU layers with two rules; test accuracy after 20 epochs."""
    arms = {
        f"{depth} layers, {rule}": mlp([64] * depth + [10], "relu", rule)
        for depth in (22, 30)
        for rule in ("glorot", "he")
    }
    search(arms, (0.003, 0.01, 0.03), samples=1348, epochs=20, momentum=0.9)


def regularisation() -> ModuleType:
    """Return the definitions of chapter 11, with the data that its functions read."""
    chapter = definitions("11_regularization")
    chapter.data = datasets.digits(np.random.default_rng(0))
    chapter.x, chapter.y = chapter.data.x_train[:512], chapter.data.y_train[:512]
    return chapter


def decay_first() -> None:
    """Chapter 11: the exploding tanh network after ten epochs of decay alone, and without them."""
    fit, share = regularisation().fit, 1 - 3 ** (-1 / 80)
    for label, first in (("decay first", True), ("no decay", False)):
        for rate in (0.003, 0.01, 0.03, 0.1):
            found = []
            for seed in SEEDS:
                net = patients.patient("exploding tanh", seed=seed)
                with quiet():
                    if first:
                        fit(net, 1e-5, decay=share / 1e-5, seed=seed)
                    found.append(fit(net, rate, seed=seed))
            row(label, rate, found)


def decay_beside() -> None:
    """Chapter 11: the exploding tanh network, decay beside the loss at eight settings."""
    fit = regularisation().fit
    for rate in (1e-3, 1e-2):
        for share in (0, 1e-3, 1e-2, 3e-2):
            nets = [patients.patient("exploding tanh", seed=seed) for seed in SEEDS]
            with quiet():
                found = [fit(net, rate, decay=share / rate) for net in nets]
            row(f"decay {share / rate:g}", rate, found)


def regularisers() -> None:
    """Chapter 11: the deep ReLU network with each regulariser, and with tanh; test accuracy."""
    chapter = regularisation()
    for label, arm in chapter.TRIALS.items():
        for rate in (0.001, 0.003, 0.01, 0.03, 0.1):
            with quiet():
                row(label, rate, [chapter.score(*arm, rate, seed) for seed in SEEDS])


def clipped_patients() -> None:
    """Chapter 13: three sick networks and a healthy one, clipped at norm 1; test accuracy."""
    arms = {
        "exploding tanh": lambda seed: patients.patient("exploding tanh", seed=seed),
        "deep batch norm": lambda seed: patients.patient("deep batch norm", seed=seed),
        "deep relu": lambda seed: patients.patient("deep relu", seed=seed),
        "healthy tanh": lambda seed: patients.patient(
            "exploding tanh", seed=seed, initializer="glorot"
        ),
    }
    rates = (0.001, 0.01, 0.1)
    search(arms, rates, samples=256, epochs=5, momentum=0.9, clip_norm=1.0)


def normalised() -> None:
    """Chapter 14: three sick networks with batch and with layer normalisation; test accuracy."""
    arms = {
        f"{name}, {kind}": lambda seed, name=name, kind=kind: patients.patient(
            name, seed=seed, normalization=kind
        )
        for name in ("deep sigmoid", "deep relu", "exploding tanh")
        for kind in ("batch", "layer")
    }
    search(arms, (0.01, 0.03, 0.1), samples=256, epochs=7, momentum=0.9)


def skips() -> None:
    """Chapter 15: other patients with and without a scaled skip; the unscaled one, tiny rates."""
    settings = {"samples": 256, "momentum": 0.9}
    arms = {}
    for name in ("deep sigmoid", "exploding tanh", "deep batch norm"):
        scale = (len(patients.PATIENTS[name]["widths"]) - 2) ** -0.5
        for label, a in (("plain", None), ("skip", scale)):
            arms[f"{name}, {label}"] = lambda seed, name=name, a=a: patients.patient(
                name, seed=seed, branch_scale=a
            )
    arms["one linear layer"] = mlp([64, 10], "linear", "lecun")
    search(arms, (0.003, 0.01, 0.03, 0.1, 0.3), epochs=5, **settings)
    search({"one linear layer": arms["one linear layer"]}, (0.3, 1.0, 3.0), epochs=7, **settings)
    unscaled = {
        "He, unscaled skip": lambda seed: patients.patient(
            "deep relu", seed=seed, initializer="he", branch_scale=1.0
        )
    }
    search(unscaled, [10.0**-k for k in range(4, 10)], **settings)


EXPERIMENTS = {
    "starts": starts,
    "trainable-depth": trainable_depth,
    "centred-sigmoid": centred_sigmoid,
    "centred-digits": centred_digits,
    "isometry": isometry,
    "worked-example": worked_example,
    "rates": rates,
    "plain-activations": plain_activations,
    "dead-units": dead_units,
    "deep-starts": deep_starts,
    "spirals": spirals,
    "depths": depths,
    "decay-first": decay_first,
    "decay-beside": decay_beside,
    "regularisers": regularisers,
    "clipped-patients": clipped_patients,
    "normalised": normalised,
    "skips": skips,
}


def main(arguments: list[str] | None = None) -> None:
    """Print the tables named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.controls", description=__doc__)
    parser.add_argument("names", nargs="*", help="default: all")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"{name:18s} {f.__doc__}" for name, f in EXPERIMENTS.items()))
        return
    for name in tqdm(options.names or EXPERIMENTS, leave=False):
        print(f"\n{name}: {EXPERIMENTS[name].__doc__}")
        EXPERIMENTS[name]()


if __name__ == "__main__":
    main()
