"""GLS: the geometric mean of the losses."""

import keras
import tensorflow as tf

from tag_keras.loss_weighting.base import LossWeighting, number_of, positive


def geometric_weights(losses: tf.Tensor, has_labels: tf.Tensor) -> tf.Tensor:
    """Weights (T,) of `GLS`: the derivatives of T times the geometric mean, 0 without labels.

    Args:
        losses: Tensor (T,): losses, of which those below 0 count as 0.
        has_labels: Boolean tensor (T,): the tasks that take part.
    """
    logs = tf.where(has_labels, tf.math.log(positive(losses)), 0.0)
    mean = tf.math.divide_no_nan(tf.reduce_sum(logs), number_of(has_labels))
    return tf.where(has_labels, tf.exp(mean - logs), 0.0)


@keras.saving.register_keras_serializable(package="tag_keras")
class GLS(LossWeighting):
    """Geometric loss strategy (GLS; Chennupati et al., CVPR workshops 2019, arXiv 1904.08492).

    The network is trained on the geometric mean of the losses in place of the arithmetic one,

        T * (L_1 * ... * L_T) ** (1 / T),   so   weights[i] = (L_1 * ... * L_T) ** (1 / T) / L_i

    which does not depend on the units of the losses. The paper has no factor T; with it, equal
    losses have the weight 1. A task without a label in the batch takes no part. Losses have to be
    positive; 1e-8 is added to each.

    It costs nothing that can be measured. Take it for positive losses of different size or unit,
    none of which gets close to 0: that would count most.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    model.compile("adam", "mse", loss_weighting=tag_keras.GLS())
    ```
    """

    def batch_weights(self, losses: tf.Tensor, has_labels: tf.Tensor) -> tf.Tensor:
        return geometric_weights(losses, has_labels)
