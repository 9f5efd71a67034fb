"""Which networks of a sweep are trained together, and what they leave behind."""

import contextlib
import json
import os
import shutil
import sys
import time

import forks
import keras
import numpy as np
import pytest
import stack_job
import tensorflow as tf
from quick_start import python_path
from small_sweeps import (
    NETWORKS,
    TASKS,
    Counts,
    build_model,
    check_reason,
    make_data,
    stacked,
    sweep,
    tasks_wide,
)

import tag_keras
from tag_keras.results import load_results
from tag_keras.sweep import Job, Network, SweepError, run_sweep
from tag_keras.sweep.runners import InProcesses
from tag_keras.sweep.stack import jobs, memory
from tag_keras.sweep.stack.network_stack import NetworkStack
from tag_keras.utils.progress import Progress

L = keras.layers


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of six networks that one stack has trained, and their rows."""
    folder = tmp_path_factory.mktemp("together")
    return folder, sweep(folder, build_model)


def test_networks_that_cannot_be_stacked_are_trained_one_by_one_and_a_line_says_why(
    tmp_path, capsys
):
    rows = sweep(tmp_path, tasks_wide, NETWORKS[:4])
    assert {(row.network, row.seed) for row in rows} == {
        (network.name, network.seed) for network in NETWORKS[:4]
    }
    assert not stacked(rows)
    text = "4 networks are trained one by one: the encoder of the network for a differs: units of"
    assert text in capsys.readouterr().out


@pytest.mark.slow
def test_a_network_that_is_not_finite_is_reported_and_the_others_go_on(tmp_path):
    def build(tasks):
        return build_model(tasks, rate=1e20 if tasks == ("a",) else 0.01)

    with pytest.raises(SweepError, match=r"(?s)1 of 4 .* others are done.* far too large"):
        sweep(tmp_path, build, NETWORKS[:4])
    rows = load_results(tmp_path / "results.json")
    assert stacked(rows) == {("joint", 0), ("b", 0), ("joint", 1)}


@pytest.mark.slow
@pytest.mark.parametrize("stops", [False, True])
def test_a_step_is_traced_once_for_batches_of_all_sizes(tmp_path, monkeypatch, stops):
    traced, stopped = [], []

    def counted(name, calls):
        whole = getattr(NetworkStack, name)
        record = lambda self, *given: calls.append(name) or whole(self, *given)  # noqa: E731
        monkeypatch.setattr(NetworkStack, name, record)

    counted("_train_on", traced)
    counted("_test_on", traced)
    counted("stop", stopped)
    data = make_data()
    data["validation"] = tuple(keras.tree.map_structure(lambda one: one[:10], data["test"]))
    # Some networks stop, and the others go on.
    callbacks = [tag_keras.EarlyStopping(patience=0, min_delta=0.06)] if stops else []
    fit = {"batch_size": 8, "epochs": 3, "callbacks": callbacks}
    assert len(stacked(sweep(tmp_path, build_model, data=data, **fit))) == len(NETWORKS)
    assert sorted(traced) == ["_test_on", "_train_on"]
    assert 0 < len(stopped) < len(NETWORKS) if stops else not stopped


@pytest.mark.slow
def test_a_split_without_labels_is_reported_as_alone_before_the_training(tmp_path, monkeypatch):
    train, sizes = jobs.train_stack, []

    def recording(stack, *arguments):
        sizes.append(stack.size)
        train(stack, *arguments)

    monkeypatch.setattr(jobs, "train_stack", recording)
    data = make_data()
    x, y = data["test"]
    data["test"] = lambda: (x, {**y, "a": np.full_like(y["a"], np.nan)})
    with pytest.raises(SweepError, match=r"no label of the tasks \['a'\]"):
        sweep(tmp_path, build_model, [*NETWORKS[:3], NETWORKS[5]], data=data)
    assert stacked(load_results(tmp_path / "results.json")) == {("b", 0), ("b", 1)}
    assert sizes == [2]


@pytest.mark.slow
def test_a_stopped_run_goes_on_after_its_last_stack(tmp_path, monkeypatch, together):
    monkeypatch.setattr(jobs, "most_networks", lambda *_: 2)
    train, calls = jobs.train_stack, []

    def stops(stack, *arguments):
        calls.append(stack.size)
        if len(calls) == 2:
            raise KeyboardInterrupt
        train(stack, *arguments)

    monkeypatch.setattr(jobs, "train_stack", stops)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "stopped", build_model)
    assert len(stacked(load_results(tmp_path / "stopped" / "results.json"))) == 2
    rows = sweep(tmp_path / "stopped", build_model)
    assert calls == [2, 2, 2, 2]
    whole = together[1]
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in whole], rel=1e-6)
    # Nothing is trained twice.
    calls.clear()
    assert sweep(tmp_path / "stopped", build_model) == rows
    assert not calls


@pytest.mark.slow
def test_a_stack_that_does_not_fit_is_halved(tmp_path, monkeypatch):
    train, sizes = jobs.train_stack, []

    def fits_one(stack, *arguments):
        sizes.append(stack.size)
        if stack.size > 1:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        train(stack, *arguments)

    monkeypatch.setattr(jobs, "train_stack", fits_one)
    listed = [Job(network, build_model, {"epochs": 1}) for network in NETWORKS[:3]]
    assert len(stacked(run_sweep(tmp_path, listed, make_data(), processes=0, stack=True))) == 3
    assert sizes == [3, 1, 2, 1, 1]


def test_the_memory_limits_a_stack(monkeypatch):
    model = build_model(TASKS)
    model(keras.KerasTensor((None, 3)))
    model.optimizer.build(model.trainable_variables)
    monkeypatch.setattr(memory, "_free_bytes", lambda: 10**6)
    assert memory.most_networks(model, 0) == 256
    assert memory.most_networks(model, 10_000) == 14
    assert memory.most_networks(model, 10_000, processes=2) == 7
    assert memory.most_networks(model, 10**9) == 1


@pytest.mark.slow
def test_networks_that_are_there_are_only_evaluated(tmp_path, monkeypatch, together):
    shutil.copytree(together[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(jobs, "train_stack", None)
    monkeypatch.setattr("tag_keras.sweep.job.train_network", None)
    rows = sweep(tmp_path, build_model, data={**make_data(), "more": make_data()["test"]})
    assert {row.split for row in rows} == {"test", "more"}
    assert len(stacked(rows)) == 6


@pytest.mark.slow
def test_training_data_alone_are_enough_and_a_task_without_labels_is_told(tmp_path):
    x, y = make_data()["train"]
    nothing = {**y, "a": np.full_like(y["a"], np.nan)}
    data = {"train": tf.data.Dataset.from_tensor_slices((x, nothing)).batch(8)}
    with pytest.warns(UserWarning, match=r"training data have no label of the tasks \['a'\]"):
        assert sweep(tmp_path, build_model, data=data) == []
    files = tmp_path / "networks"
    assert len(list(files.glob("*.keras"))) == 6
    assert [json.loads(one.read_text())["stacked"] for one in files.glob("*.trained.json")] == (
        [True] * 6
    )


@pytest.mark.slow
def test_few_networks_are_trained_alone_unless_asked(tmp_path):
    assert not stacked(sweep(tmp_path / "few", build_model, NETWORKS[:2]))
    one = [Job(NETWORKS[0], build_model, {"epochs": 1})]
    rows = run_sweep(tmp_path / "one", one, make_data(), processes=0, stack=True)
    assert stacked(rows) == {("joint", 0)}
    with pytest.raises(ValueError, match='`stack` should be "auto", True or False'):
        run_sweep(tmp_path, one, make_data(), stack="yes")


@pytest.mark.slow
def test_large_networks_are_stacked_only_if_asked_and_twins_as_their_twin_is(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "MANY_WEIGHTS", 3)
    check_reason(tmp_path, build_model, "large networks gain nothing in a stack")
    networks = [*NETWORKS, Network("twin", TASKS, 0)]
    listed = [Job(network, build_model, {"epochs": 1}) for network in networks]
    assert len(stacked(run_sweep(tmp_path, listed, make_data(), processes=0, stack=True))) == 7


@pytest.mark.slow
def test_layers_made_once_are_found_before_any_training(tmp_path, monkeypatch):
    backbone = keras.Sequential([keras.Input((3,)), L.Dense(2)])

    def build(tasks):
        model = tag_keras.MultiTaskModel(backbone, {task: L.Dense(1) for task in tasks})
        model.compile("sgd", "mse")
        return model

    trained: list[int] = []
    monkeypatch.setattr(jobs, "train_stack", lambda *_: trained.append(1))
    with pytest.raises(SweepError, match="`build_model` should make all that a training changes"):
        sweep(tmp_path, build)
    assert not trained
    monkeypatch.undo()
    frozen = keras.Sequential([keras.Input((3,)), Counts("weight")])
    frozen.trainable = False
    backbone = frozen
    with pytest.raises(SweepError, match="which all networks have in common"):
        sweep(tmp_path / "frozen", build)


@pytest.mark.slow
def test_one_model_is_built_for_the_seeds_of_the_same_tasks(tmp_path, monkeypatch):
    built = []

    def build(tasks):
        built.append(tasks)
        return build_model(tasks)

    # Only what is built counts.
    monkeypatch.setattr(jobs, "train_stack", lambda *_: None)
    networks = [Network("joint", TASKS, seed) for seed in range(4)]
    networks += [Network("a", ("a",), seed) for seed in range(4)]
    assert len(stacked(sweep(tmp_path / "known", build, networks))) == 8
    # For all tasks from two seeds, and each network once.
    assert len(built) == 4
    built.clear()

    def by_numpy(tasks):
        model = build(tasks)
        model.compile(keras.optimizers.SGD(float(np.random.uniform(0.1, 0.2))), "mse")
        return model

    assert len(stacked(sweep(tmp_path / "numpy", by_numpy, networks))) == 8
    assert len(built) == 10


@pytest.mark.slow
def test_processes_share_the_networks(tmp_path, monkeypatch, capsys, together):
    monkeypatch.setenv("PYTHONPATH", python_path(), prepend=os.pathsep)
    rows = sweep(tmp_path / "two", build_model, processes=2)
    expected = together[1]
    assert stacked(rows) == stacked(expected) == {(one.name, one.seed) for one in NETWORKS}
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in expected], rel=1e-5)
    listed = [Job(network, tasks_wide, {"epochs": 1}) for network in NETWORKS]
    runner = InProcesses(tmp_path / "wide", listed, make_data(), 1)
    with contextlib.closing(runner), contextlib.closing(Progress("", 6, "", sys.stdout)) as shown:
        assert list(runner.train_stack(listed, shown, jobs.StackOptions())) == []
    text = "6 networks are trained one by one: the encoder of the network for a differs: units of"
    assert text in capsys.readouterr().out


@pytest.mark.slow
def test_killed_at_any_time_it_ends_with_the_same_results(tmp_path, monkeypatch):
    # `stack_job` sets it; the tests after this one get it back.
    monkeypatch.setattr(jobs, "most_networks", jobs.most_networks)
    files = tmp_path / "killed" / "networks"
    rng = np.random.default_rng(0)
    # In the midst of the files of a stack, between two stacks, and while it builds and trains.
    for number in (None, None, None, 0, None, None, 1, None, None, 4):
        process = forks.start(stack_job.main, tmp_path / "killed")
        if number is None:
            time.sleep(rng.uniform(0.2, 2.5))
        else:
            while process.is_alive() and len(list(files.glob("*.trained.json"))) <= number:
                time.sleep(0.002)
        process.kill()
        process.join()
    stack_job.main(tmp_path / "killed")
    stack_job.main(tmp_path / "whole")
    rows, whole = (load_results(tmp_path / one / "results.json") for one in ("killed", "whole"))
    # The last few may have been trained alone.
    assert len(stacked(rows)) > 3 and len(stacked(whole)) == 7
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in whole], rel=1e-6)
    one, other = ({*os.listdir(tmp_path / name / "networks")} for name in ("killed", "whole"))
    assert one == other
