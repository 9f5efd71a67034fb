"""Anchoring: affinities corrected by measured losses, and the rule that a run selects by."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.results import JOINT, Array, ResultTable, Row, single_name
from tag_keras.selection.groups import TABLE_TASKS
from tag_keras.selection.rules import build_problem
from tag_keras.utils.checks import check, check_choice, check_count

# A task alone in a group: it scores by the loss of its own network, it scores 0, or it may not be.
Singletons = Literal["measured", "baseline", "forbid"]


def anchor_affinity(affinity: Affinity, rows: Sequence[Row], split: str = "validation") -> Affinity:
    """Corrects affinities by the losses of a joint network and of one network per task.

    Affinities rank the sources of a target, but hardly tell whether the target is better off alone.
    The joint network and the networks of one task do, and a run trains them anyway: beside all
    other tasks, target t gains g[t], the loss of its own network minus its loss in the joint one.
    The T - 1 sources share this gain equally, corrected by their affinities Z[i, t]:

        A[i, t] = (g[t] + c[t] (Z[i, t] - mean over i of Z[i, t])) / (T - 1)

    Affinities and losses share no scale, so c[t] sets one. Divided by the loss of each task's own
    network, the second terms have the same standard deviation over all pairs as the gains, divided
    alike and then clipped to -2 and 2, have over the tasks. The sum over the sources in a group is
    the gain that t can expect there; for the joint network and for a task alone, it is the measured
    gain. The rule is this package's own; `benchmarks.truth` measures how often it is right.

    Args:
        affinity: Affinities of T tasks, by any estimator.
        rows: Results of the networks `"joint"` and `"single_<task>"`, of any number of seeds, such
            as `tag_keras.results.load_results("results.json")`. Other rows do not count.
        split: Split whose losses count, as means over the seeds; not the split that judges.

    Returns:
        Affinities in the unit of the losses, for
        `select_groups(anchored, num_groups, singletons="baseline", score="sum")`.

    Raises:
        ValueError: If results of one of these networks are missing.

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
    # A loss counts as at most tripled: else a task that is nearly solved alone would set the weight
    # of the affinities of all other tasks.
    relative = _deviation(np.clip(gain[size > 0] / size[size > 0], -2.0, 2.0))
    scale = size * relative / spread if spread else np.zeros(len(tasks))

    def anchored(values: Array) -> Array:
        shares: Array = (gain + scale * _above_mean(values)) / others
        np.fill_diagonal(shares, 0.0)
        return shares

    # A pair that a replicate lacks stands at its mean, so that it does not shift the other sources.
    replicates = [
        np.where(np.isnan(one), np.nan, anchored(np.where(np.isnan(one), affinity.mean, one)))
        for one in affinity.replicates
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
    """Mean losses (T,) over the seeds."""
    return np.array([losses.mean() for losses in table.losses(serves, split).values()])


def _deviation(values: Array) -> float:
    return float(values.std()) if len(values) else 0.0


def _above_mean(values: Array) -> Array:
    """Affinities (T, T) minus the mean over the sources of their target; NaN on the diagonal."""
    others = np.where(np.eye(len(values), dtype=bool), np.nan, values)
    number = np.maximum((~np.isnan(others)).sum(axis=0), 1)
    above: Array = others - np.nansum(others, axis=0) / number
    # Where all sources are equal, only rounding keeps them off the mean.
    above[np.abs(above) <= 1e-12 * np.abs(np.nan_to_num(others)).max()] = 0.0
    return above


def check_options(tasks: tuple[str, ...], num_groups: int, singletons: Singletons) -> None:
    """Checks the options of a selection before anything is measured."""
    check_choice("singletons", singletons, get_args(Singletons))
    check(
        singletons != "measured" or len(tasks) <= TABLE_TASKS,
        f"with more than {TABLE_TASKS} tasks, `singletons` should be 'baseline' or 'forbid'",
        num_tasks=len(tasks),
    )
    check_count("num_groups", num_groups)
    check_affinity(Affinity(tasks, np.zeros((len(tasks),) * 2)), singletons)


def check_affinity(affinity: Affinity, singletons: Singletons) -> None:
    """Makes the checks of `select_groups` before the yardsticks train, perhaps for hours."""
    build_problem(affinity, "baseline" if singletons == "measured" else singletons)


def selection_rule(
    affinity: Affinity, rows: Sequence[Row], singletons: Singletons
) -> dict[str, Any]:
    """The arguments of `select_groups` for a run: `affinity`, `singletons` and `score`.

    `"measured"` corrects the affinities by `rows`, the results of the joint network and of one
    network per task, and sums them; else the mean of the affinities as measured counts.
    """
    if singletons == "measured":
        anchored = anchor_affinity(affinity, rows)
        return {"affinity": anchored, "singletons": "baseline", "score": "sum"}
    return {"affinity": affinity, "singletons": singletons, "score": "mean"}
