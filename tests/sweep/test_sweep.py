import collections
import contextlib
import fcntl
import functools
import json
import os
import pickle
import random
import re
import shutil
import signal
import time
import zipfile
from pathlib import Path

import forks
import keras
import numpy as np
import pytest
import sweep_job
import tensorflow as tf
from quick_start import python_path
from sweep_job import BUILDS, DATA, build_model

import tag_keras
from tag_keras import results
from tag_keras.sweep import job, runners, sweep
from tag_keras.sweep import network as training
from tag_keras.utils import child_processes

FIT = {"epochs": 2, "verbose": 0}
ONE_SPLIT = {split: DATA[split] for split in ("train", "test")}


def make_job(name, tasks, seed=0, build=build_model, **kwargs):
    return job.Job(training.Network(name, tuple(tasks), seed), build, FIT, **kwargs)


def contents(folder):
    """Rows without the seconds that the training took, weights by file, and all other files."""
    rows = json.loads((folder / "results.json").read_text())
    rows = [{**row, "seconds": 0} for row in rows]
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    models = {path.name: keras.models.load_model(path) for path in folder.rglob("*.keras")}
    weights = {name: [w.tolist() for w in models[name].get_weights()] for name in models}
    return rows, weights, sorted(name for name in names if not name.startswith("logs"))


def pretend(folder, one, data):
    """Leaves the files that `train_job` leaves, with losses and a network that tell the job."""
    paths = job.JobFiles(folder, one.network)
    paths.model.parent.mkdir(parents=True, exist_ok=True)
    name, tasks, seed = one.network.name, one.network.tasks, one.network.seed
    if one.saves:
        with zipfile.ZipFile(paths.model, "w") as file:
            file.writestr("name", name)
    if one.measures:
        paths.affinity.write_text(name)
    splits = [split for split in data if split != "train"]
    rows = [
        results.Row(name, tasks, seed, task, split, len(name), {}, 1.0)
        for split in splits
        for task in tasks
    ]
    results.save_results(paths.rows, rows)


@pytest.fixture
def trained(monkeypatch):
    """Names of the networks that were trained in this process, which only pretends to."""
    names = []

    def train(folder, one, data, progress=None):
        names.append(one.network.name)
        pretend(folder, one, data)

    monkeypatch.setattr(runners, "train_job", train)
    return names


def leave_out_fit(build, network, train, saves, **fit):
    """Builds a network from its seed."""
    keras.utils.set_random_seed(network.seed)
    model = build(network.tasks)
    model(DATA["train"][0])
    return model, 0.5


@pytest.fixture
def untrained(monkeypatch):
    """Leaves out `fit`, which takes most of the time."""
    monkeypatch.setattr(job, "train_network", leave_out_fit)


