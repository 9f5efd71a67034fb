"""The training step on a batch: an update for one group of tasks after the other."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tag_keras.backend.precision import FullPrecision
from tag_keras.backend.replicas import assign_on_replicas, num_replicas, sum_over_replicas
from tag_keras.gradient_methods.selective_updates.optimizer import GroupOptimizer
from tag_keras.gradient_methods.selective_updates.proximal_affinity import (
    group_affinity,
    moving_average,
)
from tag_keras.multitask.task_model import TaskModel


class Losses(NamedTuple):
    """This replica's shares of the losses of a forward pass, as scalars."""

    # T losses, one of each task.
    tasks: list[tf.Tensor]
    # The losses of regularisers, and those that layers added.
    own: list[tf.Tensor]


class GroupBatch:
    """One batch, whose forward passes share their dropout masks.

    `forward` moves BatchNorm's statistics and the random seeds, as a training step of Keras does.
    All other passes start from the state before it, and leave the state as it is.

    Args:
        model: Compiled model that has all its variables.
        data: The batch, as `train_step` gets it.
    """

    def __init__(self, model: TaskModel, data: Any) -> None:
        self._model = model
        self._full_precision = FullPrecision(model)
        self.x, self.y, self.sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._start = model.pass_state.now(model)
        # All set by `forward`. Boolean tensor (T,): the tasks with labels.
        self.present: Any = None
        self.predictions: Any = None
        self._labels: Any = None

    def forward(self) -> Losses:
        """The first forward pass, from which the logs come."""
        self.predictions = self._model(self.x, training=True)
        task_losses = self._model.task_losses
        losses, labels = task_losses(self.y, self.predictions, self.sample_weight)
        task_losses.track(losses, labels)
        self._labels = labels
        self.present = labels > 0
        return Losses(losses, self._model.own_losses())

    def forward_at(self, values: Sequence[tf.Tensor]) -> Losses:
        """A forward pass with other values of the trainable variables."""
        pairs = list(zip(self._model.trainable_variables, values, strict=True))
        with self._start.again(pairs, collect_losses=True):
            predictions = self._model(self.x, training=True)
            losses, _ = self._model.task_losses(self.y, predictions, self.sample_weight)
            return Losses(losses, self._model.own_losses())

    def measured(self, values: Sequence[tf.Tensor], losses: Losses | None = None) -> tf.Tensor:
        """Losses of the whole batch in float32, tensor (T,).

        Args:
            values: Values of the trainable variables.
            losses: Losses of this replica with these values, if they are known. In mixed precision
                they are computed anew: float16 is too coarse for the change by one update.
        """
        if self._full_precision.is_needed():
            with self._full_precision():
                losses = self.forward_at(values)
        losses = losses or self.forward_at(values)
        (whole,) = sum_over_replicas([tf.stack([tf.cast(one, "float32") for one in losses.tasks])])
        return whole

    def group_loss(self, losses: Losses, group: tf.Tensor, normalize: bool) -> tf.Tensor:
        """The scaled loss of a group: the losses of its tasks, and the model's own.

        Args:
            losses: Losses of a forward pass.
            group: Boolean tensor (T,): tasks of the group.
            normalize: Whether to divide by the number of tasks in the group.
        """
        pairs = zip(tf.unstack(group), losses.tasks, strict=True)
        members = [tf.where(member, loss, tf.zeros_like(loss)) for member, loss in pairs]
        total = self._model.task_losses.joint(members)
        if normalize:
            total = tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(group, total.dtype)))
        return self._model.optimizer.scale_loss(tf.add_n([total, *losses.own]))

    def logs(self, losses: Losses) -> dict[str, Any]:
        """The logs, by the losses of the first forward pass, which the loss weighting gets, too."""
        task_losses = self._model.task_losses
        total = tf.add_n([task_losses.joint(losses.tasks), *losses.own])
        # Not before, because the updates of a batch and its logs have the same weights.
        task_losses.update(losses.tasks, self._labels)
        return self._model.logs_after(self.x, self.y, self.predictions, self.sample_weight, total)


class Progress(NamedTuple):
    """The state of a batch between two updates."""

    # Values of the trainable variables and of the optimizer's state.
    values: list[tf.Tensor]
    # Tensors (T, T), [source, target]: affinities, and the number of values behind each.
    affinity: tf.Tensor
    count: tf.Tensor
    # Losses of the tasks before the last update (T,), and its group, boolean (T,).
    losses: tf.Tensor
    group: tf.Tensor
    # Boolean: whether the last update took place; labels may be missing, or gradients overflow.
    moved: tf.Tensor
    # Number of updates so far, int32.
    updates: tf.Tensor
    # Boolean: whether gradients of a group so far were not finite.
    overflowed: tf.Tensor


