"""Where the time goes: `python -m benchmarks.speed [part ...]`.

The parts are build, notebooks, steps, tests and diagnosis. They run one after another, each as its
own command runs it, and the slowest items of each are printed with their share of that part.
Seconds depend on the machine; shares hardly do.
"""

import argparse
import os
import pstats
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import nbformat
import numpy as np

from gradutils import datasets, networks, patients, probes, trials
from gradutils.diagnosis import diagnose
from tools import ROOT
from tools.figures import KERNEL_ENVIRONMENT

SHOWN = 10
#: The library, the extension of the book or the module of Python that a file belongs to.
LIBRARY = re.compile(r"site-packages/(\w+)|(?:_ext|print)/(\w+\.py)|python3\.\d+/(?!site-)(\w+)")


def main(arguments=None):
    """Time the parts that are named, or all, and print a table for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    for part in parser.parse_args(arguments).parts or PARTS:
        start = time.perf_counter()
        items = PARTS[part]()
        whole, listed = time.perf_counter() - start, sum(items.values())
        print(f"\n{part}: {whole:.0f} s, {len(items)} items of {listed:.0f} s together")
        for name, seconds in sorted(items.items(), key=lambda item: -item[1])[:SHOWN]:
            print(f"{seconds:8.1f} s {seconds / listed:6.1%}  {name}", flush=True)


def build():
    """Seconds of the HTML build, under a profiler, by library or extension of our own."""
    script = Path(sys.executable).with_name("jupyter-book")
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        run(
            "-m", "cProfile", "-o", profile, script, "build", ROOT, "--all", "--path-output", folder
        )
        seconds = {}
        for (file, _, name), (_, _, own, _, _) in pstats.Stats(str(profile)).stats.items():
            found = LIBRARY.search(file)
            part = found[found.lastindex] if found else name
            seconds[part] = seconds.get(part, 0.0) + own
        return seconds


def notebooks():
    """Seconds of each notebook, executed alone, and of one that only imports."""
    imports = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import keras, gradutils")])
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(imports, Path(folder) / "imports_alone.ipynb")
        for path in (ROOT / "notebooks").glob("*.ipynb"):
            (Path(folder) / path.name).write_bytes(path.read_bytes())
        paths = sorted(Path(folder).glob("*.ipynb"))
        output = run("-m", "tools.notebooks", *paths)
    return {name: float(s) for name, s in re.findall(r"^(\S+): \w+, (\d+) s$", output, flags=re.M)}


def steps(count=1000):
    """Seconds of so many training steps of each patient, and the share of their matrix products."""
    data = datasets.digits(np.random.default_rng(0))
    x, y = data.x_train[:64], data.y_train[:64]
    seconds = {}
    for name in patients.PATIENTS:
        net = patients.patient(name, seed=0)
        signals = net.forward(x)
        delta = net.backward(signals, networks.cross_entropy(signals.output, y)[1]).delta
        start = time.perf_counter()
        for _ in range(count):
            for a, W, d in zip(signals.inputs, net.weights, delta, strict=True):
                _ = a @ W, d @ W.T, a.T @ d
        products = time.perf_counter() - start
        start = time.perf_counter()
        networks.train(
            net, x, y, loss=networks.cross_entropy, learning_rate=0.0, epochs=count,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        whole = time.perf_counter() - start
        seconds[f"{name}, matrix products {products / whole:.0%}"] = whole
    return seconds


def tests():
    """Seconds of each test of the package, in one process."""
    output = run("-m", "pytest", "-q", "tests", "src", "README.md", "-m", "not built",
                 "--durations=0", "--ignore", "tests/browser")  # fmt: skip
    found = re.findall(r"^([\d.]+)s (?:call|setup|teardown) +(\S+)", output, flags=re.M)
    seconds = {}
    for value, name in found:
        seconds[name] = seconds.get(name, 0.0) + float(value)
    return seconds


def diagnosis():
    """Seconds of a diagnosis of 50 layers of 256 units, by part, beside ten training steps."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(256, "relu", kernel_initializer="he_normal") for _ in range(50)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = np.random.default_rng(0).normal(size=(640, 64)).astype("float32"), np.arange(640) % 10
    probes.probe(model, x, y)  # what is slow only the first time is not counted
    model.fit(x, y, batch_size=64, verbose=0)
    parts = {
        "ten training steps of fit": lambda: model.fit(x, y, batch_size=64, verbose=0),
        "probe": lambda: probes.probe(model, x, y),
        "look ahead, ten steps": lambda: trials.look_ahead(model, x, y),
        "diagnose, all of it": lambda: diagnose(model, x, y),
    }
    seconds = {}
    for name, part in parts.items():
        start = time.perf_counter()
        part()
        seconds[name] = time.perf_counter() - start
    return seconds


def run(*arguments):
    """Run Python with these arguments in the project's folder; return what it printed."""
    result = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env={**KERNEL_ENVIRONMENT, **os.environ},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if result.returncode:
        sys.exit(f"this failed: {' '.join(map(str, arguments))}\n{result.stdout}")
    return result.stdout


PARTS = {
    "build": build,
    "notebooks": notebooks,
    "steps": steps,
    "tests": tests,
    "diagnosis": diagnosis,
}


if __name__ == "__main__":
    sys.exit(main())
