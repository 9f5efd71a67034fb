"""Losses of Standley et al. 2020 (arXiv 1905.07553) on Taskonomy; pixels without a label are NaN.

The losses of the paper's tables divide by all values, also those without a label. Such a loss is a
scalar for its batch.
"""

from collections.abc import Sequence
from typing import Literal

import keras
import tensorflow as tf

from tag_keras.utils.checks import check_choice
from taskonomy.domains import DOMAINS, SEGMENTATION

Over = Literal["all", "known"]
_SHIFTS = [(row, column) for row in range(3) for column in range(3)]


def build_losses(
    tasks: Sequence[str], shifts: bool = True, over: Over = "all"
) -> dict[str, keras.losses.Loss]:
    """The losses of some tasks.

    Args:
        tasks: Names of tasks.
        shifts: Whether predictions of depth, normals and edges of occlusion may be off by one
            pixel, as in the tables of the papers ("rotate loss").
        over: What the sums of absolute errors are divided by: the number of `"all"` values, as in
            the papers, or of the `"known"` values, which have a label.

    Returns:
        Loss by task.
    """
    geometric = ShiftedAbsoluteError if shifts else MaskedAbsoluteError
    losses: dict[str, keras.losses.Loss] = {}
    for task in tasks:
        if task == SEGMENTATION:
            losses[task] = MaskedCrossEntropy()
        else:
            losses[task] = (geometric if DOMAINS[task].geometric else MaskedAbsoluteError)(over)
    return losses


@keras.saving.register_keras_serializable(package="taskonomy")
class MaskedAbsoluteError(keras.losses.Loss):  # type: ignore[misc]
    """Mean absolute error over the values with a label, for keypoints and edges.

    `y_true` is (B, H, W, C), NaN for a missing label; `y_pred` has the same shape. A batch without
    any label has the loss 0.

    Args:
        over: What the sum of the errors is divided by: the number of `"known"` values, which have a
            label, or of `"all"` values, as in the paper.
        name: Name of the loss.
    """

    def __init__(self, over: Over = "known", name: str = "masked_absolute_error") -> None:
        super().__init__(name=name)
        self.over = _check_over(over)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        known = tf.math.is_finite(y_true)
        errors = _errors(known, y_true, y_pred)
        if self.over == "all":
            return tf.reduce_mean(errors)
        return errors * _over_the_known(known, errors.dtype)

    def get_config(self) -> dict[str, object]:
        return {"over": self.over, "name": self.name}


@keras.saving.register_keras_serializable(package="taskonomy")
class ShiftedAbsoluteError(keras.losses.Loss):  # type: ignore[misc]
    """Mean absolute error of each image at the best of nine shifts ("rotate loss"), a scalar.

    The predictions are shifted by -1, 0 or 1 pixels in each direction against the labels, whose
    outermost pixels do not count. The error of an image is the smallest of the nine, so that a
    right prediction one pixel off costs nothing: Taskonomy's labels and images do not align
    exactly.

    `y_true` is (B, H, W, C), NaN for a missing label; `y_pred` has the same shape. An image without
    any label has the loss 0.

    Args:
        over: What the sum of an image's errors is divided by: the number of `"all"` values except
            the outermost, as in the paper, or of the `"known"` ones among them.
        name: Name of the loss.
    """

    def __init__(self, over: Over = "all", name: str = "shifted_absolute_error") -> None:
        super().__init__(name=name)
        self.over = _check_over(over)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        labels = y_true[:, 1:-1, 1:-1]
        height, width = tf.shape(labels)[1], tf.shape(labels)[2]
        known = tf.math.is_finite(labels)
        axes = [1, 2, 3]
        sums = [
            tf.reduce_sum(
                _errors(known, labels, y_pred[:, row : row + height, column : column + width]), axes
            )
            for row, column in _SHIFTS
        ]
        counted = known if self.over == "known" else tf.ones_like(known)
        numbers = tf.reduce_sum(tf.cast(counted, y_pred.dtype), axes)
        return tf.reduce_mean(tf.reduce_min(sums, axis=0) / tf.maximum(numbers, 1.0))

    def get_config(self) -> dict[str, object]:
        return {"over": self.over, "name": self.name}


@keras.saving.register_keras_serializable(package="taskonomy")
class MaskedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy over the pixels of known class, for semantic segmentation.

    `y_true` is (B, H, W), class indices; `y_pred` is (B, H, W, K), logits of K classes. A batch
    without any pixel of known class has the loss 0.

    Args:
        ignored: Class index of pixels whose class is not known.
        name: Name of the loss.
    """

    def __init__(self, ignored: int = 0, name: str = "masked_cross_entropy") -> None:
        super().__init__(name=name)
        self.ignored = ignored

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        classes = tf.cast(y_true, "int32")
        known = classes != self.ignored
        errors = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(known, classes, 0), y_pred)
        return tf.where(known, errors, 0.0) * _over_the_known(known, errors.dtype)

    def get_config(self) -> dict[str, object]:
        return {"ignored": self.ignored, "name": self.name}


def _check_over(over: Over) -> Over:
    check_choice("over", over, ("all", "known"))
    return over


def _errors(known: tf.Tensor, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    # Masking both before the difference keeps NaN out of the gradient, too.
    return tf.abs(tf.where(known, labels, 0.0) - tf.where(known, predictions, 0.0))


def _over_the_known(known: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Factor that turns Keras' mean over all values into the mean over the known values."""
    number = tf.reduce_sum(tf.cast(known, dtype))
    return tf.cast(tf.size(known), dtype) / tf.maximum(number, 1.0)
