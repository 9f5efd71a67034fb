"""Which groups to train next: those that may be the best, none that were trained."""

import numpy as np
from group_rows import simulated
from group_tables import best_by_search

import tag_keras
from tag_keras.decision import plan
from tag_keras.decision.plan import next_groups


def estimate_of(masks, num_seeds=3, **options):
    groups = {1, 2, 4, 8, 15} | {*masks}
    rows, _ = simulated(num_tasks=4, num_seeds=num_seeds, groups=groups, **options)
    return tag_keras.estimate_group_losses(rows)


def untrained(estimate):
    trained = zip(estimate.groups, estimate.is_measured, strict=True)
    return [group for group, one in trained if not one]


def test_the_first_are_those_of_the_best_choices():
    estimate = estimate_of([], members=0.2, own=0.01, seed=2)
    first = next_groups(estimate, 3, 10)
    best = [option.grouping.groups for option in tag_keras.decide_groups(estimate, 3).options]
    new = {group for groups in best for group in groups if group in untrained(estimate)}
    assert new and {*first[: len(new)]} == new
    assert next_groups(estimate, 3, 1) == first[:1]
    # All that are left, each once.
    every = next_groups(estimate, 3, 100)
    assert {*every} == {*untrained(estimate)} and len(every) == 10


def test_then_come_those_of_the_best_choices_if_losses_were_lower():
    # Against a search of all choices. The order tells by how many standard errors.
    estimate = estimate_of([3, 5, 6], members=0.1, own=0.05, seed=3)
    expected = {}
    for optimism in (0.0, 0.5, 1.0, 2.0):
        lowest = estimate.mean - optimism * estimate.standard_error
        for number in (2, 3):
            rows = best_by_search(lowest, number)
            new = {estimate.groups[row] for row in rows} & {*untrained(estimate)}
            expected.setdefault(optimism, set()).update(new)
    seen, place = set(), 0
    every = next_groups(estimate, 3, 100)
    for groups in expected.values():
        further = groups - seen
        assert {*every[place : place + len(further)]} == further
        seen, place = seen | further, place + len(further)
    # More optimism finds more.
    assert len(seen) > len(expected[0.0])


def test_the_others_stand_in_the_order_of_what_they_may_gain(monkeypatch):
    monkeypatch.setattr(plan, "_OPTIMISM", ())
    estimate = estimate_of([3, 5], members=0.1, own=0.05, seed=1)
    gains = {
        group: sum(
            estimate.mean[-1, task] - estimate.mean[row, task] + estimate.standard_error[row, task]
            for task in range(4)
            if np.isfinite(estimate.mean[row, task])
        )
        for row, group in enumerate(estimate.groups)
    }
    expected = sorted(untrained(estimate), key=lambda group: -gains[group])
    assert next_groups(estimate, 3, 100) == expected


def test_where_all_were_trained_none_is_left():
    assert next_groups(estimate_of(range(1, 16)), 3, 5) == []
    rows, _ = simulated(num_tasks=1)
    assert next_groups(tag_keras.estimate_group_losses(rows), 1, 5) == []


def test_one_seed_has_no_standard_errors():
    estimate = estimate_of([3], num_seeds=1, members=0.1)
    assert np.isinf(estimate.standard_error).any()
    assert len(next_groups(estimate, 2, 3)) == 3
