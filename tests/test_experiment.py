"""The whole flow: what a run writes, that it resumes, and what it refuses."""

import contextlib
import dataclasses
import datetime
import html
import io
import itertools
import json
import os
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from run_contents import contents

import tag_keras
from tag_keras import experiment, results
from tag_keras.report import report
from tag_keras.sweep import job
from tag_keras.sweep import network as training
from tag_keras.sweep.job import JobFiles
from tag_keras.utils import files

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
# As datasets, which Keras would otherwise make of the arrays for each network anew; the script of
# the digits gives arrays.
BATCHES = {
    split: tf.data.Dataset.from_tensor_slices(DATA[split]).batch(32)
    for split in ("validation", "test")
}


def train_batches():
    return tf.data.Dataset.from_tensor_slices(DATA["train"]).shuffle(40).batch(32)


def build_model(tasks, affinity=None):
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in tasks})
    # Eagerly, because tracing takes longer than the two steps of an epoch; the script of the
    # digits trains in graphs.
    # The second has a value for each output, of which there is one here.
    metrics = {tasks[0]: ["mae", keras.metrics.R2Score(class_aggregation=None)]}
    model.compile("sgd", "mse", metrics=metrics, affinity=affinity, run_eagerly=True)
    return model


def run(folder, **kwargs):
    arguments = {
        "tasks": TASKS,
        "num_groups": 2,
        "affinity": tag_keras.LookaheadAffinity(1),
        "seeds": (0, 1),
        "epochs": 1,
    }
    arguments = {"data": {"train": train_batches, **BATCHES}, **arguments, **kwargs}
    build = arguments.pop("build", build_model)
    return experiment.run(folder, build, **arguments)


RIVAL = [
    results.Row("rival", TASKS, seed, task, split, 5.0, {}, seconds=7.0)
    for seed in (0, 1)
    for split in ("validation", "test")
    for task in TASKS
]


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
    pytest.importorskip("jinja2")
    folder, cut_off = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut_off")
    original = training.train_network

    def train_network(build, network, *args, **kwargs):
        if (network.name, network.seed) == ("single_c", 1):
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
    pytest.importorskip("jinja2")
    folder = tmp_path_factory.mktemp("pieces")
    options = {"seeds": np.arange(1), "num_groups": 1, "singletons": "forbid"}
    on = tag_keras.LookaheadAffinity(1, on=DATA["validation"])
    trained = run_stopped_before_each_training(folder, affinity=on, **options)
    return types.SimpleNamespace(folder=folder, options=options, trained=trained)


def test_tasks_with_few_common_examples_are_told():
    half = np.where(np.arange(12) < 6, 1.0, np.nan)
    y = {"a": half, "b": np.where(np.isnan(half), 1.0, np.nan), "other": half}
    x = np.zeros((12, 1))
    assert "labels of both a and b (0 %):" in experiment._few_common((x, y), ["a", "b"])
    weights = {"a": np.ones(12), "b": np.arange(12)}
    assert experiment._few_common((x, {"a": x, "b": x}, weights), ["a", "b"]) == ""
    # A dataset is not read for it.
    assert experiment._few_common(lambda: None, ["a", "b"]) == ""


