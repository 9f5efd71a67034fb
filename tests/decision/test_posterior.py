"""The posterior of one task's losses, against dense algebra with every matrix written out."""

import numpy as np
import pytest
import scipy.special

from tag_keras.decision import posterior
from tag_keras.decision.posterior import Design, TaskPosterior

# Tasks 1 and 2 beside the target: no one, 1, 2, both. Both were measured with 3 seeds, the target
# alone with 2, the group with 1 with one.
MEMBERS = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) / 2**0.5
GROUP = np.array([0, 0, 1, 2, 2, 2])
SEED = np.array([0, 2, 1, 0, 1, 2])


def make_design(affinity=True, seed=0, losses=None):
    rng = np.random.default_rng(seed)
    return Design(
        size=np.array([[0, 0], [0.5, 1], [0.5, 1], [1, 1]]),
        members=MEMBERS,
        affinity=np.array([-1.2, 0.3, -0.2, 1.1]) if affinity else None,
        measured=np.array([0, 1, 3]),
        group=GROUP,
        seed=SEED,
        losses=rng.normal(size=6) if losses is None else losses,
    )


def weigh(one, log_prior=0.0):
    """Sets the weights by a prior of the grid."""
    weights = scipy.special.softmax(one.log_likelihoods + log_prior)
    one.weigh(weights, [weights])
    return weights


def dense(design, log_prior):
    """Weights of the grid, posterior means and variances (N,), without any of the short cuts."""
    y, columns = design.losses, design.columns
    rows = design.measured[design.group]
    n, number = len(y), len(columns)
    same_seed = (design.seed[:, None] == design.seed).astype(float)
    ones = np.ones(n)
    logs, means, variances = [], [], []
    slopes = columns[:, 1:5] - columns[:, 1:5].mean(axis=0)
    for shift, tilt, own, size, members, affinity in design.multiples:
        prior = np.diag([0, size, size, members, members, affinity])
        between = columns @ prior @ columns.T + own * np.eye(number)
        alike = shift + tilt * slopes @ slopes.T
        noise = alike[np.ix_(rows, rows)] * same_seed + np.eye(n)
        covariance = between[np.ix_(rows, rows)] + noise
        inverse = np.linalg.inv(covariance)
        precision = ones @ inverse @ ones
        level = ones @ inverse @ y / precision
        squares = (y - level) @ inverse @ (y - level)
        log_determinant = np.linalg.slogdet(covariance)[1] + np.log(precision)
        logs.append(-0.5 * (log_determinant + (n - 1) * np.log(squares)))
        cross = between[:, rows]
        means.append(level + cross @ inverse @ (y - level))
        left = 1 - cross @ inverse @ ones
        variance = np.diag(between - cross @ inverse @ cross.T) + left**2 / precision
        variances.append(variance * squares / (n - 3))
    weights = scipy.special.softmax(np.array(logs) + log_prior)
    means = np.array(means)
    mean = weights @ means
    return weights, mean, weights @ (means**2 + variances) - mean**2


@pytest.mark.parametrize("affinity", [True, False])
def test_it_equals_dense_algebra(affinity, monkeypatch):
    monkeypatch.setattr(posterior, "_LEAST_WEIGHT", 0.0)
    design = make_design(affinity)
    log_prior = np.random.default_rng(1).normal(size=len(design.multiples))
    one = TaskPosterior(design)
    found = weigh(one, log_prior)
    weights, mean, variance = dense(design, log_prior)
    np.testing.assert_allclose(found, weights, rtol=1e-6)
    means, variances = one.mean_and_variance()
    np.testing.assert_allclose(means, mean, rtol=1e-7)
    np.testing.assert_allclose(variances, variance, rtol=1e-6)


def test_points_of_little_weight_hardly_count():
    design = make_design()
    one = TaskPosterior(design)
    weigh(one)
    _, mean, variance = dense(design, np.zeros(len(design.multiples)))
    means, variances = one.mean_and_variance()
    np.testing.assert_allclose(means, mean, atol=1e-4)
    np.testing.assert_allclose(variances, variance, rtol=0.03)


def test_draws_have_the_mean_and_the_covariance_of_the_posterior():
    # Many losses, so that Student's t has a variance that few draws tell.
    rng = np.random.default_rng(0)
    design = make_design(losses=np.zeros(6))
    group, seed = map(np.ravel, np.meshgrid(range(3), range(12), indexing="ij"))
    losses = rng.normal(size=36) + 3 * group
    design = Design(design.size, MEMBERS, design.affinity, design.measured, group, seed, losses)
    one = TaskPosterior(design)
    weigh(one)
    mean, variance = one.mean_and_variance()
    draws = one.draw(np.arange(4), 40_000, np.random.default_rng(2))
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * np.sqrt(variance.max() / 40_000))
    # The group that was not measured has tails as wide as its multiples are uncertain.
    np.testing.assert_allclose(draws.var(axis=0)[[0, 1, 3]], variance[[0, 1, 3]], rtol=0.06)
    np.testing.assert_allclose(draws.var(axis=0)[2], variance[2], rtol=0.5)


