"""A selection in words."""

import numpy as np
import pytest

import tag_keras
from tag_keras.network_selection import certificate, reason, summary

GROUPING = tag_keras.Grouping(
    ("a", "b", "c"), (("a", "b"), ("a", "b", "c")), {"a": 0, "b": 0, "c": 1}, 0.25, 0.375, False
)


def test_names_tasks_scores_helpers_costs_and_the_certificate():
    scores = {"a": 0.5, "b": 1 / 3, "c": -2.0}
    assert summary(GROUPING, scores, costs=[1.0, 0.5]) == [
        "network 0 (cost 1): a, b; serves a 0.5, b 0.333333",
        "network 1 (cost 0.5): a, b, c; serves c -2; helped by a, b",
        "mean score of 3 tasks: 0.25, not proven optimal: no choice scores more than 0.375, "
        "which is 0.125 above",
    ]


def test_says_that_a_network_serves_no_task_and_that_there_is_one():
    grouping = tag_keras.Grouping(("a",), (("a",), ("a",)), {"a": 0}, 0.0, 0.0, True)
    assert summary(grouping, {"a": 0.0}) == [
        "network 0: a; serves a 0",
        "network 1: a; serves none; helped by a",
        "mean score of 1 task: 0, optimal",
    ]


def test_where_less_is_better_the_best_is_below():
    loss = tag_keras.Grouping(("a",), (("a",),), {"a": 0}, 0.5, 0.25, False)
    text = "not proven optimal, stopped after 60 s: no choice scores less than 0.25, "
    assert certificate(loss, "min", 60.2) == text + "which is 0.25 below"


@pytest.mark.parametrize(
    ("num_groups", "options", "text"),
    [
        (1, {}, "there are no fewer networks, 2 networks 0.133333"),
        (2, {}, "1 network would score 0, more than 2 networks no more"),
        (5, {}, "1 network would score 0, more than 2 networks no more"),
        (
            2,
            {"max_group_size": 2},
            "fewer networks cannot serve all tasks, more than 2",
        ),
        (1, {"partition": True}, "there are no fewer networks, more than 1 network no more"),
    ],
)
def test_says_what_one_network_less_or_more_would_change(num_groups, options, text):
    mean = np.array([[0.0, 0.3, -0.1], [0.2, 0.0, -0.2], [0.1, -0.3, 0.0]])
    affinity = tag_keras.Affinity(["a", "b", "c"], mean)
    grouping = tag_keras.select_groups(affinity, num_groups, **options)
    frontier = tag_keras.selection_frontier(affinity, num_groups + 1, **options)
    assert reason(grouping, frontier).startswith(text)
