"""Random orders in which gradients meet, the same on all replicas and after a restart."""

import random
from typing import Any

import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.utils.checks import check_seed


class RandomOrders(GradientMethod):
    """Base class of methods that draw, for every task and step, an order of all tasks.

    Args:
        seed: Seed of the random orders, from 0 on. By default `keras.utils.set_random_seed`
            determines it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `seed` is no such integer.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = None if seed is None else check_seed(seed)
        self._draws: Any = None

    def start(self, tasks: tuple[str, ...]) -> None:
        # `keras.utils.set_random_seed` also sets the generator of Python.
        seed = random.randrange(2**31) if self.seed is None else self.seed
        # The seed and the number of draws. The state of a Keras generator would not be saved.
        self._draws = self.add_zeros("draws", (2,))
        self._draws.assign(tf.constant([seed, 0], "int64"))

    def draw_orders(self, num_tasks: int) -> tf.Tensor:
        """Draws an integer tensor (T, T), whose rows are permutations of the tasks."""
        draws = tf.convert_to_tensor(self._draws)
        self._draws.assign(draws + tf.constant([0, 1], "int64"))
        # By default the algorithm depends on the device, but all replicas must draw the same.
        numbers = tf.random.stateless_uniform([num_tasks, num_tasks], draws, alg="philox")
        return tf.argsort(numbers, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}
