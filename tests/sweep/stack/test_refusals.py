"""What is not trained in a stack, and why."""

import functools
import itertools
import random
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_sweeps import NETWORKS, TASKS, Counts, build_model, check_reason, make_data, tasks_wide

import tag_keras
from tag_keras.sweep import Job, Network
from tag_keras.sweep.stack import refusals
from tag_keras.sweep.stack.jobs import StackedJobs, StackOptions
from tag_keras.sweep.stack.refusals import NotStackedError
from tag_keras.utils.progress import Progress

L = keras.layers


class StatefulLoss(keras.losses.Loss):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = keras.Variable(0.0, trainable=False)

    def call(self, labels, predictions):
        self.seen.assign(self.seen + 1.0)
        return keras.ops.mean((labels - predictions) ** 2, axis=-1)


class OtherModel(tag_keras.MultiTaskModel):
    pass


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
    "that measure affinities have different tasks": {"affinity": tag_keras.CosineAffinity()},
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


@pytest.mark.slow_cases
@pytest.mark.parametrize("reason", REASONS)
def test_models_that_are_trained_alone(tmp_path, reason):
    check_reason(tmp_path, with_options(REASONS[reason]), reason)


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


@pytest.mark.slow_cases
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


class OwnAffinity(tag_keras.CosineAffinity):
    """It could draw numbers, for instance."""


ORDERS = itertools.cycle((1, -1))


def heads_in_another_order(tasks):
    return build_model(tasks[:: next(ORDERS)], affinity=tag_keras.CosineAffinity())


def trained_before(tasks):
    model = build_model(tasks, affinity=tag_keras.CosineAffinity())
    model.fit(*make_data()["train"], verbose=0)
    return model


def held_out_arrays(tasks):
    """Others for each seed."""
    x, y = make_data()["test"]
    on = (x + np.random.normal(), y)
    return build_model(tasks, affinity=tag_keras.LookaheadAffinity(on=on))


def held_out_dataset(tasks):
    on = tf.data.Dataset.from_tensor_slices(make_data()["test"]).shuffle(20).batch(4)
    return build_model(tasks, affinity=tag_keras.LookaheadAffinity(on=on))


@pytest.mark.slow_cases
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (with_options({"affinity": OwnAffinity()}), "OwnAffinity may have a state"),
        (heads_in_another_order, "networks that measure affinities have heads in different orders"),
        (trained_before, "`build_model` trains the model"),
        (held_out_arrays, "the estimator of the network for a, b differs: on of .* was .* and is"),
        (held_out_dataset, "each network has a held-out dataset of its own"),
    ],
)
def test_affinities_that_are_measured_alone(tmp_path, build, reason):
    joint = [network for network in NETWORKS if network.name == "joint"]
    check_reason(tmp_path, build, reason, joint)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "options", "reason"),
    [
        # Adam squares the gradients of an example's rows one by one.
        ([L.ReLU(), L.Embedding(9, 2)], {}, "a recurrent layer follows an Embedding"),
        (
            [L.Reshape((3, 1)), L.Dense(2)],
            {"affinity": tag_keras.LookaheadAffinity()},
            "cannot vectorise gradients through a recurrent layer",
        ),
    ],
    ids=["embedding", "probe"],
)
def test_gradients_through_a_recurrent_layer(tmp_path, layers, options, reason):
    def build(tasks):
        encoder = keras.Sequential([*map(clone, layers), L.LSTM(2)])
        model = tag_keras.MultiTaskModel(encoder, {task: L.Dense(1) for task in tasks})
        model.compile("adam", "mse", **options)
        return model

    check_reason(tmp_path, build, reason, [Network("joint", TASKS, seed) for seed in (0, 1)])


def clone(layer):
    return type(layer).from_config(layer.get_config())


def test_only_some_networks_measure(tmp_path):
    def build(tasks):
        return build_model(tasks, affinity=tag_keras.CosineAffinity() if tasks != TASKS else None)

    check_reason(tmp_path, build, "only some of the networks measure affinities")


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
        StackedJobs(tmp_path, listed, data, Progress("", 6, "", sys.stderr), StackOptions())


@pytest.mark.slow
def test_data_of_other_length_for_each_seed_are_for_networks_alone(tmp_path):
    calls = []

    def growing():
        calls.append(1)
        return tf.data.Dataset.from_tensor_slices(make_data()["train"]).batch(8).repeat(len(calls))

    listed = [Job(network, build_model, {"epochs": 1}) for network in NETWORKS]
    data = {**make_data(), "train": growing}
    together = StackedJobs(tmp_path, listed, data, Progress("", 6, "", sys.stderr), StackOptions())
    with pytest.raises(NotStackedError, match="numbers of batches differ between the seeds"):
        list(together.train())
