"""Dynamic weight average: weights of the tasks from how fast their losses fall."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.replicas import sum_over_replicas
from tag_keras.loss_weighting.base import LossWeighting, stack_losses
from tag_keras.utils.checks import check_number


@keras.saving.register_keras_serializable(package="tag_keras")
class DynamicWeightAverage(LossWeighting):
    """Dynamic weight average (DWA; Liu, Johns and Davison, CVPR 2019, arXiv 1803.10704, eq. 7).

    A task whose loss falls more slowly than those of the others gets a larger weight: with the mean
    training loss of each of the two epochs before,

        weights = T * softmax(r / temperature),   r_i = mean loss_i (t - 1) / mean loss_i (t - 2)

    The losses are the unweighted ones. In the first two epochs all weights are 1; a task that had
    no label in one of two epochs, or a mean loss of 0, counts as one whose loss has not changed.

    Args:
        temperature: The larger, the more equal the weights are. The paper uses 2.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `temperature` is not positive.

    Example:

    ```python
    model.compile("adam", "mse", loss_weighting=tag_keras.DynamicWeightAverage())
    ```
    """

    def __init__(self, temperature: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.temperature = check_number(
            "temperature", temperature, "a positive number, such as 2.0", lambda number: number > 0
        )

    def start(self, num_tasks: int) -> None:
        super().start(num_tasks)
        # Mean losses of the last epoch and of the one before; NaN for none.
        self._last = self.add_state("last", (num_tasks,), float("nan"))
        self._before = self.add_state("before", (num_tasks,), float("nan"))
        # Of the running epoch. The logs would not do: they know nothing of what an epoch that was
        # interrupted and resumed had behind it.
        self._sums = self.add_state("sums", (num_tasks,), 0.0)
        self._labels = self.add_state("labels", (num_tasks,), 0.0)

    def task_weights(self) -> tf.Tensor:
        last, before = tf.convert_to_tensor(self._last), tf.convert_to_tensor(self._before)
        return dynamic_weights(last, before, self.temperature)

    def update(
        self, losses: Sequence[tf.Tensor], labels: tf.Tensor, norms: tf.Tensor | None = None
    ) -> None:
        (whole,) = sum_over_replicas([stack_losses(losses)])
        self._sums.assign(self._sums + tf.where(labels > 0, whole * labels, 0.0))
        self._labels.assign(self._labels + labels)

    def start_epoch(self) -> None:
        for one in (self._sums, self._labels):
            one.assign(tf.zeros(self.num_tasks))

    def end_epoch(self) -> None:
        self._before.assign(tf.convert_to_tensor(self._last))
        # 0 / 0, which is NaN, for a task without a label.
        self._last.assign(tf.convert_to_tensor(self._sums) / tf.convert_to_tensor(self._labels))
        self.start_epoch()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}


def dynamic_weights(last: tf.Tensor, before: tf.Tensor, temperature: float) -> tf.Tensor:
    """Weights of `DynamicWeightAverage`.

    Args:
        last: Tensor (T,): mean loss of each task in the last epoch; NaN if it is not known.
        before: Tensor (T,): the same of the epoch before.
        temperature: Positive number.

    Returns:
        Tensor (T,), with the sum T.
    """
    ratios = tf.math.divide_no_nan(last, before)
    # Of a loss of 0, and of one that is not known, there is nothing to tell.
    known = (before > 0) & tf.math.is_finite(ratios)
    ratios = tf.where(known, ratios, 1.0)
    return last.shape[0] * tf.nn.softmax(ratios / temperature)
