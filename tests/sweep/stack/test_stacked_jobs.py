"""Which networks of a sweep are trained together, and what they leave behind."""

import contextlib
import functools
import os
import random
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import stack_job
import tensorflow as tf

import tag_keras
from tag_keras.results import load_results
from tag_keras.sweep import Job, Network, SweepError, run_sweep
from tag_keras.sweep.runners import InProcesses
from tag_keras.sweep.stack import jobs, memory, refusals
from tag_keras.sweep.stack.jobs import StackedJobs
from tag_keras.sweep.stack.refusals import NotStackedError
from tag_keras.utils.progress import Progress

L = keras.layers
TASKS = ("a", "b")
NETWORKS = [
    Network(name, tasks, seed)
    for seed in (0, 1)
    for name, tasks in (("joint", TASKS), ("a", ("a",)), ("b", ("b",)))
]


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3)).astype("float32")
    y = {task: rng.normal(size=(20, 1)).astype("float32") for task in TASKS}
    return {"train": (x, y), "test": (x, y)}


def build_model(tasks, make=tag_keras.MultiTaskModel, rate=0.01, layers=(), **options):
    encoder = keras.Sequential([L.Dense(2), *(layer() for layer in layers)])
    model = make(encoder, {task: L.Dense(1) for task in tasks})
    model.compile(**{"optimizer": keras.optimizers.SGD(rate), "loss": "mse", **options})
    return model


def sweep(folder, build_model, networks=NETWORKS, data=None, processes=0, **fit):
    listed = [Job(network, build_model, {"epochs": 1, **fit}) for network in networks]
    return run_sweep(folder, listed, data or make_data(), processes=processes)


def stacked(rows):
    return {(row.network, row.seed) for row in rows if row.stacked}


@keras.saving.register_keras_serializable()
class Counts(L.Layer):
    """Changes a variable that Keras knows, one that it does not know, or draws numbers."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind
        if kind == "weight":
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
        elif kind == "variable":
            self.count = tf.Variable(0.0)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}

    def call(self, x):
        if self.kind == "random":
            return x + tf.random.normal(tf.shape(x))
        self.count.assign(self.count + 1.0)
        return x


class StatefulLoss(keras.losses.Loss):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = keras.Variable(0.0, trainable=False)

    def call(self, labels, predictions):
        self.seen.assign(self.seen + 1.0)
        return keras.ops.mean((labels - predictions) ** 2, axis=-1)


class OtherModel(tag_keras.MultiTaskModel):
    pass


def tasks_wide(tasks):
    encoder = keras.Sequential([L.Dense(len(tasks))])
    model = tag_keras.MultiTaskModel(encoder, {task: L.Dense(1) for task in tasks})
    model.compile("sgd", "mse")
    return model


def other_loss(tasks):
    return build_model(tasks, loss="mae" if len(tasks) > 1 else "mse")


class Samples(L.Layer):
    """Draws numbers in evaluation, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator()

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)