# Python runs it as it starts: the first process of a sweep is killed, like one that takes too much
# memory, and before it takes its time to import TensorFlow. Keras does without what is missing.
KILLS_THE_FIRST = """
import os, pathlib, signal, sys
if "--multiprocessing-fork" in sys.orig_argv:
    sys.modules.update(sklearn=None, matplotlib=None)
    try:
        pathlib.Path({path!r}).open("x").close()
    except FileExistsError:
        pass
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_networks_in_processes_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(BUILDS, str(tmp_path / "builds"))
    killed = tmp_path / "killed"
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(KILLS_THE_FIRST.format(path=str(killed)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "start"), prepend=os.pathsep)
    measured = functools.partial(build_model, affinity=tag_keras.LookaheadAffinity(1))
    talking = {"epochs": 3}
    jobs = [
        make_job("one", "a"),
        job.Job(training.Network("measured", tuple("abc")), measured, talking),
    ]
    folder = tmp_path / "there"
    sweep.run_sweep(folder, jobs, DATA, processes=2)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"Training 2 of 2 networks; logs in {folder / 'logs'}"
    assert len(printed) == 2 and printed[1].startswith("Training networks: 2/2 in ")
    # A child shows that it is alive: one line for each epoch, as with verbose=2 of Keras' fit.
    lines = (folder / "logs" / "measured_seed0.log").read_text().splitlines()
    assert [line for line in lines if line.startswith("Epoch")] == [
        f"Epoch {i}/3" for i in (1, 2, 3)
    ]
    assert len([line for line in lines if " - loss: " in line]) == 3
    sweep.run_sweep(folder, jobs, DATA)
    printed = capsys.readouterr().out
    assert re.fullmatch(rf"Nothing to train: everything in {folder} was .*\n", printed)
    # The second time, this process built them to compare them with those that are there.
    built = sweep_job.read_builds(tmp_path / "builds")
    # Each twice, to find layers that they would have in common.
    assert sorted(tasks for tasks, _ in built[:4]) == ["a", "a", "abc", "abc"]
    assert built[4:] == [("a", str(os.getpid())), ("abc", str(os.getpid()))]
    assert len({process for _, process in built}) == 3
    # The one that was killed was tried once more.
    assert killed.exists()

    # The same in this process.
    expected = sweep.run_sweep(tmp_path / "here", jobs, DATA, processes=0)
    rows = results.load_results(folder / "results.json")
    assert [row.network for row in rows] == ["one"] * 2 + ["measured"] * 6
    np.testing.assert_allclose([r.loss for r in rows], [r.loss for r in expected], rtol=1e-5)
    names = ["measured_seed0.affinity.json", "measured_seed0.keras", "measured_seed0.trained.json"]
    names += ["one_seed0.keras", "one_seed0.trained.json"]
    for place in ("here", "there"):
        assert sorted(path.name for path in (tmp_path / place / "networks").iterdir()) == names
    affinities = [
        tag_keras.Affinity.load(tmp_path / place / "networks" / names[0]).mean
        for place in ("here", "there")
    ]
    np.testing.assert_allclose(*affinities, rtol=1e-3, atol=1e-6)


def test_only_what_is_missing_is_trained(tmp_path, trained):
    jobs = [make_job("one", "a"), make_job("two", "ab"), make_job("two", "ab", seed=1)]
    sweep.run_sweep(tmp_path, [jobs[1]], DATA, processes=0)
    sweep.run_sweep(tmp_path, [make_job("other", "b")], DATA, processes=0)
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    assert trained == ["two", "other", "one", "two"]
    # The own ones in the order of the jobs, where the first of them stood.
    networks = list(dict.fromkeys((row.network, row.seed) for row in rows))
    assert networks == [("one", 0), ("two", 0), ("two", 1), ("other", 0)]
    assert rows == results.load_results(tmp_path / "results.json")
    assert sweep.run_sweep(tmp_path, jobs, DATA, processes=0) == rows
    assert len(trained) == 4


def test_a_network_that_finished_as_the_sweep_was_killed_is_not_lost(tmp_path, trained):
    # Killed before the rows of the first were put into results.json, and after, when they have
    # only not been deleted.
    jobs = [make_job("one", "a"), make_job("two", "b")]
    for one in jobs:
        pretend(tmp_path, one, ONE_SPLIT)
    sweep.run_sweep(tmp_path, [jobs[1]], ONE_SPLIT, processes=0)
    pretend(tmp_path, jobs[1], ONE_SPLIT)
    rows = sweep.run_sweep(tmp_path, jobs, ONE_SPLIT, processes=0)
    assert trained == []
    assert [row.network for row in rows] == ["one", "two"]
    assert not list(tmp_path.rglob("*.rows.json"))


@pytest.mark.parametrize("wrong", ["[{", "[]", "another network's"])
def test_rows_that_cannot_be_used_cost_an_evaluation(tmp_path, trained, capsys, wrong):
    one = make_job("one", "a")
    pretend(tmp_path, make_job("other", "a"), ONE_SPLIT)
    pretend(tmp_path, one, ONE_SPLIT)
    path = job.JobFiles(tmp_path, one.network).rows
    others = (tmp_path / "networks" / "other_seed0.rows.json").read_text()
    path.write_text(others if wrong.startswith("another") else wrong)
    rows = sweep.run_sweep(tmp_path, [one], ONE_SPLIT, processes=0)
    assert trained == ["one"] and [row.network for row in rows] == ["one"]
    assert not path.exists()
    assert (f"evaluated anew: {path} is not a JSON" in capsys.readouterr().out) == (wrong == "[{")


def test_tasks_of_long_names(tmp_path, untrained):
    task = "年龄" * 60
    data = {split: (x, {task: y["a"]}) for split, (x, y) in DATA.items()}
    one = job.Job(training.Network(f"single_{task}", (task,)), build_model, FIT)
    rows = sweep.run_sweep(tmp_path, [one], data, processes=0)
    assert [row.task for row in rows] == [task, task]
    # It is found again, also without results.json.
    assert sweep.run_sweep(tmp_path, [one], data, processes=0) == rows
    (tmp_path / "results.json").unlink()
    again = sweep.run_sweep(tmp_path, [one], data, processes=0)
    assert [row.seconds for row in again] == [row.seconds for row in rows]


def test_a_network_whose_files_are_gone_is_trained_anew(tmp_path, trained):
    jobs = [
        make_job("saved", "a"),
        make_job("measured", "ab", saves=False, measures=True),
        make_job("neither", "b", saves=False),
    ]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    gone = [tmp_path / "networks" / f"saved_seed0{end}" for end in (".keras", ".rows.json")]
    gone += [tmp_path / "networks" / "measured_seed0.affinity.json"]
    # Rows that the sweep had not collected when it was killed do not count either.
    pretend(tmp_path, jobs[0], DATA)
    gone[0].unlink()
    gone[2].unlink()
    assert sweep.run_sweep(tmp_path, jobs, DATA, processes=0) == rows
    assert trained == ["saved", "measured", "neither", "saved", "measured"]
    assert [path.exists() for path in gone] == [True, False, True]


def test_a_twin_that_has_its_file_replaces_one_that_is_gone(tmp_path, trained):
    jobs = [make_job("joint", "ab"), make_job("group", "ab")]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    (tmp_path / "networks" / "joint_seed0.keras").unlink()
    assert sweep.run_sweep(tmp_path, jobs, DATA, processes=0) == rows
    assert trained == ["joint"] and (tmp_path / "networks" / "joint_seed0.keras").exists()


def test_a_job_that_measures_needs_a_model_that_does(tmp_path):
    one = make_job("one", "ab", measures=True)
    with pytest.raises(ValueError, match=r"compile with `affinity=`. Received: measures=True"):
        job.train_job(tmp_path, one, DATA)
    assert not list(tmp_path.iterdir())


def evaluation_fails(monkeypatch, folder, one, error):
    """Trains a network whose evaluation raises; gives its weights."""

    def evaluate(*args):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(job, "evaluate_network", evaluate)
        with pytest.raises(type(error)):
            job.train_job(folder, one, DATA)
    return keras.models.load_model(job.JobFiles(folder, one.network).model).get_weights()


def test_damaged_results_cost_an_evaluation_and_no_training(tmp_path, monkeypatch, untrained):
    monkeypatch.setenv(BUILDS, str(tmp_path / "builds"))
    # Of twins, the first here has only been copied.
    jobs = [make_job("one", "ab"), make_job("twin", "ab"), make_job("brief", "c", saves=False)]
    sweep.run_sweep(tmp_path, [jobs[1]], DATA, processes=0)
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    path = tmp_path / "results.json"
    path.write_text(path.read_text()[:-5])
    wanted = rf"{path} is not a JSON file.* evaluates the networks that are in {tmp_path}/networks"
    with pytest.raises(ValueError, match=wanted):
        sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    path.unlink()
    anew = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    assert [row.network for row in anew] == [row.network for row in rows]
    np.testing.assert_allclose([r.loss for r in anew], [r.loss for r in rows], rtol=1e-6)
    assert [row.seconds for row in anew[:4]] == [row.seconds for row in rows[:4]]
    built = [tasks for tasks, _ in sweep_job.read_builds(tmp_path / "builds")]
    # Each time but the first, one network was built to be compared; "c" has kept its rows.
    assert built == ["ab", "ab", "c", "ab", "ab"]


@pytest.mark.slow
@pytest.mark.parametrize("affinity", [None, tag_keras.LookaheadAffinity(1)])
def test_a_failed_evaluation_does_not_lose_the_training(tmp_path, monkeypatch, affinity, request):
    if affinity is None:
        request.getfixturevalue("untrained")
    monkeypatch.setenv(BUILDS, str(tmp_path / "builds"))
    measured = functools.partial(build_model, affinity=affinity)
    one = make_job("one", "ab", build=measured, measures=affinity is not None)
    expected = sweep.run_sweep(tmp_path / "undisturbed", [one], DATA, processes=0)
    weights = evaluation_fails(monkeypatch, tmp_path / "folder", one, OSError("disc"))
    paths = job.JobFiles(tmp_path / "folder", one.network)
    seconds = json.loads(paths.trained.read_text())["seconds"]
    rows = sweep.run_sweep(tmp_path / "folder", [one], DATA, processes=0)
    # A network that is trained is built twice, `untrained` builds once, and the last one was only
    # to be compared.
    builds = sweep_job.read_builds(tmp_path / "builds")
    assert len(builds) == (2 if affinity is None else 4) + 1
    assert [row.seconds for row in rows] == [seconds] * 4
    np.testing.assert_allclose([r.loss for r in rows], [r.loss for r in expected], rtol=1e-5)
    assert [row.metrics for row in rows] == [row.metrics for row in expected]
    kept = keras.models.load_model(paths.model).get_weights()
    np.testing.assert_array_equal(
        np.concatenate([*map(np.ravel, kept)]), np.hstack([w.ravel() for w in weights])
    )


@pytest.mark.slow_cases
@pytest.mark.parametrize(
    "what", ["a wrong value", "no model", "damaged", "a byte", "seconds", "no JSON", "tasks"]
)
def test_what_cannot_be_evaluated_is_trained_anew(tmp_path, monkeypatch, untrained, what):
    monkeypatch.setenv(BUILDS, str(tmp_path / "builds"))
    one = make_job("one", "ab")
    # A loss that is NaN is one again, as long as the network is the same.
    error = ValueError("nan") if what == "a wrong value" else OSError("disc")
    evaluation_fails(monkeypatch, tmp_path, one, error)
    paths = job.JobFiles(tmp_path, one.network)
    if what == "no model":
        paths.model.unlink()
    elif what == "damaged":
        paths.model.write_bytes(b"")
    elif what == "a byte":
        contents = bytearray(paths.model.read_bytes())
        contents[len(contents) // 2] ^= 1
        paths.model.write_bytes(contents)
    elif what == "seconds":
        paths.trained.write_text(json.dumps({"tasks": ["a", "b"], "seconds": None}))
    elif what == "no JSON":
        paths.trained.write_text("{")
    elif what == "tasks":
        one = make_job("one", "bc")
    job.train_job(tmp_path, one, DATA)
    assert len(sweep_job.read_builds(tmp_path / "builds")) == 2
    assert {row.task for row in results.load_results(paths.rows)} == set(one.network.tasks)


@pytest.mark.slow
def test_a_damaged_network_is_named_where_all_results_are_there(
    tmp_path, monkeypatch, untrained, capsys
):
    monkeypatch.setenv(BUILDS, str(tmp_path / "builds"))
    jobs = [make_job("one", "ab"), make_job("other", "c")]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    whole, path = contents(tmp_path), job.JobFiles(tmp_path, jobs[1].network).model
    path.write_bytes(path.read_bytes()[:-9])
    capsys.readouterr()
    assert sweep.run_sweep(tmp_path, jobs, DATA, processes=0) == rows
    assert re.search(rf"{path} is damaged \(.*\), and made anew", capsys.readouterr().out)
    assert contents(tmp_path) == whole


def test_jobs_that_are_the_same_training_are_trained_once(tmp_path, trained):
    def build_here(tasks):
        return build_model(tasks)

    jobs = [
        make_job("joint", "ab"),
        make_job("group", "ab"),
        make_job("other seed", "ab", seed=1),
        make_job("other build", "ab", build=build_here),
        make_job("its twin", "ab", build=build_here),
        make_job("kept nowhere", "ab", saves=False),
    ]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    assert trained == ["joint", "other seed", "other build", "kept nowhere"]
    copied = [("group", "joint"), ("its twin", "other build")]
    for name, source in copied:
        with zipfile.ZipFile(tmp_path / "networks" / f"{name}_seed0.keras") as file:
            assert file.read("name") == source.encode()
        assert {row.loss for row in rows if row.network == name} == {len(source)}
    names = {path.name for path in (tmp_path / "networks").glob("*.keras")}
    assert "kept nowhere_seed0.keras" not in names and len(names) == 5
    # One more twin of what was trained before is a copy.
    sweep.run_sweep(tmp_path, [jobs[0], make_job("late", "ab")], DATA, processes=0)
    assert len(trained) == 4 and (tmp_path / "networks" / "late_seed0.keras").exists()


def test_failures_do_not_stop_the_others(tmp_path, monkeypatch):
    errors = {"once": [OSError("disc")], "twice": [OSError("x"), OSError("disc")]}
    errors |= {"lasting": [TypeError("no")], "good": []}
    attempts = []

    def train(folder, one, data, progress=None):
        attempts.append(one.network.name)
        if errors[one.network.name]:
            raise errors[one.network.name].pop(0)
        pretend(folder, one, data)

    monkeypatch.setattr(runners, "train_job", train)
    jobs = [make_job(name, "a", seed) for seed, name in enumerate(errors)]
    with pytest.raises(sweep.SweepError) as caught:
        sweep.run_sweep(tmp_path, jobs, ONE_SPLIT, processes=0)
    assert attempts == ["once", "once", "twice", "twice", "lasting", "good"]
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("2 of 4 networks failed; the others are done. The same command")
    assert rest == [
        "- 'twice', seed 1, of the tasks a: OSError: disc",
        "- 'lasting', seed 2, of the tasks a: TypeError: no",
    ]
    # With processes=0, a debugger finds the error itself.
    assert isinstance(caught.value.__cause__, OSError)
    rows = sweep.run_sweep(tmp_path, jobs, ONE_SPLIT, processes=0)
    assert attempts[6:] == ["twice", "lasting"] and len(rows) == 4


TRACE = "Traceback (most recent call last):\n  File 'x', line 1\n"


@pytest.mark.parametrize(
    ("code", "printed", "reason", "attempts"),
    [
        (child_processes.FAILS_AGAIN, f"note\n{TRACE}ValueError: no\n", "ValueError: no", 1),
        (1, f"{TRACE}KeyError: 1\n\nMeanwhile:\n{TRACE}OSError: disc\n", "OSError: disc", 2),
        (-signal.SIGKILL, "", "killed by SIGKILL, perhaps for want of memory", 2),
        (-signal.SIGSEGV, "", "killed by SIGSEGV", 2),
        (3, "a\nb\n\nc\nd\n", "ended with exit code 3\nb\nc\nd", 2),
    ],
)
def test_why_a_process_failed(tmp_path, monkeypatch, code, printed, reason, attempts):
    calls = []

    def call(self, payload, log, environment):
        calls.append(log)
        with open(log, "a") as file:
            file.write(printed)
        return code

    monkeypatch.setattr(child_processes.ChildProcesses, "call", call)
    log = tmp_path / "logs" / "one_seed0.log"
    with pytest.raises(sweep.SweepError) as caught:
        sweep.run_sweep(tmp_path, [make_job("one", "ab")], DATA)
    first, rest = str(caught.value).split("\n", 1)
    again = "The same command tries these again:"
    if code == child_processes.FAILS_AGAIN:
        again = "They would fail again: mend the cause, then run the same command:"
    assert first == f"1 of 1 networks failed. {again}"
    assert rest == f"- 'one', seed 0, of the tasks a, b: {reason} ({log})"
    assert calls == [log] * attempts


def test_a_process_that_fails_after_its_rows_has_not_failed(tmp_path, monkeypatch):
    def call(self, payload, log, environment):
        pretend(tmp_path, make_job("one", "a"), ONE_SPLIT)
        return -signal.SIGABRT

    monkeypatch.setattr(child_processes.ChildProcesses, "call", call)
    assert len(sweep.run_sweep(tmp_path, [make_job("one", "a")], ONE_SPLIT)) == 1


@pytest.mark.slow
def test_validation_data_may_be_a_function_and_twins_are_trained_once(tmp_path, monkeypatch):
    lengths, trained = [], []
    original = training.train_network

    def validation_data():
        lengths.append(1)
        return DATA["validation"]

    def count(build, network, *args, **kwargs):
        trained.append(network.name)
        return original(build, network, *args, **kwargs)

    monkeypatch.setattr(job, "train_network", count)
    networks = [training.Network(name, ("a", "b")) for name in ("joint", "group_0")]
    fit = {"epochs": 1, "verbose": 0, "validation_data": validation_data}
    jobs = [job.Job(network, build_model, fit) for network in networks]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    assert lengths == [1] and trained == ["joint"]
    losses = [[r.loss for r in rows if r.network == network.name] for network in networks]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    assert (tmp_path / "networks" / "group_0_seed0.keras").exists()


def test_the_dtype_policy_goes_along(tmp_path, monkeypatch):
    policies = []

    def call(self, payload, log, environment):
        keras.config.set_dtype_policy("float32")
        pickle.loads(payload)()
        return 0

    def train(folder, one, data, progress=None):
        policies.append(keras.config.dtype_policy().name)
        pretend(folder, one, data)

    monkeypatch.setattr(child_processes.ChildProcesses, "call", call)
    monkeypatch.setattr(runners, "train_job", train)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        sweep.run_sweep(tmp_path, [make_job("one", "a")], DATA)
    finally:
        keras.config.set_dtype_policy("float32")
    assert policies == ["mixed_bfloat16"]


@pytest.mark.parametrize(
    ("jobs", "processes", "message"),
    [
        (
            [make_job("one", "a")] * 2,
            0,
            r"differ in the name or the seed .* twice=\[\('one', 0\)\]",
        ),
        ([make_job("one", "a")], -1, "`processes` should be an integer from 0 on"),
        ([make_job("one", "a")], 1.5, "`processes` should be an integer from 0 on"),
        ([make_job("one", "a", build=lambda tasks: None)], 1, "`build_model` cannot be sent"),
        (
            [job.Job(training.Network("one", ("a",)), build_model, {"x": lambda: None})],
            1,
            "An argument of `fit` cannot be sent",
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(tmp_path, jobs, processes, message):
    with pytest.raises(ValueError, match=message):
        sweep.run_sweep(tmp_path / "new", jobs, DATA, processes)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seconds", ["soon", -1, None, float("nan")])
def test_seconds_between_checkpoints_are_a_number(tmp_path, seconds):
    with pytest.raises(ValueError, match="`save_every` should be a number of seconds, at least 0"):
        sweep.run_sweep(tmp_path / "new", [make_job("one", "a")], DATA, save_every=seconds)
    assert not (tmp_path / "new").exists()


def dataset():
    return tf.data.Dataset.from_tensor_slices(DATA["train"]).batch(8)


@pytest.mark.parametrize("make", [lambda: lambda: None, dataset])
def test_data_that_cannot_be_sent(tmp_path, make):
    with pytest.raises(ValueError, match="`data` cannot be sent to another process"):
        sweep.run_sweep(tmp_path / "new", [make_job("one", "a")], {"train": make()})


def test_a_dataset_is_no_hindrance_in_this_process(tmp_path, trained):
    fit = {**FIT, "validation_data": dataset()}
    networks = [training.Network(name, ("a",)) for name in ("one", "two")]
    jobs = [job.Job(network, build_model, fit) for network in networks]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    assert {row.network for row in rows} == {"one", "two"}
    assert trained == ["one"]


def test_a_network_of_other_tasks_is_not_taken_for_the_same(tmp_path, trained):
    sweep.run_sweep(tmp_path, [make_job("group_0", "ab")], DATA, processes=0)
    with pytest.raises(ValueError, match=r"another network 'group_0', seed 0, .* \['a', 'b'\]"):
        sweep.run_sweep(tmp_path, [make_job("group_0", "ac")], DATA, processes=0)


def test_two_sweeps_do_not_write_into_one_folder(tmp_path, trained):
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another run is at work in"):
            sweep.run_sweep(tmp_path, [make_job("one", "a")], DATA, processes=0)
    sweep.run_sweep(tmp_path, [make_job("one", "a")], DATA, processes=0)


class Sweep:
    """A sweep of four networks in another process, to be killed."""

    NUMBER = 4

    def __init__(self, folder):
        self.folder, self.builds = folder / "killed", folder / "builds"
        self.process, self.parents = None, set()

    def start(self, folder=None, processes=2):
        environment = {"PYTHONPATH": python_path(), "TF_CPP_MIN_LOG_LEVEL": "3"}
        # One thread, because the order in which several add up is not fixed.
        environment |= {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment |= {} if folder else {BUILDS: str(self.builds)}
        arguments = (folder or self.folder, processes, self.NUMBER)
        self.process = forks.start(
            sweep_job.main, *arguments, environment=environment, own_group=True
        )
        self.parents.add(str(self.process.pid))

    def end(self):
        self.process.join()
        return self.process.exitcode

    def built(self):
        """Networks that were built, each twice, without those that the sweep builds to compare."""
        builds = dict.fromkeys(sweep_job.read_builds(self.builds))
        return [one for one in builds if one[1] not in self.parents]

    def has_built(self, number):
        return len(self.built()) >= number

    def unfinished(self):
        """Those built, of networks that are not trained to the end."""
        ends = ("*.rows.json", "*.trained.json")
        names = {path.name.partition("_")[0] for end in ends for path in self.folder.rglob(end)}
        if (self.folder / "results.json").exists():
            names |= {r.network for r in results.load_results(self.folder / "results.json")}
        return {one for one in self.built() if one[0] not in names}


def states():
    """State and process group of each process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(path.parent.name)] = fields[0], int(fields[2])
    return found


