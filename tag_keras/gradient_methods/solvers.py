"""What several gradient methods solve, in float64: small differences decide on signs."""

import tensorflow as tf

# Eigenvalues of the cosines below this are raised to it.
_LEAST_EIGENVALUE = 1e-5
# Most steps of a search for each task. It nearly always ends within five.
_MOST_STEPS_BY_TASK = 20
# Steps that may change all wrong signs although their number does not fall.
_TRIALS = 3
# Values above this count as not negative. The matrix has a trace from 1 to T.
_TOLERANCE = 1e-12


def exact(gram: tf.Tensor) -> tf.Tensor:
    """The Gram matrix in float64; zeros if one of its entries is infinite or not a number.

    The optimizer leaves out a step that overflows. It needs no solution, but must not fail.
    """
    gram = tf.cast(gram, "float64")
    return tf.where(tf.reduce_all(tf.math.is_finite(gram)), gram, tf.zeros_like(gram))


def with_ridge(gram: tf.Tensor, ridge: float) -> tf.Tensor:
    """The Gram matrix divided by its trace, with `ridge` added to the diagonal, in float64."""
    gram = exact(gram)
    gram = tf.math.divide_no_nan(gram, tf.linalg.trace(gram))
    return gram + ridge * tf.eye(gram.shape[0], dtype=gram.dtype)


def cosines_and_lengths(gram: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cosines between gradients, and their lengths.

    Rounding may leave eigenvalues below 0, and dependent gradients have some that are 0. These are
    raised a little, so that the cosines have an inverse.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.

    Returns:
        Float64 tensor (T, T), positive definite: cosines, 0 between a gradient that is 0 and the
        others. Float64 tensor (T,): lengths.
    """
    gram = exact(gram)
    lengths = tf.sqrt(tf.linalg.diag_part(gram))
    cosines = tf.math.divide_no_nan(gram, lengths[:, None] * lengths)
    cosines = tf.linalg.set_diag((cosines + tf.transpose(cosines)) / 2, tf.ones_like(lengths))
    values, vectors = tf.linalg.eigh(cosines)
    raised = tf.nn.relu(_LEAST_EIGENVALUE - values)
    return cosines + tf.matmul(vectors * raised, vectors, transpose_b=True), lengths


def number_of(lengths: tf.Tensor) -> tf.Tensor:
    """Number of gradients that are not 0, as a scalar of the type of the lengths (T,)."""
    return tf.reduce_sum(tf.cast(lengths > 0, lengths.dtype))


def solve(matrix: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """The vector x (T,) with matrix x = right, for a positive definite matrix (T, T)."""
    return tf.linalg.cholesky_solve(tf.linalg.cholesky(matrix), right[:, None])[:, 0]


def complementarity(matrix: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
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
