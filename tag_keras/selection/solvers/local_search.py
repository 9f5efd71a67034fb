"""Local search for good families of groups: random starts, changes that gain, no proof."""

import time

import numpy as np

from tag_keras.selection.solvers.problem import Booleans, Floats, GroupProblem, Rows

# A change counts if it gains more than this; scores differ by about 1.
_LEAST_GAIN = 1e-9


def random_family(
    problem: GroupProblem, num_groups: int, generator: np.random.Generator
) -> Booleans:
    """Groups (K, T): a random unit each, and every other unit in the group that suits it best."""
    units = problem.unit_members()
    between = units.astype(float) @ (problem.affinity + problem.affinity.T) @ units.T
    number = min(num_groups, len(units))
    owners = np.zeros(len(units), np.intp)
    sums, counts = np.zeros((number, len(units))), np.zeros(number)
    for place, unit in enumerate(generator.permutation(len(units))):
        best = (sums[:, unit] / np.maximum(counts, 1)).argmax()
        owners[unit] = place if place < number else best
        sums[owners[unit]] += between[unit]
        counts[owners[unit]] += 1
    members = np.array([units[owners == owner].any(axis=0) for owner in range(number)])
    return members if problem.partition else _with_partners(problem, members)


def _with_partners(problem: GroupProblem, members: Booleans) -> Booleans:
    """The groups (K, T), where each that is not admissible gets the best unit for it."""
    members = members.copy()
    for row in np.flatnonzero(~problem.admissible(members)):
        larger = members[row] | problem.unit_members()
        values = problem.scores(larger)[:, members[row]].sum(axis=1)
        members[row] = larger[np.where(problem.admissible(larger), values, -np.inf).argmax()]
    return members


def climb_family(problem: GroupProblem, members: Booleans, deadline: float) -> Booleans:
    """The family (K, T), changed as long as its sum over tasks of the best score grows.

    A change takes a unit into a group or out of it; in a partition, from one group to another. The
    search ends at the time `deadline` of `time.monotonic`.
    """
    change = _move if problem.partition else _flip
    units = problem.unit_members()
    while time.monotonic() < deadline:
        changed = change(problem, units, members)
        if changed is None:
            break
        members = changed
    return members[members.any(axis=1)]


def _allowed_scores(problem: GroupProblem, members: Booleans) -> Floats:
    scores = problem.scores(members)
    scores[~problem.admissible(members)] = -np.inf
    return scores


def _flip(problem: GroupProblem, units: Booleans, members: Booleans) -> Booleans | None:
    """The family after the best change of each group, as far as each still gains; None if none."""
    flipped = members[:, None] ^ units
    scores = _allowed_scores(problem, members)
    after = _allowed_scores(problem, flipped.reshape(-1, members.shape[1])).reshape(flipped.shape)
    values = np.maximum(after, _best_of_others(scores)[:, None]).sum(axis=2)
    best, value = values.argmax(axis=1), float(scores.max(axis=0).sum())
    changed = None
    for row in np.argsort(-values.max(axis=1), kind="stable"):
        trial = scores.copy()
        trial[row] = after[row, best[row]]
        if trial.max(axis=0).sum() > value + _LEAST_GAIN:
            scores, value = trial, float(trial.max(axis=0).sum())
            changed = members.copy() if changed is None else changed
            changed[row] = flipped[row, best[row]]
    return changed


def _move(problem: GroupProblem, units: Booleans, members: Booleans) -> Booleans | None:
    """The partition after the best move of a unit; None if no move gains."""
    flat = (members[:, None] ^ units).reshape(-1, members.shape[1])
    totals = np.where(problem.admissible(flat), _totals(problem, flat), -np.inf)
    totals[~flat.any(axis=1)] = 0.0
    now = np.where(members.any(axis=1), _totals(problem, members), 0.0)
    # A start may have groups that are not admissible; any way out of them gains.
    valid = problem.admissible(members) | ~members.any(axis=1)
    gains = totals.reshape(len(members), -1) - np.where(valid, now, -1e9)[:, None]
    inside = (members[:, None] & units).any(axis=2)
    columns = np.arange(len(units))
    owners = inside.argmax(axis=0)
    values = gains + gains[owners, columns]
    values[owners, columns] = -np.inf
    target, unit = np.unravel_index(values.argmax(), values.shape)
    if not values[target, unit] > _LEAST_GAIN:
        return None
    changed = members.copy()
    changed[[owners[unit], target]] ^= units[unit]
    return changed


def _totals(problem: GroupProblem, members: Booleans) -> Floats:
    totals: Floats = np.where(members, problem.scores(members), 0.0).sum(axis=1)
    return totals


def _best_of_others(scores: Floats) -> Floats:
    """For each group (K, T), the best score of each task in the other groups."""
    if len(scores) == 1:
        return np.full_like(scores, -np.inf)
    second, first = np.partition(scores, -2, axis=0)[-2:]
    # If two groups are best for a task, the second is as good as the first.
    others: Floats = np.where(scores == first, second, first)
    return others


def interchange(scores: Floats, rows: Rows, deadline: float) -> Rows:
    """Vertex substitution (Teitz and Bart 1968, Operations Research 16) for the p-median problem.

    It replaces one of the groups `rows` by another as long as that gains. Groups may overlap.

    Args:
        scores: Array (G, T), -inf for the tasks that a group does not have.
        rows: Groups that cover all tasks.
        deadline: Time of `time.monotonic` at which the search ends.
    """
    rows = rows.copy()
    value = scores[rows].max(axis=0).sum()
    while time.monotonic() < deadline:
        others = _best_of_others(scores[rows])
        values = np.array([np.maximum(scores, other).sum(axis=1) for other in others])
        place, row = np.unravel_index(values.argmax(), values.shape)
        if not values[place, row] > value + _LEAST_GAIN:
            break
        rows[place], value = row, values[place, row]
    return rows
