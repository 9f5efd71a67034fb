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
# By network and task, its loss with seed 0. a and b gain together, c gains with b; all three lose.
LEVELS = {
    "group_0": {"a": 0.6, "b": 0.4},
    "group_1": {"b": 0.9, "c": 0.8},
    "joint": {"a": 0.9, "b": 0.8, "c": 1.1},
    "single_a": {"a": 0.9},
    "single_b": {"b": 0.7},
    "single_c": {"c": 1.0},
}
# What seeds add, in the order of the networks above; the least is that of seed 1 in group_0.
_NOISE = (0.0, 0.01, -0.01, 0.02)


def make_rows(levels=LEVELS, grouping=GROUPING, seeds=(0, 1, 2), split="validation", noise=1.0):
    """Rows whose losses are those of `levels` and a little noise; seed 0 of "group_0" adds 0."""
    tasks = {**tasks_of_networks(grouping), "candidate_0-2": ("a", "c")}
    return [
        Row(
            name,
            tasks[name],
            seed,
            task,
            split,
            loss + noise * _NOISE[(seed * (1 + place) + 2 * place) % 4],
            {},
            1.0,
            role="candidate" if name.startswith("candidate") else "",
        )
        for place, (name, by_task) in enumerate(levels.items())
        for task, loss in by_task.items()
        for seed in seeds
    ]


def networks_of(serving):
    return {task: serving.network_of(task) for task in serving.grouping.tasks}
