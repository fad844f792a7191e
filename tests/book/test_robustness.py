"""The noise of the robustness runs is there, is small, and is nowhere else."""

import os
import subprocess
import sys

import numpy as np

from tools.notebooks import serialise
from tools.robustness import NOISE, SETTINGS, run


def computed(program, **environment):
    """Return the numbers that a program prints in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return np.array([float.fromhex(word) for word in result.stdout.split()])


def test_noise_moves_each_draw_by_one_unit_in_the_last_place():
    program = (
        "import numpy as np; rng = np.random.default_rng(0); n = 50; "
        "x = [*rng.standard_normal(n), *rng.normal(1, 2, n), *rng.uniform(-1, 1, n)]; "
        "x += [rng.random() for _ in range(n)]; "
        "print(*[float(v).hex() for v in [*x, *rng.integers(10, size=5)]])"
    )
    plain, noisy = computed(program), computed(program, PYTHONPATH=str(NOISE))
    assert np.array_equal(plain[-5:], noisy[-5:])  # integers, and the state of the generator
    plain, noisy = plain[:-5], noisy[:-5]
    up, down = np.nextafter(plain, np.inf), np.nextafter(plain, -np.inf)
    assert np.all((noisy == up) | (noisy == down))
    assert 60 < np.sum(noisy == up) < 140


def test_noise_reaches_the_weights_of_keras():
    program = (
        "import keras; from keras.src.backend.tensorflow import random; "
        "noisy = keras.initializers.GlorotUniform(seed=0)((10, 5)); "
        "random.uniform = random.uniform.__wrapped__; "
        "plain = keras.initializers.GlorotUniform(seed=0)((10, 5)); "
        "print(*[float(x).hex() for w in (plain, noisy) for x in w.numpy().ravel()])"
    )
    plain, noisy = computed(program, PYTHONPATH=str(NOISE)).reshape(2, 50)
    assert np.all(plain != noisy)
    np.testing.assert_allclose(noisy, plain, rtol=1e-6)


def test_noise_loads_nothing_by_itself():
    program = "import sys; print(float('numpy' in sys.modules).hex())"
    assert computed(program, PYTHONPATH=str(NOISE)) == [0.0]


def test_a_run_names_the_cell_that_prints_too_many_digits(plain, tmp_path):
    (tmp_path / "digits.ipynb").write_text(serialise(plain), "utf-8")
    _, passed, failed = run(SETTINGS["noise in every draw"], [tmp_path], workers=0)
    assert (passed, failed) == (2, ["digits.ipynb::Cell 1"])