def test_run_writes_everything(whole):
    folder, printed = whole.folder, whole.printed
    assert "total" in printed and printed.rstrip().endswith("report.html")
    rows = results.load_results(folder / "results.json")
    grouping = tag_keras.Grouping.load(folder / "groups.json")
    # By default, by affinities corrected by the yardsticks that are there.
    affinity = tag_keras.Affinity.load(folder / "affinity.json")
    measured = [training.Network("affinity", TASKS, seed, role="affinity") for seed in (0, 1)]
    runs = [tag_keras.Affinity.load(JobFiles(folder, one).affinity) for one in measured]
    np.testing.assert_array_equal(affinity.replicates, [run.mean for run in runs])
    np.testing.assert_allclose(affinity.mean, np.mean([run.mean for run in runs], axis=0))
    assert np.abs(runs[0].mean - runs[1].mean).max() > 1e-3
    anchored = tag_keras.anchor_affinity(affinity, rows)
    assert grouping == tag_keras.select_groups(anchored, 2, "baseline", score="sum")
    assert "<dt>Anchored affinity</dt>" in (folder / "report.html").read_text()
    names = {"affinity", "joint", *(f"single_{task}" for task in TASKS)}
    names |= {f"group_{index}" for index in range(len(grouping.groups))}
    assert {row.network for row in rows} == names
    assert {row.split for row in rows} == {"validation", "test"}
    (environment,) = json.loads((folder / "environment.json").read_text())
    page = (folder / "report.html").read_text()
    for text in (*environment.values(), "LookaheadAffinity", "Estimated validation losses"):
        assert html.escape(text) in page
    assert "Not finished" not in page
    saved = keras.models.load_model(folder / "grouped.keras")
    serving = json.loads((folder / "served.json").read_text())
    loss = {(row.network, row.seed, row.split, row.task): row.loss for row in rows}
    x, y = DATA["test"]
    expected, total = whole.grouped.predict(x, verbose=0), 0
    for task, prediction in saved.predict(x, verbose=0).items():
        np.testing.assert_array_equal(prediction, expected[task])
        serves = serving["decision"]["grouping"]["serves"]
        name, seed = serving["networks"][serves[task]]
        served = [one for one in TASKS if serves[one] == serves[task]]
        # The network of the seed with the least validation loss, over the tasks that it serves.
        totals = [sum(loss[name, s, "validation", one] for one in served) for s in (0, 1)]
        assert seed == int(np.argmin(totals))
        error = np.mean((prediction[:, 0] - y[task]) ** 2)
        assert error == pytest.approx(loss[name, seed, "test", task], rel=1e-4)
        total += loss[name, seed, "validation", task]
    assert total == pytest.approx(serving["total"])
    # By the losses of all networks, as by hand.
    estimate = tag_keras.estimate_group_losses(rows)
    decision = tag_keras.decide_groups(estimate, 2, only_measured=True)
    assert serving["decision"]["kind"] == decision.kind
    for text in (printed, html.unescape((folder / "report.html").read_text())):
        assert decision.reason in text and f"{total:.4g} by " in text
    # A rival costs its own training, the groups all that were needed to select them.
    seconds = {(row.network == "affinity", row.tasks, row.seed): row.seconds for row in rows}
    joint = seconds[False, TASKS, 0] + seconds[False, TASKS, 1]
    lines = [line.split("|") for line in printed.splitlines() if line.startswith("|")]
    costs = {line[1].strip(): line[-2].strip() for line in lines}
    assert costs["rival"] == f"{14 / joint:.1f}"
    # The affinities are of both seeds, every other network is counted once.
    both = seconds[True, TASKS, 0] + seconds[True, TASKS, 1] + sum(seconds.values())
    assert costs["tag"] == f"{both / joint:.1f}"
    with pytest.raises(ValueError, match=r"holds another run: seeds was \[0, 1\] and is \[0\]"):
        run(folder, seeds=(0,))


@pytest.mark.slow
def test_the_parts_of_arrays_for_validation_make_gains_less_sure(tmp_path):
    x, y = DATA["validation"]
    data = {**DATA, "validation": (x, {task: y[task] for task in "ab"})}
    run(tmp_path, data=data, tasks=("a", "b"), num_groups=1)
    rows = results.load_results(tmp_path / "results.json")
    parts = [row for row in rows if row.split in results.part_names("validation")]
    whole = [row for row in rows if row.split == "validation"]
    assert len(parts) == 5 * len(whole) and not any(row.metrics for row in parts)
    sizes = [6, 7, 6, 7, 6]
    for row in whole:
        losses = [
            (one.split, one.loss)
            for one in parts
            if (one.network, one.seed, one.task) == (row.network, row.seed, row.task)
        ]
        mean = np.average([loss for _, loss in sorted(losses)], weights=sizes)
        assert mean == pytest.approx(row.loss, rel=1e-5)
    served = tag_keras.Serving.load(tmp_path / "served.json").decision.options[-1]
    sure, unsure = (
        tag_keras.decide_groups(tag_keras.estimate_group_losses(rows, parts=names), 1).options[-1]
        for names in ((), None)
    )
    assert served.over_joint == unsure.over_joint
    widths = [np.ptp(option.over_joint.interval) for option in (sure, unsure)]
    assert widths[1] > 1.02 * widths[0]


