"""The heat maps: what stands where, in which colour and unit."""

import numpy as np
import pytest
from report_cases import FOUR, MINUS, make_affinity, make_choice, make_grouping, make_stability

from tag_keras.affinity import Affinity
from tag_keras.report.heat_maps import affinity_map, stability_map

# c and a are served by the first group, b by the second.
TASKS = ("a", "b", "c")
GROUPING = make_grouping(TASKS, (("a", "c"), ("b", "c")), {"a": 0, "b": 1, "c": 0})


def cells_of(heat_map):
    """By row and column, the cell."""
    return {
        (name, column): cell
        for block in heat_map.blocks
        for name, cells in block
        for column, cell in zip(heat_map.names, cells, strict=True)
    }


def test_tasks_stand_in_the_order_of_their_groups():
    mean = [[0.9, 0.042, -0.013], [0.011, 0.8, 0.0012], [-0.02, 0.005, 0.7]]
    found = affinity_map(Affinity(TASKS, mean, np.full((3, 3), 0.0021)), GROUPING)
    assert found.names == ["a", "c", "b"]
    assert [len(block) for block in found.blocks] == [2, 1]
    cells = cells_of(found)
    assert found.unit == ", in units of 10⁻³"
    # Source a, target b.
    assert (cells["a", "b"].text, cells["a", "b"].error) == ("42.0", "±2.1")
    assert cells["a", "c"].text == f"{MINUS}13.0"
    # 1.96 times 0.0021 is 0.0041.
    assert (cells["b", "c"].text, cells["b", "c"].kind) == ("(1.2)", "noise")
    assert (cells["c", "b"].text, cells["c", "b"].kind) == ("5.0", "")
    assert found.result == f"a helps b most (42.0); c hurts a most ({MINUS}20.0)."


def test_colours_leave_out_what_a_task_does_to_itself():
    mean = [[9.0, 0.5, -1.0], [0.0, 9.0, 0.04], [1.0, -0.06, 9.0]]
    cells = cells_of(affinity_map(Affinity(TASKS, mean), GROUPING))
    steps = {pair: cell.step for pair, cell in cells.items()}
    # Steps of a tenth of the largest, 1: 10 is 0, 20 is 1.
    assert (steps["a", "b"], steps["a", "c"], steps["b", "a"]) == (15, 0, 10)
    assert (steps["b", "c"], steps["c", "b"], steps["c", "a"]) == (10, 9, 20)
    assert steps["a", "a"] is None and cells["a", "a"].kind == "own"


def test_an_outlier_does_not_set_the_scale():
    mean = np.full((4, 4), 0.1)
    mean[0, 1] = 50.0
    found = affinity_map(Affinity(FOUR, mean), make_choice())
    cells = cells_of(found)
    assert cells["a", "b"].step == cells["a", "c"].step == 20
    assert (cells["a", "b"].text, cells["a", "c"].text) == ("5.0e+04", "100")


def test_a_pair_that_was_not_measured_is_blank():
    mean = [[0.9, np.nan, 0.5], [1.0, 0.8, 0.5], [-3.0, 0.5, 0.7]]
    affinity = Affinity(TASKS, mean, count=np.where(np.isnan(mean), 0, 5))
    cell = cells_of(affinity_map(affinity, GROUPING))["a", "b"]
    assert (cell.text, cell.step, cell.title) == ("\N{EN DASH}", None, "not measured")
    unknown = Affinity(["a"], [[1.0]])
    alone = affinity_map(unknown, make_grouping(("a",), (("a",),)))
    assert alone.result == "No pair of different tasks was measured."


def test_many_tasks_have_two_digits():
    tasks = tuple(f"t{index}" for index in range(13))
    mean = np.full((13, 13), 0.00123)
    mean[0, 1], mean[2, 3], mean[4, 5], mean[0, 0] = 0.00345, -0.00007, -0.000001, 0.2
    error = np.full((13, 13), 0.0001)
    found = affinity_map(Affinity(tasks, mean, error), make_choice(groups=(tasks,), tasks=tasks))
    cells = cells_of(found)
    assert not found.few and found.unit == ", in units of 10⁻⁴"
    texts = [cells[pair].text for pair in (("t0", "t1"), ("t2", "t3"), ("t4", "t5"), ("t0", "t0"))]
    assert texts == ["34", f"{MINUS}1", "0", ""]
    assert cells["t0", "t1"].title == "0.00345 ± 0.0001"
    assert (cells["t0", "t1"].kind, cells["t2", "t3"].kind) == ("", "noise")


@pytest.mark.parametrize("size", [1, 2, 12, 13, 40])
def test_every_pair_has_its_cell(size):
    tasks = tuple(f"t{index}" for index in range(size))
    affinity = make_affinity(tasks)
    grouping = make_choice(groups=(tasks[: size // 2 + 1], tasks[size // 2 :]), tasks=tasks)
    cells = cells_of(affinity_map(affinity, grouping))
    assert len(cells) == size**2
    values = {pair: affinity.mean[tasks.index(pair[0]), tasks.index(pair[1])] for pair in cells}
    coloured = {pair: values[pair] for pair, cell in cells.items() if cell.step is not None}
    assert len(coloured) == size**2 - size
    order = sorted(coloured, key=coloured.get)
    assert [cells[pair].step for pair in order] == sorted(cells[pair].step for pair in order)


def test_shares_of_draws():
    found = stability_map(make_stability(), make_choice())
    assert found.names == ["a", "c", "b", "d<e>$f$"]
    cells = cells_of(found)
    assert (cells["a", "c"].text, cells["a", "c"].step, cells["a", "c"].kind) == ("90", 19, "pair")
    assert (cells["b", "c"].text, cells["b", "c"].step, cells["b", "c"].kind) == ("0", 10, "")
    assert cells["a", "a"].text == "" and cells["a", "a"].step is None
    # Of the pairs a, c and b, d.
    assert found.result == (
        "Each pair of the chosen groups shares a network in 74 % of the draws or more."
    )
    other = make_choice(groups=(("a", "b"), ("c", "d<e>$f$")))
    with pytest.raises(ValueError, match="`stability` should be of the groups of `grouping`"):
        stability_map(make_stability(), other)


def test_shares_of_draws_of_lone_tasks():
    alone = tuple((task,) for task in FOUR)
    grouping = make_choice(groups=alone)
    found = stability_map(make_stability(grouping=grouping), grouping)
    assert found.result == "No two tasks share a chosen network."
    assert "pair" not in {cell.kind for cell in cells_of(found).values()}


def test_a_task_that_helps_another_group_shares_its_network():
    # b helps a: the two share a network, which does not serve b.
    groups = (("a", "b"), ("b", "c"), ("d<e>$f$",))
    grouping = make_grouping(FOUR, groups, {"a": 0, "b": 1, "c": 1, "d<e>$f$": 2})
    cells = cells_of(stability_map(make_stability(grouping=grouping), grouping))
    pairs = {pair for pair, cell in cells.items() if cell.kind == "pair"}
    assert pairs == {("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")}
