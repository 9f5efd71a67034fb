"""IMTL-L: scales of the losses that the optimizer trains."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.loss_weighting.base import LossWeighting
from tag_keras.loss_weighting.uncertainty import bounded


@keras.saving.register_keras_serializable(package="tag_keras")
class IMTLL(LossWeighting):
    """IMTL-L (Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021): learnt loss scales.

    Every task has a scalar s, 0 at the start, which the optimizer of the model trains. The joint
    loss, with sums over the tasks that have a label in the batch, is

        sum_i  exp(s_i) L_i - s_i

    The optimum is s = -log(L): the weighted losses become equal. The scalars have no weight decay,
    and stay between -20 and 20. The joint loss may be negative. It is `UncertaintyWeighting("V1")`
    with the other sign of s.

    It costs nothing that can be measured. Take it with `IMTLG`, as the paper does.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    model.compile("adam", "mse", loss_weighting=tag_keras.IMTLL())
    ```
    """

    is_trained = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log_scale: Any = None

    def start(self, num_tasks: int) -> None:
        super().start(num_tasks)
        self.log_scale = self.add_weight(
            shape=(num_tasks,),
            initializer="zeros",
            # If a loss is always 0, s would rise without end, and exp(s) overflow.
            constraint=bounded,
            # Replicas hold equal values.
            aggregation="mean",
            name="log_scale",
        )

    def task_weights(self) -> tf.Tensor:
        return tf.exp(tf.convert_to_tensor(self.log_scale))

    def penalty(self, has_labels: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(tf.where(has_labels, tf.convert_to_tensor(self.log_scale), 0.0))
