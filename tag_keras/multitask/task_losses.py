"""Losses of a multi-task model: one per task, their weighted sum, and their logs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tag_keras.backend.replicas import num_replicas, sum_over_replicas
from tag_keras.loss_weighting.base import (
    LossWeighting,
    losses_of_whole_batch,
    weights_batches,
)
from tag_keras.multitask.missing_labels import has_own_call, loss_function, sum_loss_values
from tag_keras.utils.checks import check, is_number
from tag_keras.utils.tasks import select_labels, select_weights


class LossSums(NamedTuple):
    """One replica's T sums of weighted loss values, their divisors (T,) and numbers of labels (T,).

    Added up over the replicas, sums and divisors give the losses of the whole batch.
    """

    sums: list[tf.Tensor]
    divisors: tf.Tensor
    labels: tf.Tensor


class TaskLosses:
    """Compiled losses of the tasks.

    A label is missing if it is NaN, or if its sample weight is 0. It adds nothing to the loss,
    which is divided by the number of labels present in the whole batch. A task without labels has
    the loss 0. If no label is missing, the losses equal Keras' own. A loss function gets 0 for a
    missing label; its value there is ignored, but its gradient must be finite.

    Where a prediction is a vector, Keras' mean errors, such as `"mse"`, `"mae"`, `"huber"` and
    `"binary_crossentropy"`, leave out single elements: the loss is the mean over all elements
    present in the batch (a micro mean), not a mean of means by row or by column (macro). Other
    losses leave out a value if one of its labels is missing. A loss that takes the mean over the
    batch itself, in `call` or with a `__call__` of its own, gets the labels as they are, with NaN.

    Args:
        tasks: Names of the T tasks.
        loss: A `keras.losses.Loss`, a function of labels and predictions, or the name of one, for
            all tasks; or a dict of these by task.
        weights: Weight by task in the joint loss; 1 for an absent task.
        weighting: Loss weighting, whose weights multiply `weights`; by default none.

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
        if several := [task for task in tasks if isinstance(losses[task], list | tuple)]:
            raise ValueError(
                f"`loss` should have one loss for each task. It has lists for {several}: give a "
                "function of labels and predictions that adds them up."
            )
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
            if function.reduction in (None, "none") and not has_own_call(function):
                raise ValueError(
                    f"The loss of the task {task!r} should be a scalar: use a loss with the "
                    f'reduction "sum_over_batch_size". Received: reduction={function.reduction!r}.'
                )

    def __call__(
        self, labels: Any, predictions: Mapping[str, tf.Tensor], sample_weight: Any = None
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Computes this replica's share of each task's unweighted loss.

        The shares of all replicas add up to the losses of the whole batch; so do their gradients.

        Returns:
            T scalars, and a float32 tensor (T,): numbers of loss values with a label in the whole
            batch.

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
        """Sums this replica's loss values, without communication between replicas."""
        labels = select_labels(labels, self.tasks)
        weights = select_weights(sample_weight, self.tasks)
        by_task = [
            sum_loss_values(task, function, labels[task], predictions[task], weights[task])
            for task, function in zip(self.tasks, self._functions, strict=True)
        ]
        sums, divisors, numbers = zip(*by_task, strict=True)
        return LossSums(list(sums), tf.stack(divisors), tf.stack(numbers))

    def factors(
        self, losses: Sequence[tf.Tensor] | None = None, labels: tf.Tensor | None = None
    ) -> list[Any]:
        """Weights of the T losses in the joint loss: numbers, scalar tensors or variables.

        Args:
            losses: T scalars: this replica's shares of the unweighted losses. A loss weighting may
                depend on them.
            labels: Tensor (T,): number of labels in the whole batch; by default all have some.
        """
        if self.weighting is None:
            return list(self.weights)
        pairs = zip(tf.unstack(self._task_weights(losses, labels)), self.weights, strict=True)
        return [one * tf.cast(weight, one.dtype) for one, weight in pairs]

    def _task_weights(
        self, losses: Sequence[tf.Tensor] | None, labels: tf.Tensor | None
    ) -> tf.Tensor:
        """Weights (T,) of the loss weighting."""
        weighting: Any = self.weighting
        if losses is None or not weights_batches(weighting):
            return weighting.task_weights()
        labels = tf.ones(len(self.tasks)) if labels is None else labels
        # Only the variables of a weighting are trained through its weights.
        whole = losses_of_whole_batch([tf.stop_gradient(loss) for loss in losses])
        return weighting.batch_weights(whole, labels > 0)

    def joint(
        self,
        losses: Sequence[tf.Tensor],
        labels: tf.Tensor | None = None,
        factors: Sequence[Any] | None = None,
    ) -> tf.Tensor:
        """Joint loss: the weighted sum of the losses plus the penalty of the loss weighting.

        Args:
            losses: T scalars: this replica's shares of the unweighted losses.
            labels: Tensor (T,): number of labels in the whole batch; by default all have some.
            factors: T weights of the losses; by default those of this batch.
        """
        factors = self.factors(losses, labels) if factors is None else factors
        terms = [
            loss * tf.cast(factor, loss.dtype) for loss, factor in zip(losses, factors, strict=True)
        ]
        if self.weighting is not None:
            labels = tf.ones(len(self.tasks)) if labels is None else labels
            # A whole batch has one penalty, so each replica adds its share of it.
            penalty = self.weighting.penalty(labels > 0) / num_replicas()
            terms.append(tf.cast(penalty, terms[0].dtype))
        return tf.add_n(terms)

    def track(self, losses: Sequence[tf.Tensor], labels: tf.Tensor, training: bool = True) -> None:
        """Adds one batch to the logs: losses as means over labels, weights as means over batches.

        The logs hold the weights of the loss weighting only in training.
        """
        numbers = tf.unstack(labels / num_replicas())
        for tracker, loss, number in zip(self.trackers, losses, numbers, strict=True):
            tracker.update_state(of_whole_batch(loss), sample_weight=number)
        if self.weighting is not None and training:
            weights = tf.unstack(self._task_weights(losses, labels))
            for tracker, weight in zip(self.weight_trackers, weights, strict=True):
                tracker.update_state(weight)

    def labels_seen(self) -> list[float]:
        """Number of labels of each task since the metrics were last reset."""
        return [float(tf.convert_to_tensor(one.count)) for one in self.trackers]

    def update(
        self, losses: Sequence[tf.Tensor], labels: tf.Tensor, norms: tf.Tensor | None = None
    ) -> None:
        """Passes the results of a training step to the loss weighting, if there is one."""
        if self.weighting is not None:
            self.weighting.update(losses, labels, norms)


class _MeanLoss(keras.metrics.Mean):  # type: ignore[misc]
    """Mean over the labels; NaN without labels, because a loss of 0 would pass for the best."""

    def result(self) -> tf.Tensor:
        count = keras.ops.cast(self.count, self.dtype)
        return keras.ops.where(count > 0, super().result(), float("nan"))


def of_whole_batch(loss: tf.Tensor) -> tf.Tensor:
    """Value that a replica logs for its share: the mean over the replicas is the whole loss."""
    return loss * num_replicas()


def of_one_replica(loss: tf.Tensor) -> tf.Tensor:
    """This replica's share of a loss that every replica computes in full, as a regulariser's."""
    return tf.reduce_sum(loss) / num_replicas()
