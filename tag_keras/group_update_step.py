"""A training step that updates the model for one group of tasks after the other."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import keras
import tensorflow as tf

from tag_keras.group_batch import GroupBatch, Losses
from tag_keras.group_optimizer import GroupOptimizer
from tag_keras.proximal_affinity import group_affinity, moving_average
from tag_keras.replicas import assign_on_replicas, num_replicas
from tag_keras.task_model import TaskModel


class Progress(NamedTuple):
    """Where a batch stands between two updates.

    Args:
        values: Values of the trainable variables and of the optimizer's state.
        affinity: Tensor (T, T), [source, target].
        count: Tensor (T, T): number of values behind each affinity.
        losses: Tensor (T,): those before the last update.
        group: Boolean tensor (T,): the group of the last update.
        moved: Whether the last update was made, and not left out for want of labels, or overflow.
        updates: Number of updates so far, int32.
        overflowed: Whether gradients of a group were not finite.
    """

    values: list[tf.Tensor]
    affinity: tf.Tensor
    count: tf.Tensor
    losses: tf.Tensor
    group: tf.Tensor
    moved: tf.Tensor
    updates: tf.Tensor
    overflowed: tf.Tensor


class UpdateState(Protocol):
    """What the steps know and keep beyond the model and its optimizer, in variables."""

    decay: float
    group_norm: bool
    measure_last: bool
    affinity: keras.Variable
    count: keras.Variable
    batches: keras.Variable
    more_updates: keras.Variable

    def shuffled_groups(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Boolean tensor (T, T), one group by row, those without a task last; their number."""


class GroupUpdateStep:
    """Makes a training step with a batch, as `train_step` does, by updates for groups of tasks.

    The losses of all tasks are computed before and after each update, which gives the affinities.
    All is computed from values to values; variables are assigned once, at the end.

    Args:
        model: Compiled model.
        state: Groups and affinities.
    """

    def __init__(self, model: TaskModel, state: UpdateState) -> None:
        self._model = model
        self._state = state

    def __call__(self, data: Any) -> dict[str, Any]:
        model, state = self._model, self._state
        batch = GroupBatch(model, data)
        groups, number = state.shuffled_groups()
        with tf.GradientTape() as tape:
            losses = batch.forward()
            scaled = batch.group_loss(losses, groups[0], state.group_norm)
        gradients = tape.gradient(scaled, model.trainable_variables)
        optimizer = GroupOptimizer(model, state.more_updates)
        progress = self._start(batch, losses, optimizer, groups[0])
        progress = _stepped(progress, optimizer, gradients, batch.present)

        def update(progress: Progress, index: tf.Tensor) -> Progress:
            return self._update(progress, groups[index], batch, optimizer)

        progress = _for_each(update, progress, number, len(model.tasks))
        if state.measure_last:
            after = batch.measured(self._trainable(progress))
            progress = self._attributed(progress, after, batch.present)
        self._finish(progress, optimizer)
        return batch.logs(losses)

    def _start(
        self, batch: GroupBatch, losses: Losses, optimizer: GroupOptimizer, group: tf.Tensor
    ) -> Progress:
        """Before the first update."""
        values = [tf.convert_to_tensor(variable) for variable in optimizer.variables]
        progress = Progress(
            values=values,
            affinity=tf.convert_to_tensor(self._state.affinity),
            count=tf.convert_to_tensor(self._state.count),
            losses=tf.zeros([len(losses.tasks)]),
            group=group,
            moved=tf.constant(False),
            updates=tf.constant(0),
            overflowed=tf.constant(False),
        )
        return progress._replace(losses=batch.measured(self._trainable(progress), losses))

    def _update(
        self, progress: Progress, group: tf.Tensor, batch: GroupBatch, optimizer: GroupOptimizer
    ) -> Progress:
        """Measures what the last update did, and makes the one for the next group."""
        values = self._trainable(progress)
        with tf.GradientTape() as tape:
            tape.watch(values)
            losses = batch.forward_at(values)
            scaled = batch.group_loss(losses, group, self._state.group_norm)
        now = batch.measured(values, losses)
        # Behind the last group there may be empty ones.
        is_wanted = self._state.measure_last | tf.reduce_any(group)
        progress = self._attributed(progress, now, batch.present & is_wanted)
        progress = progress._replace(losses=now, group=group)
        return _stepped(progress, optimizer, tape.gradient(scaled, values), batch.present)

    def _attributed(self, progress: Progress, losses: tf.Tensor, present: tf.Tensor) -> Progress:
        """Adds to the affinities what the last update did, given the losses after it."""
        values, visited = group_affinity(progress.losses, losses, progress.group, present)
        visited &= progress.moved
        return progress._replace(
            affinity=moving_average(progress.affinity, values, visited, self._state.decay),
            count=progress.count + tf.cast(visited, "int64"),
        )

    def _trainable(self, progress: Progress) -> list[tf.Tensor]:
        return progress.values[: len(self._model.trainable_variables)]

    def _finish(self, progress: Progress, optimizer: GroupOptimizer) -> None:
        state = self._state
        more = tf.cast(tf.maximum(progress.updates - 1, 0), "int64")
        new = [
            (state.affinity, progress.affinity),
            (state.count, progress.count),
            (state.batches, state.batches + 1),
            (state.more_updates, state.more_updates + more),
            *zip(optimizer.variables, progress.values, strict=True),
            *optimizer.counters(progress.updates, progress.overflowed),
        ]
        assign_on_replicas(*zip(*new, strict=True))


def _stepped(
    progress: Progress,
    optimizer: GroupOptimizer,
    gradients: Sequence[Any],
    present: tf.Tensor,
) -> Progress:
    update = optimizer.step(progress.values, gradients, progress.group, present, progress.updates)
    return progress._replace(
        values=update.values,
        moved=update.moved,
        updates=progress.updates + tf.cast(update.moved, "int32"),
        overflowed=progress.overflowed | update.overflowed,
    )


def _for_each(
    update: Callable[[Progress, tf.Tensor], Progress],
    progress: Progress,
    number: tf.Tensor,
    most: int,
) -> Progress:
    """Updates for the groups after the first one, in a loop that ends with the last.

    In such a loop replicas cannot communicate. With several, updates for groups without a task
    are computed, too, and come to nothing.

    Args:
        update: Makes an update, given its index.
        progress: After the first group.
        number: Number of groups, int32.
        most: Number of tasks.
    """
    if num_replicas() > 1:
        for index in range(1, most):
            progress = update(progress, tf.constant(index))
        return progress
    _, progress = tf.while_loop(
        lambda index, _: index < number,
        lambda index, one: (index + 1, update(one, index)),
        (tf.constant(1), progress),
        maximum_iterations=most,
        parallel_iterations=1,
    )
    return progress
