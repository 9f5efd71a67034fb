"""Random problems of the selection, and all groups of the small ones, for the tests."""

import dataclasses

import numpy as np
from selection_oracle import list_groups, score_table

from tag_keras.selection.solvers.problem import GroupProblem


def make_affinities(seed, num_tasks, kind):
    """Noise, whole numbers with many ties, or clusters with noise."""
    random = np.random.default_rng([seed, num_tasks])
    if kind == "whole":
        return random.integers(-2, 3, (num_tasks, num_tasks)).astype(float)
    noise = random.normal(size=(num_tasks, num_tasks))
    cluster = random.integers(max(2, num_tasks // 5), size=num_tasks)
    same = np.equal.outer(cluster, cluster)
    return same + 0.5 * noise if kind == "clusters" else noise


def make_problem(mean, **changes):
    number = len(mean)
    problem = GroupProblem(
        affinity=np.asarray(mean, float),
        alone=np.full(number, -np.inf),
        partition=False,
        max_size=number,
        units=tuple((task,) for task in range(number)),
        apart=np.zeros((number, number), bool),
    )
    return dataclasses.replace(problem, **changes)


def random_problem(seed, num_tasks, kind="noise", partition=False):
    """Affinities, with each of the other arguments at random, or not at all."""
    random = np.random.default_rng([seed, num_tasks, partition])
    changes = {"partition": partition}
    if random.random() < 0.4:
        changes["max_size"] = int(random.integers(2, num_tasks + 1))
    scores = random.integers(-1, 2, num_tasks) if kind == "whole" else random.normal(size=num_tasks)
    may = random.random(num_tasks) < random.choice([0.0, 0.3, 1.0])
    changes["alone"] = np.where(may, scores, -np.inf)
    if num_tasks > 5 and random.random() < 0.3:
        rest = tuple((task,) for task in range(num_tasks) if task not in (0, 2))
        changes["units"] = ((0, 2), *rest)
    if num_tasks > 5 and random.random() < 0.3:
        changes["apart"] = pairs_apart(num_tasks, (1, 3), (4, 5))
    return make_problem(make_affinities(seed, num_tasks, kind), **changes)


def pairs_apart(num_tasks, *pairs):
    apart = np.zeros((num_tasks, num_tasks), bool)
    for first, second in pairs:
        apart[first, second] = apart[second, first] = True
    return apart


def all_members(problem):
    """Every group that is allowed (G, T), and its scores, by the definitions."""
    alone = [float(score) if np.isfinite(score) else None for score in problem.alone]
    groups = list_groups(
        alone,
        problem.max_size,
        [unit for unit in problem.units if len(unit) > 1],
        np.argwhere(problem.apart).tolist(),
    )
    table = score_table(problem.affinity, groups, alone)
    return table > -np.inf, table


def all_profits(problem, prices, table):
    """Profits of all groups: scores above the prices, or all scores where none may overlap."""
    margins = np.where(table > -np.inf, table - prices, 0.0)
    return (margins if problem.partition else np.maximum(margins, 0.0)).sum(axis=1)


def as_groups(members):
    return sorted(tuple(np.flatnonzero(row).tolist()) for row in members)
