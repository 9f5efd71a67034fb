"""FairGrad: gradients by alpha-fair shares of the loss that each task saves."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.gradient_methods.solvers import cosines_and_lengths
from tag_keras.utils.checks import check_number

# Newton's method nearly always ends within fifteen steps.
_MOST_STEPS = 60
# Largest part of a task's equation that may be left.
_TOLERANCE = 1e-9
# Each step tries 1, 1/2, 1/4, ... of Newton's, or of what takes this part of a weight away.
_HALVES = 14
_LARGEST_PART = 0.99


def fair_coefficients(gram: tf.Tensor, alpha: float, scale: tf.Tensor = 1.0) -> tf.Tensor:
    """Solution w > 0 of G w = w ** (-1 / alpha) (Ban and Ji, arXiv 2402.15638).

    It is the minimum of the convex function w' G w / 2 - sum_i phi(w_i), where phi has the
    derivative w ** (-1 / alpha). Newton's method finds it. It is written in w_i = start_i z_i, with
    the solution for orthogonal gradients, start_i = |g_i| ** (-2 alpha / (1 + alpha)).

    Args:
        gram: Tensor (T, T): products <g_i, g_j> / scale**2.
        alpha: Positive number.
        scale: Scalar.

    Returns:
        Tensor (T,): w, and 0 for a gradient that is 0.
    """
    cosines, lengths = cosines_and_lengths(gram)
    active = lengths > 0
    # A task without a gradient would solve an equation of its own, and is left out at the end.
    lengths = tf.where(active, lengths, 1.0)
    start = lengths ** (-2.0 * alpha / (1.0 + alpha))
    sides = lengths * start
    shares, matrix = sides**2, sides[:, None] * cosines * sides
    power = 1.0 - 1.0 / alpha

    def value(z: tf.Tensor) -> tf.Tensor:
        """The convex function for several z (N, T); infinite outside of z > 0."""
        inside = tf.reduce_all(z > 0, axis=1)
        z = tf.where(z > 0, z, 1.0)
        phi = tf.math.log(z) if power == 0 else z**power / power
        quadratic = tf.reduce_sum(z * tf.matmul(z, matrix), axis=1) / 2
        return tf.where(inside, quadratic - tf.linalg.matvec(phi, shares), float("inf"))

    def slope(z: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matvec(matrix, z) - shares * z ** (-1.0 / alpha)

    def step(z: tf.Tensor) -> list[tf.Tensor]:
        curvature = shares / alpha * z ** (-1.0 / alpha - 1.0)
        factor = tf.linalg.cholesky(tf.linalg.set_diag(matrix, shares + curvature))
        move = tf.linalg.cholesky_solve(factor, slope(z)[:, None])[:, 0]
        # Newton's step may lead far out of z > 0, where gradients differ much in size.
        move /= tf.maximum(tf.reduce_max(move / z) / _LARGEST_PART, 1.0)
        tried = z - 0.5 ** tf.range(_HALVES, dtype=z.dtype)[:, None] * move
        return [tried[tf.argmin(value(tried))]]

    (z,) = tf.while_loop(
        lambda z: tf.reduce_any(tf.abs(slope(z)) > _TOLERANCE * shares * z ** (-1.0 / alpha)),
        step,
        [tf.ones_like(lengths)],
        maximum_iterations=_MOST_STEPS,
    )
    scale = tf.cast(scale, "float64")
    factor = tf.where(scale > 0, scale, 1.0) ** (-2.0 * alpha / (1.0 + alpha))
    return tf.cast(tf.where(active, factor * start * z, 0.0), "float32")


@keras.saving.register_keras_serializable(package="tag_keras")
class FairGrad(GradientMethod):
    """FairGrad (Ban and Ji, ICML 2024, arXiv 2402.15638): alpha-fair gradients.

    The shared variables get d = sum_i w_i g_i, which makes the sum of the utilities
    <g_i, d> ** (1 - alpha) / (1 - alpha) of the tasks as large as it can be. Its weights solve

        <g_i, d> = w_i ** (-1 / alpha)    for each i

    The larger alpha, the more counts the task whose loss falls least: `alpha=1` is the direction of
    `NashMTL`, without end it is that of `MGDA`. A task without a gradient takes no part.

    The length of d depends on alpha: gradients that are c times as long make a d that is
    c ** ((1 - alpha) / (1 + alpha)) times as long. So with `alpha=2` it grows as the gradients
    vanish: take an optimizer that divides by the size of gradients, such as Adam, or a learning
    rate that falls.

    A step makes one backward pass per task. Take it to choose between the best sum and the best for
    the worst task.

    Args:
        alpha: Number from 0.1 to 10. The paper uses 1, 2, 5 and 10. Below 0.5 and from 5 on, the
            equations of some tasks may be left unsolved by a few percent if gradients differ in
            length by a hundredfold or more.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `alpha` is not from 0.1 to 10.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.FairGrad())
    ```
    """

    needs_scale = True

    def __init__(self, alpha: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        wanted = "from 0.1 to 10, such as 2.0"
        self.alpha = check_number("alpha", alpha, wanted, lambda number: 0.1 <= number <= 10)

    def coefficients(self, gram: tf.Tensor, scale: tf.Tensor = 1.0) -> tf.Tensor:
        return fair_coefficients(gram, self.alpha, scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}
