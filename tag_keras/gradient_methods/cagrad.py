"""CAGrad: near the plain sum, the direction that is best for the worst task."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.gradient_methods.solvers import complementarity, cosines_and_lengths
from tag_keras.utils.checks import check_number

# Newton's method nearly always ends within ten steps.
_MOST_STEPS = 50
_TOLERANCE = 1e-10


def cagrad_coefficients(gram: tf.Tensor, c: float) -> tf.Tensor:
    """Coefficients of CAGrad (Liu et al., arXiv 2110.14048), from products alone.

    Let s = sum_i g_i, and let m be the least product that each gradient shall have with the result.
    The closest vector to s that has it is s + sum_i x_i g_i, where

        x >= 0,   <g_i, s + sum_j x_j g_j> >= m,   and one of the two is an equality for each i.

    Its distance from s rises with m and is convex in it. Newton's method, from above, finds the m
    at which it is c |s|. The distance has the derivative sum_i x_i / distance.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.
        c: Distance from s at most, relative to |s|.

    Returns:
        Tensor (T,): coefficients of the g_i, 1 + x.
    """
    cosines, lengths = cosines_and_lengths(gram)
    lengths = tf.math.divide_no_nan(lengths, tf.reduce_max(lengths))
    # In y_i = x_i |g_i|, so that a gradient may be much shorter than another.
    inverse = tf.math.divide_no_nan(tf.ones_like(lengths), lengths)
    total = tf.linalg.matvec(cosines, lengths)
    radius = c * tf.sqrt(tf.reduce_sum(lengths * total))
    # So much a vector in the distance c |s| can have for the worst of the tasks by itself.
    highest = tf.where(lengths > 0, lengths * (total + radius), float("inf"))
    highest = tf.where(tf.reduce_any(lengths > 0), tf.reduce_min(highest), 0.0)

    def added(least: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parts = complementarity(cosines, (total - least * inverse)[None])[0]
        return parts, tf.sqrt(tf.reduce_sum(parts * tf.linalg.matvec(cosines, parts)))

    def step(least: tf.Tensor, parts: tf.Tensor, distance: tf.Tensor) -> list[tf.Tensor]:
        slope = tf.math.divide_no_nan(tf.reduce_sum(parts * inverse), distance)
        least -= tf.math.divide_no_nan(distance - radius, slope)
        return [least, *added(least)]

    _, parts, _ = tf.while_loop(
        lambda least, parts, distance: distance > (1 + _TOLERANCE) * radius,
        step,
        [highest, *added(highest)],
        maximum_iterations=_MOST_STEPS,
    )
    return tf.cast(1.0 + parts * inverse, "float32")


@keras.saving.register_keras_serializable(package="tag_keras")
class CAGrad(GradientMethod):
    """CAGrad (Liu et al., NeurIPS 2021, arXiv 2110.14048): conflict-averse gradient descent.

    Near the plain sum s, the shared variables get the vector that is best for the worst task:

        argmax min_i <g_i, d>    over all d with |d - s| <= c |s|,   s = sum_i g_i

    The paper takes the mean in place of the sum, which is T times smaller. A task without a
    gradient takes no part. The solution is exact.

    A step makes one backward pass per task. Take it to go on minimising the sum of the losses, with
    more for the task that falls behind.

    Args:
        c: How far the result may be from the plain sum, from 0 (the plain sum) to below 1. Further
            away it would not lead to a minimum of the sum of the losses.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `c` is not from 0 to below 1.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.CAGrad(c=0.4))
    ```
    """

    def __init__(self, c: float = 0.4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        wanted = "from 0 to below 1, such as 0.4"
        self.c = check_number("c", c, wanted, lambda number: 0 <= number < 1)

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        return cagrad_coefficients(gram, self.c)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "c": self.c}
