import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.multitask.task_losses import TaskLosses
from tag_keras.networks.task_routing.stacked_tasks import (
    LossByTask,
    draw_task,
    stack_labels,
    stack_weights,
    stacked_losses,
)

TASKS = ("b", "a", "c")


def values(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2)])
def test_labels_are_an_array_or_a_dict_by_task(shape):
    labels = values(*shape)
    by_task = {task: labels[:, i] for i, task in enumerate(TASKS)}
    np.testing.assert_array_equal(stack_labels(labels, TASKS), labels)
    np.testing.assert_array_equal(stack_labels({**by_task, "d": labels[:, 0]}, TASKS), labels)
    with pytest.raises(ValueError, match=r"Labels should hold every task of the model\. Missing:"):
        stack_labels({"a": labels[:, 0]}, TASKS)


@pytest.mark.slow
def test_tasks_with_a_label_are_as_likely_to_be_drawn():
    # Of five tasks, the second has no label, and of the fourth all weights are 0. The third has one
    # coordinate of one vector.
    labels, weights = np.zeros((4, 5, 2)), np.ones((4, 5), "float32")
    labels[:, 1] = labels[1:, 2] = labels[0, 2, 0] = np.nan
    weights[:, 3] = 0

    def draws(labels, weights):
        arguments = tf.constant(labels), tf.constant(weights)
        draw = tf.function(lambda seed: draw_task(seed, *arguments)[0], autograph=False)
        return [int(draw(tf.constant([1, seed]))) for seed in range(600)]

    ids = draws(labels, weights)
    # A deviation of sqrt(600 * 1/3 * 2/3) = 11.5.
    np.testing.assert_allclose(np.bincount(ids, minlength=5), [200, 0, 200, 0, 200], atol=40)
    assert set(draws(np.zeros((4, 5, 2), "int64"), weights)) == {0, 1, 2, 4}
    assert set(draws(labels, 0 * weights)) == {0}


@pytest.mark.parametrize("labels", [None, values(4), values(4, 2)])
def test_labels_without_an_axis_of_the_tasks_are_an_error(labels):
    message = r"Labels should be an array \(B, 3, \.\.\.\), or a dict by task\. Received: shape="
    with pytest.raises(ValueError, match=message):
        stack_labels(labels, TASKS)


def test_weights_are_for_all_tasks_or_for_each():
    size, weights = tf.constant(4), values(4, 3)
    np.testing.assert_array_equal(stack_weights(None, TASKS, size), np.ones((4, 3)))
    np.testing.assert_array_equal(stack_weights(weights, TASKS, size), weights)
    of_examples = stack_weights(weights[:, 0], TASKS, size)
    np.testing.assert_array_equal(of_examples, np.repeat(weights[:, :1], 3, axis=1))
    of_one = stack_weights({"a": weights[:, 1]}, TASKS, size)
    np.testing.assert_array_equal(of_one, np.stack([[1] * 4, weights[:, 1], [1] * 4], axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2)])
def test_losses_are_those_of_each_task(shape):
    # Those of a multi-task model, which are tested by themselves, with missing labels.
    labels, predictions, weights = (
        values(*shape),
        values(4, 3, *shape[2:] or (1,)) + 1,
        values(4, 3),
    )
    labels[0, 1] = np.nan
    labels[:, 2] = np.nan
    weights[1] = 0
    by_task = [
        {task: one[:, i] for i, task in enumerate(TASKS)} for one in (labels, predictions, weights)
    ]
    expected, numbers = TaskLosses(TASKS, "mse")(*by_task)
    losses, labels_present = stacked_losses(
        TaskLosses(("any",), "mse"), *(tf.constant(one) for one in (labels, predictions, weights))
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_array_equal(labels_present, numbers)
    elements = len(shape[2:]) + 1
    assert numbers.numpy().tolist() == [3 * elements, 2 * elements, 0]


def test_losses_are_means_over_the_labels_of_all_batches():
    # Task 0: (1 * 2 + 5 * 6) / 8 = 4. Task 1 was seen once; task 2 never, or without labels.
    metric = LossByTask(3)
    metric.update_state([0, 2], tf.constant([1.0, 0.0]), tf.constant([2.0, 0.0]))
    metric.update_state([1, 0], tf.constant([3.0, 5.0]), tf.constant([4.0, 6.0]))
    np.testing.assert_array_equal(metric.result(), [4, 3, np.nan])


@pytest.fixture
def head():
    random.seed(0)
    layer = tag_keras.TaskDense(3, units=2)
    layer.build((None, 4))
    layer.bias.assign(np.arange(6.0).reshape(3, 2))
    return layer


def dense(head, task):
    """The layer of Keras with the weights of one task."""
    layer = keras.layers.Dense(2)
    layer.build((None, 4))
    layer.set_weights([head.kernel.numpy()[task], head.bias.numpy()[task]])
    return layer


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_head_equals_a_dense_layer_by_task(head, jit_compile):
    call = tf.function(lambda x, ids: head(x, ids), jit_compile=jit_compile)
    x, ids = values(5, 4), [2, 0, 2, 1, 0]
    by_example = [dense(head, task)(x[i : i + 1])[0] for i, task in enumerate(ids)]
    np.testing.assert_allclose(call(x, tf.constant(ids)), by_example, rtol=1e-5)
    np.testing.assert_allclose(call(x, tf.constant(1)), dense(head, 1)(x), rtol=1e-5)
    x = values(2, 5, 4)
    by_batch = [dense(head, 2)(x[0]), dense(head, 0)(x[1])]
    np.testing.assert_allclose(call(x, tf.constant([2, 0])), by_batch, rtol=1e-5)


def test_only_the_head_of_the_task_gets_a_gradient(head):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head(values(5, 4), task_ids=1))
    for gradient in tape.gradient(loss, head.trainable_variables):
        size = np.abs(tf.convert_to_tensor(gradient).numpy()).reshape(3, -1).max(axis=1)
        assert size[1] > 0
        assert size[[0, 2]].tolist() == [0, 0]


def test_kernels_start_as_those_of_dense_layers():
    # Glorot's range for 6 inputs and 2 outputs is sqrt(6 / 8), however many tasks there are.
    layer = tag_keras.TaskDense(500, 2)
    layer.build((None, 6))
    largest = np.abs(layer.kernel).max()
    assert 0.99 * (6 / 8) ** 0.5 < largest <= (6 / 8) ** 0.5
    assert not np.any(layer.bias)


def test_heads_are_saved_and_loaded(tmp_path):
    x, ids = keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model([x, ids], tag_keras.TaskDense(3, 2)(x, ids))
    assert model.output.shape == (None, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    batch = [values(5, 4), np.array([2, 0, 2, 1, 0])]
    np.testing.assert_array_equal(model(batch), loaded(batch))


def test_numbers_that_are_not_positive_are_errors():
    with pytest.raises(
        ValueError, match=r"`num_tasks` should be at least 1. Received: num_tasks=0"
    ):
        tag_keras.TaskDense(0)
    with pytest.raises(ValueError, match=r"`units` should be an integer. Received: units=1.5"):
        tag_keras.TaskDense(2, 1.5)
