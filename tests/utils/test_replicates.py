"""Noise told by replicates, against scipy.stats and against draws whose truth is known."""

import numpy as np
import pytest
import scipy.stats

from tag_keras.affinity import Affinity
from tag_keras.utils import replicates as replication

NAN = float("nan")
# 32 tasks have 1024 pairs; of as many intervals at 95 %, four deviations are 2.7 %.
MANY = tuple(f"t{index}" for index in range(32))


def make_affinity(replicates, **fields):
    replicates = np.asarray(replicates, float)
    tasks = MANY[: replicates.shape[-1]]
    return Affinity(tasks, np.nanmean(replicates, axis=0), replicates=replicates, **fields)


def coverage(low, high, truth=0.0):
    return np.mean((low <= truth) & (truth <= high))


def batches_of(values, number):
    """Replicates of values (N, T, T) in the order of time."""
    batches = np.array_split(values, number)
    means = [batch.mean(axis=0) for batch in batches]
    return replication.replicates_of(means, [np.full(values.shape[1:], len(b)) for b in batches])


# Replicates.


def test_replicates_of_batches_of_one_size_are_their_means():
    means = np.random.default_rng(0).normal(size=(8, 3, 3))
    np.testing.assert_allclose(
        replication.replicates_of(means, np.full((8, 3, 3), 5)), means, rtol=1e-12
    )


def test_replicates_worked_out_by_hand():
    # m = (1 * 4 + 3 * 0) / 4 = 1; 1 + 2 * 1 * (4 - 1) / 4 = 2.5; 1 + 2 * 3 * (0 - 1) / 4 = -0.5.
    means = [[4.0], [NAN], [0.0], [7.0]]
    counts = [[1], [0], [3], [0]]
    expected = [[2.5], [NAN], [-0.5], [NAN]]
    np.testing.assert_allclose(replication.replicates_of(means, counts), expected)
    assert np.isnan(replication.replicates_of([[NAN], [0.0]], [[0], [0]])).all()


def test_replicates_have_the_mean_of_all_values_and_the_error_of_a_ratio():
    generator = np.random.default_rng(1)
    counts = generator.integers(0, 9, size=(12, 4, 4))
    batches = [[generator.normal(size=n) for n in row.flat] for row in counts]
    means = np.reshape([[b.mean() if len(b) else NAN for b in row] for row in batches], (12, 4, 4))
    replicates = replication.replicates_of(means, counts)
    mean, error, number = replication.mean_and_error(replicates)
    for place, pair in enumerate(np.ndindex(4, 4)):
        together = np.concatenate([row[place] for row in batches])
        assert mean[pair] == pytest.approx(together.mean())
        # The variance of a ratio of sums: that of the residuals y - m x, by (n / B) ** 2.
        used = counts[:, *pair] > 0
        residuals = counts[used, *pair] * (means[used, *pair] - together.mean())
        size = used.sum()
        variance = residuals.var(ddof=1) / size / (len(together) / size) ** 2
        assert error[pair] == pytest.approx(np.sqrt(variance))
        assert number[pair] == size


def test_the_error_covers_batches_of_random_sizes():
    # Means of one value and of sixteen differ in their noise by four.
    generator = np.random.default_rng(2)
    counts = generator.choice([1, 16], size=(16, 32, 32))
    means = generator.normal(size=counts.shape) / np.sqrt(counts)
    low, high = make_affinity(replication.replicates_of(means, counts)).interval()
    assert 0.90 < coverage(low, high) < 0.98


def test_mean_and_error_are_those_of_scipy():
    replicates = np.random.default_rng(3).normal(size=(7, 3, 3))
    replicates[2, 0, 1] = replicates[:, 2, 2] = replicates[1:, 1, 1] = NAN
    mean, error, number = replication.mean_and_error(replicates)
    for pair in np.ndindex(3, 3):
        known = replicates[:, *pair][~np.isnan(replicates[:, *pair])]
        assert number[pair] == len(known)
        expected = (known.mean(), scipy.stats.sem(known)) if len(known) > 1 else (mean[pair], NAN)
        np.testing.assert_allclose((mean[pair], error[pair]), expected, rtol=1e-12)
    assert mean[1, 1] == replicates[0, 1, 1]
    assert np.isnan(mean[2, 2])


# Intervals.


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_intervals_are_those_of_the_t_test(confidence):
    replicates = np.random.default_rng(4).normal(size=(9, 4, 4))
    replicates[3, 0, 1] = NAN
    low, high = make_affinity(replicates).interval(confidence)
    test = scipy.stats.ttest_1samp(replicates, 0, nan_policy="omit")
    expected = test.confidence_interval(confidence)
    np.testing.assert_allclose(low, expected.low, rtol=1e-9)
    np.testing.assert_allclose(high, expected.high, rtol=1e-9)


def test_intervals_without_replicates_are_normal():
    low, high = Affinity(["a", "b"], [[1, 2], [3, 4]], [[1, 0], [NAN, 2]]).interval(0.9)
    expected = scipy.stats.norm.interval(0.9, [1, 4], [1, 2])
    np.testing.assert_allclose([np.diag(low), np.diag(high)], expected)
    assert low[0, 1] == high[0, 1] == 2
    assert np.isnan([low[1, 0], high[1, 0]]).all()


def test_the_interval_of_one_replicate_is_not_known_even_if_its_error_was_given():
    one = make_affinity(np.ones((1, 2, 2)), standard_error=np.ones((2, 2)))
    assert np.isnan(one.interval()).all()
    assert not one.better_sources().any()


