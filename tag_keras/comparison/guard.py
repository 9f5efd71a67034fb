"""The guard: each task from whichever trained network is best on validation, never worse overall.

Affinities predict gains weakly, so groups that were trained are compared with what else was.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from tag_keras.comparison.comparison import (
    LossTable,
    check_rows,
    loss_table,
    serving_networks,
    tasks_of_networks,
)
from tag_keras.comparison.serving import Move, Reason, Serving
from tag_keras.results import FEWEST_SEEDS, Array, Row, mean_and_noise
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.checks import check


def guard_groups(
    grouping: Grouping,
    rows: Sequence[Row],
    split: str = "validation",
    beyond_noise: bool | None = None,
) -> Serving:
    """Says which trained network should serve each task, by the losses on validation data.

    A task is served by the network of its group unless

    - the mean over seeds of the paired difference in its loss is in favour of another network by
      more than two standard errors: of several such networks, the one with the least mean loss
      serves it, unless the total loss served would rise by that;
    - or the total loss served would still be above that of the joint network, or of one network
      per task: then the tasks that lose most against the better of the two go to it, one by one,
      until it is not;
    - or more networks would serve than were chosen: then one whose tasks others that serve can
      take over is left out, that with the least total first, as long as no task ends up worse
      beyond its noise (where tasks may move for the first reason) and the total loss served is
      above none of the three that it is compared with.

    Of each network one seed is served, the one with the least loss over the tasks that it serves.
    So the total loss served on `split` is, of the seeds compared, never above that of the joint
    network's best one, of the best ones of one network per task, or of the groups without the
    guard. Data that took no part may see it otherwise.

    Args:
        grouping: Groups, and which of them serves each task.
        rows: Results of networks named `"group_<index>"`, `"joint"` and `"single_<task>"`, for
            instance from `tag_keras.results.load_results("results.json")`. Against a joint network,
            or one per task, that is not there, nothing is guaranteed. Only seeds that all of them
            have are compared.
        split: Split whose losses decide. One that is also reported would flatter the report.
        beyond_noise: Whether tasks may move for the first reason; by default, if there are at
            least three seeds, from which the report takes the noise as known.

    Returns:
        Serving: the networks to serve, which tasks were moved and why, and the totals.

    Raises:
        ValueError: If `rows` does not hold the losses of every group, if networks have other tasks
            or no seed in common, or if `beyond_noise` is true with fewer than two seeds.

    Example:

    ```python
    from tag_keras.results import Row

    grouping = tag_keras.Grouping(["a", "b"], [["a"], ["b"]], {"a": 0, "b": 1}, 0.0, 0.0, True)
    losses = {"group_0": {"a": 0.5}, "group_1": {"b": 0.9}, "joint": {"a": 0.6, "b": 0.7}}
    rows = [
        Row(name, tuple(by_task), 0, task, "validation", loss, {}, 60.0)
        for name, by_task in losses.items()
        for task, loss in by_task.items()
    ]
    serving = tag_keras.guard_groups(grouping, rows)
    print(serving.networks)  # (("group_0", 0), ("joint", 0)): "b" is better off in "joint"
    # With trained models by name and seed:
    # tag_keras.GroupedModel([models[network] for network in serving.networks], serving.grouping)
    ```
    """
    check_rows(grouping, rows)
    valid = beyond_noise is None or isinstance(beyond_noise, bool)
    check(valid, "`beyond_noise` should be a bool or None", beyond_noise=beyond_noise)
    table = loss_table(grouping, rows, split)
    if beyond_noise and len(table.seeds) < 2:
        raise ValueError(
            "`beyond_noise=True` asks for the deviation between seeds, which takes at least two of "
            f"them. Received: rows of the seeds {list(table.seeds)}. Train more, or leave "
            "`beyond_noise` out."
        )
    if beyond_noise is None:
        beyond_noise = len(table.seeds) >= FEWEST_SEEDS
    before = serving_networks(grouping)["grouped"]
    better = _move_beyond_noise(table, before) if beyond_noise else before
    yardsticks = _yardsticks(grouping, table)
    totals = {kind: table.served_total(serves) for kind, serves in yardsticks.items()}
    total_without = table.served_total(before)
    no_worse = better
    if totals:
        yardstick = yardsticks[min(totals, key=totals.__getitem__)]
        no_worse = _move_until_no_worse(table, better, yardstick)
    limit, most = min([total_without, *totals.values()]), len({*before.values()})
    after = _leave_out(table, no_worse, most, limit, beyond_noise)
    seeds, networks = table.served_seeds(after), tasks_of_networks(grouping)
    return Serving(
        grouping=dataclasses.replace(
            grouping,
            groups=tuple(networks[name] for name in seeds),
            serves={task: [*seeds].index(name) for task, name in after.items()},
        ),
        networks=tuple(seeds.items()),
        moves=_moves(table, before, better, no_worse, after),
        total=table.served_total(after),
        total_without=total_without,
        total_joint=totals.get("joint"),
        total_single=totals.get("single"),
        split=split,
        seeds=table.seeds,
        beyond_noise=beyond_noise,
    )


def _yardsticks(grouping: Grouping, table: LossTable) -> dict[str, dict[str, str]]:
    """Name of the network by task, of the joint and of the single networks, where all are there."""
    # A group that is one of these was trained once under both names, and is not to serve as two
    # networks. Groups come first in the table.
    first: dict[str, str] = {}
    for name in table.losses:
        first[name] = next((other for other in first if table.are_alike(other, name)), name)
    return {
        kind: {task: first[name] for task, name in serves.items()}
        for kind, serves in serving_networks(grouping).items()
        if kind != "grouped" and {*serves.values()} <= {*first}
    }


def _move_beyond_noise(table: LossTable, serves: Mapping[str, str]) -> dict[str, str]:
    """Name of the network by task, after the moves that pay beyond the noise."""
    best: dict[str, tuple[float, str]] = {}
    for task, own in serves.items():
        for name, losses in table.losses.items():
            if name != own and task in losses:
                gain, noise = mean_and_noise(table.losses[own][task] - losses[task])
                if gain > noise and gain > best.get(task, (0.0, ""))[0]:
                    best[task] = gain, name
    serves = dict(serves)
    # Those that gain most come first; of those that gain as much, by name, so that the order of the
    # tasks does not matter.
    for task in sorted(best, key=lambda task: (-best[task][0], task)):
        moved = {**serves, task: best[task][1]}
        # The mean over seeds is not all: the seed that is served may be better than its mean.
        if table.served_total(moved) <= table.served_total(serves):
            serves = moved
    return serves


def _move_until_no_worse(
    table: LossTable, serves: Mapping[str, str], yardstick: Mapping[str, str]
) -> dict[str, str]:
    """Name of the network by task, after the moves without which the yardstick were better."""
    serves, other = dict(serves), table.served_losses(yardstick)
    limit = table.served_total(yardstick)
    # It ends, because where all tasks have moved, their total is the limit.
    while table.served_total(serves) > limit:
        served = table.served_losses(serves)
        left = [task for task in serves if serves[task] != yardstick[task]]
        worst = max(left, key=lambda task: (served[task] - other[task], task))
        serves[worst] = yardstick[worst]
    return serves


def _leave_out(
    table: LossTable, serves: Mapping[str, str], most: int, limit: float, beyond_noise: bool
) -> dict[str, str]:
    """Name of the network by task, after networks beyond so many were left out, if they can be."""
    first, serves = serves, dict(serves)
    while len(names := sorted({*serves.values()})) > most:
        others = [_without(table, serves, name, first if beyond_noise else {}) for name in names]
        best = min((other for other in others if other), key=table.served_total, default=None)
        if best is None or table.served_total(best) > limit:
            break
        serves = best
    return serves


def _without(
    table: LossTable, serves: Mapping[str, str], name: str, no_worse_than: Mapping[str, str]
) -> dict[str, str] | None:
    """The same where other networks that serve take over all tasks of one; None if they cannot.

    Those cannot where a task is worse, beyond the noise, than in its network of `no_worse_than`.
    """
    others, moved = sorted({*serves.values()} - {name}), dict(serves)
    for task in [task for task in serves if serves[task] == name]:
        losses = {
            other: table.losses[other][task] for other in others if task in table.losses[other]
        }
        if task in no_worse_than:
            own = table.losses[no_worse_than[task]][task]
            losses = {other: one for other, one in losses.items() if not _is_above(one - own)}
        means = {other: float(one.mean()) for other, one in losses.items()}
        if not means:
            return None
        moved[task] = min(means, key=means.__getitem__)
    return moved


def _is_above(differences: Array) -> bool:
    """Whether the mean of paired differences is above 0 by more than two standard errors."""
    mean, noise = mean_and_noise(differences)
    return mean > noise


def _moves(
    table: LossTable,
    before: Mapping[str, str],
    better: Mapping[str, str],
    no_worse: Mapping[str, str],
    after: Mapping[str, str],
) -> tuple[Move, ...]:
    moves = []
    for task, name in after.items():
        if name == before[task]:
            continue
        old, new = table.losses[before[task]][task], table.losses[name][task]
        moves.append(
            Move(
                task=task,
                before=before[task],
                after=name,
                mean_before=float(old.mean()),
                mean_after=float(new.mean()),
                noise=mean_and_noise(old - new)[1] if len(table.seeds) > 1 else None,
                reason=_reason(name, better[task], no_worse[task]),
            )
        )
    return tuple(moves)


def _reason(after: str, better: str, no_worse: str) -> Reason:
    if after == better:
        return "beyond the noise"
    return "the guarantee" if after == no_worse else "fewer networks"
