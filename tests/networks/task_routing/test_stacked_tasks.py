import numpy as np
import pytest
import tensorflow as tf

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


def test_tasks_with_a_label_are_as_likely_to_be_drawn():
    # Of five tasks, the second has no label, and of the fourth all weights are 0. The third has one
    # coordinate of one vector.
    labels, weights = np.zeros((4, 5, 2)), np.ones((4, 5), "float32")
    labels[:, 1] = labels[1:, 2] = labels[0, 2, 0] = np.nan
    weights[:, 3] = 0

    def draws(labels, weights):
        arguments = tf.constant(labels), tf.constant(weights)
        return [int(draw_task(tf.constant([1, seed]), *arguments)[0]) for seed in range(600)]

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
    assert numbers.numpy().tolist() == [3, 2, 0]


def test_losses_are_means_over_the_labels_of_all_batches():
    # Task 0: (1 * 2 + 5 * 6) / 8 = 4. Task 1 was seen once; task 2 never, or without labels.
    metric = LossByTask(3)
    metric.update_state([0, 2], tf.constant([1.0, 0.0]), tf.constant([2.0, 0.0]))
    metric.update_state([1, 0], tf.constant([3.0, 5.0]), tf.constant([4.0, 6.0]))
    np.testing.assert_array_equal(metric.result(), [4, 3, np.nan])
