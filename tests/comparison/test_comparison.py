"""Losses of joint, single and grouped networks side by side."""

import itertools

import numpy as np
import pytest
from guard_cases import TASKS
from report_cases import ABC_GROUPING, make_grouping, rows_with_totals

from tag_keras.comparison.comparison import best_networks, losses_as_text
from tag_keras.results import Row


@pytest.mark.parametrize("seed", range(8))
def test_the_best_networks_have_the_least_of_all_totals(seed):
    """Against every choice of a seed for each network, losses with ties among them."""
    rng = np.random.default_rng(seed)
    groups = [("a", "b"), ("b", "c"), TASKS, ("a",), ("b",), ("c",)]
    names = ["group_0", "group_1", "joint", "single_a", "single_b", "single_c"]
    rows = [
        Row(name, group, number, task, "validation", round(rng.normal(), 1), {}, 1.0)
        for name, group in zip(names, groups, strict=True)
        for number in rng.permutation(5)[: rng.integers(1, 5)].tolist()
        for task in group
    ]
    table = {(row.tasks, row.seed, row.task): row.loss for row in rows}
    seeds = {group: [seed for one, seed, _ in table if one == group] for group in groups}
    served = {
        task: groups[rng.choice([i for i in range(6) if task in groups[i]])] for task in "abc"
    }
    networks, total = best_networks(rows, "validation", served)
    used = [*dict.fromkeys(served.values())]
    best = min(
        sum(table[group, chosen[used.index(group)], task] for task, group in served.items())
        for chosen in itertools.product(*(seeds[group] for group in used))
    )
    assert total == pytest.approx(best)
    assert [*networks] == used
    mine = sum(table[group, networks[group][1], task] for task, group in served.items())
    assert mine == pytest.approx(best)
    assert all(name == names[groups.index(group)] for group, (name, _) in networks.items())


def test_the_losses_as_text():
    # a has half of each total, b and c a quarter. Deviation of 1, 2 and 3: 1.
    rows = rows_with_totals(joint=[1.0, 2.0, 3.0], grouped=[2.0, 2.0, 2.0])
    assert losses_as_text(make_grouping(**ABC_GROUPING), rows).splitlines() == [
        "test loss                        joint           grouped",
        "a                     1.0000 +- 0.5000  1.0000 +- 0.0000",
        "b                     0.5000 +- 0.2500  0.5000 +- 0.0000",
        "c                     0.5000 +- 0.2500  0.5000 +- 0.0000",
        "total                 2.0000 +- 1.0000  2.0000 +- 0.0000",
    ]
    # Of a training that diverged.
    rows = rows_with_totals(joint=[1.0, 2.0, 3e20], grouped=[1e8, 1e8, 1e8])
    assert losses_as_text(make_grouping(**ABC_GROUPING), rows).splitlines()[-1] == (
        "total                 1.0e+20 +- 1.7e+20  100000000.0000 +- 0.0000"
    )
    one = losses_as_text(make_grouping(**ABC_GROUPING), rows_with_totals(joint=[1.0]))
    assert one.splitlines()[-1] == "total                           1.0000"