REASONS = {
    "a OtherModel": {"make": OtherModel},
    "run_eagerly": {"run_eagerly": True},
    "of other tasks, or in another order, measure": {"affinity": tag_keras.CosineAffinity()},
    "a function gives the held-out data": {
        "affinity": tag_keras.LookaheadAffinity(on=lambda: make_data()["test"])
    },
    "a gradient method": {"gradient_method": tag_keras.PCGrad()},
    "a loss weighting": {"loss_weighting": tag_keras.UncertaintyWeighting()},
    "accumulates": {"optimizer": lambda: keras.optimizers.SGD(gradient_accumulation_steps=2)},
    "averages": {"optimizer": lambda: keras.optimizers.SGD(use_ema=True)},
    "begins with values of the weights": {"optimizer": keras.optimizers.ScheduleFreeAdamW},
    "scales the loss": {
        "optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    },
    "tf.Variable": {"layers": [lambda: Counts("variable")]},
    "RandomStandardNormal": {"layers": [lambda: Counts("random")]},
    "changes variable": {"loss": StatefulLoss},
    "evaluating the model changes its state": {"layers": [Samples]},
}


def with_options(options):
    def build(tasks):
        made = {
            name: value() if name in ("optimizer", "loss") else value
            for name, value in options.items()
        }
        return build_model(tasks, **made)

    return build


@pytest.mark.parametrize("reason", REASONS)
def test_models_that_are_trained_alone(tmp_path, reason):
    check_reason(tmp_path, with_options(REASONS[reason]), reason)


def check_reason(folder, build, reason, **fit):
    listed = [Job(network, build, {"epochs": 1, **fit}) for network in NETWORKS]
    with pytest.raises(NotStackedError, match=reason):
        for _ in StackedJobs(folder, listed, make_data(), Progress("", 6, "", sys.stderr)).train():
            pass


@keras.saving.register_keras_serializable()
class Shifted(L.Layer):
    """Adds a number that its configuration does not tell."""

    _number = 0

    def call(self, x):
        return x + self._number


def hidden(tasks):
    layer = Shifted()
    layer._number = len(tasks)
    return build_model(tasks, layers=[lambda: layer])


def one_dropout_for_all(tasks):
    inputs, dropout = keras.Input((3,)), L.Dropout(0.5)
    trunk = L.Dense(2)(inputs)
    outputs = {task: L.Dense(1)(dropout(L.Dense(2)(trunk))) for task in tasks}
    model = tag_keras.MultiTaskModel.from_functional(keras.Model(inputs, outputs))
    model.compile("sgd", "mse")
    return model


def more_outputs(tasks):
    inputs = keras.Input((3,))
    trunk = L.Dense(2)(inputs)
    encoder = keras.Model(inputs, {task: L.Dense(2)(trunk) for task in (*TASKS, "c")})
    model = tag_keras.MultiTaskModel(encoder, {task: L.Dense(1) for task in tasks})
    model.compile("sgd", "mse")
    return model


def functional(tasks, **options):
    inputs = keras.Input((3,))
    trunk = L.Dense(2, **options)(inputs)
    # Alone, a task has a layer for itself.
    joint = L.Dense(2, "relu" if len(tasks) == 1 and not options else "tanh")(trunk)
    model = keras.Model(inputs, {task: L.Dense(1)(joint) for task in tasks})
    model = tag_keras.MultiTaskModel.from_functional(model)
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (one_dropout_for_all, "'dropout', which has a state, is called more than once"),
        (hidden, "the network for a computes something else than the one for all tasks does"),
        (more_outputs, "the encoder has outputs that no task uses"),
        (functional, "the layer 'dense_1' is another one in the network for a"),
        (
            functools.partial(functional, kernel_regularizer="l2"),
            "layers of its Functional model add losses",
        ),
        (tasks_wide, "the encoder of the network for a differs: units of dense was 2 and is 1"),
        (other_loss, "the training of 'a' of the network for a differs: loss .*mae"),
    ],
)
def test_models_that_depend_on_the_tasks(tmp_path, build, reason):
    check_reason(tmp_path, build, reason)


@pytest.mark.parametrize(
    ("fit", "reason"),
    [
        ({"verbose": 2}, "verbose=2 asks for the lines of each network"),
        ({"class_weight": {}}, "`fit` has class_weight"),
        ({"callbacks": [keras.callbacks.TerminateOnNaN()]}, "TerminateOnNaN may look at a model"),
        ({"callbacks": lambda network: []}, "the callbacks may look at a model"),
    ],
)
def test_arguments_that_need_a_network_alone(tmp_path, fit, reason):
    check_reason(tmp_path, build_model, reason, **fit)


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


def test_a_network_that_is_not_finite_is_reported_and_the_others_go_on(tmp_path):
    def build(tasks):
        return build_model(tasks, rate=1e20 if tasks == ("a",) else 0.01)

    with pytest.raises(SweepError, match=r"(?s)2 of 6 .* the others are done.* is inf"):
        sweep(tmp_path, build)
    rows = load_results(tmp_path / "results.json")
    names = {(network.name, network.seed) for network in NETWORKS if network.name != "a"}
    assert stacked(rows) == names


def test_a_split_without_labels_is_reported_as_alone(tmp_path):
    data = make_data()
    x, y = data["test"]
    data["test"] = lambda: (x, {**y, "a": np.full_like(y["a"], np.nan)})
    with pytest.raises(SweepError, match=r"no label of the tasks \['a'\]"):
        sweep(tmp_path, build_model, data=data)
    assert stacked(load_results(tmp_path / "results.json")) == {("b", 0), ("b", 1)}


def test_a_stopped_run_goes_on_after_its_last_stack(tmp_path, monkeypatch):
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
    whole = sweep(tmp_path / "whole", build_model)
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in whole], rel=1e-6)
    # Nothing is trained twice.
    calls.clear()
    assert sweep(tmp_path / "stopped", build_model) == rows
    assert not calls


def test_a_stack_that_does_not_fit_is_halved(tmp_path, monkeypatch):
    train, sizes = jobs.train_stack, []

    def fits_two(stack, *arguments):
        sizes.append(stack.size)
        if stack.size > 2:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        train(stack, *arguments)

    monkeypatch.setattr(jobs, "train_stack", fits_two)
    assert len(stacked(sweep(tmp_path, build_model))) == 6
    assert sizes == [6, 3, 1, 2, 3, 1, 2]


def test_the_memory_limits_a_stack(monkeypatch):
    model = build_model(TASKS)
    model(keras.KerasTensor((None, 3)))
    model.optimizer.build(model.trainable_variables)
    monkeypatch.setattr(memory, "_free_bytes", lambda: 10**6)
    assert memory.most_networks(model, 0) == 256
    assert memory.most_networks(model, 10_000) == 14
    assert memory.most_networks(model, 10**9) == 1


