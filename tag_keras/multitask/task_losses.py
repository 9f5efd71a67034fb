"""The losses of a multi-task model: one per task, their weighted sum, and their logs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tag_keras.backend.replicas import num_replicas, sum_over_replicas
from tag_keras.loss_weighting.base import LossWeighting, share_of_penalty
from tag_keras.multitask.missing_labels import loss_function, sum_of
from tag_keras.utils.checks import check, is_number
from tag_keras.utils.tasks import select_labels, select_weights


class LossSums(NamedTuple):
    """Sums over one replica's part of a batch. Those of all replicas are to be added up.

    Args:
        sums: T scalars: sum of each task's weighted loss values.
        divisors: Float32 tensor (T,): what the sum of a whole batch is to be divided by.
        labels: Float32 tensor (T,): number of loss values with a label.
    """

    sums: list[tf.Tensor]
    divisors: tf.Tensor
    labels: tf.Tensor


class TaskLosses:
    """The compiled losses of the tasks.

    A label that is NaN, or whose sample weight is 0, is missing: it adds nothing, and a loss is
    divided by the number of labels that are present in the whole batch. A task without any has
    the loss 0. Where all labels are present, the losses are those of Keras. A loss function gets 0
    for a missing label; what it then returns counts nothing, but its gradient has to be finite.

    Args:
        tasks: Task names.
        loss: A `keras.losses.Loss`, a function of labels and predictions, or the name of one, for
            all tasks; or a dict of these by task.
        weights: Weight by task in the joint loss; 1 for a task that is absent.
        weighting: Loss weighting with the weights that these are multiplied by; by default none.

    Raises:
        ValueError: If there is no loss.
    """

    def __init__(
        self,
        tasks: tuple[str, ...],
        loss: Any,
        weights: Mapping[str, Any] | None = None,
        weighting: LossWeighting | None = None,
    ) -> None:
        if loss is None or isinstance(loss, list | tuple):
            raise ValueError(
                "`loss` should be a dict of losses by task, or one loss for all tasks. "
                f"Received: loss={loss!r}."
            )
        losses = loss if isinstance(loss, Mapping) else dict.fromkeys(tasks, loss)
        if absent := [task for task in tasks if losses[task] is None]:
            raise ValueError(f"`loss` should have a loss for every task. It is None for {absent}.")
        if weights is not None and not isinstance(weights, Mapping):
            raise ValueError(
                "`loss_weights` should be a dict of weights by task. "
                f"Received: loss_weights={weights!r}."
            )
        for task, weight in (weights or {}).items():
            check(
                is_number(weight) or isinstance(weight, keras.Variable) or tf.is_tensor(weight),
                f"`loss_weights` should give {task!r} a finite number, or a `keras.Variable`",
                loss_weight=weight,
            )
        self.tasks = tasks
        self.weights = [(weights or {}).get(task, 1.0) for task in tasks]
        self.weighting = weighting
        self.trackers = [_MeanLoss(name=f"{task}_loss") for task in tasks]
        self.weight_trackers = [
            keras.metrics.Mean(name=f"{task}_weight") for task in tasks if weighting is not None
        ]
        self._functions = [loss_function(losses[task]) for task in tasks]
        for task, function in zip(tasks, self._functions, strict=True):
            if function.reduction in (None, "none"):
                raise ValueError(
                    f"The loss of the task {task!r} should be a scalar: use a loss with the "
                    f'reduction "sum_over_batch_size". Received: reduction={function.reduction!r}.'
                )

    def __call__(
        self, labels: Any, predictions: Mapping[str, tf.Tensor], sample_weight: Any = None
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Unweighted loss of each task: this replica's share of that of the whole batch.

        The losses of all replicas, and their gradients, add up to those of the whole batch.

        Returns:
            T scalars, in the order of the tasks, and a float32 tensor (T,): the number of loss
            values with a label in the whole batch.

        Raises:
            ValueError: If labels are missing for a task.
        """
        sums, *counts = self.sums(labels, predictions, sample_weight)
        divisors, number = sum_over_replicas(counts)
        losses = [
            tf.math.divide_no_nan(total, tf.cast(divisor, total.dtype))
            for total, divisor in zip(sums, tf.unstack(divisors), strict=True)
        ]
        return losses, number

    def sums(
        self, labels: Any, predictions: Mapping[str, tf.Tensor], sample_weight: Any = None
    ) -> LossSums:
        """What the losses of the whole batch are computed from; no replica waits for another."""
        labels = select_labels(labels, self.tasks)
        weights = select_weights(sample_weight, self.tasks)
        sums, divisors, numbers = zip(
            *(
                sum_of(function, labels[task], predictions[task], weights[task])
                for task, function in zip(self.tasks, self._functions, strict=True)
            ),
            strict=True,
        )
        return LossSums(list(sums), tf.stack(divisors), tf.stack(numbers))

    def factors(self) -> list[Any]:
        """The T weights of the losses in the joint loss: scalars, or variables."""
        if self.weighting is None:
            return list(self.weights)
        pairs = zip(tf.unstack(self.weighting.task_weights()), self.weights, strict=True)
        return [one * tf.cast(weight, one.dtype) for one, weight in pairs]

    def joint(
        self,
        losses: Sequence[tf.Tensor],
        labels: tf.Tensor | None = None,
        factors: Sequence[Any] | None = None,
    ) -> tf.Tensor:
        """The joint loss: the weighted sum of the losses, and what the loss weighting adds to it.

        Args:
            losses: T scalars.
            labels: Tensor (T,): number of labels in the whole batch. By default every task has
                some.
            factors: What `factors` gave, if it was called before.
        """
        factors = self.factors() if factors is None else factors
        terms = [
            loss * tf.cast(factor, loss.dtype) for loss, factor in zip(losses, factors, strict=True)
        ]
        if self.weighting is not None:
            labels = tf.ones(len(self.tasks)) if labels is None else labels
            terms.append(tf.cast(share_of_penalty(self.weighting, labels), terms[0].dtype))
        return tf.add_n(terms)

    def track(self, losses: Sequence[tf.Tensor], labels: tf.Tensor, training: bool = True) -> None:
        """Adds one batch to the logs: the losses, which are means over the labels present, and in
        training the weights of the loss weighting, which are means over the batches."""
        numbers = tf.unstack(labels / num_replicas())
        for tracker, loss, number in zip(self.trackers, losses, numbers, strict=True):
            tracker.update_state(of_whole_batch(loss), sample_weight=number)
        if self.weighting is not None and training:
            weights = tf.unstack(self.weighting.task_weights())
            for tracker, weight in zip(self.weight_trackers, weights, strict=True):
                tracker.update_state(weight)

    def labels_seen(self) -> list[float]:
        """Number of labels of each task since the trackers were reset."""
        return [float(tf.convert_to_tensor(one.count)) for one in self.trackers]

    def update(
        self, losses: Sequence[tf.Tensor], labels: tf.Tensor, norms: tf.Tensor | None = None
    ) -> None:
        """Tells the loss weighting, if there is one, of a training step.

        Args:
            losses: T scalars, this replica's shares.
            labels: Tensor (T,): number of labels in the whole batch.
            norms: Norms of the tasks' gradients, if the weighting needs them.
        """
        if self.weighting is not None:
            self.weighting.update(losses, labels, norms)


class _MeanLoss(keras.metrics.Mean):  # type: ignore[misc]
    """Mean over the labels, and NaN for none: a loss of 0 would pass for the best there is."""

    def result(self) -> tf.Tensor:
        count = keras.ops.cast(self.count, self.dtype)
        return keras.ops.where(count > 0, super().result(), float("nan"))


def of_whole_batch(loss: tf.Tensor) -> tf.Tensor:
    """What every replica logs for its share of a loss: the mean of the results over the replicas
    is the loss of the whole batch."""
    return loss * num_replicas()


def of_one_replica(loss: tf.Tensor) -> tf.Tensor:
    """One replica's share of a loss that every replica computes in full, as a regulariser's."""
    return tf.reduce_sum(loss) / num_replicas()
