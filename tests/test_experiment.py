import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras import experiment, results
from tag_keras.sweep import job, run_sweep
from tag_keras.sweep import network as training

layers = keras.layers
TASKS = ("a", "b", "c")
GROUPING = tag_keras.Grouping(
    TASKS, (("a", "b"), ("c",)), {"a": 0, "b": 0, "c": 1}, score=0.1, upper_bound=0.1, optimal=True
)


def make_data(seed=0, size=40):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 4)).astype("float32")
    return x, {task: x[:, i] + rng.normal(size=size) for i, task in enumerate(TASKS)}


# Two batches to train on, of 32 and 8 examples, and one to evaluate on.
SIZES = {"train": 40, "validation": 32, "test": 32}
DATA = {split: make_data(seed, size) for seed, (split, size) in enumerate(SIZES.items())}


def build_model(tasks, affinity=None):
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in tasks})
    # Eagerly, because tracing takes longer than the two steps of an epoch; the script of the
    # digits trains in graphs.
    metrics = {tasks[0]: ["mae"]}
    model.compile("sgd", "mse", metrics=metrics, affinity=affinity, run_eagerly=True)
    return model


def run(folder, **kwargs):
    arguments = {
        "tasks": TASKS,
        "num_groups": 2,
        "affinity": tag_keras.LookaheadAffinity(1),
        "seeds": (0, 1),
        "epochs": 1,
        "verbose": 0,
    }
    arguments = {"data": DATA, **arguments, **kwargs}
    return experiment.run(folder, build_model, **arguments)


RIVAL = [
    results.Row("rival", TASKS, seed, task, split, 5.0, {}, seconds=7.0)
    for seed in (0, 1)
    for split in ("validation", "test")
    for task in TASKS
]


def contents(folder):
    """All files that hold results, without the seconds that the training took."""
    rows = json.loads((folder / "results.json").read_text())
    rows = [{**row, "seconds": 0} for row in rows]
    names = ("affinity.json", "groups.json", "served.json")
    texts = [(folder / name).read_text() for name in names]
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    weights = keras.models.load_model(folder / "grouped.keras").get_weights()
    return rows, *texts, files, [weight.tolist() for weight in weights]


def test_train_groups_is_each_model_trained_alone():
    grouped = tag_keras.train_groups(
        build_model, GROUPING, DATA["train"], DATA["validation"], epochs=2, seed=3, verbose=0
    )
    x = DATA["test"][0]
    predictions = grouped.predict(x, verbose=0)
    for group in GROUPING.groups:
        keras.utils.set_random_seed(3)
        alone = build_model(group)
        alone.fit(*DATA["train"], epochs=2, verbose=0)
        expected = alone.predict(x, verbose=0)
        for task in group:
            np.testing.assert_allclose(predictions[task], expected[task], atol=1e-6)


def test_train_groups_goes_on_where_it_stopped(tmp_path, monkeypatch):
    def call():
        return tag_keras.train_groups(
            build_model, GROUPING, DATA["train"], output_dir=tmp_path, verbose=0
        )

    trained = []
    original = training.train_network

    def stop_at_second(build, network, *args, **kwargs):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(network.name)
        return original(build, network, *args, **kwargs)

    monkeypatch.setattr(training, "train_network", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        call()
    monkeypatch.setattr(training, "train_network", original)
    first = call().predict(DATA["test"][0], verbose=0)
    assert trained == ["group_0"]
    # Nor does it change a training that its networks are kept.
    kept_nowhere = tag_keras.train_groups(build_model, GROUPING, DATA["train"], verbose=0)
    for task, prediction in kept_nowhere.predict(DATA["test"][0], verbose=0).items():
        np.testing.assert_array_equal(prediction, first[task])
    monkeypatch.setattr(training, "train_network", None)  # Nothing is left to train.
    second = call().predict(DATA["test"][0], verbose=0)
    for task in TASKS:
        np.testing.assert_array_equal(first[task], second[task])


def test_train_groups_names_what_is_wrong_with_its_folder(tmp_path):
    def call(grouping=GROUPING):
        return tag_keras.train_groups(
            build_model, grouping, DATA["train"], output_dir=tmp_path, verbose=0
        )

    call()
    other = dataclasses.replace(GROUPING, groups=(("a", "b", "c"),), serves=dict.fromkeys(TASKS, 0))
    with pytest.raises(ValueError, match="holds another run: groups was"):
        call(other)
    (tmp_path / "group_1_seed0.keras").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"group_1_seed0\.keras cannot be loaded"):
        call()


