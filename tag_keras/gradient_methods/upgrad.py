"""Methods that combine the gradients of the tasks: what `compile(gradient_method=...)` takes."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.utils.checks import check_number

# Steps of the solver for each task. Those that change all signs at once nearly always end within
# five; the bound is for the others.
_STEPS_BY_TASK, _TRIALS = 20, 3
# Of signs; the matrix has the trace 1.
_TOLERANCE = 1e-12


def upgrad_coefficients(gram: tf.Tensor, ridge: float = 1e-4) -> tf.Tensor:
    """Coefficients of the gradients in the sum of their projections onto the dual cone (UPGrad;
    Quinton and Rey 2024, arXiv 2406.16232, eq. 3 and 4).

    The projection of g_i is the vector closest to it that has no negative product with any of the
    gradients. It is g_i + sum_j lambda_j g_j with the lambda >= 0 that makes it shortest.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.
        ridge: Added to the diagonal, relative to the trace: dependent gradients have no unique
            coefficients without it.

    Returns:
        Tensor (T,): all 1 where no two gradients conflict.
    """
    # In float64, because of the differences near 0 that decide on signs.
    gram = tf.cast(gram, "float64")
    # A step that overflows is left out by the optimizer: it needs no solution, but must not fail.
    gram = tf.where(tf.reduce_all(tf.math.is_finite(gram)), gram, tf.zeros_like(gram))
    gram = tf.math.divide_no_nan(gram, tf.linalg.trace(gram))
    regular = gram + ridge * tf.eye(gram.shape[0], dtype="float64")
    # One problem in each row. The ridge is no conflict: its diagonal is positive.
    added = _complementarity(regular, regular)
    return tf.cast(1.0 + tf.reduce_sum(added, axis=0), "float32")


def _complementarity(matrix: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Solves x >= 0, matrix x + offset >= 0, x * (matrix x + offset) = 0 for several offsets.

    Block principal pivoting (Kim and Park, SIAM J. Sci. Comput. 2011). A set of free variables
    gives one solution of the equations; those that have the wrong sign change sides, all at once
    as long as this makes them fewer, and otherwise only the last one, by which it comes to an end.

    Args:
        matrix: Tensor (T, T), positive definite.
        offsets: Tensor (N, T).

    Returns:
        Tensor (N, T).
    """
    tasks, identity = matrix.shape[0], tf.eye(matrix.shape[0], dtype=matrix.dtype)

    def solve(free: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The values that belong to boolean sets (N, T), and which of their signs are wrong."""
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
        maximum_iterations=_STEPS_BY_TASK * tasks,
    )
    return tf.maximum(results[1], 0.0)


@keras.saving.register_keras_serializable(package="tag_keras")
class UPGrad(GradientMethod):
    """Unconflicting projection of gradients (UPGrad; Quinton and Rey 2024, arXiv 2406.16232).

    Every task's gradient is replaced by the closest vector that has no negative product with any
    of the gradients; the shared variables get the sum of the results. Unlike that of PCGrad, a
    small step along this sum increases no task's loss, and it depends on no order. If no two
    gradients conflict, this is the plain sum (the paper takes the mean, which is T times smaller).

    Args:
        ridge: Number, relative to the sum of the squared lengths of the gradients, that is added to
            these squares, because nearly parallel gradients would give no unique solution.
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
        # The products are of float32: less would not make up for their rounding.
        self.ridge = check_number("ridge", ridge, wanted, lambda number: 1e-6 <= number <= 1)

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        return upgrad_coefficients(gram, self.ridge)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ridge": self.ridge}
