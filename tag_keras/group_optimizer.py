"""The optimizer's step for one group of tasks: on the shared variables and the group's heads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tag_keras.optimizers import loss_scale
from tag_keras.partial_updates import Gradient, PartialUpdates
from tag_keras.replicas import sum_over_replicas
from tag_keras.task_model import TaskModel


class Update(NamedTuple):
    """What a step for a group gave.

    Args:
        values: Values of the variables after it.
        moved: Whether it was made: a group without a label in the batch makes none, nor does one
            whose gradients are not finite, if the loss is scaled.
        overflowed: Whether it was not made for that second reason.
    """

    values: list[tf.Tensor]
    moved: tf.Tensor
    overflowed: tf.Tensor


class GroupOptimizer:
    """Makes the steps of a model's optimizer for groups of tasks.

    A variable belongs to the tasks that depend on it, and moves with the groups that have one of
    them: so shared variables move with every group, heads with one.

    `iterations` advances once per batch, and with it a learning rate schedule. The optimizer's own
    formulas, such as Adam's correction, go by the number of updates that a variable had: for a
    head that of the batches, for shared variables that of the groups in all batches.

    Args:
        model: Compiled model; all its variables are there.
        more_updates: Number of updates of the shared variables beyond `iterations`, so far.
    """

    def __init__(self, model: TaskModel, more_updates: keras.Variable) -> None:
        sets = _tasks_by_variable(model)
        # In the order of tasks, so that all replicas and all runs have the same.
        distinct = sorted(set(sets), key=sorted)
        self._members = tf.constant(
            [[task in tasks for task in range(len(model.tasks))] for tasks in distinct]
        )
        self._are_common = [len(tasks) > 1 for tasks in distinct]
        self._more_updates = more_updates
        self._optimizer = model.optimizer
        self._updates = PartialUpdates(
            model.optimizer, model.trainable_variables, [distinct.index(one) for one in sets]
        )
        self.variables = self._updates.variables
        self._scale = loss_scale(model.optimizer)

    def step(
        self,
        values: Sequence[tf.Tensor],
        gradients: Sequence[Gradient | None],
        group: tf.Tensor,
        present: tf.Tensor,
        updates: tf.Tensor,
    ) -> Update:
        """A step for one group.

        Args:
            values: Values of `self.variables`.
            gradients: Gradients of this replica's share of the group's loss, scaled, with respect
                to the trainable variables; `None` where nothing depends on one.
            group: Boolean tensor (T,): the tasks of the group.
            present: Boolean tensor (T,): the tasks with labels in the batch.
            updates: Number of updates made in this batch, int32.
        """
        gradients = self._of_whole_batch(gradients)
        has_labels = tf.reduce_any(group & present)
        finite = tf.constant(True) if self._scale is None else _are_finite(gradients)
        moved = has_labels & finite
        chosen = moved & tf.reduce_any(self._members & group, axis=1)
        integer = self._optimizer.iterations.dtype
        more = tf.cast(self._more_updates, integer) + tf.cast(updates, integer)
        new = self._updates(
            values, gradients, chosen, [more if common else 0 for common in self._are_common]
        )
        return Update(new, moved, has_labels & ~finite)

    def counters(
        self, updates: tf.Tensor, overflowed: tf.Tensor
    ) -> list[tuple[keras.Variable, tf.Tensor]]:
        """What the end of a batch makes of the optimizer's counters.

        The loss scale counts batches, too: it is halved after one with an overflow.

        Args:
            updates: Number of updates made in this batch, int32.
            overflowed: Whether gradients of a group were not finite.
        """
        optimizer, inner = self._optimizer, getattr(self._optimizer, "inner_optimizer", None)
        iterations = optimizer.iterations
        # As Keras has it, a batch of which nothing remains does not count.
        counts = tf.cast((updates > 0) | ~overflowed, iterations.dtype)
        result = [(iterations, tf.convert_to_tensor(iterations) + counts)]
        if inner is None:
            return result
        scale = tf.convert_to_tensor(optimizer.dynamic_scale)
        counter = tf.convert_to_tensor(optimizer.step_counter)
        grows = ~overflowed & (counter >= optimizer.dynamic_growth_steps - 1)
        factor = tf.where(overflowed, 0.5, tf.where(grows, 2.0, 1.0))
        following = tf.where(overflowed | grows, tf.zeros_like(counter), counter + 1)
        return [
            *result,
            (optimizer.dynamic_scale, scale * factor),
            (optimizer.step_counter, following),
        ]

    def _of_whole_batch(self, gradients: Sequence[Gradient | None]) -> list[Gradient | None]:
        present = [one for one in gradients if one is not None]
        if self._scale is not None:
            # Of Keras, because it also divides an Embedding's tf.IndexedSlices.
            present = [keras.ops.divide(one, self._scale) for one in present]
        summed = iter(sum_over_replicas(present))
        return [None if one is None else next(summed) for one in gradients]


def _tasks_by_variable(model: TaskModel) -> list[frozenset[int]]:
    """Indices of the tasks that depend on each trainable variable of a model."""
    tasks: dict[int, frozenset[int]] = dict(model._sharing.tasks_of(model.encoder))
    for index, task in enumerate(model.tasks):
        for variable in model.heads[task].variables:
            tasks[id(variable)] = tasks.get(id(variable), frozenset()) | {index}
    return [tasks.get(id(variable), frozenset()) for variable in model.trainable_variables]


def _are_finite(gradients: Sequence[Any]) -> tf.Tensor:
    values = [getattr(one, "values", one) for one in gradients if one is not None]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(one)) for one in values])