def test_tasks_whose_names_begin_alike_are_trained_alone():
    model = build_model(("shape", "shape_kind"))
    with pytest.raises(NotStackedError, match="names of tasks begin with those of others"):
        refusals.check_model(model)


def test_data_in_an_order_by_chance_are_for_networks_alone(tmp_path):
    def shuffled():
        random.random()
        return make_data()["train"]

    listed = [Job(network, build_model, {"epochs": 1}) for network in NETWORKS]
    data = {**make_data(), "train": shuffled}
    with pytest.raises(NotStackedError, match="depends on Python's random numbers"):
        StackedJobs(tmp_path, listed, data, Progress("", 6, "", sys.stderr))


def test_networks_that_are_there_are_only_evaluated(tmp_path, monkeypatch):
    sweep(tmp_path, build_model)
    monkeypatch.setattr(jobs, "train_stack", None)
    monkeypatch.setattr("tag_keras.sweep.job.train_network", None)
    rows = sweep(tmp_path, build_model, data={**make_data(), "more": make_data()["test"]})
    assert {row.split for row in rows} == {"test", "more"}
    assert len(stacked(rows)) == 6


def test_training_data_alone_are_enough(tmp_path):
    data = {"train": make_data()["train"]}
    assert sweep(tmp_path, build_model, data=data) == []
    assert len(list((tmp_path / "networks").glob("*.keras"))) == 6


def test_twins_are_stacked_as_their_twin_is(tmp_path):
    twin = Network("twin", TASKS, 0)
    assert len(stacked(sweep(tmp_path, build_model, [*NETWORKS, twin]))) == 7


def test_few_networks_are_trained_alone_unless_asked(tmp_path):
    assert not stacked(sweep(tmp_path / "few", build_model, NETWORKS[:2]))
    one = [Job(NETWORKS[0], build_model, {"epochs": 1})]
    rows = run_sweep(tmp_path / "one", one, make_data(), processes=0, stack=True)
    assert stacked(rows) == {("joint", 0)}
    with pytest.raises(ValueError, match='`stack` should be "auto", True or False'):
        run_sweep(tmp_path, one, make_data(), stack="yes")


def test_large_networks_are_stacked_only_if_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "MANY_WEIGHTS", 3)
    check_reason(tmp_path, build_model, "large networks gain nothing in a stack")
    listed = [Job(network, build_model, {"epochs": 1}) for network in NETWORKS]
    assert len(stacked(run_sweep(tmp_path, listed, make_data(), processes=0, stack=True))) == 6


def test_a_task_without_labels_in_training_is_told(tmp_path):
    x, y = make_data()["train"]
    nothing = {**y, "a": np.full_like(y["a"], np.nan)}
    data = {**make_data(), "train": tf.data.Dataset.from_tensor_slices((x, nothing)).batch(8)}
    with pytest.warns(UserWarning, match=r"training data have no label of the tasks \['a'\]"):
        assert len(stacked(sweep(tmp_path, build_model, data=data))) == 6


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


def test_one_model_is_built_for_the_seeds_of_the_same_tasks(tmp_path, monkeypatch):
    built = []

    def build(tasks):
        built.append(tasks)
        return build_model(tasks)

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
def test_processes_share_the_networks(tmp_path, capsys):
    rows = sweep(tmp_path / "two", build_model, processes=2)
    expected = sweep(tmp_path / "here", build_model)
    assert stacked(rows) == stacked(expected) == {(one.name, one.seed) for one in NETWORKS}
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in expected], rel=1e-5)
    listed = [Job(network, tasks_wide, {"epochs": 1}) for network in NETWORKS]
    runner = InProcesses(tmp_path / "wide", listed, make_data(), 1)
    with contextlib.closing(runner), contextlib.closing(Progress("", 6, "", sys.stdout)) as shown:
        assert list(runner.train_stack(listed, shown, large=False)) == []
    text = "6 networks are trained one by one: the encoder of the network for a differs: units of"
    assert text in capsys.readouterr().out


@pytest.mark.slow
def test_killed_at_any_time_it_ends_with_the_same_results(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "most_networks", lambda *_: 2)
    command = [sys.executable, stack_job.__file__, tmp_path / "killed"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    files = tmp_path / "killed" / "networks"
    # With no network done, in the midst of the files of a stack, and between two stacks.
    for number in (0, 1, 4):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(files.glob("*.trained.json"))) <= number:
            time.sleep(0.002)
        process.kill()
        process.wait()
    stack_job.main(tmp_path / "killed")
    stack_job.main(tmp_path / "whole")
    rows, whole = (load_results(tmp_path / one / "results.json") for one in ("killed", "whole"))
    # The last few may have been trained alone.
    assert len(stacked(rows)) > 3 and len(stacked(whole)) == 7
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in whole], rel=1e-6)
    one, other = ({*os.listdir(tmp_path / name / "networks")} for name in ("killed", "whole"))
    assert one == other