@pytest.mark.slow
def test_cut_off_it_ends_with_the_same_files(whole):
    trained = run_stopped_before_each_training(whole.cut_off)
    # A yardstick, and groups with both seeds.
    assert trained[0] == "single_c" and len(trained) >= 3
    assert contents(whole.cut_off) == contents(whole.folder)


@pytest.mark.slow
def test_a_budget_trains_further_networks_in_the_same_folder(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "one")
    before = results.load_results(tmp_path / "one" / "results.json")
    run(tmp_path / "one", budget="all")
    rows = results.load_results(tmp_path / "one" / "results.json")
    assert rows[: len(before)] == before
    groups = {frozenset(row.tasks) for row in rows if row.role != "affinity"}
    assert len(groups) == 7
    assert {(row.tasks, row.seed) for row in rows if row.role == "candidate"} == {
        (group, seed)
        for group in itertools.combinations(TASKS, 2)
        if not any(row.tasks == group for row in before)
        for seed in (0, 1)
    }
    assert "Other groups, to learn from" in (tmp_path / "one" / "report.html").read_text()
    # Stopped before each training, it ends with the same files.
    shutil.copytree(whole.folder, tmp_path / "two")
    run_stopped_before_each_training(tmp_path / "two", budget="all")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    # A candidate that serves is made anew, also without the budget that it came from.
    rows = [
        dataclasses.replace(row, loss=row.loss / 100)
        if (row.role, row.seed) == ("candidate", 1)
        else row
        for row in rows
    ]
    results.save_results(tmp_path / "two" / "results.json", rows)
    run(tmp_path / "two", budget="all")
    served = tag_keras.Serving.load(tmp_path / "two" / "served.json")
    for name, seed in served.networks:
        (tmp_path / "two" / "networks" / f"{name}_seed{seed}.keras").write_bytes(b"damaged")
    (tmp_path / "two" / "grouped.keras").unlink()
    run(tmp_path / "two")
    # What is there can be decided about anew.
    run(tmp_path / "one", budget="all", probability=0.999)
    served = tag_keras.Serving.load(tmp_path / "one" / "served.json")
    assert served.decision.kind != "groups"


@pytest.mark.slow
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


class Stop(keras.callbacks.Callback):
    def __init__(self, patience):
        super().__init__()
        self.patience = patience


def build_wider(tasks, affinity=None):
    model = build_model(tasks, affinity)
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(512, activation="relu")])
    wider = tag_keras.MultiTaskModel(encoder, dict(model.heads))
    wider.compile("sgd", "mse", affinity=affinity, run_eagerly=True)
    return wider


def build_slower(tasks, affinity=None):
    model = build_model(tasks, affinity)
    model.compile(keras.optimizers.SGD(0.02), "mae", affinity=affinity, run_eagerly=True)
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"build": build_wider}, "another run: units of dense was 4 and is 512"),
        (
            {"build": build_slower},
            "learning_rate of optimizer was 0.01 and is 0.02; loss was mse and",
        ),
        ({"data": {**DATA, "train": DATA["validation"]}}, r"x of train was absent and is float32 "),
        ({"data": {"train": train_batches, **DATA}}, "of validation was "),
        ({"callbacks": [Stop(3)]}, "callbacks was absent and is {"),
    ],
)
def test_another_model_or_other_data_are_another_run(whole, tmp_path, monkeypatch, change, message):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    kept = contents(tmp_path)
    monkeypatch.setattr(job, "train_network", None)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **change)
    assert contents(tmp_path) == kept


