"""Losses of trained networks, for what is served by them."""

import tag_keras
from tag_keras.comparison.comparison import tasks_of_networks
from tag_keras.results import Row

TASKS = ("a", "b", "c")
# The helper is b in group_1.
GROUPING = tag_keras.Grouping(
    TASKS,
    (("a", "b"), ("b", "c")),
    {"a": 0, "b": 0, "c": 1},
    score=0.1,
    upper_bound=0.2,
    optimal=False,
)
# By network and task, a loss for each of three seeds. Least sums over the tasks served: group_0
# 1.0 (seed 1: 0.6 + 0.4), group_1 1.0 (seed 0), joint 2.1 (seed 0: 0.5 + 0.6 + 1.0).
LOSSES = {
    "group_0": {"a": (0.70, 0.60, 0.80), "b": (0.50, 0.40, 0.50)},
    "group_1": {"b": (0.90, 0.80, 0.70), "c": (1.00, 1.10, 1.20)},
    "joint": {"a": (0.50, 0.70, 0.90), "b": (0.60, 0.70, 0.50), "c": (1.00, 1.10, 1.10)},
    "single_a": {"a": (0.90, 0.90, 0.90)},
    "single_c": {"c": (0.80, 0.90, 1.00)},
}


def make_rows(losses=LOSSES, grouping=GROUPING, seeds=None, split="validation"):
    tasks = tasks_of_networks(grouping)
    return [
        Row(name, tasks[name], seed, task, split, loss, {}, 1.0)
        for name, by_task in losses.items()
        for task, values in by_task.items()
        for seed, loss in enumerate(values)
        if seeds is None or seed in seeds
    ]


def networks_of(serving):
    return {task: serving.network_of(task) for task in serving.grouping.tasks}