def wait_for(condition, *args):
    end = time.monotonic() + 600
    while not condition(*args):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def process_ended(pid):
    return states().get(pid, "Z")[0] == "Z"


def group_ended(number):
    return all(state == "Z" for state, group in states().values() if group == number)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the state of processes in /proc")
def test_killed_at_random_times_it_ends_with_the_same_results(tmp_path):
    one, draw = Sweep(tmp_path), random.Random(0)
    one.start()
    # Each network that was built and cut off once, however many are killed until it is built again.
    cut_off = set()
    for kind in ("parent", "child", "Ctrl-C"):
        wait_for(one.has_built, len(one.built()) + 1)
        time.sleep(draw.uniform(0, 1))
        if kind == "child":
            last = _, pid = one.built()[-1]
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
            wait_for(process_ended, int(pid))
            cut_off |= one.unfinished() & {last}
            continue
        kill = os.kill if kind == "parent" else os.killpg
        kill(one.process.pid, signal.SIGINT if kind == "Ctrl-C" else signal.SIGKILL)
        one.end()
        # Children whose parent was killed end by themselves.
        wait_for(group_ended, one.process.pid)
        cut_off |= one.unfinished()
        one.start()
    assert one.end() == 0
    built = collections.Counter(tasks for tasks, _ in one.built())
    repeated = collections.Counter(tasks for tasks, _ in cut_off)
    names = [network.name for network in sweep_job.all_networks()[: Sweep.NUMBER]]
    assert built == {name: 1 + repeated[name] for name in names}
    one.start(tmp_path / "undisturbed", processes=0)
    assert one.end() == 0
    assert contents(one.folder) == contents(tmp_path / "undisturbed")


