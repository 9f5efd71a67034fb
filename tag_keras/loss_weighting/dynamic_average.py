"""Dynamic weight average: tasks whose losses fall slowly get larger weights."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.loss_weighting.base import LossWeighting, losses_of_whole_batch
from tag_keras.utils.checks import check_number


@keras.saving.register_keras_serializable(package="tag_keras")
class DynamicWeightAverage(LossWeighting):
    """Dynamic weight average (DWA; Liu, Johns and Davison, CVPR 2019, arXiv 1803.10704, eq. 7).

    A task whose loss falls more slowly than the losses of the others gets a larger weight. In
    epoch t, with the mean unweighted training losses of the two epochs before,

        weights = T * softmax(r / temperature),   r_i = mean loss_i (t - 1) / mean loss_i (t - 2)

    In the first two epochs all weights are 1. A task that had no label in one of the two epochs, or
    a mean loss of 0, has r_i = 1, as if its loss had not changed.

    It costs nothing that can be measured, and acts from the third epoch on, once an epoch. Take it
    to train longer on tasks that are still learning.

    Args:
        temperature: Positive number: the larger, the more equal the weights. The paper uses 2.
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
        # Mean losses of the last epoch, and of the epoch before it; NaN if unknown.
        self._last = self.add_state("last", (num_tasks,), float("nan"))
        self._before = self.add_state("before", (num_tasks,), float("nan"))
        # Sums and numbers of labels of the running epoch. The logs lack the steps that a resumed
        # epoch made before its interruption.
        self._sums = self.add_state("sums", (num_tasks,), 0.0)
        self._labels = self.add_state("labels", (num_tasks,), 0.0)

    def task_weights(self) -> tf.Tensor:
        last, before = tf.convert_to_tensor(self._last), tf.convert_to_tensor(self._before)
        return dynamic_weights(last, before, self.temperature)

    def update(
        self, losses: Sequence[tf.Tensor], labels: tf.Tensor, norms: tf.Tensor | None = None
    ) -> None:
        whole = losses_of_whole_batch(losses)
        self._sums.assign(self._sums + tf.where(labels > 0, whole * labels, 0.0))
        self._labels.assign(self._labels + labels)

    def start_epoch(self) -> None:
        for one in (self._sums, self._labels):
            one.assign(tf.zeros(self.num_tasks))

    def end_epoch(self) -> None:
        self._before.assign(tf.convert_to_tensor(self._last))
        # NaN, as 0 / 0, for a task without a label.
        self._last.assign(tf.convert_to_tensor(self._sums) / tf.convert_to_tensor(self._labels))
        self.start_epoch()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}


def dynamic_weights(last: tf.Tensor, before: tf.Tensor, temperature: float) -> tf.Tensor:
    """Weights (T,) of `DynamicWeightAverage`, whose sum is T.

    Args:
        last: Tensor (T,): mean loss of each task in the last epoch; NaN if unknown.
        before: Tensor (T,): mean loss of each task in the epoch before it; NaN if unknown.
        temperature: Positive number: the larger, the more equal the weights.
    """
    ratios = tf.math.divide_no_nan(last, before)
    # A loss that is 0 or unknown counts as unchanged.
    known = (before > 0) & tf.math.is_finite(ratios)
    ratios = tf.where(known, ratios, 1.0)
    return last.shape[0] * tf.nn.softmax(ratios / temperature)
