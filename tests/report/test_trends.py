"""Affinities over the epochs: the strongest sources of each target."""

import numpy as np
import pytest
from report_cases import ABC, MINUS, Tables, make_affinity

from tag_keras.report.trends import trends


def test_the_strongest_sources_of_a_target_come_first():
    history = np.zeros((3, 3, 3))
    # Onto c: from a 1, 2, 3 thousandths; from b -4 in all epochs. Its own is larger.
    history[:, 0, 2] = [0.001, 0.002, 0.003]
    history[:, 1, 2] = -0.004
    history[:, 2, 2] = 0.5
    found = trends(make_affinity(ABC, history=history))
    assert (found.steps, found.unit, found.left_out) == (
        ["1", "2", "3"],
        ", in units of 10⁻³",
        False,
    )
    onto = {trend.target: trend for trend in found.trends}
    assert list(onto) == ["a", "b", "c"]
    assert onto["c"].sources == ["b", "a"]
    assert onto["c"].numbers == [[f"{MINUS}4"] * 3, ["1", "2", "3"]]
    ((_, label, _),) = Tables(onto["c"].drawing).drawings
    assert label == f"c over 3 epochs: b from {MINUS}4 to {MINUS}4 and a from 1 to 3"


def test_of_many_sources_four_are_drawn_and_many_epochs_are_averaged():
    tasks = [f"t{index}" for index in range(6)]
    history = np.zeros((30, 6, 6))
    for source in range(6):
        history[:, source] = 10.0 * source
    history[:, 5] += np.arange(30)[:, None]
    found = trends(make_affinity(tasks, history=history))
    assert found.left_out and found.trends[0].sources == ["t5", "t4", "t3", "t2"]
    # Twelve spans of the thirty epochs: six of three, then six of two.
    assert found.steps[:2] == ["1 to 3", "4 to 6"] and found.steps[-1] == "29 to 30"
    assert found.trends[0].numbers[0][0] == "51" and found.trends[0].numbers[0][-1] == "78.5"
    assert found.trends[0].drawing.count('<path class="line') == 4


def test_gaps_and_targets_without_a_history():
    history = np.full((2, 3, 3), 0.5)
    history[0, 0, 1] = history[:, 2, 1] = np.nan
    history[:, :, 2] = np.nan
    found = trends(make_affinity(ABC, history=history))
    onto = {trend.target: trend for trend in found.trends}
    assert found.unknown == ["c"] and set(onto) == {"a", "b"}
    assert onto["b"].sources == ["a"] and onto["b"].numbers == [["", "500"]]


@pytest.mark.parametrize(
    "affinity",
    [
        make_affinity(ABC, epochs=0),
        make_affinity(ABC, history=np.full((2, 3, 3), np.nan)),
        make_affinity(["a"]),
    ],
)
def test_no_history(affinity):
    assert trends(affinity) is None