def build_wider(tasks):
    encoder = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, activation="relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def test_another_model_or_other_data_are_another_sweep(tmp_path, monkeypatch, untrained, capsys):
    one = make_job("one", "ab")
    rows = sweep.run_sweep(tmp_path, [one], DATA, processes=0)
    monkeypatch.setattr(runners, "train_job", None)
    doubled = {**DATA, "train": DATA["test"]}
    longer = job.Job(one.network, build_model, {**FIT, "epochs": 3})
    for jobs, data, message in [
        ([make_job("one", "ab", build=build_wider)], DATA, "units of dense was 4 and is 5"),
        ([one], doubled, r"x of train was float32 \(40, 5\) .* and is float32 \(40, 5\) "),
        ([longer], DATA, "epochs of one_seed0 was 2 and is 3"),
    ]:
        with pytest.raises(ValueError, match=f"holds another .*: {message}"):
            sweep.run_sweep(tmp_path, jobs, data, processes=0)
    assert results.load_results(tmp_path / "results.json") == rows
    capsys.readouterr()
    assert sweep.run_sweep(tmp_path, [one], DATA, processes=0) == rows
    assert "Nothing to train: everything in" in capsys.readouterr().out
    # A folder of an earlier version does not know them.
    (tmp_path / "settings.json").unlink()
    sweep.run_sweep(tmp_path, [longer], doubled, processes=0)
    assert "does not say of what data the run before was" in capsys.readouterr().out


