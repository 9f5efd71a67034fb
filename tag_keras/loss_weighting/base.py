"""Weights of the tasks in the joint loss: what `compile(loss_weighting=...)` takes."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.replicas import num_replicas
from tag_keras.backend.steps import StepCounter


class LossWeighting(keras.layers.Layer):  # type: ignore[misc]
    """What all loss weightings have in common. A subclass implements `task_weights`.

    A model trains on the joint loss

        sum_i weights[i] * loss_weights[i] * L_i + penalty

    and `compile` gives every model a copy of its own, whose weights are saved with the model. An
    object without `start` has no weights and only tells the options.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    # Whether `update` gets the norms of the tasks' gradients with respect to `kernel_in`.
    needs_norms = False
    # Whether the optimizer trains what the weights are made of.
    is_trained = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_tasks = 0
        # Keras would lock a layer that it has built.
        self.built = True

    def start(self, num_tasks: int) -> None:
        """Creates the weights for T tasks."""
        self.num_tasks = num_tasks

    def task_weights(self) -> tf.Tensor:
        """Float32 tensor (T,): the weights, differentiable in what of them is trainable."""
        raise NotImplementedError

    def penalty(self, has_labels: tf.Tensor) -> tf.Tensor:
        """What the joint loss of the whole batch holds besides.

        Args:
            has_labels: Boolean tensor (T,): false for a task without a label in the batch.

        Returns:
            Float32 scalar.
        """
        return tf.zeros(())

    def update(
        self, losses: Sequence[tf.Tensor], labels: tf.Tensor, norms: tf.Tensor | None = None
    ) -> None:
        """Takes notice of one training step.

        Args:
            losses: T scalars: this replica's shares of the unweighted losses of the whole batch.
            labels: Float32 tensor (T,): number of labels in the whole batch.
            norms: Float32 tensor (T,): norms of the gradients of the unweighted losses of the whole
                batch, if `needs_norms`.
        """

    def kernel_in(
        self, encoder: keras.layers.Layer, shared: Sequence[keras.Variable]
    ) -> keras.Variable:
        """That of the shared variables of a built encoder that `update` gets the norms for.

        Raises:
            ValueError: If it is not there.
        """
        raise NotImplementedError

    def start_epoch(self) -> None:
        """Called when an epoch begins, unless a restart goes on with it."""

    def end_epoch(self) -> None:
        """Called at the end of every epoch."""

    def get_config(self) -> dict[str, Any]:
        # Keras' own adds nothing but the policy, which is always the same.
        return {"name": self.name}

    def add_state(self, name: str, shape: tuple[int, ...], value: float) -> keras.Variable:
        """A weight that no optimizer trains."""
        return self.add_weight(
            shape=shape,
            initializer=keras.initializers.Constant(value),
            trainable=False,
            # Replicas hold equal values; "mean" keeps them so when they are restored.
            aggregation="mean",
            name=name,
        )


@keras.saving.register_keras_serializable(package="tag_keras")
class EqualWeighting(LossWeighting):
    """Equal weights: 1 for every task, as without a weighting. Its weights are logged.

    Example:

    ```python
    model.compile("adam", "mse", loss_weighting=tag_keras.EqualWeighting())
    ```
    """

    def task_weights(self) -> tf.Tensor:
        return tf.ones(self.num_tasks)


class WeightingEpochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells a loss weighting where epochs begin and end.

    Args:
        weighting: The loss weighting of the model.
        counter: Tells after a restart the steps of the epoch that are not done again.
    """

    def __init__(self, weighting: LossWeighting, counter: StepCounter) -> None:
        super().__init__()
        self._weighting, self._counter = weighting, counter

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # Otherwise Keras begins an epoch anew whose beginning a backup holds.
        if not self._counter.steps_to_skip:
            self._weighting.start_epoch()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._weighting.end_epoch()


def stack_losses(losses: Sequence[tf.Tensor]) -> tf.Tensor:
    """Losses of any type as one float32 tensor (T,)."""
    return tf.stack([tf.cast(loss, "float32") for loss in losses])


def share_of_penalty(weighting: LossWeighting, labels: tf.Tensor) -> tf.Tensor:
    """This replica's share of the penalty, of which a whole batch has one."""
    return weighting.penalty(labels > 0) / num_replicas()
