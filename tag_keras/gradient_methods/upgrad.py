"""UPGrad: project gradients so that their sum conflicts with none of them."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.utils.checks import check_number

# Most steps of the solver for each task. It nearly always ends within five.
_MOST_STEPS_BY_TASK = 20
# Steps that may change all wrong signs although their number does not fall.
_TRIALS = 3
# Values above this count as not negative. The matrix has the trace 1.
_TOLERANCE = 1e-12


def upgrad_coefficients(gram: tf.Tensor, ridge: float = 1e-4) -> tf.Tensor:
    """Coefficients of UPGrad (Quinton and Rey, arXiv 2406.16232, eq. 3 and 4), from products alone.

    The projection of g_i onto the dual cone is the vector closest to g_i that has no negative
    product with any gradient. It is g_i + sum_j lambda_j g_j, with the lambda >= 0 that makes it
    shortest. The projections are summed.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.
        ridge: Number, relative to the trace, that is added to the diagonal. Without it dependent
            gradients have no unique coefficients.

    Returns:
        Tensor (T,): coefficients of the g_i in the sum, all 1 where no two gradients conflict.
    """
    # Small differences decide on signs: float32 is too coarse.
    gram = tf.cast(gram, "float64")
    # The optimizer leaves out a step that overflows. It needs no solution, but must not fail.
    gram = tf.where(tf.reduce_all(tf.math.is_finite(gram)), gram, tf.zeros_like(gram))
    gram = tf.math.divide_no_nan(gram, tf.linalg.trace(gram))
    regular = gram + ridge * tf.eye(gram.shape[0], dtype="float64")
    # Row i is the problem of task i. The ridge makes no conflict: it is on the diagonal.
    added = _complementarity(regular, regular)
    return tf.cast(1.0 + tf.reduce_sum(added, axis=0), "float32")


def _complementarity(matrix: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Solves x >= 0, matrix x + offset >= 0, x * (matrix x + offset) = 0 for several offsets.

    Block principal pivoting (Kim and Park, SIAM J. Sci. Comput. 2011). The variables outside of a
    free set are 0, and the free ones solve the equations. Variables with a wrong sign then change
    sides: all at once as long as their number falls, otherwise only the last one, so that the
    search ends.

    Args:
        matrix: Tensor (T, T), positive definite.
        offsets: Tensor (N, T), as is the solution.
    """
    tasks, identity = matrix.shape[0], tf.eye(matrix.shape[0], dtype=matrix.dtype)

    def solve(free: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The values (N, T) for free sets, boolean (N, T), and which of the signs are wrong."""
        both = free[:, :, None] & free[:, None, :]
        factor = tf.linalg.cholesky(tf.where(both, matrix, identity))
        right = tf.where(free, -offsets, tf.zeros_like(offsets))[:, :, None]
        values = tf.linalg.cholesky_solve(factor, right)[:, :, 0]
        slacks = tf.matmul(values, matrix) + offsets
        return values, tf.where(free, values, slacks) < -_TOLERANCE

    def step(
        free: tf.Tensor, values: tf.Tensor, wrong: tf.Tensor, least: tf.Tensor, trials: tf.Tensor
    ) -> list[tf.Tensor]:
        number = tf.reduce_sum(tf.cast(wrong, "int32"), axis=1)
        fewer = number < least
        all_at_once = fewer | (trials > 0)
        trials = tf.where(fewer, _TRIALS, tf.maximum(trials - 1, 0))
        index = tf.range(tasks)
        last = tf.reduce_max(tf.where(wrong, index, -1), axis=1)
        free ^= wrong & (all_at_once[:, None] | (index == last[:, None]))
        return [free, *solve(free), tf.minimum(least, number), trials]

    none_free = tf.zeros(offsets.shape, "bool")
    ones = tf.ones(offsets.shape[:1], "int32")
    results = tf.while_loop(
        lambda free, values, wrong, least, trials: tf.reduce_any(wrong),
        step,
        [none_free, *solve(none_free), (tasks + 1) * ones, _TRIALS * ones],
        maximum_iterations=_MOST_STEPS_BY_TASK * tasks,
    )
    return tf.maximum(results[1], 0.0)


@keras.saving.register_keras_serializable(package="tag_keras")
class UPGrad(GradientMethod):
    """UPGrad (Quinton and Rey 2024, arXiv 2406.16232): unconflicting projection of gradients.

    Each task's gradient is replaced by the closest vector that has no negative product with any
    gradient, and the shared variables get the sum of the results:

        sum_i argmin |v - g_i|^2    over all v with <v, g_j> >= 0 for every j

    Without a conflict, this is the plain sum. Unlike with PCGrad, a small step along it raises no
    task's loss, and the order of the tasks does not matter. The paper takes the mean, which is
    T times smaller.

    A step makes one backward pass per task: about 4 plain steps for nine tasks. Take it where
    gradients of tasks conflict, and one network has to serve all of them.

    Args:
        ridge: Number that is added to the squared length of each gradient, relative to the sum of
            these squares. Without it nearly parallel gradients have no unique solution.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `ridge` is not between 1e-6 and 1.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.UPGrad())
    ```
    """

    def __init__(self, ridge: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        wanted = "between 1e-6 and 1, such as 1e-4"
        # Less would not make up for the rounding of the float32 products.
        self.ridge = check_number("ridge", ridge, wanted, lambda number: 1e-6 <= number <= 1)

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        return upgrad_coefficients(gram, self.ridge)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ridge": self.ridge}
