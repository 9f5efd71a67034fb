"""Stability of a grouping, against probabilities of the normal distribution."""

import math

import numpy as np
import pytest
import scipy.stats

from benchmarks import planted
from tag_keras.affinity import Affinity
from tag_keras.selection.groups import select_groups
from tag_keras.selection.stability import _draw, grouping_stability

normal = scipy.stats.norm
SAMPLES = 400
# Two standard errors of a fraction of 1/2. The draws are always the same.
NEAR = 2 * 0.5 / math.sqrt(SAMPLES)


def two_tasks(onto_b, onto_a, errors, **fields):
    """b gets `onto_b` from a, and a gets `onto_a` from b."""
    standard_error = [[0, errors[0]], [errors[1], 0]]
    return Affinity(["a", "b"], [[0, onto_b], [onto_a, 0]], standard_error, **fields)


def expected_excess(mean, error):
    """E max(x, 0) for x normal."""
    return error * normal.pdf(mean / error) + mean * normal.cdf(mean / error)


def test_two_tasks_that_may_be_alone():
    # Two networks serve each task together or alone, whichever is better: the one group is chosen
    # if both gain, and the tasks share no network if both lose.
    found = grouping_stability(
        two_tasks(0.1, 0.2, (0.2, 0.3)), 2, num_samples=SAMPLES, singletons="baseline"
    )
    gains = normal.cdf(0.1 / 0.2), normal.cdf(0.2 / 0.3)
    assert found.grouping.groups == (("a", "b"),)
    assert found.wins == pytest.approx(gains[0] * gains[1], abs=NEAR)
    apart = (1 - gains[0]) * (1 - gains[1])
    np.testing.assert_allclose(found.share, [[1, 1 - apart], [1 - apart, 1]], atol=NEAR)
    # Alone, a task loses nothing where it would be below 0.
    regret = (expected_excess(-0.1, 0.2) + expected_excess(-0.2, 0.3)) / 2
    assert found.regret == pytest.approx(regret, abs=2 * 0.2 / math.sqrt(SAMPLES))
    assert (found.tasks, found.num_samples) == (("a", "b"), SAMPLES)


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.9])
def test_errors_of_two_pairs_are_correlated_as_their_replicates(correlation):
    # Replicates with just this correlation: two directions that are orthogonal to each other and
    # to the constant one.
    first, second = np.array([1, -1, 1, -1]), np.array([1, 1, -1, -1])
    mixed = correlation * first + math.sqrt(1 - correlation**2) * second
    replicates = np.zeros((4, 2, 2))
    replicates[:, 0, 1], replicates[:, 1, 0] = 0.1 + 7 * first, 0.2 + mixed
    affinity = two_tasks(0.1, 0.2, (0.2, 0.3), replicates=replicates)
    found = grouping_stability(affinity, 2, num_samples=SAMPLES, singletons="baseline")
    both = scipy.stats.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]])
    assert found.wins == pytest.approx(both.cdf([0.1 / 0.2, 0.2 / 0.3]), abs=NEAR)
    assert found.share[0, 1] == pytest.approx(1 - both.cdf([-0.1 / 0.2, -0.2 / 0.3]), abs=NEAR)


def test_three_tasks_of_which_two_help_the_third():
    # a and b are best for each other. c goes with a, which gives it .5, or with b, which gives .3.
    mean = [[0, 1, 0.5], [1, 0, 0.3], [0, 0, 0]]
    errors = [[0, 0, 0.3], [0, 0, 0.4], [0, 0, 0]]
    found = grouping_stability(Affinity(["a", "b", "c"], mean, errors), 2, num_samples=SAMPLES)
    assert found.grouping.groups == (("a", "b"), ("a", "c"))
    # The difference has the error hypot(.3, .4) = .5.
    with_a = normal.cdf(0.2 / 0.5)
    expected = [[1, 1, with_a], [1, 1, 1 - with_a], [with_a, 1 - with_a, 1]]
    np.testing.assert_allclose(found.share, expected, atol=NEAR)
    assert found.wins == found.share[0, 2]
    near = 2 * 0.3 / math.sqrt(SAMPLES)
    assert found.regret == pytest.approx(expected_excess(-0.2, 0.5) / 3, abs=near)


def test_scores_alone_are_those_given():
    # The same as with a baseline of 0, all affinities and scores being larger by 5.
    affinity = two_tasks(5.1, 5.2, (0.2, 0.3))
    shifted = grouping_stability(affinity, 2, num_samples=50, singletons={"a": 5.0, "b": 5.0})
    found = grouping_stability(
        two_tasks(0.1, 0.2, (0.2, 0.3)), 2, num_samples=50, singletons="baseline"
    )
    assert 0 < shifted.wins == found.wins < 1
    assert shifted.regret == pytest.approx(found.regret)


def test_groups_are_chosen_as_the_options_say():
    affinity, _ = clusters(0.1)
    options = {"partition": True, "max_group_size": 4, "together": [["a0", "b0"]]}
    once = {**options, "together": iter(options["together"])}
    found = grouping_stability(affinity, 3, num_samples=20, **once)
    assert found.grouping == select_groups(affinity, 3, **options)
    # Each task is in one group, of four tasks at most.
    assert (found.share.sum(axis=0) <= 4).all()
    assert found.share[0, 3] == 1
    assert found.regret > 0


def test_one_family_is_all_there_is():
    found = grouping_stability(two_tasks(0.1, -0.2, (1.0, 1.0)), 2, num_samples=20)
    assert (found.wins, found.regret) == (1.0, 0.0)
    np.testing.assert_array_equal(found.share, 1)


