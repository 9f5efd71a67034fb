"""Uncertainty weighting: weights of the tasks that the optimizer trains."""

from typing import Any, Literal

import keras
import tensorflow as tf

from tag_keras.loss_weighting.base import LossWeighting
from tag_keras.utils.checks import check_choice


@keras.saving.register_keras_serializable(package="tag_keras")
class UncertaintyWeighting(LossWeighting):
    """Uncertainty weighting (Kendall, Gal and Cipolla, CVPR 2018, arXiv 1705.07115).

    Every task has a scalar s, the logarithm of its noise, which the optimizer of the model trains.
    The joint loss, with sums over the tasks that have a label in the batch, is

        "V1": sum_i  exp(-s_i) L_i + s_i                 s = log(variance), 0 at the start
        "V2": sum_i  exp(-s_i) L_i / 2 + s_i / 2         s = log(variance), -0.5 at the start
        "V3": sum_i  exp(-2 c_i) L_i + c_i               s = log(sigma), 1 at the start

    with c = s clipped to [0.01, 10]. V1 is the code of the paper's authors, V2 the code of MTAN
    (Liu et al., CVPR 2019), V3 the code of TAG. The optimum is s = log(L) for V1 and V2, and
    s = log(2 L) / 2 for V3: the larger the loss of a task, the less it counts. V3 does not train s
    outside of the interval; for losses below 0.51, s ends there. The scalars have no weight decay,
    and stay between -20 and 20. The joint loss may be negative.

    It costs nothing that can be measured. Take it where losses differ in size or unit.

    Args:
        variant: Formula of the joint loss: `"V1"`, `"V2"` or `"V3"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `variant` is none of these.

    Example:

    ```python
    model.compile("adam", "mse", loss_weighting=tag_keras.UncertaintyWeighting())
    ```
    """

    is_trained = True

    def __init__(self, variant: Literal["V1", "V2", "V3"] = "V2", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("variant", variant, tuple(_START))
        self.variant = variant
        self.log_noise: Any = None

    def start(self, num_tasks: int) -> None:
        super().start(num_tasks)
        self.log_noise = self.add_weight(
            shape=(num_tasks,),
            initializer=keras.initializers.Constant(_START[self.variant]),
            # If a loss is always 0, s would fall without end, and exp(-s) overflow.
            constraint=bounded,
            # Replicas hold equal values.
            aggregation="mean",
            name="log_noise",
        )

    def task_weights(self) -> tf.Tensor:
        return uncertainty_terms(tf.convert_to_tensor(self.log_noise), self.variant)[0]

    def penalty(self, has_labels: tf.Tensor) -> tf.Tensor:
        penalties = uncertainty_terms(tf.convert_to_tensor(self.log_noise), self.variant)[1]
        return tf.reduce_sum(tf.where(has_labels, penalties, 0.0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "variant": self.variant}


def bounded(log_noise: tf.Tensor) -> tf.Tensor:
    """The logarithms between -20 and 20, whose exponentials are finite."""
    return tf.clip_by_value(log_noise, -20.0, 20.0)


def uncertainty_terms(log_noise: tf.Tensor, variant: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights (T,) of the losses in `UncertaintyWeighting`, and the terms (T,) added to the losses.

    Args:
        log_noise: Tensor (T,): logarithms s of the noise.
        variant: Formula of the joint loss: `"V1"`, `"V2"` or `"V3"`.
    """
    if variant == "V1":
        return tf.exp(-log_noise), log_noise
    if variant == "V2":
        return tf.exp(-log_noise) / 2.0, log_noise / 2.0
    clipped = tf.clip_by_value(log_noise, 0.01, 10.0)
    return tf.exp(-2.0 * clipped), clipped


_START = {"V1": 0.0, "V2": -0.5, "V3": 1.0}
