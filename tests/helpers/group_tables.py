"""Tables of the truth benchmark, of tasks with names of one letter, by hand or at random."""

import itertools
from string import ascii_lowercase

import numpy as np

from benchmarks.truth.tables import Table


def row(group):
    """The row of a group such as "ac"."""
    return sum(1 << ascii_lowercase.index(task) for task in group) - 1


def rows(*groups):
    return [row(group) for group in groups]


def losses_of(losses):
    """Array (M, T) of losses by group, such as `{"ab": (0.6, 0.4), ...}`."""
    number = max(map(len, losses))
    array = np.full((2**number - 1, number), np.nan)
    for group, values in losses.items():
        array[row(group), [ascii_lowercase.index(task) for task in group]] = values
    return array


def table_of(*validation, test=None, early=None, folds=None, affinities=None, about=None):
    """A table by arrays (M, T), one for each seed; test and early losses are alike by default."""
    validation = np.stack(validation)
    tasks = tuple(ascii_lowercase[: validation.shape[2]])
    zeros = np.zeros((len(validation), len(tasks), len(tasks)))
    return Table(
        tasks,
        np.arange(1, len(validation[0]) + 1),
        tuple(range(len(validation))),
        validation,
        validation if test is None else np.stack(test),
        validation if early is None else np.stack(early),
        np.stack([validation.mean(axis=0)] * 2) if folds is None else np.stack(folds),
        {"lookahead": zeros if affinities is None else np.stack(affinities)},
        {"problem": "small", "width": 8, "size": None, **(about or {})},
    )


def random_table(num_tasks, num_seeds=4, seed=0, noise=0.05, about=None):
    """A table whose groups, parts and seeds differ at random, with losses about 1."""
    random = np.random.default_rng(seed)
    masks = np.arange(1, 2**num_tasks)
    members = masks[:, None] >> np.arange(num_tasks) & 1 > 0
    true = np.where(members, random.uniform(0.7, 1.3, members.shape), np.nan)

    def noisy(number):
        return true + noise * random.normal(size=(number, *true.shape))

    early, test, validation = (noisy(num_seeds) for _ in range(3))
    affinities = random.normal(size=(num_seeds, num_tasks, num_tasks))
    changes = {"early": early + 0.3, "test": test, "folds": noisy(5), "affinities": affinities}
    return table_of(*validation, **changes, about=about)


def best_by_search(losses, num_networks):
    """The rows that serve the tasks best, by losses (M, T): tries all families of groups."""
    families = itertools.chain.from_iterable(
        itertools.combinations(range(len(losses)), size) for size in range(1, num_networks + 1)
    )
    best, serving = np.inf, None
    for family in families:
        served, total = [], 0.0
        for task in range(losses.shape[1]):
            known = [one for one in family if not np.isnan(losses[one, task])]
            if not known:
                break
            served.append(min(known, key=lambda one: losses[one, task]))
            total += losses[served[-1], task]
        if len(served) == losses.shape[1] and total < best - 1e-12:
            best, serving = total, served
    return serving
