"""The fewest groups that cover all tasks, against search, closed forms and colourings."""

import itertools

import numpy as np
import pytest
from selection_oracle import list_groups

from tag_keras.selection.solvers.cover import fewest_groups
from tag_keras.selection.solvers.problem import GroupProblem


def make_problem(num_tasks, max_size=None, partition=False, alone=(), units=(), apart=()):
    """A problem in which the tasks `alone` may be alone, with some units of several tasks."""
    scores = np.full(num_tasks, -np.inf)
    scores[list(alone)] = 0.0
    rest = set(range(num_tasks)) - set().union(*units)
    pairs = np.zeros((num_tasks, num_tasks), bool)
    for first, second in apart:
        pairs[first, second] = pairs[second, first] = True
    return GroupProblem(
        np.zeros((num_tasks, num_tasks)),
        scores,
        partition,
        max_size or num_tasks,
        (*units, *((task,) for task in sorted(rest))),
        pairs,
    )


def check_family(problem, family):
    members = np.zeros((len(family), len(problem.alone)), bool)
    for row, group in enumerate(family):
        members[row, list(group)] = True
        assert group == tuple(sorted(set(group)))
    assert family == sorted(set(family))
    assert problem.admissible(members).all() and members.any(axis=0).all()
    assert not problem.partition or (members.sum(axis=0) == 1).all()


def search_fewest(num_tasks, partition, alone, **limits):
    """The number of groups by trying all families, None if there is none."""
    groups = list_groups([0.0 if task in alone else None for task in range(num_tasks)], **limits)
    for number in range(1, num_tasks + 1):
        for family in itertools.combinations(groups, number):
            tasks = sorted(itertools.chain.from_iterable(family))
            if set(tasks) == set(range(num_tasks)) and (not partition or len(tasks) == num_tasks):
                return number
    return None


def test_equals_a_search_over_all_families():
    seen = set()
    for seed in range(250):
        random = np.random.default_rng(seed)
        num_tasks = int(random.integers(2, 6))
        alone = np.flatnonzero(random.random(num_tasks) < (0.3, 0.8)[seed % 2]).tolist()
        max_size = int(random.integers(2, num_tasks + 1))
        pairs = [*itertools.combinations(range(num_tasks), 2)]
        apart = [pair for pair in pairs if random.random() < (0.2, 0.6)[seed % 2]]
        units = [pair for pair in pairs if pair not in apart and random.random() < 0.15][:1]
        partition = bool(random.random() < 0.5)
        problem = make_problem(num_tasks, max_size, partition, alone, units, apart)
        limits = {"max_size": max_size, "together": units, "apart": apart}
        expected = search_fewest(num_tasks, partition, alone, **limits)
        seen.add(expected)
        if expected is None:
            with pytest.raises(ValueError, match="covers all tasks: allow tasks alone"):
                fewest_groups(problem)
        else:
            family = fewest_groups(problem)
            check_family(problem, family)
            assert len(family) == expected, (seed, family)
    assert seen >= {None, 1, 2, 3, 4}


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize(
    ("num_tasks", "max_size", "number"),
    [(100, 100, 1), (100, 99, 2), (100, 7, 15), (100, 3, 34), (100, 2, 50), (16, 15, 2), (2, 2, 1)],
)
def test_a_largest_size_alone_needs_as_many_as_its_multiples(
    num_tasks, max_size, number, partition
):
    problem = make_problem(num_tasks, max_size, partition)
    family = fewest_groups(problem)
    check_family(problem, family)
    assert len(family) == number


def test_an_odd_number_of_tasks_in_pairs():
    # Groups may overlap, or one of the tasks has to be alone.
    for problem in (make_problem(99, 2), make_problem(99, 2, partition=True, alone=[40])):
        family = fewest_groups(problem)
        check_family(problem, family)
        assert len(family) == 50
    message = "No family of groups without overlap covers all tasks"
    with pytest.raises(ValueError, match=message):
        fewest_groups(make_problem(99, 2, partition=True))


@pytest.mark.parametrize("partition", [False, True])
def test_units_are_packed_like_bins(partition):
    # Units of 6, 4, 3, 3, 2, 2 into groups of 10: 20 in all, and 6 + 4, 3 + 3 + 2 + 2 just fit,
    # where the smallest group first would put 6 beside 3.
    units, first = [], 0
    for size in (6, 4, 3, 3, 2, 2):
        units.append(tuple(range(first, first + size)))
        first += size
    problem = make_problem(20, 10, partition, units=units)
    family = fewest_groups(problem)
    check_family(problem, family)
    assert len(family) == 2


@pytest.mark.parametrize("partition", [False, True])
def test_tasks_apart_are_colours(partition):
    # A cycle of 41 needs 3 colours although no three of its tasks are apart from each other. All
    # pairs within 30 tasks apart need 30.
    cycle = [(task, (task + 1) % 41) for task in range(41)]
    all_pairs = [*itertools.combinations(range(30), 2)]
    for num_tasks, apart, number in [(41, cycle, 3), (100, all_pairs, 30)]:
        problem = make_problem(num_tasks, None, partition, apart=apart)
        family = fewest_groups(problem)
        check_family(problem, family)
        assert len(family) == number


def test_mycielski_graph_with_a_gap_between_clique_and_colours():
    # The Grötzsch graph: 11 tasks, no three apart from each other, and 4 colours.
    cycle = [(i, (i + 1) % 5) for i in range(5)]
    apart = [*cycle, *((5 + i, j) for i in range(5) for j in ((i - 1) % 5, (i + 1) % 5))]
    apart += [(10, 5 + i) for i in range(5)]
    problem = make_problem(11, apart=apart, alone=range(11), partition=True)
    family = fewest_groups(problem)
    check_family(problem, family)
    assert len(family) == 4


def test_out_of_time_it_takes_the_next_number_that_is_easy():
    units = [tuple(range(first, last)) for first, last in [(0, 6), (6, 10), (10, 13), (13, 16)]]
    problem = make_problem(20, 10, True, units=[*units, (16, 17), (18, 19)])
    family = fewest_groups(problem, time_limit=1e-9)
    check_family(problem, family)
    assert len(family) == 3


def test_only_the_task_that_may_be_alone_is_left_alone():
    # Pairs of what is not apart: six tasks have to be in pairs, so that the seventh is task 0.
    apart = [(0, 1), (0, 2), (1, 3), (1, 6), (2, 4), (2, 5), (3, 5), (3, 6), (4, 6), (5, 6)]
    problem = make_problem(7, 2, partition=True, alone=[0], apart=apart)
    family = fewest_groups(problem)
    check_family(problem, family)
    assert len(family) == 4 and (0,) in family
