"""The digits script as a process of its own, from beginning to end, with wrong flags, and killed.

A program that only loads a saved model runs in the same process, before the script: each process
takes its time to import TensorFlow.
"""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import digits_eagerly
import forks
import keras
import numpy as np
import pytest
from run_contents import contents

import tag_keras
from digits import data, network

ROOT = Path(__file__).resolve().parents[2]


DIGITS = ["--tasks=is_even,ink", "--seeds=0", "--epochs=2", "--num_groups=2"]


def train_digits(folder, until=None, flags=()):
    """Runs the digits script; kills it as soon as `until(folder)` is true."""
    # One thread, because the order in which several add up is not fixed.
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    arguments = [f"--output_dir={folder}", *DIGITS, *flags]
    process = forks.start(digits_eagerly.run_script, *arguments, environment=threads)
    while until and process.is_alive():
        if until(folder):
            process.kill()
            break
        time.sleep(0.005)
    process.join()
    return process.exitcode


WRONG_FLAGS = [
    (["--tasks=nonsense"], "unknown ['nonsense']"),
    (["--tasks=ink,ink"], "--tasks should be different tasks"),
    (["--seeds=a"], "--seeds should be different whole numbers"),
    (["--seeds="], "--seeds should be different whole numbers"),
    (["--seeds=1,01"], "--seeds should be different whole numbers"),
    ([f"--seeds={2**32}"], "--seeds should be different whole numbers"),
    (["--batch_size=200"], "--batch_size should be at most --num_train, 100"),
    (["--method=uw", "--encoder=conv"], "--method=uw is made of residual blocks"),
]


def save_model(path):
    """Saves a trained model with classes of the package, and gives one of its predictions."""
    encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model = tag_keras.MultiTaskModel(encoder, {"a": keras.layers.Dense(1)})
    weighting = tag_keras.UncertaintyWeighting()
    model.compile("sgd", "mse", loss_weighting=weighting, run_eagerly=True)
    x = np.ones((4, 3), "float32")
    model.fit(x, {"a": x[:, 0]}, verbose=0)
    model.save(path)
    return float(model.predict(x, verbose=0)["a"][0, 0])


# Keras comes last, so that it has not been told of the classes.
LOAD = """
import sys, tag_keras
assert "keras" not in sys.modules
model = tag_keras.load_network({path!r})
import numpy as np
print("predicts", float(model.predict(np.ones((4, 3), "float32"), verbose=0)["a"][0, 0]))
"""
# With few weights and without Adam's slots, as it takes most of the time to trace their training.
RUN = """
import keras, runpy
from absl import app
from absl.testing import flagsaver
from digits import network
from tag_keras.study.command import command
network.conv_encoder = lambda tasks: keras.Sequential(
    [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4, "relu")]
)
keras.optimizers.Adam = keras.optimizers.SGD
sys.argv = ["train", "--output_dir={folder}/right", *{digits}]
try:
    runpy.run_module("digits.train", run_name="__main__", alter_sys=True)
except SystemExit as error:
    print("ended with", error.code)
from digits import train
main = command("digits.train", train.run)
for given in {wrong}:
    try:
        with flagsaver.flagsaver():
            app.run(main, ["train", "--output_dir={folder}/wrong", *given])
    except SystemExit as error:
        print(error)
        last = error
raise last
"""


@pytest.fixture(scope="module")
def digits_script(tmp_path_factory):
    """A program that loads a model, runs the script to the end, and then with wrong flags.

    Gives the folder, what was printed, and what the model predicted before; the last error ends it.
    """
    pytest.importorskip("jinja2")
    folder = tmp_path_factory.mktemp("digits")
    path = folder / "model.keras"
    expected = save_model(path)
    wrong = [given for given, _ in WRONG_FLAGS]
    code = LOAD.format(path=str(path)) + RUN.format(folder=folder, digits=DIGITS, wrong=wrong)
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return folder, result, expected


def test_a_program_that_uses_nothing_else_loads_a_model(digits_script):
    _, result, expected = digits_script
    assert result.stdout.startswith("predicts "), result.stderr
    prediction = float(result.stdout.splitlines()[0].removeprefix("predicts "))
    assert prediction == pytest.approx(expected, rel=1e-6)


def test_the_digits_script_from_beginning_to_end(digits_script):
    folder, result, _ = digits_script
    assert "\nended with None\n" in result.stdout, result.stderr
    assert "is_even" in (folder / "right" / "report.html").read_text()


def test_the_digits_script_says_what_is_wrong_with_a_flag(digits_script):
    folder, result, _ = digits_script
    assert result.returncode == 1
    lines = result.stdout.partition("ended with None\n")[2].splitlines()
    for line, (_, message) in zip(lines, WRONG_FLAGS, strict=True):
        assert line.startswith("digits.train: ") and message in line
    assert result.stderr.splitlines()[-1] == lines[-1]
    assert not (folder / "wrong").exists()


def test_the_networks_of_the_script():
    model = network.build_model(("is_even", "ink"))
    images = data.load(100)["test"][0][:5]
    assert model.encoder(images).shape == (5, 64)
    assert {task: value.shape for task, value in model(images).items()} == {
        "is_even": (5, 1),
        "ink": (5, 1),
    }


def kept(folder):
    return len(list(folder.glob("networks/[!.]*.keras")))


# In the order in which a run reaches them.
STAGES = {
    "measuring": lambda folder: (folder / "settings.json").exists(),
    "training the first yardstick": lambda folder: (folder / "affinity.json").exists(),
    "evaluating the last yardstick": lambda folder: kept(folder) >= 3,
    "training the groups": lambda folder: (folder / "groups.json").exists(),
    "putting together": lambda folder: list(folder.glob("*grouped.keras")),
}


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_with_the_same_files(tmp_path):
    pytest.importorskip("jinja2")
    assert train_digits(tmp_path / "whole") == 0
    folder, flags = tmp_path / "killed", []
    for stage, until in STAGES.items():
        assert not (folder.exists() and until(folder)), f"{stage} is over"
        assert train_digits(folder, until, flags) == -signal.SIGKILL, stage
        if stage == "evaluating the last yardstick":
            # From here on in processes of their own.
            flags = ["--processes=2"]
    assert train_digits(folder, flags=flags) == 0
    assert list((folder / "logs").iterdir())
    shutil.rmtree(folder / "logs")
    assert contents(folder) == contents(tmp_path / "whole")