def clusters(error):
    """Affinities of 9 tasks in clusters of three, with the same error for each pair."""
    generator = np.random.default_rng(0)
    same = planted.same_cluster()[:-1, :-1]
    mean = np.where(same, 0.1, 0.0) + generator.normal(0, 0.01, same.shape)
    return Affinity(planted.TASKS[:-1], mean, np.full(same.shape, error)), same


def test_without_noise_nothing_changes():
    affinity, same = clusters(0.0)
    found = grouping_stability(affinity, 3, num_samples=5)
    assert found.grouping.groups == planted.CLUSTERS
    assert (found.wins, found.regret) == (1.0, 0.0)
    np.testing.assert_array_equal(found.share, same | np.eye(9, dtype=bool))


@pytest.mark.slow
def test_clusters_are_found_less_often_the_larger_the_errors():
    shares, wins, regrets = [], [], []
    for error in (0.02, 0.1, 0.3):
        affinity, same = clusters(error)
        found = grouping_stability(affinity, 3, num_samples=20)
        np.testing.assert_array_equal(found.share, found.share.T)
        np.testing.assert_array_equal(np.diag(found.share), 1)
        shares.append(found.share[same].mean())
        wins.append(found.wins)
        regrets.append(found.regret)
    assert shares[0] > 0.9 > shares[1] > shares[2]
    assert wins[0] > 0.9 > wins[1] > wins[2]
    assert regrets[0] < regrets[1] < regrets[2]


def test_draws_have_the_errors_and_the_correlations_of_the_replicates():
    generator = np.random.default_rng(2)
    shared = generator.normal(size=(12, 1, 3))
    replicates = generator.normal(size=(12, 3, 3)) + 2 * shared
    affinity = Affinity(["a", "b", "c"], replicates.mean(axis=0), replicates=replicates)
    pairs = ~np.eye(3, dtype=bool)
    for scale in (1, 3):
        scaled = Affinity(
            list("abc"), affinity.mean, scale * affinity.standard_error, replicates=replicates
        )
        draws = _draw(scaled, 40_000, np.random.default_rng(0))
        np.testing.assert_array_equal(draws[:, ~pairs], 0)
        error = scale * replicates.std(axis=0, ddof=1) / math.sqrt(12)
        np.testing.assert_allclose(draws.mean(axis=0)[pairs], affinity.mean[pairs], atol=0.05)
        np.testing.assert_allclose(draws.std(axis=0)[pairs], error[pairs], rtol=0.02)
        np.testing.assert_allclose(
            np.corrcoef(draws[:, pairs].T), np.corrcoef(replicates[:, pairs].T), atol=0.02
        )


def test_pairs_that_replicates_do_not_tell_of():
    generator = np.random.default_rng(3)
    replicates = generator.normal(size=(6, 2, 2))
    # Half of the replicates lack one pair; the other is the same in all of them.
    replicates[3:, 0, 1] = np.nan
    replicates[:, 1, 0] = 0.5
    affinity = two_tasks(0.1, 0.5, (0.2, 0.3), replicates=replicates)
    draws = _draw(affinity, 40_000, np.random.default_rng(0))
    np.testing.assert_allclose(draws[:, 0, 1].std(), 0.2, rtol=0.02)
    np.testing.assert_allclose(draws[:, 1, 0].std(), 0.3, rtol=0.02)
    assert abs(np.corrcoef(draws[:, 0, 1], draws[:, 1, 0])[0, 1]) < 0.02


def test_the_seed_makes_the_draws():
    affinity, _ = clusters(0.1)
    first, again, other = (
        grouping_stability(affinity, 3, num_samples=8, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.share, again.share)
    assert (first.wins, first.regret) == (again.wins, again.regret)
    assert (first.share != other.share).any()


def test_what_is_not_known_of_a_task_with_itself_does_not_matter():
    affinity = two_tasks(0.1, 0.2, (0.2, 0.3))
    mean, error = affinity.mean.copy(), affinity.standard_error.copy()
    np.fill_diagonal(mean, np.nan)
    np.fill_diagonal(error, np.nan)
    unknown = Affinity(["a", "b"], mean, error, count=[[0, 1], [1, 0]])
    options = {"num_groups": 2, "num_samples": 50, "singletons": "baseline"}
    found, expected = (grouping_stability(a, **options) for a in (unknown, affinity))
    assert (found.wins, found.regret) == (expected.wins, expected.regret)


def test_errors():
    affinity = two_tasks(0.1, 0.2, (0.2, 0.3))
    with pytest.raises(ValueError, match=r"`num_samples` should be at least 1\. .*num_samples=0"):
        grouping_stability(affinity, 1, num_samples=0)
    with pytest.raises(ValueError, match=r"`num_samples` should be an integer\. .*=2\.0"):
        grouping_stability(affinity, 1, num_samples=2.0)
    for seed in (None, 0.5, -1, True):
        match = rf"`seed` should be an integer from 0 on\. Received: seed={seed}\."
        with pytest.raises(ValueError, match=match):
            grouping_stability(affinity, 1, seed=seed)
    with pytest.raises(ValueError, match="`num_groups` should be at least 1"):
        grouping_stability(affinity, 0)
    with pytest.raises(ValueError, match="`singletons` should be"):
        grouping_stability(affinity, 1, singletons="maybe")
    with pytest.raises(ValueError, match="`affinity` should be an Affinity"):
        grouping_stability([[0.0]], 1)
    match = r"standard errors for all pairs of two tasks; measure more probes, or combine runs by "
    match += r"tag_keras\.Affinity\.combine\. Received: pairs='b -> a: 0\.2'"
    with pytest.raises(ValueError, match=match):
        grouping_stability(two_tasks(0.1, 0.2, (0.2, np.nan)), 1)
