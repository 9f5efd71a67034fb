"""What the groups of a run are selected by: affinities as measured, or anchored in yardsticks."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.results import JOINT, Array, ResultTable, Row, single_name
from tag_keras.selection.groups import TABLE_TASKS
from tag_keras.selection.rules import build_problem
from tag_keras.utils.checks import check, check_choice, check_count


def anchor_affinity(affinity: Affinity, rows: Sequence[Row], split: str = "validation") -> Affinity:
    """Corrects affinities by the losses of a joint network and of one network per task.

    Affinities say which source is better for a target than which other one, but hardly whether the
    target is better off alone. The two kinds of network, which are trained as yardsticks anyway,
    do: with all other tasks beside it, target t has gained g[t], the loss of its own network minus
    that in the joint one. Of T tasks, each source i is given an equal share of that, and more or
    less by how much its affinity Z[i, t] is above or below the mean of the sources of t:

        A[i, t] = (g[t] + c[t] (Z[i, t] - mean over i of Z[i, t])) / (T - 1)

    Affinities have no scale that losses would share. With c[t], what they add to the losses of t,
    relative to that of its own network, deviates between all pairs as much as the relative gains,
    of which none counts as beyond -2 or 2, do between tasks. So the sum over the sources in a group
    is the gain expected of it: for the joint network and for a task alone, what was measured.

    It is a rule of this package; how often it is right, `benchmarks.truth` measures.

    Args:
        affinity: Affinities of T tasks, by any estimator.
        rows: Results of the networks `"joint"` and `"single_<task>"`, of one seed or several, for
            instance from `tag_keras.results.load_results("results.json")`; others are not looked
            at.
        split: Split whose losses count, the mean over the seeds. Not one that is to judge.

    Returns:
        Affinities in the unit of the losses, for
        `select_groups(anchored, num_groups, singletons="baseline", score="sum")`.

    Raises:
        ValueError: If results of one of the networks are missing.

    Example:

    ```python
    from tag_keras.results import Row

    losses = {"joint": {"a": 0.6, "b": 0.4}, "single_a": {"a": 0.9}, "single_b": {"b": 0.3}}
    rows = [
        Row(name, tuple(by_task), 0, task, "validation", loss, {}, 60.0)
        for name, by_task in losses.items()
        for task, loss in by_task.items()
    ]
    affinity = tag_keras.Affinity(["a", "b"], [[0.0, 0.2], [0.1, 0.0]])
    anchored = tag_keras.anchor_affinity(affinity, rows)
    print(anchored.mean.round(2))  # "a" is to gain 0.3 from "b", which is to lose 0.1
    tag_keras.select_groups(anchored, 2, "baseline", score="sum").groups  # (("a", "b"), ("b",))
    ```
    """
    tasks, table = affinity.tasks, ResultTable(rows)
    joint = _means(table, dict.fromkeys(tasks, JOINT), split)
    single = _means(table, {task: single_name(task) for task in tasks}, split)
    gain, above, others = single - joint, _above_mean(affinity.mean), max(len(tasks) - 1, 1)
    size, spread = np.abs(single), _deviation(above[~np.isnan(above)])
    # A loss that more than triples counts as one that tripled: else a task that is nearly solved
    # alone would have the affinities of all others weighed by what it loses.
    relative = _deviation(np.clip(gain[size > 0] / size[size > 0], -2.0, 2.0))
    scale = size * relative / spread if spread else np.zeros(len(tasks))

    def anchored(values: Array) -> Array:
        shares: Array = (gain + scale * _above_mean(values)) / others
        np.fill_diagonal(shares, 0.0)
        return shares

    # What a replicate lacks is as in the mean, so that it does not shift that of the sources.
    lacking = np.isnan(affinity.replicates)
    whole = np.where(lacking, affinity.mean, affinity.replicates)
    replicates = [
        np.where(unknown, np.nan, anchored(one))
        for unknown, one in zip(lacking, whole, strict=True)
    ]
    errors = affinity.standard_error * scale / others
    return Affinity(
        tasks,
        anchored(affinity.mean),
        standard_error=None if replicates else errors,
        count=affinity.count,
        skipped=affinity.skipped,
        replicates=replicates,
    )


def _means(table: ResultTable, serves: dict[str, str], split: str) -> Array:
    """Mean losses (T,) over the seeds, of the networks that serve the tasks."""
    return np.array([losses.mean() for losses in table.losses(serves, split).values()])


def _deviation(values: Array) -> float:
    return float(values.std()) if len(values) else 0.0


def _above_mean(values: Array) -> Array:
    """What affinities (T, T) are above the mean of the sources of a target; NaN on the diagonal."""
    others = np.where(np.eye(len(values), dtype=bool), np.nan, values)
    number = np.maximum((~np.isnan(others)).sum(axis=0), 1)
    above: Array = others - np.nansum(others, axis=0) / number
    # Where all sources are the same, the mean differs from them by rounding alone.
    above[np.abs(above) <= 1e-12 * np.abs(np.nan_to_num(others)).max()] = 0.0
    return above


# What a task alone counts as: what its own network has shown, 0, or that it may not be alone.
Singletons = Literal["measured", "baseline", "forbid"]


def check_options(tasks: tuple[str, ...], num_groups: int, singletons: Singletons) -> None:
    """Checks what can be known before affinities are measured.

    Raises:
        ValueError: If groups could not be selected like that, whatever is measured.
    """
    check_choice("singletons", singletons, get_args(Singletons))
    wanted = f"with more than {TABLE_TASKS} tasks, `singletons` should be 'baseline' or 'forbid'"
    check(singletons != "measured" or len(tasks) <= TABLE_TASKS, wanted, num_tasks=len(tasks))
    check_count("num_groups", num_groups)
    check_affinity(Affinity(tasks, np.zeros((len(tasks),) * 2)), singletons)


def check_affinity(affinity: Affinity, singletons: Singletons) -> None:
    """Checks what `select_groups` would, before the hours that the yardsticks may take.

    Raises:
        ValueError: If no groups can be selected by such affinities.
    """
    alone = "baseline" if singletons == "measured" else singletons
    build_problem(affinity, alone, partition=False, max_group_size=None, together=(), apart=())


def selection_rule(
    affinity: Affinity, rows: Sequence[Row], singletons: Singletons
) -> dict[str, Any]:
    """What groups are selected by: `affinity` and options of `select_groups`.

    Args:
        affinity: Affinities as they were measured.
        rows: Results of the joint network and of one network per task.
        singletons: As above.
    """
    if singletons == "measured":
        anchored = anchor_affinity(affinity, rows)
        return {"affinity": anchored, "singletons": "baseline", "score": "sum"}
    return {"affinity": affinity, "singletons": singletons, "score": "mean"}