class GroupUpdateStep:
    """A training step of updates for groups of tasks, in place of `train_step`.

    The losses of all tasks before and after each update give the affinities. The variables are
    assigned once, at the end.

    Args:
        model: Compiled model.
        method: The `SelectiveTaskGroupUpdates` of the model, which keeps groups and affinities.
    """

    def __init__(self, model: TaskModel, method: Any) -> None:
        self._model = model
        self._method = method

    def __call__(self, data: Any) -> dict[str, Any]:
        model, method = self._model, self._method
        batch = GroupBatch(model, data)
        groups, number = method.shuffled_groups()
        with tf.GradientTape() as tape:
            losses = batch.forward()
            scaled = batch.group_loss(losses, groups[0], method.group_norm)
        gradients = tape.gradient(scaled, model.trainable_variables)
        optimizer = GroupOptimizer(model, method.more_updates)
        values = [tf.convert_to_tensor(variable) for variable in optimizer.variables]
        progress = Progress(
            values=values,
            affinity=tf.convert_to_tensor(method.affinity),
            count=tf.convert_to_tensor(method.count),
            losses=batch.measured(self._trainable(values), losses),
            group=groups[0],
            moved=tf.constant(False),
            updates=tf.constant(0),
            overflowed=tf.constant(False),
        )
        progress = _stepped(progress, optimizer, gradients, batch.present)

        def update(progress: Progress, index: tf.Tensor) -> Progress:
            return self._update(progress, groups[index], batch, optimizer)

        progress = _for_each(update, progress, number, len(model.tasks))
        if method.measure_last:
            after = batch.measured(self._trainable(progress.values))
            progress = self._attributed(progress, after, batch.present)
        self._finish(progress, optimizer)
        return batch.logs(losses)

    def _update(
        self, progress: Progress, group: tf.Tensor, batch: GroupBatch, optimizer: GroupOptimizer
    ) -> Progress:
        """Measures the last update, and makes the update for the next group."""
        values = self._trainable(progress.values)
        with tf.GradientTape() as tape:
            tape.watch(values)
            losses = batch.forward_at(values)
            scaled = batch.group_loss(losses, group, self._method.group_norm)
        now = batch.measured(values, losses)
        # An empty group comes after the last update.
        is_wanted = self._method.measure_last | tf.reduce_any(group)
        progress = self._attributed(progress, now, batch.present & is_wanted)
        progress = progress._replace(losses=now, group=group)
        return _stepped(progress, optimizer, tape.gradient(scaled, values), batch.present)

    def _attributed(self, progress: Progress, losses: tf.Tensor, present: tf.Tensor) -> Progress:
        """Adds the last update to the affinities, given the losses after it."""
        values, visited = group_affinity(progress.losses, losses, progress.group, present)
        visited &= progress.moved
        return progress._replace(
            affinity=moving_average(progress.affinity, values, visited, self._method.decay),
            count=progress.count + tf.cast(visited, "int64"),
        )

    def _trainable(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        return values[: len(self._model.trainable_variables)]

    def _finish(self, progress: Progress, optimizer: GroupOptimizer) -> None:
        method = self._method
        more = tf.cast(tf.maximum(progress.updates - 1, 0), "int64")
        new = [
            (method.affinity, progress.affinity),
            (method.count, progress.count),
            (method.batches, method.batches + 1),
            (method.more_updates, method.more_updates + more),
            *zip(optimizer.variables, progress.values, strict=True),
            *optimizer.counters(progress.updates, progress.overflowed),
        ]
        assign_on_replicas(*zip(*new, strict=True))


def _stepped(
    progress: Progress, optimizer: GroupOptimizer, gradients: Sequence[Any], present: tf.Tensor
) -> Progress:
    """The state after an update for `progress.group`."""
    values, moved, overflowed = optimizer.step(
        progress.values, gradients, progress.group, present, progress.updates
    )
    return progress._replace(
        values=values,
        moved=moved,
        updates=progress.updates + tf.cast(moved, "int32"),
        overflowed=progress.overflowed | overflowed,
    )


def _for_each(
    update: Callable[[Progress, tf.Tensor], Progress],
    progress: Progress,
    number: tf.Tensor,
    most: int,
) -> Progress:
    """Makes the updates for the groups 1 to `number` - 1, of at most `most` groups."""
    # Replicas cannot communicate in a loop of the graph. So several replicas compute all T updates,
    # and the updates for empty groups change nothing.
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