@pytest.mark.parametrize("number", [3, 12])
def test_intervals_cover_the_truth_as_often_as_they_say(number):
    replicates = np.random.default_rng(5).normal(size=(number, 32, 32))
    mean = make_affinity(replicates)
    assert 0.93 < coverage(*mean.interval()) < 0.97
    assert 0.46 < coverage(*mean.interval(0.5)) < 0.54
    # Normal quantiles would not do for few replicates.
    normal = Affinity(MANY, mean.mean, mean.standard_error)
    if number == 3:
        assert coverage(*normal.interval()) < 0.85


def test_batches_hold_where_probes_that_follow_each_other_are_alike():
    # AR(1) with coefficient 0.8: the variance of a mean is (1 + 0.8) / (1 - 0.8) = 9 times that
    # of independent probes, so that naive intervals are a third as wide as they should be.
    generator = np.random.default_rng(6)
    values = np.empty((640, 32, 32))
    values[0] = generator.normal(size=(32, 32)) / 0.6
    for step in range(1, len(values)):
        values[step] = 0.8 * values[step - 1] + generator.normal(size=(32, 32))
    naive = Affinity(MANY, values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values)))
    assert coverage(*naive.interval()) < 0.6
    for number in (8, 16):
        assert 0.90 < coverage(*make_affinity(batches_of(values, number)).interval()) < 0.98


# Comparisons of sources.


def test_better_sources_are_those_of_the_paired_t_test():
    generator = np.random.default_rng(7)
    replicates = generator.normal(size=(8, 5, 5)) + generator.normal(size=(5, 5))
    replicates[2, 0, 1] = replicates[5, 3] = replicates[1:, 4, 4] = NAN
    better = make_affinity(replicates).better_sources(0.9)
    assert 10 < better.sum() < 50
    for source, other, target in np.ndindex(5, 5, 5):
        pair = replicates[:, [source, other], target]
        one, two = pair[~np.isnan(pair).any(axis=1)].T
        expected = False
        if source != other and len(one) > 1:
            expected = scipy.stats.ttest_rel(one, two).pvalue < 0.1 and one.mean() > two.mean()
        assert better[source, other, target] == expected, (source, other, target)


def test_better_sources_without_replicates_take_errors_as_independent():
    mean = np.array([[9, 0.0, 0.0], [0.0, 9, 0.0], [0.8, 0.9, 9]])
    error = np.full((3, 3), 0.3)
    # The difference of two has the error 0.3 * sqrt(2) = 0.424, and 1.96 * 0.424 = 0.832.
    better = Affinity(("a", "b", "c"), mean, error).better_sources()
    assert better[2, 0, 1]
    assert not better[2, 1, 0]
    # At 90 %, 1.645 * 0.424 = 0.698.
    assert Affinity(("a", "b", "c"), mean, error).better_sources(0.9)[2, 1, 0]
    # The target itself is a source like any other.
    assert better[0, 1, 0]
    assert not better[0, 0].any()


def test_what_is_not_known_is_not_better():
    mean = [[9, 0, 0], [0, 9, 0], [5, 5, 9]]
    assert not Affinity(("a", "b", "c"), mean).better_sources().any()
    replicates = np.random.default_rng(8).normal(size=(6, 3, 3)) * 1e-3 + mean
    # Each source has three replicates, and together they have one.
    replicates[:3, 2, 0] = replicates[4:, 1, 0] = NAN
    better = make_affinity(replicates).better_sources()
    assert not better[2, 1, 0]
    assert better[2, 0, 1]


def test_noise_that_sources_share_does_not_hide_which_is_better():
    # A replicate moves a target by 1 whatever the source. Sources differ by 0.05, with 0.02 noise.
    generator = np.random.default_rng(9)
    shared = generator.normal(size=(12, 1, 6))
    replicates = shared + 0.05 * np.arange(6)[:, None] + 0.02 * generator.normal(size=(12, 6, 6))
    paired = make_affinity(replicates)
    better = paired.better_sources()
    truth = np.greater.outer(np.arange(6), np.arange(6))
    assert better[truth].mean() > 0.9
    assert not better[~truth].any()
    alone = Affinity(paired.tasks, paired.mean, paired.standard_error)
    assert not alone.better_sources().any()


def test_sources_that_are_alike_differ_as_often_as_chance_says():
    generator = np.random.default_rng(10)
    replicates = generator.normal(size=(12, 1, 32)) + generator.normal(size=(12, 32, 32))
    better = make_affinity(replicates).better_sources()
    either = better | better.transpose(1, 0, 2)
    different = ~np.eye(32, dtype=bool)
    assert either[different].mean() == pytest.approx(0.05, abs=0.01)
    assert not (better & better.transpose(1, 0, 2)).any()


@pytest.mark.parametrize("number", [0, 8])
def test_permuting_the_tasks_permutes_the_better_sources(number):
    generator = np.random.default_rng(11)
    replicates = generator.normal(size=(number, 5, 5)) + 2 * generator.normal(size=(5, 5))
    mean, error = generator.normal(size=(5, 5)), np.full((5, 5), 0.4)
    mean = replicates.mean(axis=0) if number else mean
    order = [3, 0, 4, 1, 2]
    pairs = np.ix_(order, order)
    better = Affinity(MANY[:5], mean, error, replicates=replicates).better_sources()
    names = [MANY[place] for place in order]
    permuted = Affinity(
        names, mean[pairs], error[pairs], replicates=replicates[:, order][:, :, order]
    )
    assert better.any()
    expected = better[np.ix_(order, order, order)]
    np.testing.assert_array_equal(permuted.better_sources(), expected)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, NAN])
@pytest.mark.parametrize("method", ["interval", "better_sources"])
def test_confidence_is_between_0_and_1(method, confidence):
    message = "`confidence` should be a number between 0 and 1, such as 0.95. Received: confidence="
    with pytest.raises(ValueError, match=message + str(confidence)):
        getattr(Affinity(["a"], [[1.0]]), method)(confidence)
