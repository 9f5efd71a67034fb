"""The forward passes of one batch, at the values that follow one another in it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tag_keras.precision import FullPrecision
from tag_keras.replicas import sum_over_replicas
from tag_keras.task_losses import of_one_replica
from tag_keras.task_model import TaskModel


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
