"""Chapter 6's adding problem over 50 steps with controls: does the lost signal stop the learning?

    python -m benchmarks.adding          five starts, three rates of Adam, 8 seeds: five minutes
    python -m benchmarks.adding --sgd    the chapter's gradient descent instead: a minute

Every network has 24 units and reads 2,000 sequences in batches of 25, for 12 epochs with Adam and
for 10 with gradient descent. Printed is the share of the signal that reaches the step 49 before the
last, at the start; then for each learning rate the median of the error on fresh sequences, as a
share of guessing the mean, its range over the seeds, how many seeds fall below a quarter, and the
median share of the signal after training.
"""

import argparse

import numpy as np
from tqdm import tqdm

from gradutils import datasets, networks, recurrent

LENGTH, UNITS, SEEDS = 50, 24, range(8)
GAUSSIAN = "Gaussian"
#: Start -> activation, first recurrent matrix: Gaussian of spectral radius 0.9, or a multiple of I.
STARTS = {
    "tanh, Gaussian of radius 0.9": ("tanh", GAUSSIAN),
    "tanh, I": ("tanh", 1.0),
    "ReLU, Gaussian of radius 0.9": ("relu", GAUSSIAN),
    "ReLU, 0.5 I": ("relu", 0.5),
    "ReLU, I": ("relu", 1.0),
}
SGD = {"SGD 0.02": {"epochs": 10, "learning_rate": 0.02, "momentum": 0.9}}
ADAM = {
    f"Adam {rate}": {"epochs": 12, "learning_rate": rate, "optimizer": "adam", "clip_norm": 1.0}
    for rate in (0.001, 0.003, 0.01)
}


def network(start, rng):
    """Return the untrained network of one start."""
    activation, matrix = STARTS[start]
    net = recurrent.RNN(2, UNITS, 1, activation, recurrent=1.0, rng=rng)
    if matrix == GAUSSIAN:
        net.W *= 0.9 / recurrent.spectral_radius(net.W)
    else:
        net.W = matrix * np.eye(UNITS)
    return net


def judge(net, rng):
    """Return the error as a share of 1/6, and the share of the signal 49 steps before the last."""
    x, y = datasets.adding_problem(2000, LENGTH, rng)
    run = net.forward(x)
    error, grad_output = networks.squared_error(run.output, y[:, None])
    size = np.linalg.norm(net.backward(run, grad_output).delta, axis=(0, 2))
    return 6 * error, size[0] / size[-1]


def trial(start, seed, **settings):
    """Return the signal at the start, and error and signal after training."""
    rng = np.random.default_rng(seed)
    net = network(start, rng)
    _, before = judge(net, rng)
    x, y = datasets.adding_problem(2000, LENGTH, rng)
    networks.train(net, x, y[:, None], loss=networks.squared_error, batch_size=25, rng=rng,
                   **settings)  # fmt: skip
    return before, *judge(net, rng)


def main(arguments=None):
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adding", description=__doc__)
    parser.add_argument("--sgd", action="store_true", help="the chapter's gradient descent")
    options = parser.parse_args(arguments)
    for start in STARTS:
        print(start)
        for name, settings in (SGD if options.sgd else ADAM).items():
            runs = [trial(start, seed, **settings) for seed in tqdm(SEEDS, leave=False)]
            before, error, after = np.array(runs).T
            print(
                f"  {name:11s} signal {np.median(before):.0e}; error {np.median(error):.2f}"
                f" ({error.min():.2f} to {error.max():.2f}), below 1/4 in {np.sum(error < 0.25)}"
                f" of {len(error)}; signal after {np.median(after):.0e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
