"""The tournament of chapter 17 on a finer grid: every fix and the sensible pairs on every patient.

    python -m benchmarks.tournament              160 steps, six or seven rates: about half an hour
    python -m benchmarks.tournament --quick      64 steps, three rates: about five minutes
    python -m benchmarks.tournament --only relu  arms whose patient's name contains "relu"

Every arm has the same data, the same budget, a search of the same size for its learning rate, and
three draws. Printed are the median score of the draws, the lowest and the highest, and the rate.
The score is the share of the test digits named right (chance 0.10); on the adding problem the share
of the variance explained. Arms with a wide range amplify rounding: their scores move by some
hundredths from one processor to another.
"""

import argparse
import platform
import time
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from gradutils import datasets, initializers, networks, patients, recurrent
from gradutils.patients import FAINT_LOSS_WEIGHT

SEEDS = (0, 1, 2)
DEFAULT, RECURRENT = "learning rate", "recurrent"
NAMES = [*patients.PATIENTS, RECURRENT]
Fix = dict[str, Any]
_quiet = np.errstate(over="ignore", invalid="ignore")  # a run that diverges is a result

#: Fix -> what it changes; the same as in the chapter.
FIXES: dict[str, Fix] = {
    DEFAULT: {},
    "ReLU": {"activation": "relu"},
    "tanh": {"activation": "tanh"},
    "SELU": {"activation": "selu"},
    "weights": {"weights": True},
    "weight decay": {"decay": 0.01},
    "Adam": {"optimizer": "adam"},
    "clipping": {"clip_norm": 1.0},
    "batch norm": {"normalization": "batch"},
    "layer norm": {"normalization": "layer"},
    "skip": {"branch_scale": 1.0},
    "skip, scaled": {"branch_scale": "1/sqrt(L)"},
    "loss scaling": {"loss_scale": 1 / FAINT_LOSS_WEIGHT},
    "gates": {"gates": True},
}
#: The chapter's pairs, and five more.
PAIRS = [
    "ReLU + weights",
    "weights + Adam",
    "weights + skip, scaled",
    "layer norm + skip, scaled",
    "loss scaling + Adam",
    "gates + Adam",
    "SELU + weights",
    "clipping + Adam",
    "batch norm + skip, scaled",
    "layer norm + Adam",
    "gates + clipping",
]
#: Weights that suit an activation; for the sigmoid with centring biases.
SUITED: dict[str, str | float] = {"relu": "he", "tanh": "glorot", "selu": "lecun", "sigmoid": 4.2}
#: Settings that change nothing in a patient, since it has them already.
OWN: dict[str, Fix] = {
    "deep sigmoid": {"activation": "sigmoid"},
    "deep relu": {"activation": "relu"},
    "exploding tanh": {"activation": "tanh"},
    "deep batch norm": {"activation": "relu", "normalization": "batch", "weights": True},
    "float16": {"activation": "tanh", "weights": True},
    RECURRENT: {"activation": "tanh"},
}


class Budget(NamedTuple):
    """How much each arm gets: digits, epochs over them, sequences, rates by optimiser."""

    samples: int
    epochs: int
    sequences: int
    rates: dict[str, list[float]]


