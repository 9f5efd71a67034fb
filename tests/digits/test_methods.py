"""The methods that the digits script compares with grouping, from beginning to end."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tag_keras
from digits import data, methods
from tag_keras.sweep.network import load_network

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("is_even", "ink")
FIT = {"steps": 20, "epochs": 1, "steps_per_epoch": 20, "verbose": 0}


@pytest.fixture(scope="module")
def splits():
    splits = data.load(100)
    return {**splits, "train": functools.partial(data.batches, splits["train"], 25)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mtl", *methods.RIVALS])
def test_a_method_is_trained_once_with_each_seed(name, splits, tmp_path):
    rows = methods.train_rival(name, tmp_path, TASKS, (0, 1), splits, **FIT)
    own = [row for row in rows if row.network == name]
    assert {(row.seed, row.task, row.split) for row in own} == {
        (seed, task, split) for seed in (0, 1) for task in TASKS for split in ("validation", "test")
    }
    assert np.isfinite([row.loss for row in rows]).all()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.keras")}
    assert methods.train_rival(name, tmp_path, TASKS, (0, 1), splits, **FIT) == rows
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.keras")} == files


@pytest.mark.slow
def test_the_long_joint_training_makes_five_times_the_steps(splits, tmp_path):
    rows = methods.train_rival("mtl_long", tmp_path, TASKS, (0,), splits, **FIT)
    # What is there is not trained again: the seconds are the same, too.
    assert methods.train_rival("mtl_long", tmp_path, TASKS, (0,), splits, **FIT) == rows
    model = load_network(tmp_path / "networks" / "mtl_long_seed0.keras")
    assert int(model.optimizer.iterations) == 5 * FIT["steps"]
    # Its learning rate falls to 0 at the end of them: cos(pi) + 1 = 0.
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-9)


@pytest.fixture(scope="module")
def encoder():
    return methods.small_resnet(TASKS)


@pytest.mark.parametrize("name", methods.RIVALS[1:])
def test_the_methods_differ_in_what_they_say(name, encoder):
    model = methods.build_rival(TASKS, name)
    wanted = {
        "uw": tag_keras.UncertaintyWeighting,
        "dwa": tag_keras.DynamicWeightAverage,
        "gradnorm": tag_keras.GradNorm,
        "pcgrad": tag_keras.PCGrad,
        "upgrad": tag_keras.UPGrad,
        "selective": tag_keras.SelectiveTaskGroupUpdates,
        "mtan": tag_keras.TaskAttention,
        "task_routing": tag_keras.TaskRouting,
        "adashare": tag_keras.AdaShareEncoder,
    }
    layers = model._flatten_layers()
    assert {type(one) for one in layers} & set(wanted.values()) == {wanted[name]}
    # All have the same blocks.
    blocks = [layer for layer in encoder.layers if isinstance(layer, tag_keras.ResidualBlock)]
    assert len(blocks) == 4
    kernels = sum(isinstance(layer, keras.layers.Conv2D) for layer in encoder._flatten_layers())
    found = sum(isinstance(layer, keras.layers.Conv2D) for layer in model._flatten_layers())
    assert found >= kernels - (name == "adashare")


def run_script(folder, *flags):
    command = [sys.executable, "-m", "digits.train", f"--output_dir={folder}"]
    command += ["--tasks=is_even,ink", "--epochs=1", "--num_groups=2", *flags]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_the_script_compares_one_method_with_joint_training(tmp_path):
    lines = run_script(tmp_path, "--method=uw", "--seeds=0").splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert [line.split()[1] for line in table] == ["method", "------", "mtl", "uw"]
    assert "+0.0 %" in table[2]


@pytest.mark.slow
def test_the_script_compares_all_methods(tmp_path):
    pytest.importorskip("matplotlib")
    lines = run_script(tmp_path, "--method=all", "--seeds=0,1").splitlines()
    names = [line.split()[1] for line in lines if line.startswith("| ")][2:]
    assert names == ["mtl", "stl", "tag", *methods.RIVALS]
    page = (tmp_path / "report.html").read_text()
    table = page[page.index("Groups and other methods") :]
    assert re.findall(r'<th scope="row">(\w+)</th>', table)[: len(names)] == names