@pytest.mark.slow
def test_a_run_that_only_reads_says_so_and_when_it_was_trained(
    whole, tmp_path, monkeypatch, capsys
):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(job, "train_network", None)
    for path in [tmp_path / "results.json", *tmp_path.glob("networks/*")]:
        os.utime(path, (1.7e9, 1.7e9))
    date = datetime.datetime.fromtimestamp(1.7e9).strftime("%Y-%m-%d %H:%M")
    run(tmp_path)
    printed = capsys.readouterr().out
    message = f"Nothing to train: everything in {tmp_path} was trained by {date}.\n"
    assert printed.endswith(message) and printed.count("Nothing to train") == 1
    assert "Measuring" not in printed and "Nothing to train" not in whole.printed
    # What a version before wrote is made anew. With verbose=0, neither is told.
    (tmp_path / "served.json").write_text('{"moves": []}')
    run(tmp_path, verbose=0)
    printed = capsys.readouterr().out
    assert "Nothing to train" not in printed and "put together anew" not in printed
    # One line for what cannot be known: what the functions and datasets give.
    assert printed.count("by code and type only: train, validation and test.") == 1
    # A folder of an earlier version does not know what it was trained with.
    settings = json.loads((tmp_path / "settings.json").read_text())
    del settings["fingerprint"]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    run(tmp_path)
    wanted = "settings.json does not say of what model, data and fit the run before was"
    assert wanted in capsys.readouterr().out
    with pytest.raises(ValueError, match="another run: units of dense was 4 and is 512"):
        run(tmp_path, build=build_wider)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_groups": 0}, "`num_groups` should be at least 1"),
        ({"budget": 11}, "`budget` should be at least 12 trainings"),
        ({"probability": 0.4}, "`probability` should be from 0.5 to below 1"),
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


def test_a_pair_that_was_not_measured_is_told_before_the_yardsticks(whole, tmp_path, monkeypatch):
    mean, count = np.ones((3, 3)), np.ones((3, 3), int)
    mean[0, 1], count[0, 1] = np.nan, 0
    affinity = tag_keras.Affinity(TASKS, mean, count=count)
    monkeypatch.setattr(experiment, "_measure", lambda *args, **kwargs: affinity)
    with pytest.raises(ValueError, match=r"should be finite for all pairs.*a -> b: nan"):
        run(tmp_path / "new")
    assert not list(tmp_path.glob("new/networks/*.keras"))
    # Groups that are there need no affinities.
    shutil.copytree(whole.folder, tmp_path / "whole")
    (tmp_path / "whole" / "report.html").unlink()
    run(tmp_path / "whole")
    assert (tmp_path / "whole" / "report.html").exists()


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: layers.Dense(4, trainable=False),
            "The encoder has no trainable variable that several",
        ),
        (
            lambda: layers.Lambda(lambda x: [x, x]),
            "The encoder should give one tensor for all tasks",
        ),
    ],
)
def test_an_encoder_that_cannot_be_trained_is_refused_before_any_work(tmp_path, make, message):
    def build(tasks, affinity=None):
        encoder = keras.Sequential([make()])
        model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in tasks})
        model.compile("sgd", "mse", affinity=affinity, run_eagerly=True)
        return model

    with pytest.raises(ValueError, match=message):
        run(tmp_path / "new", data=DATA, build=build)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_datasets_held_out_and_for_validation_and_seeds_of_numpy(tmp_path, monkeypatch, pieces):
    batches = tf.data.Dataset.from_tensor_slices(DATA["validation"]).batch(10)
    affinity = tag_keras.LookaheadAffinity(1, on=batches)
    # What comes next is the same with other held-out data.
    monkeypatch.setattr(experiment, "_train", lambda study, networks: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, affinity=affinity, validation_data=batches, **pieces.options)
    assert (tag_keras.Affinity.load(tmp_path / "affinity.json").count == 1).all()
    assert json.loads((tmp_path / "settings.json").read_text())["seeds"] == [0]


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


def test_a_damaged_file_is_named(whole, tmp_path):
    for name in ("settings.json", "affinity.json", "groups.json", "results.json"):
        shutil.copytree(whole.folder, tmp_path / name)
        (tmp_path / name / name).write_text("{")
        with pytest.raises(ValueError, match=f"{name} is not a JSON file"):
            run(tmp_path / name)


@pytest.mark.slow
def test_a_run_is_alone_in_its_folder_from_beginning_to_end(whole, tmp_path, monkeypatch):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    asked = []

    def ask(function):
        def asking(*args, **kwargs):
            asked.append(function.__name__)
            with pytest.raises(ValueError), files.locked(tmp_path / ".lock", "", wait=False):
                pass
            return function(*args, **kwargs)

        return asking

    stages = ["keep_settings", "load_sweep_results", "serve_measured", "load_network"]
    for name in stages:
        monkeypatch.setattr(experiment, name, ask(getattr(experiment, name)))
    monkeypatch.setattr(report, "write_report", ask(report.write_report))
    run(tmp_path)
    assert list(dict.fromkeys(asked)) == [*stages, "write_report"]
    kept = contents(tmp_path)
    with files.locked(tmp_path / ".lock", "", wait=False):
        with pytest.raises(ValueError, match=f"Another run is at work in {tmp_path}"):
            run(tmp_path)
        # Nor one with other settings.
        with pytest.raises(ValueError, match=f"Another run is at work in {tmp_path}"):
            run(tmp_path, seeds=(7,))
    assert contents(tmp_path) == kept


