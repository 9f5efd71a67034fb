"""The choices below a loss, against all choices listed."""

import itertools

import numpy as np
import pytest

from tag_keras.selection.solvers import enumeration
from tag_keras.selection.solvers.budget_program import COST_TOLERANCE, NetworkProgram
from tag_keras.selection.solvers.enumeration import exchange_networks, list_choices
from tag_keras.selection.solvers.reduction import price_networks


def make_program(seed, partition=False, num_networks=8, num_tasks=4, number=None):
    random = np.random.default_rng(seed)
    members = random.random((num_networks, num_tasks)) < (0.4 if partition else 0.6)
    members[0] = True
    losses = np.where(members, random.choice([0.0, 0.1, 0.2, 0.7], members.shape), np.inf)
    members[~members.any(axis=1), 0] = True
    losses[~np.isfinite(losses).any(axis=1), 0] = 0.3
    costs = random.choice([0.5, 0.7, 1.0], num_networks)
    return NetworkProgram(losses, costs, 2.5, 1e-9, partition, number=number)


def useful_choices(program, most):
    """All affordable covers with at most this sum of losses that need each of their networks."""
    for size in range(1, len(program.losses) + 1):
        for rows in itertools.combinations(range(len(program.losses)), size):
            given = program.losses[list(rows)]
            if program.partition and (np.isfinite(given).sum(axis=0) > 1).any():
                continue
            total = given.min(axis=0).sum()
            without = [np.delete(given, k, axis=0).min(axis=0, initial=np.inf) for k in range(size)]
            useful = all(left.sum() > total for left in without)
            cost = program.costs[list(rows)].sum()
            if useful and cost <= 2.5 * (1 + COST_TOLERANCE) and total <= most:
                yield rows


def reduced_costs(program, prices, mu):
    """Bound before any network and reduced costs, from their definition."""
    gains = np.where(np.isfinite(program.losses), prices - program.losses, -np.inf)
    if program.partition:
        gain = np.where(np.isfinite(gains), gains, 0.0).sum(axis=1)
    else:
        gain = np.maximum(gains, 0.0).sum(axis=1)
    return prices.sum() - mu * 2.5 * (1 + COST_TOLERANCE), mu * program.costs - gain


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("number", [None, 1, 2, 3])
def test_lists_all_choices_whatever_the_prices(partition, number):
    found = 0
    for seed in range(25):
        program = make_program(seed, partition, number=number)
        random = np.random.default_rng(seed)
        base, reduced = reduced_costs(program, random.uniform(0, 0.7, 4), random.uniform(0, 0.5))
        most = float(random.uniform(0.1, 2.0))
        listed = list_choices(program, base, reduced, most)
        assert all(program.losses[rows].min(axis=0).sum() <= most for rows in listed)
        assert all(program.affordable(rows) for rows in listed)
        listed = {tuple(sorted(rows.tolist())) for rows in listed}
        wanted = {rows for rows in useful_choices(program, most) if number in (None, len(rows))}
        assert wanted <= listed
        assert number is None or {len(rows) for rows in listed} <= {number}
        found += len(wanted)
    assert found > 3


def test_good_prices_leave_little_to_do(monkeypatch):
    random = np.random.default_rng(0)
    losses = np.where(random.random((60, 6)) < 0.6, random.random((60, 6)), np.inf)
    program = NetworkProgram(losses, random.uniform(0.5, 1.0, 60), 2.5, 1e-9, False)
    start = exchange_networks(program, np.arange(3))
    base, reduced = price_networks(program, start)
    best = 6 * program.mean_loss(start)
    monkeypatch.setattr(enumeration, "_MOST_STEPS", 5000)
    assert list_choices(program, base, reduced, best)
    # Without prices, there is no bound, and the steps do not suffice.
    assert list_choices(program, 0.0, np.zeros(60), best) is None


def test_prices_over_some_networks_hold_for_all(monkeypatch):
    program = make_program(5, num_networks=60, num_tasks=6)
    base, reduced = price_networks(program, np.array([0]))
    bound = base + np.minimum(reduced, 0.0).sum()
    monkeypatch.setattr("tag_keras.selection.solvers.reduction._MOST_ADDED", 3)
    some_base, some_reduced = price_networks(program, np.array([0]))
    assert some_base + np.minimum(some_reduced, 0.0).sum() == pytest.approx(bound, abs=1e-6)


def test_exchanges_by_hand():
    # From a sum of 1.6, {1} for 0.4 takes the place of the joint network: 1.1. The network for 0
    # would be better still, but takes 3 of the budget of 2.5 with {0}.
    losses = np.array([[0.9, 0.9], [0.7, np.inf], [np.inf, 0.4], [np.inf, 0.0]])
    program = NetworkProgram(losses, np.array([1.0, 1.0, 1.0, 2.0]), 2.5, 1e-9, False)
    assert exchange_networks(program, np.array([0, 1])).tolist() == [1, 2]
    # The joint network first gets {1} beside it, then {0} in its place.
    assert exchange_networks(program, np.array([0])).tolist() == [1, 2]
    program.partition = True
    assert exchange_networks(program, np.array([0])).tolist() == [0]
