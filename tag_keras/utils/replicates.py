"""The noise of a mean, from replicates: standard errors, intervals, paired differences."""

import numpy as np
import numpy.typing as npt
import scipy.special

Array = npt.NDArray[np.float64]
Interval = tuple[Array, Array]


def replicates_of(batch_means: npt.ArrayLike, batch_counts: npt.ArrayLike) -> Array:
    """Replicates of the mean over all values, from means of batches that may differ in size.

    Let m_b and n_b be the mean and the number of values of batch b, n the sum of the n_b, m the
    mean of all values, and B the number of batches with values. The replicate of batch b is

        u_b = m + B * n_b * (m_b - m) / n

    With batches of one size this is m_b. The mean of the replicates is m. Their standard error is
    the linearised error of the ratio sum(n_b * m_b) / sum(n_b), where n_b may be random, too.

    Args:
        batch_means: Array (B, ...): means of the batches. The mean of an empty batch is not read.
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
    """Mean over the first axis, its standard error, and the number of replicates behind them.

    NaN is left out. Without replicates the mean is NaN; with fewer than two the error is NaN.
    """
    known = ~np.isnan(replicates)
    number = known.sum(axis=0)
    mean = np.where(known, replicates, 0.0).sum(axis=0) / np.maximum(number, 1)
    squares = np.where(known, replicates - mean, 0.0) ** 2
    error = np.sqrt(squares.sum(axis=0) / np.maximum((number - 1) * number, 1))
    return np.where(number > 0, mean, np.nan), np.where(number > 1, error, np.nan), number


def interval(
    mean: Array, standard_error: Array, number: npt.NDArray[np.int64] | None, confidence: float
) -> Interval:
    """Two-sided confidence interval of a mean, NaN where it is not known.

    Args:
        mean: Array of any shape; all others have the same.
        standard_error: Standard error of the mean.
        number: Number N of replicates behind the standard error, for Student's t with N - 1 degrees
            of freedom. `None` takes the normal distribution.
        confidence: Confidence level, between 0 and 1.

    Raises:
        ValueError: If `confidence` is out of range.
    """
    # False for NaN, too.
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
    """Two-sided confidence intervals of the differences between rows, for each column.

    With replicates, the differences are paired: noise that all rows of a replicate share, such as
    the noise of a batch, cancels. Without them, the errors of the rows count as independent.

    Args:
        mean: Array (T, T).
        standard_error: Array (T, T), used only without replicates.
        replicates: Array (B, T, T); B may be 0.
        confidence: Confidence level, between 0 and 1.

    Returns:
        Lower and upper ends, arrays (T, T, T): entry [i, j, k] is for `mean[i, k] - mean[j, k]`.
    """
    if len(replicates):
        differences = replicates[:, :, None] - replicates[:, None]
        return interval(*mean_and_error(differences), confidence)
    difference = mean[:, None] - mean[None]
    error = np.hypot(standard_error[:, None], standard_error[None])
    return interval(difference, error, None, confidence)
