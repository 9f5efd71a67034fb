"""Rows of results of all groups, or some, out of a model of their losses."""

import numpy as np

from tag_keras.results import Row


def rows_of_losses(losses, tasks, seed=0, split="validation"):
    """Rows of networks: losses by group, each by task, such as `{("a", "b"): (0.6, 0.4)}`."""
    return [
        Row("+".join(group), group, seed, task, split, float(loss), {}, 1.0, role="group")
        for group, values in losses.items()
        for task, loss in zip(group, values, strict=True)
    ]


def simulated(
    *,
    num_tasks=4,
    num_seeds=4,
    seed=0,
    size=0.0,
    members=0.0,
    own=0.0,
    shift=0.02,
    noise=0.02,
    correlation=0.0,
    groups=None,
):
    """Rows, and the true losses by group and task, of a model with effects of these deviations.

    `groups` are masks; by default all.
    """
    rng = np.random.default_rng(seed)
    tasks = tuple(f"task_{index}" for index in range(num_tasks))
    others = max(num_tasks - 1, 1)
    slopes = size * rng.normal(size=num_tasks)
    helps = members * rng.normal(size=(num_tasks, num_tasks)) / others**0.5
    shifts = shift * rng.normal(size=(num_seeds, num_tasks))
    rows, truth = [], {}
    for mask in range(1, 1 << num_tasks):
        inside = [index for index in range(num_tasks) if mask >> index & 1]
        group = tuple(tasks[index] for index in inside)
        means = np.array(
            [
                1 + slopes[t] * (len(group) - 1) / others + helps[inside, t].sum() - helps[t, t]
                for t in inside
            ]
        ) + own * rng.normal(size=len(group))
        truth[group] = dict(zip(group, means, strict=True))
        for number in range(num_seeds):
            common = rng.normal() * correlation**0.5
            left = common + (1 - correlation) ** 0.5 * rng.normal(size=len(group))
            losses = means + shifts[number, inside] + noise * left
            if groups is None or mask in groups:
                rows += rows_of_losses({group: losses}, tasks, number)
    return rows, truth