QUICK = Budget(512, 4, 500, {"sgd": [0.003, 0.03, 0.3], "adam": [0.0003, 0.003, 0.03]})
FULL = Budget(
    1280, 4, 1000,
    {
        "sgd": [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
        "adam": [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03],
    },
)  # fmt: skip


class Gated(recurrent.RNN):
    """A GRU without reset gate: x_t = f_t x_{t-1} + (1 - f_t) g_t; forget bias 1."""

    def __init__(self, inputs: int, units: int, outputs: int, *, rng: np.random.Generator) -> None:
        super().__init__(inputs, units, outputs, rng=rng)
        self.U = initializers.draw("glorot", (inputs, 2 * units), rng)
        self.W = initializers.draw("orthogonal", (units, 2 * units), rng)
        self.b = np.repeat([1.0, 0.0], units)

    @_quiet
    def forward(self, u: np.ndarray, x0: np.ndarray | None = None) -> recurrent.Run:
        """As the RNN's; pre holds the pre-activations of gate and candidate side by side."""
        n, x = len(self.W), np.zeros((len(u), u.shape[1] + 1, len(self.W)))
        x[:, 0] = 0 if x0 is None else x0
        a = u @ self.U + self.b  # (batch, time, 2 n)
        for t in range(u.shape[1]):
            a[:, t] += x[:, t] @ self.W
            f = 1 / (1 + np.exp(-a[:, t, :n]))
            x[:, t + 1] = f * x[:, t] + (1 - f) * np.tanh(a[:, t, n:])
        return recurrent.Run(u, a, x, x[:, -1] @ self.V + self.c)

    @_quiet
    def backward(self, run: recurrent.Run, grad_output: np.ndarray) -> recurrent.Gradients:
        """As the RNN's."""
        n, signal, delta = len(self.W), grad_output @ self.V.T, np.empty_like(run.pre)
        gate, candidate = 1 / (1 + np.exp(-run.pre[..., :n])), np.tanh(run.pre[..., n:])
        for t in reversed(range(delta.shape[1])):
            f, g, x = gate[:, t], candidate[:, t], run.states[:, t]
            delta[:, t, :n] = signal * (x - g) * f * (1 - f)
            delta[:, t, n:] = signal * (1 - f) * (1 - g**2)
            signal = signal * f + delta[:, t] @ self.W.T
        sums = [np.tensordot(a, delta, ((0, 1), (0, 1))) for a in (run.inputs, run.states[:, :-1])]
        weights = [*sums, run.states[:, -1].T @ grad_output]
        biases = [delta.sum(axis=(0, 1)), grad_output.sum(axis=0)]
        return recurrent.Gradients(delta, weights, biases, signal)


def merged(row: str) -> Fix:
    """The settings of a fix, or of a pair "a + b"."""
    return {k: v for part in row.split(" + ") for k, v in FIXES[part].items()}


def effective(name: str, fix: Fix) -> Fix | None:
    """What the fix changes in that patient; None if it has no place there.

    A power of two times the loss changes no float64 run, so loss scaling drops out there.
    """
    fix = {k: v for k, v in fix.items() if OWN[name].get(k) != v}
    if name != "float16":
        fix.pop("loss_scale", None)
    between_layers = {"normalization", "branch_scale"} & fix.keys()
    return None if (between_layers if name == RECURRENT else "gates" in fix) else fix


def with_decay(net: Any, strength: float) -> Any:
    """Have `backward` add the derivative of the penalty, strength * W, to the weight gradients."""
    plain = net.backward

    def backward(signals: Any, grad_output: np.ndarray) -> Any:
        found = plain(signals, grad_output)
        pairs = zip(found.weights, net.weights, strict=True)
        return found._replace(weights=[g + strength * W for g, W in pairs])

    net.backward = backward
    return net


def network(name: str, fix: Fix, seed: int) -> networks.MLP:
    """A dense patient with a fix."""
    own = patients.PATIENTS[name]
    changes = {k: fix[k] for k in ("activation", "normalization", "branch_scale") if k in fix}
    if "branch_scale" in fix and fix["branch_scale"] != 1.0:
        changes["branch_scale"] = (len(own["widths"]) - 1) ** -0.5
    activation = fix.get("activation", own["activation"])
    if "weights" in fix:
        changes["initializer"] = SUITED[activation]
    net = patients.patient(name, seed=seed, **changes)
    if "weights" in fix and activation == "sigmoid":
        for W, b in zip(net.weights[1:], net.biases[1:], strict=True):
            b[:] = -W.sum(axis=0) / 2
    return net


def dense_arm(name: str, fix: Fix, budget: Budget) -> tuple[np.ndarray, float]:
    """Scores of the draws, and the rate, of a dense patient with a fix."""
    weight = FAINT_LOSS_WEIGHT * fix.get("loss_scale", 1.0) if name == "float16" else 1.0

    def loss(outputs: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = networks.cross_entropy(outputs, labels)
        return value, weight * gradient

    optimizer = fix.get("optimizer", "sgd")
    arm = patients.search_learning_rate(
        lambda seed: with_decay(network(name, fix, seed), weight * fix.get("decay", 0.0)),
        learning_rates=budget.rates[optimizer], seeds=SEEDS, samples=budget.samples,
        epochs=budget.epochs, batch_size=32, loss=loss, optimizer=optimizer, momentum=0.9,
        clip_norm=fix.get("clip_norm", np.inf),
    )  # fmt: skip
    return arm.best, arm.learning_rate


def recurrent_network(fix: Fix, rng: np.random.Generator) -> recurrent.RNN:
    """The recurrent patient with a fix."""
    units, activation = 24, fix.get("activation", "tanh")
    if "gates" in fix:
        return Gated(2, units, 1, rng=rng)
    net = recurrent.RNN(2, units, 1, activation, recurrent=1.0, rng=rng)
    net.W *= 0.9 / recurrent.spectral_radius(net.W)
    if "weights" in fix:
        orthogonal = initializers.draw("orthogonal", (units, units), rng)
        net.W = np.eye(units) if activation == "relu" else orthogonal
    return with_decay(net, fix.get("decay", 0.0))


def recurrent_run(fix: Fix, rate: float, seed: int, sequences: int) -> tuple[float, float]:
    """Last training loss, and the share of the variance explained on fresh sequences."""
    rng = np.random.default_rng(seed)
    net = recurrent_network(fix, rng)
    u, target = datasets.adding_problem(sequences, 20, rng)
    options = {k: fix[k] for k in ("optimizer", "clip_norm") if k in fix}
    history = networks.train(
        net, u, target[:, None], loss=networks.squared_error, learning_rate=rate, rng=rng,
        epochs=10, batch_size=25, momentum=0.9, **options,
    )  # fmt: skip
    u, target = datasets.adding_problem(500, 20, np.random.default_rng(99))
    error = networks.squared_error(net.forward(u).output, target[:, None])[0]
    return float(np.nan_to_num(history[-1], nan=np.inf)), 1 - 6 * error


def recurrent_arm(fix: Fix, budget: Budget) -> tuple[np.ndarray, float]:
    """Scores of the draws, and the rate, of the recurrent patient with a fix."""
    rates = budget.rates[fix.get("optimizer", "sgd")]
    runs = np.array(
        [[recurrent_run(fix, rate, seed, budget.sequences) for seed in SEEDS] for rate in rates]
    )  # (rates, seeds, 2)
    best = int(np.argmin(runs[..., 0].mean(axis=1)))
    scores = runs[best, :, 1]
    return np.clip(np.where(np.isfinite(scores), scores, 0), 0, 1), rates[best]


def main(arguments: list[str] | None = None) -> None:
    """Print a line for every arm."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tournament")
    parser.add_argument("--quick", action="store_true", help="a smaller budget")
    parser.add_argument("--only", default="", help="patients whose name contains this")
    options = parser.parse_args(arguments)
    budget = QUICK if options.quick else FULL
    print(f"{platform.machine()}, {platform.system()}, NumPy {np.__version__}")
    print(f"{'patient':16s} {'fix':26s} {'median':>6s}   range          rate")
    start, done = time.perf_counter(), {}
    cells = [(n, r) for n in NAMES if options.only in n for r in [*FIXES, *PAIRS]]
    for name, row in tqdm(cells, leave=False):
        fix = effective(name, merged(row))
        key = name, str(fix)
        if fix is None or key in done:
            continue
        arm = recurrent_arm(fix, budget) if name == RECURRENT else dense_arm(name, fix, budget)
        done[key], (scores, rate) = arm, arm
        tqdm.write(
            f"{name:16s} {row:26s} {np.median(scores):6.2f}   {scores.min():.2f} to "
            f"{scores.max():.2f}   {rate:.2g}"
        )
    print(f"{len(done)} arms, {(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
