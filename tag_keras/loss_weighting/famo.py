"""FAMO: weights that make all losses fall at the same rate."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.loss_weighting.base import (
    LossWeighting,
    losses_of_whole_batch,
    number_of,
    positive,
    shares,
)
from tag_keras.utils.checks import check_number


@keras.saving.register_keras_serializable(package="tag_keras")
class FAMO(LossWeighting):
    """FAMO (Liu et al., NeurIPS 2023, arXiv 2306.03792, algorithm 2): fast adaptive weights.

    Every task has a score s, 0 at the start. With z = softmax(s), the network is trained on the sum
    of z_i log(L_i), up to a factor that makes the sum of the weights T:

        weights[i] = T * (z_i / L_i) / sum_j (z_j / L_j)

    After the step, the losses of the same batch show how much each has fallen, and Adam moves the
    scores against

        z_i * (fall_i - sum_j z_j fall_j) + decay * s_i,   fall_i = log(L_i before / L_i after)

    so that the task whose loss fell least counts more. The paper has the sum 1 in place of T. A
    task without a label in the batch takes no part, and keeps its score. Losses have to be
    positive; 1e-8 is added to each.

    A step makes one more forward pass, from the state and with the dropout of the step. Take it to
    balance losses of different size without a backward pass per task.

    Args:
        learning_rate: Learning rate of the scores, not below 0. The paper uses 0.025.
        decay: Weight decay of the scores, not below 0.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an option is below 0.

    Example:

    ```python
    model.compile("adam", "mse", loss_weighting=tag_keras.FAMO())
    ```
    """

    def __init__(self, learning_rate: float = 0.025, decay: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        wanted = "a number of at least 0"
        self.learning_rate = check_number("learning_rate", learning_rate, wanted, _is_not_negative)
        self.decay = check_number("decay", decay, wanted, _is_not_negative)

    def start(self, num_tasks: int) -> None:
        super().start(num_tasks)
        self._scores = self.add_state("scores", (num_tasks,), 0.0)
        # Of Adam: means of the gradients and of their squares, and numbers of steps.
        self._means = self.add_state("means", (num_tasks,), 0.0)
        self._squares = self.add_state("squares", (num_tasks,), 0.0)
        self._steps = self.add_state("steps", (num_tasks,), 0.0)
        # Losses of the running step, before the variables move.
        self._before = self.add_state("before", (num_tasks,), 1.0)

    def batch_weights(self, losses: tf.Tensor, has_labels: tf.Tensor) -> tf.Tensor:
        parts = shares(tf.convert_to_tensor(self._scores), has_labels) / positive(losses)
        parts = tf.math.divide_no_nan(parts, tf.reduce_sum(parts))
        return number_of(has_labels) * parts

    def update(
        self, losses: Sequence[tf.Tensor], labels: tf.Tensor, norms: tf.Tensor | None = None
    ) -> None:
        self._before.assign(losses_of_whole_batch(losses))

    def after_step(self, losses: tf.Tensor, has_labels: tf.Tensor) -> None:
        scores, before = (tf.convert_to_tensor(one) for one in (self._scores, self._before))
        falls = tf.math.log(positive(before)) - tf.math.log(positive(losses))
        # A step that overflowed shows nothing.
        is_finite = tf.reduce_all(tf.math.is_finite(falls) | ~has_labels)
        falls = tf.where(has_labels & is_finite, falls, 0.0)
        part = shares(scores, has_labels)
        gradient = part * (falls - tf.reduce_sum(part * falls)) + self.decay * scores
        steps, *moments, move = adam_step(
            gradient,
            *(tf.convert_to_tensor(one) for one in (self._steps, self._means, self._squares)),
        )
        new = (steps, *moments, scores - self.learning_rate * move)
        states = (self._steps, self._means, self._squares, self._scores)
        for state, value in zip(states, new, strict=True):
            state.assign(tf.where(has_labels & is_finite, value, tf.convert_to_tensor(state)))

    def get_config(self) -> dict[str, Any]:
        config = {"learning_rate": self.learning_rate, "decay": self.decay}
        return {**super().get_config(), **config}


def adam_step(
    gradient: tf.Tensor, steps: tf.Tensor, means: tf.Tensor, squares: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The state of Adam (Kingma and Ba, algorithm 1) after a step, and the move for the rate 1.

    Args:
        gradient: Tensor (T,).
        steps: Tensor (T,): number of steps before.
        means: Tensor (T,): moving averages of the gradients.
        squares: Tensor (T,): moving averages of their squares.

    Returns:
        Four tensors (T,): steps, means, squares and the move.
    """
    steps = steps + 1
    means = 0.9 * means + 0.1 * gradient
    squares = 0.999 * squares + 0.001 * gradient**2
    root = tf.sqrt(squares / (1 - 0.999**steps)) + 1e-8
    return steps, means, squares, means / (1 - 0.9**steps) / root


def _is_not_negative(number: float) -> bool:
    return number >= 0