def test_another_number_of_epochs_is_another_training(tmp_path):
    def call(epochs):
        return tag_keras.train_groups(
            build_model, GROUPING, DATA["train"], epochs=epochs, output_dir=tmp_path, verbose=0
        )

    call(1)
    with pytest.raises(ValueError, match="holds another run: epochs was 1 and is 2"):
        call(2)


def test_a_model_that_could_not_be_loaded_again_is_not_trained(tmp_path):
    class Unregistered(layers.Layer):
        def call(self, inputs):
            return inputs * 2

    def build(tasks):
        encoder = keras.Sequential([keras.Input((4,)), Unregistered(), layers.Dense(2)])
        model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in tasks})
        model.compile("sgd", "mse")
        return model

    arguments = (build, GROUPING, DATA["train"])
    tag_keras.train_groups(*arguments, verbose=0)
    with pytest.raises(ValueError, match=r"keras\.saving\.register_keras_serializable"):
        tag_keras.train_groups(*arguments, output_dir=tmp_path, verbose=0)
    assert not list(tmp_path.glob("*.keras"))


def test_an_iterator_would_be_used_up_by_the_first_network():
    def batches():
        yield DATA["train"]

    with pytest.raises(ValueError, match="Give a function that returns it"):
        tag_keras.train_groups(build_model, GROUPING, batches(), steps_per_epoch=1, verbose=0)
    tag_keras.train_groups(build_model, GROUPING, batches, steps_per_epoch=1, verbose=0)


def test_a_slash_in_a_name_makes_no_folder():
    assert training.Network("single_../a b", ("../a b",), 2).file == "single_..%2Fa b_seed2.keras"


def test_build_model_for_other_tasks():
    with pytest.raises(ValueError, match=r"a model for the tasks \['a', 'b'\]"):
        tag_keras.train_groups(lambda tasks: build_model(("c",)), GROUPING, DATA["train"])


