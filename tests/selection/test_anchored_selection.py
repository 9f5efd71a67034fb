"""What the groups of a run are selected by; what is refused is tested with `experiment.run`."""

import numpy as np
import pytest

import tag_keras
from tag_keras import results
from tag_keras.selection.anchoring import selection_rule

TASKS = ("a", "b", "c")


def test_what_groups_are_selected_by():
    # On validation data each task gains 0.3 from both others, 0.15 from each, if the affinities are
    # all the same; on test data it loses. The sum in a group of three is 0.3, where the mean were
    # 0.15, and alone it is 0, which is better than what test data would have.
    losses = {"validation": (0.6, 0.9), "test": (0.9, 0.6)}
    rows = [
        results.Row(name, tasks, 0, task, split, pair[name != "joint"], {}, 1.0)
        for split, pair in losses.items()
        for name, tasks in [("joint", TASKS), *((f"single_{task}", (task,)) for task in TASKS)]
        for task in tasks
    ]
    affinity = tag_keras.Affinity(TASKS, np.ones((3, 3)))
    rule = selection_rule(affinity, rows, "measured")
    anchored = rule["affinity"]
    np.testing.assert_allclose(anchored.mean, 0.15 * (1 - np.eye(3)))
    assert tag_keras.select_groups(num_groups=1, **rule).score == pytest.approx(0.3)
    negative = tag_keras.Affinity(TASKS, -np.ones((3, 3)))
    assert tag_keras.select_groups(num_groups=3, **{**rule, "affinity": negative}).score == 0
    # Otherwise by the affinities as they are, means, and what was asked for.
    for singletons in ("baseline", "forbid"):
        rule = selection_rule(affinity, [], singletons)
        assert rule == {"affinity": affinity, "singletons": singletons, "score": "mean"}
