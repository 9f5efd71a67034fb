"""Selection out of tables of networks: exhaustive search, published objectives, ties, errors."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from tag_keras import NetworkTable, select_networks

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def random_table(seed):
    """A table of up to 8 networks of up to 5 tasks; in half of the kinds, there are many ties."""
    random = np.random.default_rng(seed)
    num_tasks = int(random.integers(1, 6))
    groups = [
        group
        for size in range(1, num_tasks + 1)
        for group in itertools.combinations(range(num_tasks), size)
    ]
    costs = [
        np.ones(2 * len(groups)),
        random.choice([0.1, 0.2, 0.3, 0.5], size=2 * len(groups)),
        random.uniform(0.1, 2.0, size=2 * len(groups)),
        np.array([math.sqrt(len(group)) for group in groups * 2]),
    ][seed % 4]
    scores = [
        random.normal(size=(2 * len(groups), num_tasks)),
        random.choice([0.0, 0.1, 0.2, 0.3], size=(2 * len(groups), num_tasks)),
        random.choice([-1.0, 1.0], size=(2 * len(groups), num_tasks)),
        1000 + random.choice([1e-3, 2e-3], size=(2 * len(groups), num_tasks)),
    ][seed // 4 % 4]
    chosen, found = [], set()
    for row in random.permutation(2 * len(groups))[:8]:
        if (groups[row % len(groups)], costs[row]) not in found:
            found.add((groups[row % len(groups)], costs[row]))
            chosen.append(row)
    networks = [groups[row % len(groups)] for row in chosen]
    if {*range(num_tasks)} - {*itertools.chain(*networks)}:
        return random_table(seed + 100_000)
    inside = np.array([[task in group for task in range(num_tasks)] for group in networks])
    tasks = [f"t{task}" for task in range(num_tasks)]
    names = [[f"t{task}" for task in group] for group in networks]
    return NetworkTable(tasks, names, np.where(inside, scores[chosen], np.nan), costs[chosen])


def all_choices(table, partition):
    """(cost, number, memberships, keys, rows, best scores for "min", for "max") of each cover."""
    positions = [tuple(table.tasks.index(task) for task in group) for group in table.networks]
    for size in range(1, len(positions) + 1):
        for rows in itertools.combinations(range(len(positions)), size):
            memberships = sum(len(positions[row]) for row in rows)
            covered = len({task for row in rows for task in positions[row]})
            if covered == len(table.tasks) and (memberships == covered or not partition):
                keys = sorted((positions[row], row) for row in rows)
                scores = table.scores[list(rows)]
                values = [np.nanmin(scores, axis=0).mean(), np.nanmax(scores, axis=0).mean()]
                cost = math.fsum(table.costs[row] for row in rows)
                yield cost, size, memberships, keys, values


def search_exhaustively(table, choices, budget, sense):
    column, sign = (0, 1.0) if sense == "min" else (1, -1.0)
    choices = [choice for choice in choices if choice[0] <= budget * (1 + 1e-9)]
    if not choices:
        return None
    best = min(sign * choice[4][column] for choice in choices)
    tied = [c for c in choices if sign * c[4][column] <= best + 1e-9 * np.nanmax(abs(table.scores))]
    least = min(choice[0] for choice in tied)
    first = min((c for c in tied if c[0] <= least + 1e-9 * budget), key=lambda choice: choice[1:4])
    return sign * best, tuple(row for _, row in first[3]), first[0]


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("sense", ["min", "max"])
@pytest.mark.parametrize("first", range(0, 320, 80))
def test_equals_exhaustive_search(first, sense, partition):
    for seed in range(first, first + 80):
        table = random_table(seed)
        choices = list(all_choices(table, partition))
        budget = float(np.random.default_rng(seed).choice([0.3, 0.6, 1.0, 2.0, 3.0]))
        expected = search_exhaustively(table, choices, budget, sense)
        if expected is None:
            remedy = "at least" if choices else "should have networks"
            with pytest.raises(ValueError, match=remedy):
                select_networks(table, budget, sense, partition=partition)
            continue
        selection = select_networks(table, budget, sense, partition=partition)
        score, rows, cost = expected
        assert selection.networks == rows, (seed, budget)
        assert selection.score == pytest.approx(score, rel=1e-9, abs=1e-9)
        assert selection.cost == pytest.approx(cost)
        assert selection.optimal is True
        assert selection.upper_bound == pytest.approx(score, rel=1e-12, abs=1e-12)
