import json

import keras
import numpy as np
import pytest
from keras import layers

from gradutils.__main__ import main
from gradutils.checks import CHECKS


@pytest.fixture
def files(tmp_path):
    """Paths of a sick model, a sound one, and data for both."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 4)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, :1] > 0).astype("float32"))
    for name, output in (("sick", None), ("sound", "sigmoid")):
        hidden = layers.Dense(8, "relu", kernel_initializer=keras.initializers.HeNormal(seed=1))
        last = layers.Dense(1, output, kernel_initializer=keras.initializers.GlorotNormal(seed=2))
        model = keras.Sequential([keras.Input((4,)), hidden, last])
        model.compile("adam", "binary_crossentropy")
        model.save(tmp_path / f"{name}.keras")
    return {path.stem: str(path) for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("model", "options", "status"),
    [
        ("sound", [], 0),
        ("sick", [], 1),
        ("sick", ["--fail-on", "G02"], 1),
        ("sick", ["--fail-on", "G14,G22"], 0),
    ],
)
def test_the_exit_status_is_that_of_the_findings(files, capsys, model, options, status):
    assert main([files[model], files["data"], "--no-remedies", *options]) == status
    assert ("loss mismatch (G02)" in capsys.readouterr().out) == (model == "sick")


def test_json_holds_the_findings_and_the_layers(files, capsys):
    main([files["sick"], files["data"], "--no-remedies", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert [finding["id"] for finding in said["findings"]] == ["G02"]
    assert [layer["parameters"] for layer in said["layers"]] == [4 * 8 + 8, 8 + 1]
    assert len(said["look_ahead"]["losses"]) == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.keras", "data"], "nowhere.keras"),
        (["sound", "data", "--fail-on", "G99"], f"G01 to {CHECKS[-1].id}; received G99"),
        (["sound", "data", "--look-ahead", "-1"], "look_ahead must be a positive integer"),
    ],
)
def test_what_cannot_be_used_is_told(files, capsys, arguments, message):
    assert main([files.get(argument, argument) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_data_without_x(files, tmp_path, capsys):
    np.savez(tmp_path / "other.npz", inputs=np.ones(3))
    assert main([files["sound"], str(tmp_path / "other.npz")]) == 2
    assert "must hold an array x; it holds inputs" in capsys.readouterr().err
