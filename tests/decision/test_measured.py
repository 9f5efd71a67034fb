"""Rows as arrays of losses, and the rows that are refused."""

import dataclasses
import re

import numpy as np
import pytest
from group_rows import rows_of_losses

from tag_keras.decision.measured import group_of, mask_of, read_measured
from tag_keras.results import Row, part_names

LOSSES = {("a", "b", "c"): (0.3, 0.4, 0.5), ("a",): (0.1,), ("b",): (0.2,), ("c",): (0.6,)}
ROWS = rows_of_losses(LOSSES, "abc")


def change(index, **fields):
    return [
        dataclasses.replace(row, **fields) if place == index else row
        for place, row in enumerate(ROWS)
    ]


def test_the_losses_by_group_seed_and_task():
    rows = [*ROWS, *rows_of_losses({("c", "a"): (0.7, 0.8)}, "abc", seed=4)]
    measured = read_measured(iter(rows), "validation")
    assert measured.tasks == ("a", "b", "c")
    assert measured.masks.tolist() == [0b001, 0b010, 0b100, 0b101, 0b111]
    assert (measured.seeds, measured.most_seeds) == ((0, 4), 1)
    expected = np.full((5, 2, 3), np.nan)
    expected[0, 0, 0], expected[1, 0, 1], expected[2, 0, 2] = 0.1, 0.2, 0.6
    expected[3, 1, [0, 2]] = 0.8, 0.7
    expected[4, 0] = 0.3, 0.4, 0.5
    np.testing.assert_array_equal(measured.losses, expected)


def test_the_seeds_of_one_group_count():
    rows = [*ROWS, *rows_of_losses({("a",): (0.7,)}, "abc", seed=4)]
    assert read_measured(rows, "validation").most_seeds == 2


def test_a_group_and_its_mask():
    assert mask_of(["c", "a"], "abc") == 0b101
    assert group_of(0b101, ("a", "b", "c")) == ("a", "c")


def test_networks_that_are_trained_otherwise_do_not_count():
    others = [
        dataclasses.replace(ROWS[0], network="early", early=True, loss=9.0),
        dataclasses.replace(ROWS[0], network="half", half_size=True, loss=9.0),
        dataclasses.replace(ROWS[0], network="pcgrad", role="pcgrad", loss=9.0),
        dataclasses.replace(ROWS[0], split="test", loss=9.0),
    ]
    measured = read_measured([*others, *ROWS], "validation")
    np.testing.assert_array_equal(measured.losses, read_measured(ROWS, "validation").losses)