@pytest.mark.slow
def test_damaged_networks_are_made_anew(whole, tmp_path, monkeypatch, capsys):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    grouped, x = tmp_path / "grouped.keras", DATA["test"][0]
    expected, trained = whole.grouped.predict(x, verbose=0), []
    original = training.train_network

    def train_network(build, network, *args, **kwargs):
        trained.append((network.name, network.seed))
        return original(build, network, *args, **kwargs)

    monkeypatch.setattr(job, "train_network", train_network)
    # It is put together again, out of networks that are there.
    grouped.write_bytes(b"")
    predictions = run(tmp_path).predict(x, verbose=0)
    assert trained == [] and f"{grouped} is put together anew" in capsys.readouterr().out
    # Networks that it consists of are trained again, those of the same training only once.
    serving = tag_keras.Serving.load(tmp_path / "served.json")
    for name, seed in serving.networks:
        path = tmp_path / "networks" / training.Network(name, (), seed).file
        path.write_bytes(path.read_bytes()[:-9])
    grouped.write_bytes(grouped.read_bytes()[:-9])
    anew = run(tmp_path).predict(x, verbose=0)
    assert {*trained} <= {*serving.networks} and len(trained) == len({*trained})
    assert capsys.readouterr().out.count("), and made anew.") == len(serving.networks)
    for task in TASKS:
        np.testing.assert_array_equal(predictions[task], expected[task])
        np.testing.assert_allclose(anew[task], expected[task], rtol=1e-5)
    assert contents(tmp_path) == contents(whole.folder)


def approximately(rows):
    """Rows whose losses were computed anew, perhaps in another order."""
    return [
        dataclasses.replace(row, loss=pytest.approx(row.loss), metrics=pytest.approx(row.metrics))
        for row in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a split", "a row", "all"])
def test_results_that_are_lost_cost_an_evaluation(whole, tmp_path, monkeypatch, what):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "results.json"
    rows = results.load_results(path)
    if what == "a split":
        # As if "test" had not been given when the yardsticks were trained with the second seed.
        yardsticks = ("joint", *(f"single_{task}" for task in TASKS))
        lost = [row.split == "test" and row.seed == 1 and row.network in yardsticks for row in rows]
        left = [row for row, is_lost in zip(rows, lost, strict=True) if not is_lost]
        results.save_results(path, left)
    elif what == "a row":
        left = [row for row in rows if (row.network, row.seed, row.task) != ("joint", 1, "b")]
        results.save_results(path, left)
    else:
        path.unlink()
    monkeypatch.setattr(job, "train_network", None)
    run(tmp_path, rivals={"rival": RIVAL})
    assert results.load_results(path) == approximately(rows)
    serving = tag_keras.Serving.load(whole.folder / "served.json")
    assert tag_keras.Serving.load(tmp_path / "served.json").networks == serving.networks


@pytest.mark.slow
def test_another_file_than_the_run_wrote_is_not_served(whole, tmp_path, monkeypatch, capsys):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    grouped, x = tmp_path / "grouped.keras", DATA["test"][0]
    expected = whole.grouped.predict(x, verbose=0)

    def is_served_as_before(tolerance=0.0):
        predictions = run(tmp_path).predict(x, verbose=0)
        for task in TASKS:
            np.testing.assert_allclose(predictions[task], expected[task], rtol=tolerance)
        return capsys.readouterr().out

    with monkeypatch.context() as patch:
        patch.setattr(job, "train_network", None)
        other = training.load_network(grouped)
        for variable in other.trainable_variables:
            variable.assign(variable + 1)
        other.save(grouped)
        assert f"{grouped} is put together anew: it is not the file that" in is_served_as_before()
        (tmp_path / "served.json").write_text("{")
        wanted = f"{grouped} is put together anew: {tmp_path / 'served.json'} is not a JSON file"
        assert wanted in is_served_as_before()
    # The files of two seeds are swapped.
    serving = tag_keras.Serving.load(tmp_path / "served.json")
    name, seed = serving.networks[0]
    paths = [
        tmp_path / "networks" / training.Network(name, (), one).file for one in (seed, 1 - seed)
    ]
    files_of = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(files_of), strict=True):
        path.write_bytes(content)
    grouped.unlink()
    message = f"{paths[0]} is made anew: {paths[0]} is not the file that the training wrote."
    assert message in is_served_as_before(1e-5)


