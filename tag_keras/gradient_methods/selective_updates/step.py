"""A training step that updates the model for one group of tasks after the other."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import keras
import tensorflow as tf

from tag_keras.backend.precision import FullPrecision
from tag_keras.backend.replicas import assign_on_replicas, num_replicas, sum_over_replicas
from tag_keras.gradient_methods.selective_updates.optimizer import GroupOptimizer
from tag_keras.gradient_methods.selective_updates.proximal_affinity import (
    group_affinity,
    moving_average,
)
from tag_keras.multitask.task_losses import of_one_replica
from tag_keras.multitask.task_model import TaskModel


class Losses(NamedTuple):
    """What a forward pass gives.

    Args:
        tasks: T scalars, this replica's shares of the losses of the tasks.
        own: Those of regularisers and of what layers added.
    """

    tasks: list[tf.Tensor]
    own: list[tf.Tensor]


class GroupBatch:
    """One batch, whose forward passes share their dropout masks.

    BatchNorm's moving statistics and the random seeds move once, by `forward`, as in a training
    step of Keras; all other passes start from the same state and leave it.

    Args:
        model: Compiled model; all its variables are there.
        data: The batch.
    """

    def __init__(self, model: TaskModel, data: Any) -> None:
        self._model = model
        self._full_precision = FullPrecision(model)
        self.x, self.y, self.sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._state = [tf.convert_to_tensor(variable) for variable in model.non_trainable_variables]
        # Boolean tensor (T,): the tasks with labels. Set by `forward`, as are the predictions.
        self.present: Any = None
        self.predictions: Any = None

    def forward(self) -> Losses:
        """The first forward pass, which is that of the logs."""
        self.predictions = self._model(self.x, training=True)
        task_losses = self._model.task_losses
        losses, labels = task_losses(self.y, self.predictions, self.sample_weight)
        task_losses.track(losses, labels)
        task_losses.update(losses, labels)
        self.present = labels > 0
        return Losses(losses, self._model.own_losses())

    def forward_at(self, values: Sequence[tf.Tensor]) -> Losses:
        """A forward pass with these values of the trainable variables."""
        predictions, _, own = self._model.stateless_call(
            values, self._state, self.x, training=True, return_losses=True
        )
        losses, _ = self._model.task_losses(self.y, predictions, self.sample_weight)
        return Losses(losses, [of_one_replica(loss) for loss in own])

    def measured(self, values: Sequence[tf.Tensor], losses: Losses | None = None) -> tf.Tensor:
        """Losses of the whole batch in float32, tensor (T,).

        Args:
            values: Values of the trainable variables.
            losses: The losses there, if they are known. With a model of mixed precision they are
                computed once more: an update changes them by less than its types resolve.
        """
        if self._full_precision.is_needed():
            with self._full_precision():
                losses = self.forward_at(values)
        losses = losses or self.forward_at(values)
        (whole,) = sum_over_replicas([tf.stack([tf.cast(one, "float32") for one in losses.tasks])])
        return whole

    def group_loss(self, losses: Losses, group: tf.Tensor, normalize: bool) -> tf.Tensor:
        """The loss of a group, times the loss scale: that of its tasks, and the model's own.

        Args:
            losses: Losses of all tasks.
            group: Boolean tensor (T,).
            normalize: Whether to divide by the number of tasks.
        """
        pairs = zip(tf.unstack(group), losses.tasks, strict=True)
        members = [tf.where(member, loss, tf.zeros_like(loss)) for member, loss in pairs]
        total = self._model.task_losses.joint(members)
        if normalize:
            total = tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(group, total.dtype)))
        return self._model.optimizer.scale_loss(tf.add_n([total, *losses.own]))

    def logs(self, losses: Losses) -> dict[str, Any]:
        """The logs, given the losses of the first forward pass."""
        total = tf.add_n([self._model.task_losses.joint(losses.tasks), *losses.own])
        return self._model.logs_after(self.x, self.y, self.predictions, self.sample_weight, total)


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
