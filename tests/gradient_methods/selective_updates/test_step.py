"""The training step of selective updates, against Keras, numbers by hand, and the algorithm."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from gradient_oracles import attribute
from selective_training import (
    DECAY,
    GRAPH,
    NEVER,
    assert_same,
    compiled,
    falling_rate,
    fit,
    state,
)
from small_models import TASKS, make_data, make_deep_model, make_model

import tag_keras

layers = keras.layers


@pytest.mark.parametrize(
    ("optimizer", "jit_compile"),
    [("momentum", False), pytest.param("adam", True, marks=pytest.mark.slow), ("adam", False)],
)
def test_all_tasks_in_one_group_is_joint_training(optimizer, jit_compile):
    ends, logs = [], []
    make = {
        "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=1.0),
        "adam": lambda: keras.optimizers.Adam(0.01),
    }[optimizer]
    arguments = {
        "loss_weights": {"a": 2.0},
        "metrics": {"a": ["mae"]},
        "jit_compile": jit_compile,
        "run_eagerly": not jit_compile,
    }
    # XLA takes most of its time for the heads.
    tasks = TASKS[:2] if jit_compile else TASKS
    for with_method in (False, True):
        build = make_deep_model if optimizer == "adam" else make_model
        model = build(regularizer="l2", tasks=tasks)
        if with_method:
            compiled(model, make(), groups=[0] * len(tasks), compiled_with=arguments)
        else:
            model.compile(make(), "mse", **arguments)
        logs.append(fit(model, 2))
        ends.append(model)
    assert_same(*map(state, ends))
    assert list(logs[0]) == list(logs[1])
    for name in logs[0]:
        np.testing.assert_allclose(logs[1][name], logs[0][name], rtol=1e-5)
    # And the steps were measured, without running a batch twice.
    measured = ends[1].gradient_method.count.numpy()[~np.eye(len(tasks), dtype=bool)]
    assert (measured == 2).all()


class Parameters(layers.Layer):
    """Gives its weights, whatever the inputs."""

    def __init__(self, values, **kwargs):
        super().__init__(**kwargs)
        self._values = np.array(values, "float32")

    def build(self, input_shape):
        self.theta = self.add_weight(
            shape=self._values.shape, initializer=lambda shape, dtype: self._values
        )

    def call(self, inputs):
        return tf.repeat(self.theta[None], tf.shape(inputs)[0], axis=0)


def quadratics(start, centres, **options):
    """Tasks with the losses mean((theta - c)^2) for the shared theta, after one batch of SGD."""
    random.seed(0)
    tasks = {f"t{index}": np.array(one, "float32") for index, one in enumerate(centres)}
    model = tag_keras.MultiTaskModel(Parameters(start), {task: layers.Identity() for task in tasks})
    compiled(model, keras.optimizers.SGD(0.1), **options)
    order = [np.flatnonzero(row).tolist() for row in model.gradient_method.shuffled_groups()[0]]
    labels = {task: np.repeat(one[None], 4, axis=0) for task, one in tasks.items()}
    model.train_on_batch(np.zeros((4, 1)), labels)
    return model, order


@pytest.mark.slow
def test_updates_follow_one_another():
    # Halved: 0.5 (theta - c)^2 for c = 1, -1 from theta = 2 with the rate 0.1. First c = 1:
    # 2 - 0.1 * 1 = 1.9, then 1.9 - 0.1 * 2.9 = 1.61. First c = -1: 2 - 0.1 * 3 = 1.7, then
    # 1.7 - 0.1 * 0.7 = 1.63. One joint step: 2 - 0.1 * (1 + 3) = 1.6.
    weights = {"loss_weights": {"t0": 0.5, "t1": 0.5}}
    for seed in range(3):
        model, order = quadratics([2.0], [[1.0], [-1.0]], seed=seed, compiled_with=weights)
        expected = {((0,), (1,)): 1.61, ((1,), (0,)): 1.63}[tuple(map(tuple, order))]
        assert model.encoder.theta.numpy() == pytest.approx([expected], abs=1e-6)
    joint, _ = quadratics([2.0], [[1.0], [-1.0]], groups=[0, 0], compiled_with=weights)
    assert joint.encoder.theta.numpy() == pytest.approx([1.6], abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_first_update_of_a_task_alone_gives_the_inter_task_affinity_of_tag(seed):
    # METHODS 1(d): Z of quadratics at theta = (0, 0), rate 0.1.
    tag = [[0.19, -0.01, -0.21], [-0.01, 0.19, -0.01], [-0.21, -0.01, 0.19]]
    centres = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]
    model, order = quadratics([0.0, 0.0], centres, seed=seed, decay=1.0)
    (first,) = order[0]
    np.testing.assert_allclose(model.gradient_method.affinity.numpy()[first], tag[first], atol=1e-6)


def test_the_order_is_drawn_anew_for_each_batch_and_each_seed():
    method = compiled(make_model()).gradient_method
    orders = set()
    for seed in range(5):
        method.seed_used.assign(seed)
        for batch in range(10):
            method.batches.assign(batch)
            groups, number = method.shuffled_groups()
            assert int(number) == 3
            orders.add((seed, tuple(groups.numpy().argmax(axis=1))))
    # All six, and not the same ones for each seed.
    assert len({order for _, order in orders}) == 6 and len(orders) > 15
    method.assignment.assign([1, 1, 0])
    groups, number = method.shuffled_groups()
    assert int(number) == 2 and not groups.numpy()[2].any()
    assert sorted(groups.numpy()[:2].tolist()) == [[False, False, True], [True, True, False]]


class ByHand:
    """The algorithm in Python: one optimizer for the shared variables and one for each head."""

    def __init__(self, model, x):
        self.model, self.tasks = model, model.tasks
        model(x)
        # The schedule goes by batches, which the optimizer of the shared variables does not count.
        self.shared, *self.heads = (keras.optimizers.Adam(0.0) for _ in range(1 + len(self.tasks)))
        self.shared.build(model.encoder.trainable_variables)
        for optimizer, task in zip(self.heads, self.tasks, strict=True):
            optimizer.build(model.heads[task].trainable_variables)
        self.affinity = np.zeros((len(self.tasks), len(self.tasks)))

    def losses(self, x, y):
        predictions = self.model(x, training=True)
        return [tf.reduce_mean((y[task][:, None] - predictions[task]) ** 2) for task in self.tasks]

    def batch(self, x, y, order, norm, rate):
        for optimizer in (self.shared, *self.heads):
            optimizer.learning_rate = rate
        encoder = self.model.encoder.trainable_variables
        for group in order:
            heads = [self.model.heads[self.tasks[index]].trainable_variables for index in group]
            with tf.GradientTape() as tape:
                losses = self.losses(x, y)
                loss = sum(losses[index] for index in group) / (len(group) if norm else 1)
                loss += sum(self.model.losses)
            gradients = tape.gradient(loss, [encoder, heads])
            self.shared.apply(gradients[0], encoder)
            for index, row, variables in zip(group, gradients[1], heads, strict=True):
                self.heads[index].apply(row, variables)
            self.measure([float(one) for one in losses], x, y, group)

    def measure(self, before, x, y, group):
        after = np.array([float(one) for one in self.losses(x, y)])
        members = np.isin(np.arange(len(self.tasks)), group)
        values = attribute(np.array(before), after, members)
        new = (1 - DECAY) * self.affinity + DECAY * values
        self.affinity = np.where(np.isnan(values), self.affinity, new)


def assert_trained_as_by_hand(model, twin, x, y, batches=2):
    """Batches of 16 with a rate that falls, and Adam."""
    by_hand = ByHand(twin, x)
    method = model.gradient_method
    for number in range(batches):
        part = slice(16 * number, 16 * number + 16)
        batch = x[part], {task: labels[part] for task, labels in y.items()}
        order = [np.flatnonzero(row) for row in method.shuffled_groups()[0].numpy() if row.any()]
        by_hand.batch(*batch, order, method.group_norm, 0.05 / (1 + 0.5 * number))
        fit(model, 1, batch)
    for value, wanted in zip(model.trainable_variables, twin.trainable_variables, strict=True):
        np.testing.assert_allclose(value.numpy(), wanted.numpy(), atol=1e-5)
    np.testing.assert_allclose(method.affinity.numpy(), by_hand.affinity, atol=1e-5)
    # Once per batch, and the shared variables' updates beyond it.
    assert int(model.optimizer.iterations) == int(method.batches) == batches
    assert float(method.more_updates) == batches * (len(method.groups) - 1)


def test_training_against_the_algorithm_by_hand(traced):
    model = traced.restart(groups=[0, 1, 2])
    assert_trained_as_by_hand(model, make_model(regularizer="l2"), *make_data(48), batches=3)


@pytest.mark.slow
def test_groups_whose_losses_are_divided_by_their_tasks():
    model = make_model(regularizer="l2")
    optimizer = keras.optimizers.Adam(falling_rate())
    compiled(model, optimizer, groups=[0, 1, 0], decay=DECAY, group_norm=True)
    assert_trained_as_by_hand(model, make_model(regularizer="l2"), *make_data(32))


def test_slices_of_an_embedding():
    # Three words, each many times in a batch: Adam squares the slices of one row one by one.
    def make():
        random.seed(0)
        encoder = keras.Sequential([layers.Embedding(3, 4), layers.Flatten()])
        return tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS[:2]})

    words = np.random.default_rng(0).integers(0, 3, (32, 4))
    model = compiled(make(), keras.optimizers.Adam(falling_rate()), decay=DECAY)
    assert_trained_as_by_hand(model, make(), words, make_data(32)[1])


@pytest.mark.slow
def test_without_measuring_the_last_update():
    options = {"measure_last": False, "compiled_with": GRAPH}
    model = compiled(make_model(("b", "a")), "sgd", **options)
    orders = []
    for batch in range(6):
        model.gradient_method.batches.assign(batch)
        orders.append(model.gradient_method.shuffled_groups()[0].numpy().argmax(axis=1))
    model.gradient_method.batches.assign(0)
    fit(model)
    measured = [sum(order[0] == task for order in orders) for task in range(2)]
    assert 0 not in measured
    # The diagonal leaves out what harms itself.
    count = model.gradient_method.count.numpy()
    assert [count[0, 1], count[1, 0]] == measured


def test_nothing_is_measured_of_one_group_whose_update_is_the_last():
    model = compiled(make_model(), groups=[0, 0, 0], measure_last=False)
    fit(model, 1)
    with pytest.raises(ValueError, match=r"No affinities have been measured\. Call `fit` first"):
        model.get_affinity()


def test_forward_passes_of_a_batch_share_their_dropout_masks_and_batchnorm_moves_once():
    # With the rate 0 no update changes anything, so every change would be one of the masks.
    model = make_deep_model(dropout=0.5)
    compiled(model, keras.optimizers.SGD(0.0), groups=[0, 0, 1], decay=1.0)
    fit(model, 2)
    np.testing.assert_array_equal(model.gradient_method.affinity.numpy(), np.zeros((3, 3)))
    plain = make_deep_model(dropout=0.5)
    plain.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    fit(plain, 2)
    assert_same(state(model), state(plain))


@pytest.mark.filterwarnings("ignore:The training data have no label")
def test_a_task_without_labels_takes_no_part_in_the_batch(traced):
    x, y = make_data(16)
    y["a"] = np.full(16, np.nan, "float32")
    model, method = traced.restart(), traced.model.gradient_method
    before = [one.numpy() for one in model.heads["a"].trainable_variables]
    fit(model, 1, (x, y))
    np.testing.assert_array_equal(method.count.numpy()[1], 0)
    np.testing.assert_array_equal(method.count.numpy()[:, 1], 0)
    assert method.count.numpy()[0, 2] == method.count.numpy()[2, 0] == 1
    # It makes no update, not even of the optimizer's state for its head.
    for variable, value in zip(model.heads["a"].trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert float(method.more_updates) == 1
    assert np.isnan(model.get_affinity().mean[1, 0])
    # In a group it is as if it were not there: the other one is the source of the whole change.
    alone = method.affinity.numpy()
    fit(traced.restart(groups=[0, 0, 2]), 1, (x, y))
    assert np.abs(alone).max() > 1e-3
    np.testing.assert_allclose(method.affinity.numpy(), alone, atol=1e-6)


def test_variables_of_some_tasks_move_with_their_groups():
    random.seed(0)
    inputs = keras.Input((5,))
    trunk = layers.Dense(4, name="trunk")(inputs)
    branch = layers.Dense(4, name="branch")(trunk)
    outputs = {"b": branch, "a": trunk, "c": branch}
    outputs = {task: layers.Dense(1, name=task)(tensor) for task, tensor in outputs.items()}
    model = tag_keras.MultiTaskModel.from_functional(keras.Model(inputs, outputs))
    compiled(model, groups=[0, 1, 0])
    x, y = make_data(16)
    # Without labels for b and c, only the group of a makes an update.
    y = {**y, "b": y["b"] * np.nan, "c": y["c"] * np.nan}
    before = {one.path: one.numpy() for one in model.trainable_variables}
    model.train_on_batch(x, y)
    moved = {
        one.path.split("/")[0]
        for one in model.trainable_variables
        if not np.array_equal(one.numpy(), before[one.path])
    }
    assert moved == {"trunk", "a"}


def test_one_task_is_trained_as_by_keras():
    ends = []
    for with_method in (False, True):
        model = make_model(tasks=("a",))
        if with_method:
            compiled(model, warmup=0)
        else:
            model.compile("adam", "mse", run_eagerly=True)
        fit(model, 2)
        ends.append(model)
    assert_same(*map(state, ends))
    assert ends[1].gradient_method.groups == (("a",),)
    assert ends[1].get_affinity().mean.shape == (1, 1)


def test_weights_of_the_losses_that_follow_the_epochs():
    # Dynamic weight average: 1 in the first two epochs, then from the losses of these.
    model = make_model(tasks=("b", "a"))
    weighting = tag_keras.DynamicWeightAverage()
    method = tag_keras.SelectiveTaskGroupUpdates(seed=0, warmup=NEVER)
    model.compile("sgd", "mse", gradient_method=method, loss_weighting=weighting, run_eagerly=True)
    logs = fit(model, 1, epochs=3)
    before = np.array([logs[f"{task}_loss"][:2] for task in model.tasks])
    ratios = np.exp(before[:, 1] / before[:, 0] / 2)
    weights = np.array([logs[f"{task}_weight"] for task in model.tasks])
    np.testing.assert_allclose(weights[:, :2], 1)
    np.testing.assert_allclose(weights[:, 2], 2 * ratios / ratios.sum(), rtol=1e-5)


def test_drawn_weights_are_logged_as_the_updates_have_them():
    # Steps of SGD with the rate 0.1 on w (theta - c)^2 from theta = 2, one task after the other.
    weighting = tag_keras.RLW(seed=0)
    options = {"compiled_with": {"loss_weighting": weighting}, "seed": 0}
    model, order = quadratics([2.0], [[1.0], [-1.0]], **options)
    labels = {"t0": np.full((4, 1), 1.0), "t1": np.full((4, 1), -1.0)}
    theta, seen = 2.0, []
    for _ in range(2):
        logs = {name: float(value) for name, value in model.get_metrics_result().items()}
        for (task,) in order:
            theta -= 0.1 * logs[f"t{task}_weight"] * 2 * (theta - (1.0, -1.0)[task])
        assert model.encoder.theta.numpy() == pytest.approx([theta], abs=1e-6)
        seen.append(logs["t0_weight"])
        order = [np.flatnonzero(row) for row in model.gradient_method.shuffled_groups()[0]]
        model.reset_metrics()
        model.train_on_batch(np.zeros((4, 1)), labels)
    assert seen[0] != seen[1]