def test_one_network_under_two_names_counts_once():
    again = [dataclasses.replace(row, network="group_0") for row in ROWS[:3]]
    assert read_measured([*ROWS, *again], "validation").losses.shape == (4, 1, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "`rows` should have losses of networks on the split 'validation'. Received: no row"),
        (
            [dataclasses.replace(row, split="test") for row in ROWS],
            "on the split 'validation'. Received: rows of the splits ['test'].",
        ),
        (
            change(3, loss=float("nan")),
            "Received: a loss of nan of 'a' in the network 'a' with seed 0. Leave out the rows",
        ),
        (change(4, task="c"), "Received: 'c' of the network 'b', of ('b',)."),
        (change(4, loss=float("inf")), "Received: a loss of inf of 'b'"),
        (change(4, loss=1e101), "should have losses of at most 1e+100. Received: a loss of 1e+101"),
        (ROWS[1:], "The network of ('a', 'b', 'c') with seed 0 has none of ['a']."),
        ([*ROWS[:4], *ROWS[5:]], "the network of each task alone, to compare with. They lack: b."),
        (ROWS[3:], "`rows` should have the joint network of all tasks. Received: a network with"),
        (
            [*ROWS, Row("d", ("d",), 0, "d", "validation", 0.1, {}, 1.0, role="single")],
            "with ['d'], 'd', and as the largest network one of ('a', 'b', 'c').",
        ),
        (
            [*ROWS, dataclasses.replace(ROWS[3], loss=0.2)],
            "one loss of 'a' for a network of the tasks ('a',) with seed 0 on 'validation'. "
            "Received: 0.1 and 0.2. Leave one of them out.",
        ),
    ],
)
def test_rows_that_are_refused(rows, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_measured(rows, "validation")


def test_of_two_networks_with_the_same_tasks_and_seed_the_first_counts():
    # Trained twice, they may differ by rounding, and more on a GPU.
    twins = [dataclasses.replace(row, network="twin", loss=row.loss + 1e-6) for row in ROWS]
    expected = read_measured(ROWS, "validation")
    found = read_measured([*ROWS, *twins], "validation")
    np.testing.assert_array_equal(found.losses, expected.losses)
    # A joint network counts before a group, wherever it stands.
    joint = [row for row in ROWS if len(row.tasks) == 3]
    first = [dataclasses.replace(row, network="joint", role="joint", loss=7.0) for row in joint]
    assert (read_measured([*ROWS, *first], "validation").losses[-1, 0] == 7).all()


def test_the_losses_on_parts_are_means_over_seeds():
    rows = []
    for seed, part, change in [
        *((0, "p0", 0.0), (0, "p1", 0.3), (0, "p2", 0.3)),
        *((5, "p0", 0.3), (5, "p1", 0.9), (5, "p2", 0.9)),
    ]:
        losses = {group: [loss + change for loss in values] for group, values in LOSSES.items()}
        rows += rows_of_losses(losses, "abc", seed, part)
    parts = ["p0", "p1", "p2"]
    measured = read_measured(rows, "validation", parts)
    # There are no rows of the whole split: it is the mean of its parts.
    np.testing.assert_allclose(measured.losses[[0, 3], :, 0], [[0.3, 0.8], [0.5, 1.0]])
    means = [[0.25, 0.45], [0.7, 0.9], [0.7, 0.9]]
    np.testing.assert_allclose(measured.parts[:, [0, 3], 0], means)
    assert np.isnan(measured.parts[:, 0, 1]).all()
    whole = [*ROWS, *rows_of_losses(LOSSES, "abc", 5)]
    both = read_measured([*rows, *whole], "validation", parts)
    np.testing.assert_allclose(both.losses[3, :, 0], 0.3)
    np.testing.assert_array_equal(both.parts, measured.parts)


def test_parts_are_found_by_their_names_if_all_networks_have_them():
    losses = {name: 0.1 * index for index, name in enumerate(part_names("validation"))}
    rows = [
        dataclasses.replace(row, split=name, loss=row.loss + loss)
        for name, loss in losses.items()
        for row in ROWS
    ]
    found = read_measured([*ROWS, *rows], "validation", None)
    np.testing.assert_allclose(found.parts[:, 0, 0], 0.1 + 0.1 * np.arange(5))
    assert len(read_measured([*ROWS, *rows], "validation").parts) == 0
    # Of a network before, or of another split.
    assert len(read_measured([*ROWS, *rows[1:]], "validation", None).parts) == 0
    test = [dataclasses.replace(row, split="test") for row in ROWS]
    assert len(read_measured([*test, *ROWS, *rows], "test", None).parts) == 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["p0"], "`parts` should be a list of names of at least three splits, each once. Received"),
        (["p0", "p1"], "at least three splits, each once. Received: parts=['p0', 'p1']."),
        (["p0", "p0", "p1"], "at least three splits, each once."),
        ("abc", "at least three splits, each once. Received: parts='abc'."),
        (["p0", "p1", "p2"], "should have losses of networks on the split 'p0'. Received: rows of"),
    ],
)
def test_parts_that_are_refused(parts, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_measured(ROWS, "validation", parts)


def test_parts_of_other_networks():
    parts = [row for seed in range(3) for row in rows_of_losses(LOSSES, "abc", seed, f"p{seed}")]
    with pytest.raises(
        ValueError, match="should have the same networks on the splits 'validation'"
    ):
        read_measured([*ROWS, *parts], "validation", ["p0", "p1", "p2"])


def test_more_tasks_than_bits_of_an_integer():
    tasks = tuple(f"task_{index}" for index in range(70))
    losses = {tasks: [0.1] * 70, **{(task,): [0.2] for task in tasks}, tasks[60:]: [0.3] * 10}
    measured = read_measured(rows_of_losses(losses, tasks), "validation")
    masks = [1 << index for index in range(70)]
    expected = sorted([*masks, sum(masks), sum(masks[60:])])
    assert measured.masks.tolist() == expected
    assert measured.losses[expected.index(sum(masks[60:])), 0, 69] == 0.3