def test_draws_of_a_difference_have_its_deviation():
    # Without a prior on anything but own: the posterior of two groups' difference is that of two
    # shrunk means. With 200 seeds nothing is shrunk, and the deviation is that of the means.
    group, seed = map(np.ravel, np.meshgrid(range(3), range(200), indexing="ij"))
    rng = np.random.default_rng(0)
    losses = np.array([0.0, 1.0, 2.0])[group] + 5 * rng.normal(size=200)[seed]
    losses += rng.normal(size=600)
    base = make_design()
    one = TaskPosterior(Design(base.size, MEMBERS, None, base.measured, group, seed, losses))
    weigh(one)
    draws = one.draw(np.array([0, 3]), 20_000, np.random.default_rng(2))
    means = [losses[group == index].mean() for index in (0, 2)]
    difference = draws[:, 1] - draws[:, 0]
    assert difference.mean() == pytest.approx(means[1] - means[0], abs=0.02)
    # The shift of the seeds, of deviation 5, cancels.
    assert difference.std() == pytest.approx((2 / 200) ** 0.5, rel=0.1)


def test_equal_losses_leave_no_doubt():
    design = make_design(losses=np.full(6, 0.3))
    one = TaskPosterior(design)
    weigh(one)
    mean, variance = one.mean_and_variance()
    np.testing.assert_array_equal(mean, 0.3)
    np.testing.assert_array_equal(variance, 0)
    np.testing.assert_array_equal(one.draw(np.arange(4), 5, np.random.default_rng(0)), 0.3)


def test_it_follows_a_change_of_unit_and_of_origin():
    design = make_design()
    results = []
    for losses in (design.losses, 1e-9 * design.losses + 4e-9):
        one = TaskPosterior(make_design(losses=losses))
        weigh(one)
        results.append(one.mean_and_variance())
    (mean, variance), (moved, moved_variance) = results
    np.testing.assert_allclose(moved, 1e-9 * mean + 4e-9, rtol=1e-6)
    np.testing.assert_allclose(moved_variance, 1e-18 * variance, rtol=1e-6)


def test_a_huge_shift_of_a_seed_takes_nothing_from_the_differences():
    group, seed = map(np.ravel, np.meshgrid(range(3), range(4), indexing="ij"))
    rng = np.random.default_rng(0)
    losses = np.array([0.0, 1.0, 2.0])[group] + 0.1 * rng.normal(size=12)
    base, means = make_design(), []
    for shift in (0.0, 10.0):
        shifted = losses + shift * seed
        one = TaskPosterior(Design(base.size, MEMBERS, None, base.measured, group, seed, shifted))
        weigh(one)
        means.append(one.mean_and_variance()[0])
    np.testing.assert_allclose(np.diff(means[1]), np.diff(means[0]), atol=0.15)


def test_the_grid():
    multiples = make_design().multiples
    assert not multiples[0].any()
    assert len(make_design(affinity=False).multiples) * len(posterior.AFFINITY) == len(multiples)
    assert len({*map(tuple, multiples)}) == len(multiples)


def test_the_draws_of_a_case_stand_together():
    design = make_design()
    one = TaskPosterior(design)
    by_members = design.multiples[:, [2, 4, 5]].any(axis=1)
    cases = [share * case / case.sum() for case, share in ((~by_members, 0.3), (by_members, 0.7))]
    one.weigh(sum(cases), cases)
    draws = one.draw(np.arange(4), 1000, np.random.default_rng(0))
    # The groups of rows 1 and 2 are of one size.
    equal = np.isclose(draws[:, 1], draws[:, 2], atol=1e-12)
    assert equal[:300].all()
    assert not equal[300:].any()


def test_the_share_of_affinity():
    # The affinity has a variance of 1, or nearly; of the members' two columns, each takes the
    # values 0 and 1 / sqrt(2) for half of the groups: 1 / 8 each.
    design = make_design()
    share = design.share_of_affinity()
    _, _, own, size, members, affinity = design.multiples.T
    assert not share[affinity == 0].any()
    # Of size, the columns are 0, 1/2, 1/2, 1 and 0, 1, 1, 1: 1 / 8 and 3 / 16.
    point = (own == 1) & (size == 10) & (members == 100) & (affinity == 10)
    np.testing.assert_allclose(share[point], 10 / (1 + 10 * 5 / 16 + 100 / 4 + 10))
