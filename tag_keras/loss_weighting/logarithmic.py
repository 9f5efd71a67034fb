"""DB-MTL: the logarithms of the losses."""

import keras
import tensorflow as tf

from tag_keras.loss_weighting.base import LossWeighting, positive


@keras.saving.register_keras_serializable(package="tag_keras")
class DBMTL(LossWeighting):
    """Dual-balancing, its part for losses (DB-MTL; Lin et al. 2023, arXiv 2308.12029).

    The network is trained on the sum of the logarithms of the losses,

        sum_i log(L_i + 1e-8),   so   weights[i] = 1 / (L_i + 1e-8)

    which does not depend on the units of the losses. A task without a label in the batch takes no
    part. Losses have to be positive. The paper's other part makes the gradients of all tasks as
    long as the longest; it needs their moving averages, and is not here.

    The logs have `loss` as the sum of the weighted losses, which is the number of tasks: watch the
    losses of the tasks instead, also in callbacks, as `tag_keras.EarlyStopping` does.

    It costs nothing that can be measured. Take it for positive losses of different size or unit.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    model.compile("adam", "mse", loss_weighting=tag_keras.DBMTL())
    ```
    """

    def batch_weights(self, losses: tf.Tensor, has_labels: tf.Tensor) -> tf.Tensor:
        return tf.where(has_labels, 1.0 / positive(losses), 0.0)
