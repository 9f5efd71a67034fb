"""STCH: a smooth maximum of the losses."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.loss_weighting.base import LossWeighting, number_of, shares
from tag_keras.utils.checks import check_number


@keras.saving.register_keras_serializable(package="tag_keras")
class STCH(LossWeighting):
    """Smooth Tchebycheff scalarization (STCH; Lin et al., ICML 2024, arXiv 2402.19078).

    The network is trained on a smooth maximum of the losses,

        T * mu * log(sum_i exp(L_i / mu)),   so   weights = T * softmax(L / mu)

    The smaller mu, the more counts the largest loss alone. The paper has no factor T; with it,
    equal losses have the weight 1. The ideal point is 0, and the preferences are 1; `loss_weights`
    multiply the weights. A task without a label in the batch takes no part.

    It costs nothing that can be measured. Take it for losses of one kind and unit, where the worst
    task matters.

    Args:
        mu: Positive number, in the unit of the losses. The paper tries 0.01 to 1.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `mu` is not positive.

    Example:

    ```python
    model.compile("adam", "mse", loss_weighting=tag_keras.STCH(mu=0.5))
    ```
    """

    def __init__(self, mu: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        wanted = "a positive number, such as 1.0"
        self.mu = check_number("mu", mu, wanted, lambda number: number > 0)

    def batch_weights(self, losses: tf.Tensor, has_labels: tf.Tensor) -> tf.Tensor:
        return number_of(has_labels) * shares(losses / self.mu, has_labels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mu": self.mu}