def test_callbacks_are_copied_for_each_network():
    seen = []

    class Count(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            seen.append(self.epochs)

    count = Count()
    tag_keras.train_groups(
        build_model, GROUPING, DATA["train"], epochs=2, callbacks=[count], verbose=0
    )
    assert count.epochs == 0 and seen == [1, 2, 1, 2]


def test_rows_tell_tasks_apart_whose_names_begin_alike():
    model = tag_keras.MultiTaskModel(
        layers.Dense(2), {"left": layers.Dense(1), "left_heavy": layers.Dense(1)}
    )
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = make_data()
    data = {"test": (x, {"left": y["a"], "left_heavy": y["b"]})}
    network = training.Network("joint", ("left", "left_heavy"), 5)
    rows = training.evaluate_network(model, network, data, seconds=1.5)
    logs = model.evaluate(*data["test"], verbose=0, return_dict=True)
    for row in rows:
        assert (row.network, row.seed, row.split, row.seconds) == ("joint", 5, "test", 1.5)
        assert row.loss == pytest.approx(logs[f"{row.task}_loss"])
        assert row.metrics == {"mae": pytest.approx(logs[f"{row.task}_mae"])}


def test_a_loss_that_is_not_finite_names_the_network():
    model = build_model(("a",))
    network = training.Network("single_a", ("a",), 1)
    x, y = DATA["test"]
    data = {"test": (x, {"a": y["a"] * np.nan})}
    with pytest.raises(ValueError, match="'single_a', seed 1, is nan on the split 'test'"):
        training.evaluate_network(model, network, data, seconds=1.0)


def run_stopped_before_each_training(folder, **options):
    """Runs anew until it is through. Gives the names of the networks in the order of training."""
    trained = []
    original = training.train_network

    def train_one(build, network, *args, **kwargs):
        patch.setattr(job, "train_network", interrupt)
        trained.append(network.name)
        return original(build, network, *args, **kwargs)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        while True:
            patch.setattr(job, "train_network", train_one)
            try:
                run(folder, **options)
                return trained
            except KeyboardInterrupt:
                pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run: its folder, that folder as it was before a late training, and what run gave."""
    pytest.importorskip("matplotlib")
    folder, cut_off = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut_off")
    original = training.train_network

    def train_network(build, network, *args, **kwargs):
        if (network.name, network.seed) == ("single_b", 1):
            shutil.copytree(folder, cut_off, dirs_exist_ok=True)
        return original(build, network, *args, **kwargs)

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(job, "train_network", train_network)
        grouped = run(folder, rivals={"rival": RIVAL})
    return types.SimpleNamespace(
        folder=folder, cut_off=cut_off, grouped=grouped, printed=printed.getvalue()
    )


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A run of one group, by held-out data, that was stopped before each training."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("pieces")
    options = {"seeds": (0,), "num_groups": 1, "singletons": "forbid"}
    on = tag_keras.LookaheadAffinity(1, on=DATA["validation"])
    trained = run_stopped_before_each_training(folder, affinity=on, **options)
    return types.SimpleNamespace(folder=folder, options=options, trained=trained)


def test_run_writes_everything(whole):
    folder, printed = whole.folder, whole.printed
    assert "total" in printed and printed.rstrip().endswith("report.html")
    rows = results.load_results(folder / "results.json")
    grouping = tag_keras.Grouping.load(folder / "groups.json")
    # By default, by affinities corrected by the yardsticks that are there.
    affinity = tag_keras.Affinity.load(folder / "affinity.json")
    anchored = tag_keras.anchor_affinity(affinity, rows)
    assert grouping == tag_keras.select_groups(anchored, 2, "baseline", score="sum")
    assert "<dt>Anchored affinity</dt>" in (folder / "report.html").read_text()
    names = {"affinity", "joint", *(f"single_{task}" for task in TASKS)}
    names |= {f"group_{index}" for index in range(len(grouping.groups))}
    assert {row.network for row in rows} == names
    assert {row.split for row in rows} == {"validation", "test"}
    figures = {path.stem for path in folder.glob("*.png")}
    assert figures >= {"affinity", "grouping", "comparison", "frontier"}
    saved = keras.models.load_model(folder / "grouped.keras")
    serving = json.loads((folder / "served.json").read_text())
    loss = {(row.network, row.seed, row.split, row.task): row.loss for row in rows}
    x, y = DATA["test"]
    expected, total = whole.grouped.predict(x, verbose=0), 0
    for task, prediction in saved.predict(x, verbose=0).items():
        np.testing.assert_array_equal(prediction, expected[task])
        index = serving["grouping"]["serves"][task]
        name, seed = serving["networks"][index]
        served = [one for one in TASKS if serving["grouping"]["serves"][one] == index]
        # The network of the seed with the least validation loss, over the tasks that it serves.
        totals = [sum(loss[name, s, "validation", one] for one in served) for s in (0, 1)]
        assert seed == int(np.argmin(totals))
        error = np.mean((prediction[:, 0] - y[task]) ** 2)
        assert error == pytest.approx(loss[name, seed, "test", task], rel=1e-4)
        total += loss[name, seed, "validation", task]
    joint = [sum(loss["joint", seed, "validation", task] for task in TASKS) for seed in (0, 1)]
    assert total == pytest.approx(serving["total"]) and total <= min(joint) + 1e-9
    assert f"{total:.4g} served" in printed
    assert f"{total:.4g} served" in (folder / "report.html").read_text()
    # A rival costs its own training, the groups all that were needed to select them.
    seconds = {(row.network == "affinity", row.tasks, row.seed): row.seconds for row in rows}
    joint = seconds[False, TASKS, 0] + seconds[False, TASKS, 1]
    lines = [line.split("|") for line in printed.splitlines() if line.startswith("|")]
    costs = {line[1].strip(): line[-2].strip() for line in lines}
    assert costs["rival"] == f"{14 / joint:.1f}"
    # Affinities were measured with one seed.
    both = seconds[True, TASKS, 0] + sum(seconds.values())
    assert costs["tag"] == f"{both / joint:.1f}"
    with pytest.raises(ValueError, match=r"holds another run: seeds was \[0, 1\] and is \[0\]"):
        run(folder, seeds=(0,))


def test_cut_off_it_ends_with_the_same_files(whole):
    trained = run_stopped_before_each_training(whole.cut_off)
    # Yardsticks, and groups with both seeds.
    assert trained[:2] == ["single_b", "single_c"] and len(trained) >= 4
    assert contents(whole.cut_off) == contents(whole.folder)


def test_stopped_before_each_training_it_trains_the_same_networks(whole, pieces):
    names = ["joint", *(f"single_{task}" for task in TASKS)]
    # Each once; the group of all tasks is the joint network, which is not trained again.
    assert pieces.trained == ["affinity", *names]
    rows, expected = (
        [
            dataclasses.replace(row, seconds=0.0)
            for row in results.load_results(folder / "results.json")
            if row.network in names and row.seed == 0
        ]
        for folder in (pieces.folder, whole.folder)
    )
    assert rows == expected and len(rows) == 2 * (3 + 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_groups": 0}, "`num_groups` should be at least 1"),
        ({"singletons": "allow"}, '`singletons` should be "measured", "baseline" or "forbid"'),
        (
            {"tasks": [f"t{index}" for index in range(16)]},
            "with more than 15 tasks, `singletons` should be 'baseline' or 'forb.*num_tasks=16",
        ),
        ({"tasks": ("a",), "singletons": "forbid"}, "'a' should have a group: it may not be alone"),
    ],
)
def test_what_no_groups_could_be_selected_by_is_told_before_any_work(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "new", **change)
    assert not (tmp_path / "new").exists()


def test_a_pair_that_was_not_measured_is_told_before_the_yardsticks(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    mean, count = np.ones((3, 3)), np.ones((3, 3), int)
    mean[0, 1], count[0, 1] = np.nan, 0
    affinity = tag_keras.Affinity(TASKS, mean, count=count)
    monkeypatch.setattr(experiment, "_measure", lambda *args, **kwargs: affinity)
    with pytest.raises(ValueError, match=r"should be finite for all pairs.*a -> b: nan"):
        run(tmp_path, seeds=(0,))
    assert not list(tmp_path.glob("networks/*.keras"))
    # Groups that are there need no affinities.
    GROUPING.save(tmp_path / "groups.json")
    run(tmp_path, seeds=(0,))
    assert (tmp_path / "report.html").exists()


def test_networks_with_the_same_tasks_are_trained_once(tmp_path, monkeypatch):
    trained = []
    original = training.train_network

    def count(build, network, *args, **kwargs):
        trained.append(network.name)
        return original(build, network, *args, **kwargs)

    monkeypatch.setattr(job, "train_network", count)
    networks = [training.Network(name, ("a", "b")) for name in ("joint", "group_0")]
    jobs = [job.Job(network, build_model, {"verbose": 0}) for network in networks]
    rows = run_sweep(tmp_path, jobs, DATA, processes=0)
    assert trained == ["joint"]
    losses = [[r.loss for r in rows if r.network == network.name] for network in networks]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    assert (tmp_path / "networks" / "group_0_seed0.keras").exists()


def test_a_group_that_is_a_yardstick_is_not_trained_again(pieces):
    assert not [name for name in pieces.trained if name.startswith("group")]
    rows = results.load_results(pieces.folder / "results.json")
    losses = [[r.loss for r in rows if r.network == name] for name in ("joint", "group_0")]
    assert losses[0] == losses[1] and len(losses[0]) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"affinity": None},
            "`affinity` should be an estimator, such as .* Received: affinity=None",
        ),
        ({"affinity": tag_keras.LookaheadAffinity}, "`affinity` should be an estimator"),
        ({"seeds": (0, "1")}, "`seeds` should be an integer from 0 on. Received: seeds='1'"),
        ({"seeds": ()}, "`seeds` should be different numbers"),
        ({"seeds": (1, 1)}, r"`seeds` should be different numbers. Received: seeds=\[1, 1\]"),
        ({"data": {"train": 1, "test": 2}}, r"`data` should hold .* Missing: \['validation'\]"),
        ({"data": {}}, r"Missing: \['train', 'validation'\]. Received: \[\]"),
    ],
)
def test_bad_input_is_refused_before_any_work(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "new", **change)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_datasets_held_out_and_for_validation(tmp_path):
    pytest.importorskip("matplotlib")
    batches = tf.data.Dataset.from_tensor_slices(DATA["validation"]).batch(10)
    affinity = tag_keras.LookaheadAffinity(1, on=batches)
    run(tmp_path, affinity=affinity, seeds=(0,), num_groups=1, validation_data=batches)
    assert (tag_keras.Affinity.load(tmp_path / "affinity.json").count == 1).all()


def test_other_held_out_data_are_another_run(pieces):
    affinity = tag_keras.Affinity.load(pieces.folder / "affinity.json")
    grouping = tag_keras.Grouping.load(pieces.folder / "groups.json")
    assert grouping == tag_keras.select_groups(affinity, 1, "forbid")
    assert "nchored" not in (pieces.folder / "report.html").read_text()
    # Equal data are the same run, of which nothing is left to do.
    equal = tag_keras.LookaheadAffinity(1, on=make_data(1, SIZES["validation"]))
    run(pieces.folder, affinity=equal, **pieces.options)
    other = tag_keras.LookaheadAffinity(1, on=make_data(5))
    message = "another run: on was held-out data, 4 arrays, CRC-32 .* and is held-out data, 4 arr"
    with pytest.raises(ValueError, match=message):
        run(pieces.folder, affinity=other, **pieces.options)


@pytest.mark.slow
def test_seeds_of_numpy_are_as_good(tmp_path):
    pytest.importorskip("matplotlib")
    run(tmp_path, seeds=np.arange(1), num_groups=1)
    assert json.loads((tmp_path / "settings.json").read_text())["seeds"] == [0]


def test_a_damaged_file_is_named(whole, tmp_path):
    names = ("settings.json", "affinity.json", "groups.json", "results.json", "served.json")
    for name in names:
        shutil.copytree(whole.folder, tmp_path / name)
        (tmp_path / name / name).write_text("{")
        with pytest.raises(ValueError, match=f"{name} is not a JSON file"):
            run(tmp_path / name)


@pytest.mark.slow
def test_a_model_that_was_put_together_otherwise_is_not_served(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    x, record = DATA["test"][0], tmp_path / "served.json"
    first = run(tmp_path, seeds=(0,)).predict(x, verbose=0)
    serving, kept = tag_keras.Serving.load(record), record.read_text()
    # As it would be from before there was a guard: no record, and other networks.
    model = training.load_network(tmp_path / "grouped.keras")
    for variable in model.trainable_variables:
        variable.assign(variable + 1)
    model.save(tmp_path / "grouped.keras")
    record.unlink()
    grouped = experiment._put_together(tmp_path, serving)
    for task, prediction in grouped.predict(x, verbose=0).items():
        np.testing.assert_array_equal(prediction, first[task])
    assert record.read_text() == kept
    # With its record, it is not put together again.
    model.save(tmp_path / "grouped.keras")
    grouped = experiment._put_together(tmp_path, serving)
    for task, prediction in grouped.predict(x, verbose=0).items():
        assert np.abs(prediction - first[task]).min() > 0
    # Nor with that of other networks: in this file the joint network is by far the best.
    rows = [
        dataclasses.replace(row, loss=0.0)
        if (row.network, row.split) == ("joint", "validation")
        else row
        for row in results.load_results(tmp_path / "results.json")
    ]
    results.save_results(tmp_path / "results.json", rows)
    capsys.readouterr()
    grouped = run(tmp_path, seeds=(0,))
    assert grouped.grouping.groups == (TASKS,) and len(grouped.models) == 1
    joint = training.load_network(tmp_path / "networks" / "joint_seed0.keras")
    for task, prediction in joint.predict(x, verbose=0).items():
        np.testing.assert_array_equal(grouped.predict(x, verbose=0)[task], prediction)
    words = "The guard moved 3 of 3 tasks: "
    assert words in capsys.readouterr().out
    assert words in (tmp_path / "report.html").read_text()


ROOT = Path(__file__).resolve().parents[1]


DIGITS = ["--tasks=is_even,ink", "--seeds=0,1", "--epochs=2", "--num_groups=2"]


def train_digits(folder, until=None, flags=()):
    """Runs the digits script; kills it as soon as `until(folder)` is true."""
    command = [sys.executable, "-m", "digits.train", f"--output_dir={folder}", *DIGITS, *flags]
    # One thread, because the order in which several add up is not fixed.
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **threads},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while until and process.poll() is None:
        if until(folder):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    return process.wait()


WRONG_FLAGS = [
    (["--tasks=nonsense"], "unknown ['nonsense']"),
    (["--seeds=a"], "--seeds should be whole numbers"),
    (["--seeds="], "--seeds should be whole numbers"),
    (["--batch_size=200"], "--batch_size should be at most --num_train, 100"),
    (["--method=uw", "--encoder=conv"], "--method=uw is made of residual blocks"),
]


@pytest.fixture(scope="module")
def digits_script(tmp_path_factory):
    """The script from beginning to end, then with wrong flags: its folders and what it printed.

    All in one process, because TensorFlow takes its time to be imported; the last one ends it.
    """
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("digits")
    code = f"""
import runpy, sys
from absl import app
from absl.testing import flagsaver
from tag_keras.study.command import command
sys.argv = ["train", "--output_dir={folder / "right"}", *{DIGITS}, "--seeds=0"]
try:
    runpy.run_module("digits.train", run_name="__main__", alter_sys=True)
except SystemExit as error:
    print("ended with", error.code)
from digits import train
main = command("digits.train", train.run)
for given in {[given for given, _ in WRONG_FLAGS]}:
    try:
        with flagsaver.flagsaver():
            app.run(main, ["train", "--output_dir={folder / "wrong"}", *given])
    except SystemExit as error:
        print(error)
        last = error
raise last
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return folder, result


def test_the_digits_script_from_beginning_to_end(digits_script):
    folder, result = digits_script
    assert "\nended with None\n" in result.stdout, result.stderr
    assert "is_even" in (folder / "right" / "report.html").read_text()


def test_the_digits_script_says_what_is_wrong_with_a_flag(digits_script):
    folder, result = digits_script
    assert result.returncode == 1
    lines = result.stdout.partition("ended with None\n")[2].splitlines()
    for line, (_, message) in zip(lines, WRONG_FLAGS, strict=True):
        assert line.startswith("digits.train: ") and message in line
    assert result.stderr.splitlines()[-1] == lines[-1]
    assert not (folder / "wrong").exists()


STAGES = {
    "measuring": lambda folder: (folder / "settings.json").exists(),
    "training the first yardstick": lambda folder: (folder / "affinity.json").exists(),
    "training the groups": lambda folder: (folder / "groups.json").exists(),
    "training the third yardstick": lambda folder: (
        len(list(folder.glob("networks/[!.]*.keras"))) >= 2
    ),
    "training the last": lambda folder: len(list(folder.glob("networks/[!.]*seed1.keras"))) >= 3,
    "putting together": lambda folder: list(folder.glob("*grouped.keras")),
    "reporting": lambda folder: list(folder.glob("*.png")),
}


@pytest.mark.slow
def test_killed_in_any_stage_it_ends_with_the_same_files(tmp_path):
    pytest.importorskip("matplotlib")
    assert train_digits(tmp_path / "whole") == 0
    for stage, until in STAGES.items():
        folder = tmp_path / stage
        assert train_digits(folder, until) == -signal.SIGKILL, stage
        assert train_digits(folder) == 0, stage
        assert contents(folder) == contents(tmp_path / "whole"), stage


@pytest.mark.slow
def test_processes_of_their_own_give_the_same_files(tmp_path):
    pytest.importorskip("matplotlib")
    for processes in (0, 2):
        assert train_digits(tmp_path / str(processes), flags=[f"--processes={processes}"]) == 0
    shutil.rmtree(tmp_path / "2" / "logs")
    assert contents(tmp_path / "2") == contents(tmp_path / "0")
