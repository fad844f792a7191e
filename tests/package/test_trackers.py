"""The README's recipes for three trackers, run as they stand there; without a network.

Weights & Biases and MLflow are no requirements of the project: without them their recipes are
skipped (pip install wandb mlflow-skinny).
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradutils.monitor import GradientMonitor
from tools import ROOT

NAMES = {f"grad/layers/net/{name}" for name in ("first", "second")}


@pytest.fixture
def run_recipe(tmp_path, monkeypatch):
    """Run the block of the README that names a tool, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(tool):
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
        (recipe,) = [b for b in blocks if tool in b and "GradientMonitor" in b]
        dense = [keras.layers.Dense(2, name="first"), keras.layers.Dense(1, name="second")]
        model = keras.Sequential([keras.Input((3,)), *dense], name="net")
        model.compile("sgd", "mse")
        names = {"keras": keras, "GradientMonitor": GradientMonitor, "model": model}
        exec(recipe, names | {"x": np.ones((8, 3)), "y": np.zeros((8, 1))})

    return run


def test_tensorboard(run_recipe, tmp_path):
    run_recipe("TensorBoard")
    (events,) = (tmp_path / "logs" / "train").glob("events*.v2")
    seen = tf.compat.v1.train.summary_iterator(str(events))
    tags = {value.tag for event in seen for value in event.summary.value}
    assert {f"epoch_{name}" for name in NAMES} <= tags, tags


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases(run_recipe, monkeypatch):
    wandb, logged = pytest.importorskip("wandb"), {}
    log = wandb.Run.log

    def keeping(run, data, *args, **options):
        logged.update(data)
        log(run, data, *args, **options)

    monkeypatch.setattr(wandb.Run, "log", keeping)
    monkeypatch.setenv("WANDB_SILENT", "true")
    run_recipe("wandb")
    assert all(np.isfinite(logged[f"epoch/{name}"]) for name in NAMES)


@pytest.mark.filterwarnings("ignore")
def test_mlflow(run_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "gradients")
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"file:{tmp_path / 'runs'}")
    run_recipe("mlflow")
    metrics = mlflow.last_active_run().data.metrics
    assert all(np.isfinite(metrics[name]) for name in NAMES)
