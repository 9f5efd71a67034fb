"""RLW: random weights."""

import random
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.loss_weighting.base import LossWeighting
from tag_keras.utils.checks import check_seed


@keras.saving.register_keras_serializable(package="tag_keras")
class RLW(LossWeighting):
    """Random loss weighting (RLW; Lin et al., TMLR 2022, arXiv 2111.10603, algorithm 2).

    The weights are drawn anew for each step,

        weights = T * softmax(z),   z_i from the standard normal distribution

    The paper has no factor T; with it, the mean of the weights is 1.

    `val_loss` has the weights of one draw: watch the losses of the tasks instead, also in
    callbacks, as `tag_keras.EarlyStopping` does.

    It costs nothing that can be measured. Take it as a yardstick: a weighting should be better.

    Args:
        seed: Seed of the weights, from 0 on. By default `keras.utils.set_random_seed` determines
            it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `seed` is no such integer.

    Example:

    ```python
    model.compile("adam", "mse", loss_weighting=tag_keras.RLW())
    ```
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = None if seed is None else check_seed(seed)
        self._draws: Any = None

    def start(self, num_tasks: int) -> None:
        super().start(num_tasks)
        # `keras.utils.set_random_seed` also sets the generator of Python.
        seed = random.randrange(2**31) if self.seed is None else self.seed
        # The seed and the number of draws. The state of a Keras generator would not be saved.
        self._draws = self.add_weight(
            shape=(2,),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            # Replicas hold equal values.
            aggregation="only_first_replica",
            name="draws",
        )
        self._draws.assign(tf.constant([seed, 0], "int64"))

    def task_weights(self) -> tf.Tensor:
        draws = tf.convert_to_tensor(self._draws)
        # By default the algorithm depends on the device, but all replicas must draw the same.
        scores = tf.random.stateless_normal([self.num_tasks], draws, alg="philox")
        return self.num_tasks * tf.nn.softmax(scores)

    def update(
        self, losses: Sequence[tf.Tensor], labels: tf.Tensor, norms: tf.Tensor | None = None
    ) -> None:
        self._draws.assign(self._draws + tf.constant([0, 1], "int64"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}
