"""Losses of Standley et al. 2020 (arXiv 1905.07553) on Taskonomy, over the pixels with a label."""

import keras
import tensorflow as tf


class MaskedAbsoluteError(keras.losses.Loss):
    """Mean absolute error over the values with a label, for depth, normals and edges.

    `y_true` is (B, H, W, C), NaN where there is no label; `y_pred` has the same shape. A batch
    without any label has the loss 0.
    """

    def __init__(self, name: str = "masked_absolute_error") -> None:
        super().__init__(name=name)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        known = tf.math.is_finite(y_true)
        # The inner `where` keeps NaN out of the gradient, too.
        errors = tf.abs(tf.where(known, y_true, 0.0) - tf.where(known, y_pred, 0.0))
        return errors * _over_the_known(known, errors.dtype)


class MaskedCrossEntropy(keras.losses.Loss):
    """Cross-entropy over the pixels of known class, for semantic segmentation.

    `y_true` is (B, H, W), class indices; `y_pred` is (B, H, W, K), logits of K classes. A batch
    without any pixel of known class has the loss 0.

    Args:
        ignored: Index that says that a pixel's class is not known.
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


def _over_the_known(known: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """What turns the mean over all values, which Keras takes, into that over the known ones."""
    number = tf.reduce_sum(tf.cast(known, dtype))
    return tf.cast(tf.size(known), dtype) / tf.maximum(number, 1.0)
