"""What replicates of a mean tell of its noise: standard errors, intervals, paired differences."""

import numpy as np
import numpy.typing as npt
import scipy.special

Array = npt.NDArray[np.float64]
Interval = tuple[Array, Array]


def replicates_of(batch_means: npt.ArrayLike, batch_counts: npt.ArrayLike) -> Array:
    """Replicates of the mean over all values, from means of batches that may differ in size.

    With m_b and n_b the mean and number of values of batch b, n the sum of n_b, m the mean of all
    values and B the number of batches that are not empty, the replicate of batch b is

        u_b = m + B * n_b * (m_b - m) / n

    which is m_b where the batches are of one size. The mean of the replicates is m, and their
    standard error that of a ratio of two sums, linearised: m is the sum of n_b * m_b by that of
    n_b, and the size of a batch may be random, too.

    Args:
        batch_means: Array (B, ...); where its batch is empty, a mean is not looked at.
        batch_counts: Array (B, ...): number of values of each batch.

    Returns:
        Array (B, ...), NaN for an empty batch.
    """
    counts = np.asarray(batch_counts, np.float64)
    means = np.where(counts > 0, np.asarray(batch_means, np.float64), 0.0)
    total = np.maximum(counts.sum(axis=0), 1.0)
    mean = (counts * means).sum(axis=0) / total
    replicates = mean + (counts > 0).sum(axis=0) * counts * (means - mean) / total
    return np.where(counts > 0, replicates, np.nan)


def mean_and_error(replicates: Array) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """Mean over the first axis, its standard error and the number of replicates behind them.

    NaN is left out. The mean of none is NaN, and so is the standard error of fewer than two.
    """
    known = ~np.isnan(replicates)
    number = known.sum(axis=0)
    mean = np.where(known, replicates, 0.0).sum(axis=0) / np.maximum(number, 1)
    squares = np.where(known, replicates - mean, 0.0) ** 2
    error = np.sqrt(squares.sum(axis=0) / np.maximum((number - 1) * number, 1))
    return np.where(number > 0, mean, np.nan), np.where(number > 1, error, np.nan), number


def interval(
    mean: Array,
    standard_error: Array,
    number: npt.NDArray[np.int64] | None,
    confidence: float,
) -> Interval:
    """Two-sided interval: `mean` and as many standard errors on either side as the level asks.

    Args:
        mean: Array of any shape.
        standard_error: Array of that shape.
        number: Array of that shape: how many replicates the standard error is computed from, for
            Student's t with one degree of freedom less; None takes the normal distribution.
        confidence: Level, between 0 and 1.

    Returns:
        Lower and upper ends, NaN where they are not known.

    Raises:
        ValueError: If `confidence` is out of range.
    """
    # The comparison is false for NaN.
    if not 0 < confidence < 1:
        raise ValueError(
            "`confidence` should be a number between 0 and 1, such as 0.95. Received: "
            f"confidence={confidence!r}."
        )
    below = (1 + confidence) / 2
    if number is None:
        quantile = scipy.special.ndtri(below)
    else:
        student = scipy.special.stdtrit(np.maximum(number - 1, 1), below)
        quantile = np.where(number > 1, student, np.nan)
    return mean - quantile * standard_error, mean + quantile * standard_error


def interval_of_differences(
    mean: Array, standard_error: Array, replicates: Array, confidence: float
) -> Interval:
    """Two-sided intervals of the differences between rows, for each column.

    With replicates, the differences are paired: what all rows of a replicate share, such as the
    noise of a batch, cancels. Without, the errors of the rows are taken as independent.

    Args:
        mean: Array (T, T).
        standard_error: Array (T, T), looked at only if there are no replicates.
        replicates: Array (B, T, T); B may be 0.
        confidence: Level, between 0 and 1.

    Returns:
        Lower and upper ends, arrays (T, T, T): of `mean[i, k] - mean[j, k]` at [i, j, k].
    """
    if len(replicates):
        return interval(
            *mean_and_error(replicates[:, :, None] - replicates[:, None]), confidence=confidence
        )
    difference = mean[:, None] - mean[None]
    error = np.hypot(standard_error[:, None], standard_error[None])
    return interval(difference, error, None, confidence)