def test_the_file_that_is_wrong_is_named(whole, tmp_path, monkeypatch):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(job, "train_network", None)

    def message_for(name, **changes):
        path = tmp_path / name
        kept = path.read_text()
        path.write_text(json.dumps({**json.loads(kept), **changes}))
        with pytest.raises(ValueError) as caught:
            run(tmp_path)
        path.write_text(kept)
        return str(caught.value).removeprefix(str(path))

    again = "Delete it, and the same call makes it anew."
    for tasks in (["c", "b", "a"], ["a", "b", "x"]):
        message = message_for("affinity.json", tasks=tasks)
        assert message == f" has the tasks {tasks}, this run ['a', 'b', 'c']. {again}"
    again = "Delete groups.json, and the same call selects the groups anew."
    found = tag_keras.Grouping.load(tmp_path / "groups.json").groups
    assert len(found) == 2 and ("a", "c") not in found
    serves = {"c": 0, "a": 0, "b": 1}
    change = {"groups": [["a", "c"], ["b"]], "serves": serves}
    before = f"and its network was trained on {list(found[0])}"
    assert message_for("groups.json", **change) == f" has the group ['a', 'c'], {before}. {again}"
    change |= {"tasks": ["c", "b", "a"]}
    message = message_for("groups.json", **change)
    assert message == f" has the tasks ['c', 'b', 'a'], this run ['a', 'b', 'c']. {again}"
    change = {"groups": [["a"], ["b"], ["c"]], "serves": {"a": 0, "b": 1, "c": 2}}
    assert message_for("groups.json", **change) == f" has 3 groups, this run at most 2. {again}"


@pytest.mark.slow
def test_a_model_that_was_put_together_otherwise_is_not_served(whole, tmp_path, capsys):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    x, record = DATA["test"][0], tmp_path / "served.json"
    first = whole.grouped.predict(x, verbose=0)
    serving = tag_keras.Serving.load(record)
    study = types.SimpleNamespace(folder=tmp_path, say=print)
    # As it would be from before there was a guard: no record, and other networks.
    model = training.load_network(tmp_path / "grouped.keras")
    for variable in model.trainable_variables:
        variable.assign(variable + 1)
    model.save(tmp_path / "grouped.keras")
    record.unlink()
    grouped = experiment._put_together(study, serving)
    for task, prediction in grouped.predict(x, verbose=0).items():
        np.testing.assert_array_equal(prediction, first[task])
    assert tag_keras.Serving.load(record) == serving
    # With the record of a version that knew no checksum, it is not put together again.
    model.save(tmp_path / "grouped.keras")
    dataclasses.replace(serving, checksum="").save(record)
    grouped = experiment._put_together(study, serving)
    for task, prediction in grouped.predict(x, verbose=0).items():
        assert np.abs(prediction - first[task]).min() > 0
    # But with that of other networks: in this file the joint network is by far the best.
    rows = [
        dataclasses.replace(row, loss=0.0)
        if (row.network, row.split) == ("joint", "validation")
        else row
        for row in results.load_results(tmp_path / "results.json")
    ]
    results.save_results(tmp_path / "results.json", rows)
    capsys.readouterr()
    grouped = run(tmp_path)
    assert grouped.grouping.groups == (TASKS,) and len(grouped.models) == 1
    joint = training.load_network(tmp_path / "networks" / "joint_seed0.keras")
    for task, prediction in joint.predict(x, verbose=0).items():
        np.testing.assert_array_equal(grouped.predict(x, verbose=0)[task], prediction)
    words = "Total validation loss at the best seeds: 0 by it"
    assert words in capsys.readouterr().out
    assert words in (tmp_path / "report.html").read_text()
