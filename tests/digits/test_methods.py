"""The methods that the digits script compares with grouping, from beginning to end."""

import contextlib
import functools
import io
import re

import digits_eagerly
import keras
import numpy as np
import pytest
from script_flags import script

import tag_keras
from digits import methods, train
from tag_keras.results import load_results
from tag_keras.study.methods import METHODS, fixed, method_options
from tag_keras.study.methods.fixed import OneNetwork
from tag_keras.sweep.network import load_network

TASKS = ("is_even", "ink")


@pytest.fixture(scope="module")
def encoder():
    return methods.small_resnet(TASKS)


PARTS = {
    "uw": tag_keras.UncertaintyWeighting,
    "dwa": tag_keras.DynamicWeightAverage,
    "gradnorm": tag_keras.GradNorm,
    "famo": tag_keras.FAMO,
    "pcgrad": tag_keras.PCGrad,
    "upgrad": tag_keras.UPGrad,
    "fairgrad": tag_keras.FairGrad,
    "selective": tag_keras.SelectiveTaskGroupUpdates,
    "mtan": tag_keras.TaskAttention,
    **dict.fromkeys(("mmoe", "cgc", "ple"), tag_keras.ExpertGate),
    "cross_stitch": tag_keras.CrossStitch,
    "task_routing": tag_keras.TaskRouting,
    "adashare": tag_keras.AdaShareEncoder,
}


# Methods that differ from others in one argument of `compile` are tested without a training.
ALIKE = {*fixed._LOSS_WEIGHTINGS, *fixed._GRADIENT_METHODS} - {*PARTS}
ALL_RIVALS = methods.RIVALS
RIVALS = tuple(name for name in ALL_RIVALS if name not in ALIKE)


def test_all_methods_of_the_studies_take_part(encoder):
    of_studies = {name for name, one in METHODS.items() if isinstance(one, OneNetwork)}
    assert of_studies - {"mtl"} <= set(ALL_RIVALS)
    for name in of_studies - {"mtl", "mtan"}:
        (option,) = methods._options(name, encoder).values()
        (wanted,) = method_options(name, "last").values()
        assert type(option) is type(wanted)


@pytest.mark.parametrize("name", PARTS)
def test_the_methods_differ_in_what_they_say(name, encoder):
    model = methods.build_rival(TASKS, name)
    layers = model._flatten_layers()
    assert {type(one) for one in layers} & set(PARTS.values()) == {PARTS[name]}
    assert (model.encoder.name == f"{name}_encoder") == (name in methods._ENCODERS)
    # All have the same blocks.
    blocks = [layer for layer in encoder.layers if isinstance(layer, tag_keras.ResidualBlock)]
    assert len(blocks) == 4
    kernels = sum(isinstance(layer, keras.layers.Conv2D) for layer in encoder._flatten_layers())
    found = sum(isinstance(layer, keras.layers.Conv2D) for layer in model._flatten_layers())
    assert found >= kernels - (name == "adashare")


def test_the_flag_knows_all_encoders():
    assert set(methods._ENCODERS) <= set(methods.RIVALS)


FLAGS = ("--tasks=is_even,ink", "--epochs=1", "--num_groups=2")


def assert_trained(folder, name, seeds):
    """Asserts that a method has finite losses of every seed, task and split."""
    rows = [row for row in load_results(folder / name / "results.json") if row.network == name]
    assert {(row.seed, row.task, row.split) for row in rows} == {
        (seed, task, split) for seed in seeds for task in TASKS for split in ("validation", "test")
    }
    assert np.isfinite([row.loss for row in rows]).all()


@pytest.fixture(scope="module")
def run():
    """Trains networks of a block in this process, with few steps, made sooner than graphs.

    Gives a function that runs the script in a folder, and returns what it prints.
    """

    def run(script, folder, *flags):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            script(f"--output_dir={folder}", *FLAGS, *flags)
        return printed.getvalue()

    with pytest.MonkeyPatch.context() as patched, script(train) as one:
        digits_eagerly.patch(patched)
        patched.setattr(train, "STEPS_PER_EPOCH", 2)
        patched.setattr(methods, "RIVALS", RIVALS)
        # Without Adam's slots, as its eager steps take most of the time of these.
        patched.setattr(keras.optimizers, "Adam", keras.optimizers.SGD)
        encoders = (methods.small_resnet, *methods._ENCODERS.values())
        own = [one.keywords for one in encoders if "depth" in one.keywords]
        for sizes in (methods.SIZES, *own):
            patched.setitem(sizes, "depth", (1,))
            patched.setitem(sizes, "widths", (8,))
        # MTAN looks between two blocks.
        patched.setitem(methods._ENCODERS["mtan"].keywords, "depth", (2,))
        patched.setattr(methods, "_LAST_BLOCK", "stage1_block1")
        # The search gets to all of its turns.
        patched.setattr(
            methods, "_SEARCH", {**methods._SEARCH, "weight_steps": 1, "policy_steps": 1}
        )
        yield functools.partial(run, one)


@pytest.mark.slow
def test_the_script_compares_one_method_with_joint_training(run, tmp_path):
    lines = run(tmp_path, "--method=uw", "--seeds=0,1").splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert [line.split()[1] for line in table] == ["method", "------", "mtl", "uw"]
    assert "+0.0 ± 0.0 %" in table[2]
    for name in ("mtl", "uw"):
        assert_trained(tmp_path, name, (0, 1))


@pytest.fixture(scope="module")
def all_methods(tmp_path_factory, run):
    """The folder of the script that has trained all methods, and what it printed."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("all")
    return folder, run(folder, "--method=all", "--seeds=0")


@pytest.mark.slow
def test_the_script_compares_all_methods(all_methods):
    folder, printed = all_methods
    names = [line.split()[1] for line in printed.splitlines() if line.startswith("| ")][2:]
    assert names == ["mtl", "stl", "tag", *RIVALS]
    page = (folder / "report.html").read_text()
    table = page[page.index("Groups and other methods") :]
    assert re.findall(r'<th scope="row">(\w+)</th>', table)[: len(names)] == names
    for name in methods.RIVALS:
        assert_trained(folder, name, (0,))


@pytest.mark.slow
def test_a_method_is_trained_once(all_methods, run):
    folder, printed = all_methods
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.keras")}
    assert len(before) >= len(methods.RIVALS)
    again = run(folder, "--method=all", "--seeds=0").splitlines()
    assert printed.splitlines()[-1] in again
    assert again[-1].startswith(f"Nothing to train: everything in {folder} was trained by ")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.keras")} == before


@pytest.mark.slow
def test_the_long_joint_training_makes_five_times_the_steps(all_methods):
    model = load_network(all_methods[0] / "mtl_long" / "networks" / "mtl_long_seed0.keras")
    assert int(model.optimizer.iterations) == 5 * train.STEPS_PER_EPOCH
    # Its learning rate falls to 0 at the end of them: cos(pi) + 1 = 0.
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-9)
