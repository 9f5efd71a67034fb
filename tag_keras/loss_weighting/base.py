"""The interface of loss weightings, and equal weights."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.replicas import sum_over_replicas
from tag_keras.backend.steps import StepCounter
from tag_keras.utils.checks import implements


class LossWeighting(keras.layers.Layer):  # type: ignore[misc]
    """Base class of loss weightings. A subclass implements `task_weights` or `batch_weights`.

    A model trains on the joint loss

        sum_i weights[i] * loss_weights[i] * L_i + penalty

    The object that `compile` gets holds only the options. Every model has its own copy, in which
    `start` creates variables, and which is saved with the model.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    # Whether `update` needs the norms of the tasks' gradients with respect to `kernel_in(...)`.
    needs_norms = False
    # Whether the optimizer trains the variables that the weights come from.
    is_trained = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_tasks = 0
        # Keras would lock a layer that it has built.
        self.built = True

    def start(self, num_tasks: int) -> None:
        """Creates the variables. By default there are none.

        Args:
            num_tasks: Number of tasks, T.
        """
        self.num_tasks = num_tasks

    def task_weights(self) -> tf.Tensor:
        """Float32 tensor (T,): the current weights, differentiable in trainable variables."""
        raise NotImplementedError

    def batch_weights(self, losses: tf.Tensor, has_labels: tf.Tensor) -> tf.Tensor:
        """Float32 tensor (T,): the weights for one batch; by default `task_weights()`.

        Args:
            losses: Float32 tensor (T,): unweighted losses of the whole batch, as constants.
            has_labels: Boolean tensor (T,): false for a task without labels in the batch.
        """
        return self.task_weights()

    def penalty(self, has_labels: tf.Tensor) -> tf.Tensor:
        """Float32 scalar that is added to the joint loss of the whole batch; 0 by default.

        Args:
            has_labels: Boolean tensor (T,): false for a task without labels in the batch.
        """
        return tf.zeros(())

    def update(
        self, losses: Sequence[tf.Tensor], labels: tf.Tensor, norms: tf.Tensor | None = None
    ) -> None:
        """Called after every training step; does nothing by default.

        Args:
            losses: T scalars: this replica's shares of the unweighted losses of the whole batch.
            labels: Float32 tensor (T,): number of labels in the whole batch.
            norms: Float32 tensor (T,): norms of the gradients of the unweighted losses of the whole
                batch; `None` unless `needs_norms`.
        """

    def after_step(self, losses: tf.Tensor, has_labels: tf.Tensor) -> None:
        """Called after every training step with the losses of the same batch after it.

        For a subclass that has this method, each step makes one more forward pass.

        Args:
            losses: Float32 tensor (T,): unweighted losses of the whole batch after the step.
            has_labels: Boolean tensor (T,): false for a task without labels in the batch.
        """

    def kernel_in(
        self, encoder: keras.layers.Layer, shared: Sequence[keras.Variable]
    ) -> keras.Variable:
        """The variable whose gradient norms `update` gets.

        Args:
            encoder: Built encoder.
            shared: Its shared variables. The result is one of them.

        Raises:
            ValueError: If there is no such variable.
        """
        raise NotImplementedError

    def start_epoch(self) -> None:
        """Called when an epoch begins, unless a resumed training continues it."""

    def end_epoch(self) -> None:
        """Called at the end of every epoch."""

    def get_config(self) -> dict[str, Any]:
        # Keras would add only the dtype policy, which is always the same.
        return {"name": self.name}

    def add_state(self, name: str, shape: tuple[int, ...], value: float) -> keras.Variable:
        """Creates a variable that the optimizer does not train.

        Args:
            name: Name of the variable.
            shape: Its shape.
            value: Value of all its elements at the start.
        """
        return self.add_weight(
            shape=shape,
            initializer=keras.initializers.Constant(value),
            trainable=False,
            # Replicas hold equal values, and "mean" keeps them equal after a restart.
            aggregation="mean",
            name=name,
        )


@keras.saving.register_keras_serializable(package="tag_keras")
class EqualWeighting(LossWeighting):
    """Equal weights: 1 for every task, as without a weighting, but logged.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    model.compile("adam", "mse", loss_weighting=tag_keras.EqualWeighting())
    ```
    """

    def task_weights(self) -> tf.Tensor:
        return tf.ones(self.num_tasks)


class WeightingEpochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Calls `start_epoch` and `end_epoch` of a loss weighting.

    The counter of training steps knows how many steps of its first epoch a resumed training skips.
    """

    def __init__(self, weighting: LossWeighting, counter: StepCounter) -> None:
        super().__init__()
        self._weighting, self._counter = weighting, counter

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # With steps to skip, a resumed training continues the epoch that its backup began.
        if not self._counter.steps_to_skip:
            self._weighting.start_epoch()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._weighting.end_epoch()


def weights_batches(weighting: Any) -> bool:
    """Whether it is a loss weighting whose weights depend on the losses of the batch."""
    return implements(weighting, LossWeighting, "batch_weights")


def looks_again(weighting: Any) -> bool:
    """Whether it is a loss weighting that gets the losses of a batch after the step, too."""
    return implements(weighting, LossWeighting, "after_step")


def positive(losses: tf.Tensor) -> tf.Tensor:
    """Losses that have a logarithm: not below 0, and 1e-8 more."""
    return tf.nn.relu(losses) + 1e-8


def shares(scores: tf.Tensor, has_labels: tf.Tensor) -> tf.Tensor:
    """Softmax (T,) of scores over the tasks with labels, and 0 for the others."""
    scores = tf.where(has_labels, scores, scores.dtype.min)
    return tf.where(has_labels, tf.nn.softmax(scores), 0.0)


def number_of(has_labels: tf.Tensor) -> tf.Tensor:
    """Number of tasks with labels, as a float32 scalar."""
    return tf.reduce_sum(tf.cast(has_labels, "float32"))


def losses_of_whole_batch(losses: Sequence[tf.Tensor]) -> tf.Tensor:
    """Float32 tensor (T,): losses of the whole batch, from T shares of this replica."""
    shares = tf.stack([tf.cast(loss, "float32") for loss in losses])
    return sum_over_replicas([shares])[0]
