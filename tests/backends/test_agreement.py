"""Keras on another backend says of one and the same model what it says on TensorFlow."""

import json

import numpy as np
import pytest

from gradutils.diagnosis import diagnose
from tests.backends.models import FIELDS, FIGURES, NAMES, figures_of, in_keras

STORED = json.loads(FIGURES.read_text("utf-8"))
ROUNDING = 2e-5  # of float32, through 23 layers


@pytest.mark.parametrize("name", NAMES)
def test_every_number_verdict_and_word_is_that_of_tensorflow(name):
    model, x, y = in_keras(name)
    found, stored = figures_of(diagnose(model, x, y, try_remedies=False)), STORED[name]
    assert (found["verdict"], found["evidence"]) == (stored["verdict"], stored["evidence"])
    assert found["loss"] == pytest.approx(stored["loss"], rel=1e-6)
    kinds = [layer["kind"] for layer in stored["layers"]]
    assert [layer["kind"] for layer in found["layers"]] == kinds
    for layer, expected in zip(found["layers"], stored["layers"], strict=True):
        for field in FIELDS:
            one, other = (np.array(v[field], float) for v in (layer, expected))
            np.testing.assert_allclose(one, other, rtol=ROUNDING, err_msg=f"{kinds} {field}")
