"""Estimated losses of all groups: `estimate_group_losses`."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special

from tag_keras.affinity import Affinity
from tag_keras.decision.measured import (
    Group,
    Masks,
    MeasuredLosses,
    group_of,
    mask_of,
    read_measured,
)
from tag_keras.decision.posterior import Design, TaskPosterior
from tag_keras.results import Array, Row
from tag_keras.selection.network_table import NetworkTable
from tag_keras.utils.checks import check

# Draws from the posterior, for probabilities and intervals.
NUM_DRAWS = 2000
# The prior of the grid counts as much as so many tasks.
_PRIOR_TASKS = 2.0
_POOLING_STEPS = 20
# All groups of more tasks do not fit into memory.
MOST_TASKS = 15
# Prior probabilities: groups are alike, only their size counts, everything may.
_CASES = (0.2, 0.3, 0.5)


class GroupLosses:
    """Estimated loss of each task in each group. `estimate_group_losses` makes it.

    Args:
        measured: The losses.
        affinity: Affinities of the same tasks, or None.

    Attributes:
        tasks: T task names.
        groups: All M = 2**T - 1 groups, as tuples of names, measured or not. Of more than 15 tasks,
            the M measured ones.
        is_measured: Array (M,): whether the group was trained.
        mean: Array (M, T): posterior mean of each task's loss, NaN for a task that is not in the
            group.
        standard_error: Array (M, T): its posterior deviation. Infinite for a task with three losses
            or fewer.
        noise: Array (T,): deviation of a task's loss between seeds of one group, beyond what the
            seed changes alike in all groups or with their size and members. It is taken to be one
            for all groups, and is told only down to a hundredth of how far groups differ.
        correlation: Correlation of this noise between the tasks of one network, from 0 to 0.95.
        probability_of_effects: Posterior probability that groups are not all alike.
        weight_of_affinity: Array (T,): share of the variation between groups that the affinities
            explain, from 0 to 1; 0 without affinities.
        num_seeds: Largest number of seeds of a group.
    """

    def __init__(self, measured: MeasuredLosses, affinity: Affinity | None) -> None:
        self.tasks = measured.tasks
        self._measured = measured
        self.num_seeds = measured.most_seeds
        number, masks = len(self.tasks), measured.masks
        if number <= MOST_TASKS:
            masks = np.arange(1, 1 << number)
        self._masks, self.is_measured = masks, np.isin(masks, measured.masks)
        self.groups = tuple(group_of(int(mask), self.tasks) for mask in masks)
        designs = [_design(measured, masks, task, affinity) for task in range(number)]
        factorised: dict[bytes, tuple[Array, Array]] = {}
        self._posteriors = [TaskPosterior(design, factorised) for design in designs]
        self.correlation = _correlation(measured.losses)
        weights, self.probability_of_effects, size_only = _weigh(
            self._posteriors, designs[0].multiples, self.correlation
        )
        self._first_draws = round(NUM_DRAWS * size_only)
        self.mean, self.standard_error = np.full((2, len(masks), number), np.nan)
        for task, posterior in enumerate(self._posteriors):
            mean, variance = posterior.mean_and_variance()
            self.mean[_inside(masks, task), task] = mean
            self.standard_error[_inside(masks, task), task] = np.sqrt(variance)
        self.noise = np.sqrt([posterior.residual_variance() for posterior in self._posteriors])
        self.weight_of_affinity = np.array(
            [one @ design.share_of_affinity() for one, design in zip(weights, designs, strict=True)]
        )

    def table(self) -> NetworkTable:
        """The posterior means as a table, for `select_networks(table, budget, sense="min")`."""
        return NetworkTable(self.tasks, self.groups, self.mean)

    def total(self, serves: Sequence[Group]) -> float:
        """Posterior mean of the total loss.

        Args:
            serves: By task, in the order of the tasks, the group that serves it.
        """
        rows = self._rows(serves, self._masks)
        return float(self.mean[rows, range(len(rows))].sum())

    def draw(self, choices: Sequence[Sequence[Group]]) -> Array:
        """Draws of the losses (C, T, 2000) of C choices of groups, if groups are not all alike.

        Args:
            choices: For each choice, by task, the group that serves it.
        """
        draws = np.zeros((len(choices), len(self.tasks), NUM_DRAWS))
        for task, posterior in enumerate(self._posteriors):
            inside = self._masks[_inside(self._masks, task)]
            rows = self._rows([serves[task] for serves in choices], inside)
            rows, place = np.unique(rows, return_inverse=True)
            generator = np.random.default_rng(task)
            draws[:, task] = posterior.draw(rows, NUM_DRAWS, generator).T[place]
        return draws

    def total_gain(
        self, losses: Array, over: Array, correlation: Array, deviation: float = 0.0
    ) -> Array:
        """Draws (2000,) of how much less total loss one choice has than another.

        The tasks were drawn independently, but their noise is correlated. So the draws of each task
        are put in an order in which they are, too (a Gaussian copula), and then added.

        Args:
            losses: Draws (T, 2000) of a choice, from `draw`.
            over: Draws (T, 2000) of the choice to compare with, from the same call.
            correlation: Array (T, T), from `noise_correlation` of the two choices.
            deviation: From `sampling_deviation`, that of the gain on other examples.
        """
        normal = np.random.default_rng(0).normal(size=(len(losses), NUM_DRAWS))
        latent = np.linalg.cholesky(correlation) @ normal
        # The draws of each case stay among themselves.
        total = np.zeros(NUM_DRAWS)
        for part in (slice(self._first_draws), slice(self._first_draws, NUM_DRAWS)):
            ranks = latent[:, part].argsort(axis=1).argsort(axis=1)
            ordered = np.sort((over - losses)[:, part], axis=1)
            total[part] = np.take_along_axis(ordered, ranks, axis=1).sum(axis=0)
        if deviation:
            freedom = len(self._measured.parts) - 1
            total += deviation * np.random.default_rng(1).standard_t(freedom, NUM_DRAWS)
        return total

    def noise_correlation(self, serves: Sequence[Group], over: Sequence[Group]) -> Array:
        """Correlation (T, T) of the noise of the tasks' gains by one choice over another.

        Two tasks have noise in common where one network serves both: in both choices, in one or in
        none.

        Args:
            serves: By task, in the order of the tasks, the group that serves it.
            over: The choice to compare with, alike.
        """
        together = [
            [(serves[i] == serves[j]) + (over[i] == over[j]) for j in range(len(serves))]
            for i in range(len(serves))
        ]
        correlation = self.correlation * np.array(together) / 2
        np.fill_diagonal(correlation, 1.0)
        return correlation

    def sampling_deviation(self, serves: Sequence[Group], over: Sequence[Group]) -> float:
        """Deviation of the gain of one choice over another that the choice of examples causes.

        It is the standard error of the gain between the parts of the split, 0 if these are not
        known. For a group that was not trained, the mean of its task over the others counts.

        Args:
            serves: By task, in the order of the tasks, the group that serves it.
            over: The choice to compare with, alike.
        """
        parts, masks = self._measured.parts, self._measured.masks
        if not len(parts):
            return 0.0
        gains, variance = np.zeros(len(parts)), 0.0
        for task, (group, other) in enumerate(zip(serves, over, strict=True)):
            places = [np.flatnonzero(masks == mask_of(one, self.tasks)) for one in (group, other)]
            if all(len(place) for place in places):
                gains += parts[:, places[1][0], task] - parts[:, places[0][0], task]
            elif group != other:
                # The joint network has the largest mask, the last one.
                changes = parts[:, :-1, task] - parts[:, -1:, task]
                variance += float(np.nanmean(changes.var(axis=0, ddof=1)))
        return float(((gains.var(ddof=1) + variance) / len(parts)) ** 0.5)

    def _rows(self, groups: Sequence[Group], masks: Masks) -> npt.NDArray[np.intp]:
        wanted = np.array([mask_of(group, self.tasks) for group in groups], masks.dtype)
        return np.searchsorted(masks, wanted)

    def __repr__(self) -> str:
        return f"GroupLosses(tasks={self.tasks}, num_seeds={self.num_seeds})"


def estimate_group_losses(
    rows: Iterable[Row],
    affinity: Affinity | None = None,
    split: str = "validation",
    parts: Sequence[str] | None = None,
) -> GroupLosses:
    """Estimates the loss of each task in every group, from the losses of some trained networks.

    A loss of one network is noisy: another seed changes it by more than most groups differ. So each
    measured loss is pulled towards what the others say, by a Bayesian regression for each task on
    the size of the group, the other tasks in it, its affinity and an effect of its own, where
    losses of one seed may have a shift in common. Seeds tell the noise; how much each term
    varies is estimated from all tasks together. Before the data, groups are all alike with a
    probability of 0.2, only their size counts with 0.3, and everything may with 0.5.
    (An empirical Bayes estimate, as of Efron & Morris 1973; the model is this package's own.)

    Args:
        rows: Results of trained networks, such as
            `tag_keras.results.load_results("results.json")`: at least the joint network and one
            network per task. Networks count by their tasks, of the roles `"joint"`, `"single"`,
            `"group"` and `"candidate"`, in full size and trained to the end. With one seed, noise
            and effects of groups cannot be told apart.
        affinity: Affinities of the same tasks, by any estimator. How much they explain is
            estimated, too, and may be nothing.
        split: Split whose losses count; not the split that judges.
        parts: Splits that are equal parts of that one, such as five fifths of the validation data.
            By default those that `experiment.run` evaluates, if `rows` has them. How far gains
            differ between them tells how far they would on other examples. Intervals and
            probabilities then count that; the estimated losses stay those of these examples. Rows
            of the whole split may be missing. Take at least three parts, better five.

    Returns:
        `GroupLosses`: of all groups, measured or not, for up to 15 tasks; of the measured ones for
        more.

    Raises:
        ValueError: If networks or losses are missing, a loss is not finite, or networks have other
            tasks than the joint one.

    Example:

    ```python
    from tag_keras.results import Row

    measured = {("a", "b"): (0.6, 0.4), ("a",): (0.9,), ("b",): (0.3,)}
    rows = [
        Row("network", group, seed, task, "validation", loss + 0.01 * seed, {}, 60.0, role="group")
        for group, losses in measured.items()
        for seed in range(3)
        for task, loss in zip(group, losses)
    ]
    estimate = tag_keras.estimate_group_losses(rows)
    estimate.groups, estimate.mean.round(2)
    ```
    """
    measured = read_measured(rows, split, parts)
    if affinity is not None:
        check(
            isinstance(affinity, Affinity) and {*affinity.tasks} == {*measured.tasks},
            "`affinity` should be an Affinity of the tasks of the networks",
            affinity=affinity,
            tasks=measured.tasks,
        )
        off_diagonal = ~np.eye(len(affinity.tasks), dtype=bool)
        known = np.isfinite(affinity.mean[off_diagonal]).all()
        check(bool(known), "`affinity` should have a value for every pair", affinity=affinity)
    return GroupLosses(measured, affinity)


def _inside(masks: Masks, task: int | Masks) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (masks >> np.asarray(task, masks.dtype) & 1).astype(bool)
    return inside


def _design(measured: MeasuredLosses, masks: Masks, task: int, affinity: Affinity | None) -> Design:
    """The groups with a task, out of all whose losses are estimated, and their losses."""
    number = len(measured.tasks)
    masks = masks[_inside(masks, task)]
    members = _inside(masks[:, None], np.delete(np.arange(number), task))
    others = max(number - 1, 1)
    feature = None
    if affinity is not None:
        order = [affinity.tasks.index(one) for one in measured.tasks]
        onto = np.delete(affinity.mean[order, order[task]], task)
        feature = members @ onto
        feature = (feature - feature.mean()) / (feature.std() or 1.0)
    chosen = _inside(measured.masks, task)
    losses = measured.losses[chosen, :, task]
    group, seed = np.nonzero(~np.isnan(losses))
    return Design(
        size=np.stack([members.sum(axis=1) / others, members.any(axis=1)], axis=1),
        members=members / others**0.5,
        affinity=feature,
        measured=np.searchsorted(masks, measured.masks[chosen]),
        group=group,
        seed=seed,
        losses=losses[group, seed],
    )


def _weigh(
    posteriors: Sequence[TaskPosterior], multiples: Array, correlation: float
) -> tuple[Array, float, float]:
    """Weighs the points (K,) of the grid for each task.

    There are three cases, with prior probabilities of 0.2, 0.3 and 0.5: all groups are alike; only
    their size counts; everything may. In each, a multiple that is not 0 by the case has a prior
    distribution, one half at 0 and the rest even, as much as two tasks say, and then what the tasks
    themselves say (by expectation maximisation).

    Args:
        posteriors: Those of the T tasks; their weights are set.
        multiples: Array (K, 6): the grid.
        correlation: That of the noise between tasks. It makes their evidence worth less.

    Returns:
        Posterior weights (T, K); the posterior probability that groups are not all alike; and the
        probability that only their size counts, if they are not.
    """
    likelihoods = np.array([posterior.log_likelihoods for posterior in posteriors])
    by_size, by_members = multiples[:, 3] > 0, multiples[:, [2, 4, 5]].any(axis=1)
    weights, evidence = [], []
    for case in (~by_size & ~by_members, by_size & ~by_members, by_size):
        within, prior = _pooled(likelihoods[:, case], multiples[case])
        weights.append(np.zeros_like(likelihoods))
        weights[-1][:, case] = within
        # As if all tasks had the same multiples: with a distribution of their own for each task, as
        # for the weights, a few tasks that tell something would count for little.
        worth = 1 / (1 + (len(posteriors) - 1) * correlation)
        together = worth * likelihoods[:, case].sum(axis=0) + prior
        evidence.append(scipy.special.logsumexp(together))
    log_probabilities = np.array(evidence) + np.log(_CASES)
    probabilities = scipy.special.softmax(log_probabilities)
    every = np.einsum("c,ctk->tk", probabilities, weights)
    not_alike = scipy.special.softmax(log_probabilities[1:])
    cases = np.einsum("c,ctk->tck", not_alike, weights[1:])
    for task, posterior in enumerate(posteriors):
        posterior.weigh(every[task], cases[task])
    return every, float(1 - probabilities[0]), float(not_alike[0])


def _pooled(likelihoods: Array, multiples: Array) -> tuple[Array, Array]:
    """Weights (T, K) of points with a prior that the tasks share; its logarithm before the data."""
    places, priors = [], []
    for values in multiples.T:
        found, place = np.unique(values, return_inverse=True)
        places.append(place)
        even = np.full(len(found), 1 / len(found))
        if found[0] == 0 and len(found) > 1:
            even = np.array([0.5] + [0.5 / (len(found) - 1)] * (len(found) - 1))
        priors.append(even)
    first = prior = _log_prior(priors, places)
    weights = scipy.special.softmax(likelihoods + first, axis=1)
    for _ in range(_POOLING_STEPS):
        total = weights.sum(axis=0)
        pooled = [
            (_PRIOR_TASKS * prior + np.bincount(place, total, len(prior)))
            / (_PRIOR_TASKS + len(likelihoods))
            for prior, place in zip(priors, places, strict=True)
        ]
        prior = _log_prior(pooled, places)
        weights = scipy.special.softmax(likelihoods + prior, axis=1)
    return weights, first


def _log_prior(priors: Sequence[Array], places: Sequence[Any]) -> Array:
    """Logarithm (K,) of the prior of the points, out of the distributions of some multiples."""
    total: Array = sum(np.log(prior)[place] for prior, place in zip(priors, places, strict=True))
    return total


def _correlation(losses: Array) -> float:
    """Correlation between tasks of what is left of losses (G, R, T) without group and seed."""
    known = ~np.isnan(losses)
    several = known.any(axis=2).sum(axis=1) > 1
    losses, known = losses[several], known[several]
    if not len(losses):
        return 0.0
    left = np.where(known, losses, 0.0)
    # Both means are 0 after one round if all groups have all seeds, and nearly so after three.
    for axis in (1, 0, 1, 0, 1, 0):
        number = np.maximum(known.sum(axis=axis, keepdims=True), 1)
        left = np.where(known, left - left.sum(axis=axis, keepdims=True) / number, 0.0)
    together = np.einsum("grs,grt->st", known * 1.0, known * 1.0)
    covariance = np.einsum("grs,grt->st", left, left) / np.maximum(together, 1.0)
    deviation = np.sqrt(np.diag(covariance))
    apart = ~np.eye(len(deviation), dtype=bool)
    scale = np.outer(deviation, deviation)[apart].sum()
    return float(np.clip(covariance[apart].sum() / scale, 0.0, 0.95)) if scale else 0.0
