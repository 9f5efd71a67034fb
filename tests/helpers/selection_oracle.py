"""Exhaustive searches, by the definitions, that the tests of the selection compare with."""

import functools
import itertools
import math

import numpy as np

import tag_keras


def make_affinity(mean, tasks=None):
    return tag_keras.Affinity(tasks or [f"task{index}" for index in range(len(mean))], mean)


def random_means(seed, num_tasks, kind):
    random = np.random.default_rng([seed, num_tasks])
    mean = random.normal(size=(num_tasks, num_tasks))
    if kind == "rounded":
        return np.round(mean * 0.3, 1)
    # Relative to a step that helps nobody, most affinities can be negative.
    return mean - 0.5 if kind == "negative" else mean


def score_in_group(mean, group, task, alone=0.0):
    others = [mean[source][task] for source in group if source != task]
    return math.fsum(others) / len(others) if others else alone


def list_groups(alone, max_size=None, together=(), apart=()):
    """Groups as sorted tuples of positions, sorted; `alone` has None where that is forbidden."""
    sizes = range(1, (max_size or len(alone)) + 1)
    groups = itertools.chain.from_iterable(
        itertools.combinations(range(len(alone)), size) for size in sizes
    )
    return sorted(
        group
        for group in groups
        if (len(group) > 1 or alone[group[0]] is not None)
        and all(len(set(group) & set(names)) in (0, len(set(names))) for names in together)
        and all(len(set(group) & set(names)) <= 1 for names in apart)
    )


def score_table(mean, groups, alone):
    """Scores (G, T), -inf for a task that is not in the group."""
    table = np.full((len(groups), len(mean)), -np.inf)
    for row, group in enumerate(groups):
        for task in group:
            table[row, task] = score_in_group(mean, group, task, alone[task])
    return table


@functools.cache
def all_families(num_candidates, size):
    numbers = itertools.chain.from_iterable(itertools.combinations(range(num_candidates), size))
    count = math.comb(num_candidates, size) * size
    return np.fromiter(numbers, np.int16, count).reshape(-1, size)


def family_values(table, size, partition):
    """Mean over tasks of the best score, by family; -inf if it is not allowed or not complete."""
    families = all_families(len(table), size)
    best = np.full((len(families), table.shape[1]), -np.inf)
    members = np.zeros((len(families), table.shape[1]), np.int16)
    for column in families.T:
        np.maximum(best, table[column], out=best)
        members += table[column] > -np.inf
    return np.where(partition & (members > 1).any(axis=1), -np.inf, best.mean(axis=1))


def search_families(groups, table, max_groups, tolerance, partition=False):
    """(score, groups) of the best family for 1, 2, .. groups, by the rule for ties.

    It looks at every family, one at a time. None for a number that cannot cover all tasks.
    """
    values, answers = [], []
    for num_groups in range(1, min(max_groups, len(groups)) + 1):
        values.append(family_values(table, num_groups, partition))
        best = max(value.max() for value in values)
        if best == -np.inf:
            answers.append(None)
            continue
        size = next(i for i, value in enumerate(values, 1) if value.max() >= best - tolerance)
        rows = np.flatnonzero(values[size - 1] >= best - tolerance)
        families = [[groups[i] for i in all_families(len(groups), size)[row]] for row in rows]
        chosen = min(families, key=lambda family: (sum(map(len, family)), sorted(family)))
        answers.append((best, sorted(chosen)))
        # Nothing beats every task at its own best, whatever the number of groups.
        if values[-1].max() >= table.max(axis=0).mean() - 1e-6 * tolerance:
            break
    last = answers[-1] if answers else None
    return answers + [last] * (max_groups - len(answers))


def search_exhaustively(mean, max_groups, singletons):
    alone = [None if singletons == "forbid" else 0.0] * len(mean)
    groups = list_groups(alone)
    table = score_table(mean, groups, alone)
    tolerance = 1e-9 * np.abs(table[np.isfinite(table)]).max()
    return search_families(groups, table, max_groups, tolerance)


@functools.cache
def all_partitions(num_tasks):
    """Every way to part the tasks into blocks, each block as the bits of a number."""
    if num_tasks == 0:
        return [()]
    bit = 1 << num_tasks - 1
    return [
        extended
        for blocks in all_partitions(num_tasks - 1)
        for extended in [
            (*blocks, bit),
            *((*blocks[:i], blocks[i] | bit, *blocks[i + 1 :]) for i in range(len(blocks))),
        ]
    ]


def search_partitions(groups, table, max_groups, tolerance, partition=False):
    """As `search_families`, by another way that suits up to 7 tasks, for ties that are exact.

    In a family with the fewest groups each group serves a task. So a family parts the tasks into
    blocks, one for each group, and of the groups that serve a block equally well the smallest is
    the one, and of these the first.
    """
    num_tasks = table.shape[1]
    score, choice = np.full(2**num_tasks, -np.inf), [None] * 2**num_tasks
    for block in range(1, 2**num_tasks):
        tasks = [task for task in range(num_tasks) if block >> task & 1]
        totals = table[:, tasks].sum(axis=1)
        if partition:
            totals = np.where([len(group) == len(tasks) for group in groups], totals, -np.inf)
        score[block] = totals.max(initial=-np.inf)
        if score[block] > -np.inf:
            near = np.flatnonzero(totals >= score[block] - tolerance)
            choice[block] = min(
                (groups[row] for row in near), key=lambda group: (len(group), group)
            )
    found = [
        (sum(score[block] for block in blocks), blocks) for blocks in all_partitions(num_tasks)
    ]
    found = [(total / num_tasks, blocks) for total, blocks in found if total > -np.inf]
    answers = []
    for num_groups in range(1, max_groups + 1):
        few = [(value, blocks) for value, blocks in found if len(blocks) <= num_groups]
        if not few:
            answers.append(None)
            continue
        best = max(few)[0]
        families = [
            sorted(choice[block] for block in blocks)
            for value, blocks in few
            if value >= best - tolerance
        ]
        chosen = min(families, key=lambda groups: (len(groups), sum(map(len, groups)), groups))
        answers.append((best, chosen))
    return answers