@pytest.mark.slow
def test_a_split_or_row_that_is_missing_costs_an_evaluation(tmp_path, monkeypatch, untrained):
    jobs = [make_job("one", "ab"), make_job("brief", "c", saves=False)]
    first = sweep.run_sweep(tmp_path, jobs, ONE_SPLIT, processes=0)
    monkeypatch.setattr(job, "_train", None)
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    # What is not kept cannot be evaluated again.
    found = [(row.network, row.split, row.task) for row in rows]
    assert found == [
        *(("one", split, task) for split in ("validation", "test") for task in "ab"),
        ("brief", "test", "c"),
    ]
    assert [row.loss for row in rows[2:4]] == pytest.approx([row.loss for row in first[:2]])
    assert [row.seconds for row in rows[:4]] == [first[0].seconds] * 4
    # One of each split.
    for lost in (0, 3):
        path = tmp_path / "results.json"
        results.save_results(path, [row for index, row in enumerate(rows) if index != lost])
        again = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
        assert [(row.network, row.split, row.task) for row in again] == found
        assert [row.loss for row in again] == pytest.approx([row.loss for row in rows])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder of three networks, their jobs and their rows."""
    folder = tmp_path_factory.mktemp("swept")
    jobs = [make_job("one", "a"), make_job("other", "b"), make_job("one", "a", seed=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "train_network", leave_out_fit)
        return folder, jobs, sweep.run_sweep(folder, jobs, ONE_SPLIT, processes=0)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["networks", "networks and records", "seeds", "old networks"])
def test_swapped_files_are_trained_anew(swept, tmp_path, untrained, capsys, what):
    folder, jobs, rows = swept
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    losses = [row.loss for row in rows]
    left, right = (
        job.JobFiles(tmp_path, jobs[index].network) for index in (0, 2 if what == "seeds" else 1)
    )
    ends = ("model", "trained") if what in ("networks and records", "seeds") else ("model",)
    for end in ends:
        one, other = getattr(left, end), getattr(right, end)
        contents = one.read_bytes(), other.read_bytes()
        one.write_bytes(contents[1])
        other.write_bytes(contents[0])
    if what == "old networks":
        for paths in (left, right):
            known = json.loads(paths.trained.read_text())
            paths.trained.write_text(json.dumps({n: known[n] for n in ("tasks", "seconds")}))
    (tmp_path / "results.json").unlink()
    again = sweep.run_sweep(tmp_path, jobs, ONE_SPLIT, processes=0)
    assert [row.loss for row in again] == pytest.approx(losses)
    assert [(row.network, row.seed) for row in again] == [(row.network, row.seed) for row in rows]
    wanted = {
        "networks": f"{left.model} is not the file that the training wrote",
        "old networks": f"{left.model} is the network of other tasks",
    }
    wanted = wanted.get(what, f"{left.trained} is of another network")
    assert f"'one', seed 0, is trained anew: {wanted}." in capsys.readouterr().out
