"""Losses of all groups, predicted out of joint networks alone, and the groups to take by them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tag_keras.decision.group_losses import MOST_TASKS
from tag_keras.decision.measured import group_of
from tag_keras.results import Array
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.network_table import NetworkTable
from tag_keras.selection.networks import select_networks
from tag_keras.utils.checks import check, check_count, check_number


@dataclasses.dataclass(frozen=True, eq=False)
class LossExpansion:
    """Losses of T tasks to second order, around the weights of a joint network.

    After a step u along d directions, the loss of task t is taken to be
    `losses[t] + gradients[t] @ u + u @ curvatures[t] @ u / 2`.

    Args:
        losses: Array (T,).
        gradients: Array (T, d).
        curvatures: Array (T, d, d): Gauss-Newton matrices.
    """

    losses: Array
    gradients: Array
    curvatures: Array


def predict_losses(
    tasks: Sequence[str], train: LossExpansion, validation: LossExpansion, ridge: float
) -> NetworkTable:
    """Predicts the validation losses of all groups of T tasks.

    For a group S, one step from the joint network minimises the sum of the training losses of S
    and a ridge penalty. With gradients g and curvatures A of the training losses, it is

        u(S) = -(sum over t in S of A[t] + lambda I)^-1 (sum over t in S of g[t])

    where lambda is `ridge` times the mean eigenvalue of the sum of A over all tasks.

    Args:
        tasks: Names of the T tasks.
        train: Training losses, times their weights in the joint loss.
        validation: Validation losses, along the same directions.
        ridge: A positive number.

    Raises:
        ValueError: If there are more than 15 tasks, or if losses are not finite or not curved.
    """
    check(
        len(tasks) <= MOST_TASKS, f"losses are predicted for up to {MOST_TASKS} tasks", tasks=tasks
    )
    check_number("ridge", ridge, "a positive number", lambda value: value > 0)
    number, size = train.gradients.shape
    unit = np.trace(train.curvatures.sum(axis=0)) / size
    predicted = np.full((2**number - 1, number), np.nan)
    known = np.isfinite(unit) and np.isfinite(validation.losses).all()
    check(
        bool(known and unit > 0),
        "losses should be finite, and curved as mean squares and cross-entropies are",
        training=train.losses,
        validation=validation.losses,
        curvature=float(unit),
    )
    penalty = ridge * unit * np.eye(size)
    for mask in range(1, 2**number):
        inside = [task for task in range(number) if mask >> task & 1]
        curvature = train.curvatures[inside].sum(axis=0) + penalty
        step = -np.linalg.solve(curvature, train.gradients[inside].sum(axis=0))
        linear = validation.gradients[inside] @ step
        predicted[mask - 1, inside] = (
            validation.losses[inside] + linear + validation.curvatures[inside] @ step @ step / 2
        )
    groups = [group_of(mask, tasks) for mask in range(1, 2**number)]
    return NetworkTable(tasks, groups, predicted)


def select_predicted_groups(tables: Sequence[NetworkTable], num_groups: int) -> Grouping:
    """Selects groups by predicted losses if they are predicted to pay, else the joint network.

    The groups are the best ones by the mean over the tables. They pay if each table in turn says
    what the best groups by the mean of the others gain over the joint network, and the sum of these
    gains is positive. (Cross-validation of the joint networks; the rule is this package's own.)
    Where predictions differ by noise only, the sum is as often positive as not: compare trained
    groups with the joint network before you serve them.

    Args:
        tables: Predicted losses, from `predict_group_losses`, of at least two joint networks that
            differ in their seeds.
        num_groups: Largest number of groups, at least 1.

    Returns:
        The groups, or one group of all tasks. Its score is the mean predicted loss.

    Raises:
        ValueError: If there are fewer than two tables, or if they have other networks.

    Example:

    ```python
    groups = [["a"], ["b"], ["a", "b"]]
    tables = [
        tag_keras.NetworkTable(["a", "b"], groups, [[0.3, math.nan], [math.nan, 0.2], joint])
        for joint in ([0.4, 0.1], [0.6, 0.2])
    ]
    tag_keras.select_predicted_groups(tables, num_groups=2).groups  # (("a",), ("a", "b"))
    ```
    """
    valid = isinstance(tables, list | tuple) and len(tables) > 1
    valid = valid and all(isinstance(table, NetworkTable) for table in tables)
    check(valid, "`tables` should be a list of at least two NetworkTables", tables=tables)
    check_count("num_groups", num_groups)
    tasks, groups = tables[0].tasks, tables[0].networks
    same = all(table.tasks == tasks and table.networks == groups for table in tables)
    check(
        same and tasks in groups,
        "`tables` should have the same networks, and the joint network among them",
        networks=[table.networks for table in tables],
    )
    joint = groups.index(tasks)
    scores = np.stack([table.scores for table in tables])

    def best(chosen: Array) -> Grouping:
        table = NetworkTable(tasks, groups, chosen.mean(axis=0))
        return select_networks(table, num_groups, "min")

    def rows(grouping: Grouping) -> list[int]:
        return [groups.index(grouping.groups[grouping.serves[task]]) for task in tasks]

    every = range(len(tasks))
    gain = 0.0
    for index, own in enumerate(scores):
        others = rows(best(np.delete(scores, index, axis=0)))
        gain += own[joint].sum() - own[others, every].sum()
    if gain > 0:
        return best(scores)
    loss = float(scores[:, joint].mean())
    return Grouping(tasks, (tasks,), dict.fromkeys(tasks, 0), loss, loss, True)
