"""Methods side by side, on losses whose table was worked out by hand."""

import numpy as np
import pytest

from tag_keras.comparison.method_table import (
    Method,
    compare_methods,
    grouping_methods,
    method_cells,
    methods_as_markdown,
)
from tag_keras.results import Row
from tag_keras.selection.grouping import Grouping

TASKS = ("a", "b")


def make_rows(network, tasks, losses, seconds):
    """Rows of a network, with the losses of its tasks by seed."""
    return [
        Row(network, tasks, seed, task, split, loss + (split == "validation"), {}, seconds)
        for seed, values in losses.items()
        for task, loss in zip(tasks, values, strict=True)
        for split in ("validation", "test")
    ]


ROWS = [
    *make_rows("joint", TASKS, {0: (1.0, 2.0), 1: (2.0, 3.0), 2: (9.0, 9.0)}, 10.0),
    *make_rows("alone_a", ("a",), {0: (0.5,), 1: (1.5,)}, 8.0),
    *make_rows("alone_b", ("b",), {0: (1.5,), 1: (1.5,)}, 6.0),
    *make_rows("probe", TASKS, {0: (1.0, 1.0)}, 20.0),
]
METHODS = {
    "single": Method({"a": "alone_a", "b": "alone_b"}),
    "joint": Method({"a": "joint", "b": "joint"}),
    "measured": Method({"a": "joint", "b": "alone_b"}, further=["probe"]),
}


def test_the_table_by_hand():
    # Seeds 0 and 1 are those that all methods have. Joint: 3 and 5, of mean 4. Single: 2 and 3,
    # which is 1 and 2 less. Measured: 2.5 and 3.5, and its cost is (10 + 6 + 20) / 10.
    single, joint, measured = compare_methods(ROWS, METHODS, "joint")
    assert [line.name for line in (single, joint, measured)] == list(METHODS)
    np.testing.assert_allclose(single.total, [2, 3])
    np.testing.assert_allclose(single.change, [-0.25, -0.5])
    assert (single.networks, single.cost) == (2, pytest.approx(1.4))
    np.testing.assert_allclose(joint.total, [3, 5])
    np.testing.assert_allclose(joint.change, [0, 0])
    assert (joint.networks, joint.cost) == (1, 1.0)
    np.testing.assert_allclose(measured.total, [2.5, 3.5])
    assert (measured.networks, measured.cost) == (2, pytest.approx(3.6))
    # On validation each loss is 1 more.
    assert compare_methods(ROWS, METHODS, "joint", "validation")[1].total.tolist() == [5, 7]


def test_the_table_in_words():
    # Deviations of two numbers: their difference over the square root of 2.
    lines = compare_methods(ROWS, METHODS, "joint")
    assert methods_as_markdown(lines).splitlines() == [
        "| method   | networks | total loss    | change         | training |",
        "| -------- | -------- | ------------- | -------------- | -------- |",
        "| single   | 2        | 2.500 ± 0.707 | -37.5 ± 17.7 % | 1.4      |",
        "| joint    | 1        | 4.000 ± 1.414 | +0.0 ± 0.0 %   | 1.0      |",
        "| measured | 2        | 3.000 ± 0.707 | -25.0 ± 17.7 % | 3.6      |",
    ]
    (line,) = compare_methods(
        [row for row in ROWS if row.seed == 0], {"joint": METHODS["joint"]}, "joint"
    )
    assert method_cells(line)["total"] == "3.000"


def test_groups_that_were_selected_by_yardsticks_cost_these_too():
    # a alone is single_a under another name, of which there is one training. Seconds: 10 for joint,
    # 5 and 6 for the single ones, 20 for what measures.
    losses = {0: (1.0,), 1: (2.0,)}
    rows = [
        *make_rows("joint", TASKS, {0: (1.0, 2.0), 1: (2.0, 3.0)}, 10.0),
        *make_rows("single_a", ("a",), losses, 5.0),
        *make_rows("single_b", ("b",), losses, 6.0),
        *make_rows("group_0", ("a",), losses, 5.0),
        *make_rows("group_1", TASKS, {0: (1.0, 2.0), 1: (2.0, 4.0)}, 12.0),
        *make_rows("affinity", TASKS, {0: (1.0, 2.0)}, 20.0),
    ]
    grouping = Grouping(TASKS, (("a",), TASKS), {"a": 0, "b": 1}, 0.0, 0.0, True)
    for by_yardsticks, seconds in ((False, 5 + 12 + 20), (True, 5 + 12 + 20 + 10 + 6)):
        lines = compare_methods(rows, grouping_methods(grouping, by_yardsticks), "mtl")
        assert {line.name: line.cost for line in lines} == pytest.approx(
            {"mtl": 1, "stl": 1.1, "tag": seconds / 10}
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "x"}, r"`baseline` should be one of \['single', 'joint', 'measured'\].*'x'"),
        (
            {"methods": {**METHODS, "half": Method({"a": "joint"})}},
            r"'half' should have the tasks of 'joint'\. Received: tasks=\['a'\]",
        ),
        (
            {"split": "train"},
            r"`rows` should hold a seed with all losses on 'train'.*'single': set",
        ),
        (
            {"methods": {"joint": Method(METHODS["joint"].serves, ["nowhere"])}},
            "`rows` should hold results of the network 'nowhere'",
        ),
    ],
)
def test_refuses_what_makes_no_table(change, message):
    with pytest.raises(ValueError, match=message):
        compare_methods(**{"rows": ROWS, "methods": METHODS, "baseline": "joint", **change})
