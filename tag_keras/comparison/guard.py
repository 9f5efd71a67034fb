"""The guard: chooses the trained network that serves each task, by the losses on validation data.

Affinities predict gains weakly. So the guard compares the trained groups with the joint network and
with one network per task, and serves no greater total validation loss than any of them.
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
from tag_keras.results import FEWEST_SEEDS, Row, mean_and_noise
from tag_keras.selection.grouping import Grouping


def guard_groups(
    grouping: Grouping,
    rows: Sequence[Row],
    split: str = "validation",
    beyond_noise: bool | None = None,
) -> Serving:
    """Chooses the trained network that serves each task, by the losses on validation data.

    The network of its group serves each task, unless one of three reasons moves the task:

    - Beyond the noise: another network has less loss for the task. The difference, paired by seed,
      has a mean above two of its standard errors. Of several such networks, the one with the least
      mean loss serves the task, unless the total loss served would rise.
    - The guarantee: the joint network, or one network per task, still has less total loss. Then
      tasks move to the better of the two, one by one, the task that loses most against it first,
      until the total loss served is no longer above.
    - Fewer networks: more networks would serve than before the guard. Then one network is left out,
      first the one that leaves the least total, and others that serve take its tasks. No task may
      become worse beyond its noise (where tasks may move for the first reason), and the total loss
      served may not rise above any of the three that it is compared with.

    Of each network, the seed with the least loss over the tasks that it serves is served. So, of
    the seeds compared, the total loss served on `split` is never above that of the groups without
    the guard, of the joint network's best seed, or of the best seeds of one network per task. On
    other data this may fail.

    Args:
        grouping: Groups of tasks, and the group that serves each task.
        rows: Results of networks named `"group_<index>"`, `"joint"` and `"single_<task>"`, such as
            `tag_keras.results.load_results("results.json")`. Without a joint network, or one
            network per task, there is no guarantee against it. Seeds that a network lacks do not
            count.
        split: Split whose losses decide. A report of losses on the same split would flatter.
        beyond_noise: Whether tasks may move for the first reason. Defaults to whether there are at
            least three seeds: with fewer, the report calls the noise not known.

    Returns:
        Serving: the networks to serve, which tasks moved and why, and the totals.

    Raises:
        ValueError: If `rows` lacks the losses of a group, networks have other tasks or no seed in
            common, or `beyond_noise` is true with fewer than two seeds.

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
    if not isinstance(beyond_noise, bool | None):
        raise ValueError(
            f"`beyond_noise` should be a bool or None. Received: beyond_noise={beyond_noise!r}."
        )
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
    yardsticks = _yardsticks(grouping, table)
    totals = {kind: table.served_total(serves) for kind, serves in yardsticks.items()}
    total_without = table.served_total(before)
    better = _move_beyond_noise(table, before) if beyond_noise else before
    no_worse = better
    if totals:
        yardstick = yardsticks[min(totals, key=totals.__getitem__)]
        no_worse = _move_until_no_worse(table, better, yardstick)
    limit = min([total_without, *totals.values()])
    after = _leave_out(table, no_worse, len({*before.values()}), limit, beyond_noise)
    steps: dict[Reason, Mapping[str, str]] = {
        "beyond the noise": better,
        "the guarantee": no_worse,
        "fewer networks": after,
    }
    seeds, networks = table.served_seeds(after), tasks_of_networks(grouping)
    names = list(seeds)
    return Serving(
        grouping=dataclasses.replace(
            grouping,
            groups=tuple(networks[name] for name in names),
            serves={task: names.index(name) for task, name in after.items()},
        ),
        networks=tuple(seeds.items()),
        moves=_moves(table, before, after, steps),
        total=table.served_total(after),
        total_without=total_without,
        total_joint=totals.get("joint"),
        total_single=totals.get("single"),
        split=split,
        seeds=table.seeds,
        beyond_noise=beyond_noise,
    )


def _yardsticks(grouping: Grouping, table: LossTable) -> dict[str, dict[str, str]]:
    """Name of the network of each task, by kind: joint and single, where the table has them all."""
    # A group may be one of these networks, trained once under both names, and must not serve as
    # two. The first name in the table, the group's, stands for both.
    first: dict[str, str] = {}
    for name in table.losses:
        first[name] = next((other for other in first if table.are_alike(other, name)), name)
    return {
        kind: {task: first[name] for task, name in serves.items()}
        for kind, serves in serving_networks(grouping).items()
        if kind != "grouped" and {*serves.values()} <= {*first}
    }


def _move_beyond_noise(table: LossTable, serves: Mapping[str, str]) -> dict[str, str]:
    best: dict[str, tuple[float, str]] = {}
    for task, own in serves.items():
        for name, losses in table.losses.items():
            if name != own and task in losses:
                gain, noise = mean_and_noise(table.losses[own][task] - losses[task])
                if gain > noise and gain > best.get(task, (0.0, ""))[0]:
                    best[task] = gain, name
    serves = dict(serves)
    # The largest gains come first; equal ones go by name, not by the order of the tasks.
    for task in sorted(best, key=lambda task: (-best[task][0], task)):
        moved = {**serves, task: best[task][1]}
        # The gain is a mean over seeds. The seed that is served may be better than its mean.
        if table.served_total(moved) <= table.served_total(serves):
            serves = moved
    return serves


def _move_until_no_worse(
    table: LossTable, serves: Mapping[str, str], yardstick: Mapping[str, str]
) -> dict[str, str]:
    serves, other = dict(serves), table.served_losses(yardstick)
    limit = table.served_total(yardstick)
    # It ends: once all tasks have moved, their total is the limit.
    while table.served_total(serves) > limit:
        served = table.served_losses(serves)
        left = [task for task in serves if serves[task] != yardstick[task]]
        worst = max(left, key=lambda task: (served[task] - other[task], task))
        serves[worst] = yardstick[worst]
    return serves


def _leave_out(
    table: LossTable, serves: Mapping[str, str], most: int, limit: float, beyond_noise: bool
) -> dict[str, str]:
    """Leaves networks out until at most `most` serve, while the total stays within `limit`."""
    start, serves = serves if beyond_noise else {}, dict(serves)
    while len(names := sorted({*serves.values()})) > most:
        others = [_without(table, serves, name, start) for name in names]
        best = min((other for other in others if other), key=table.served_total, default=None)
        if best is None or table.served_total(best) > limit:
            break
        serves = best
    return serves


def _without(
    table: LossTable, serves: Mapping[str, str], left_out: str, no_worse_than: Mapping[str, str]
) -> dict[str, str] | None:
    """Moves the tasks of one network to others that serve; None if none can.

    A task cannot move where it is worse, beyond the noise, than in its network of `no_worse_than`.
    """
    moved = dict(serves)
    for task in [task for task, name in serves.items() if name == left_out]:
        means = {}
        for name in sorted({*serves.values()} - {left_out}):
            if task not in table.losses[name]:
                continue
            losses = table.losses[name][task]
            if task in no_worse_than:
                rise, noise = mean_and_noise(losses - table.losses[no_worse_than[task]][task])
                if rise > noise:
                    continue
            means[name] = float(losses.mean())
        if not means:
            return None
        moved[task] = min(means, key=means.__getitem__)
    return moved


def _moves(
    table: LossTable,
    before: Mapping[str, str],
    after: Mapping[str, str],
    steps: Mapping[Reason, Mapping[str, str]],
) -> tuple[Move, ...]:
    moves = []
    for task in [task for task in after if after[task] != before[task]]:
        old, new = table.losses[before[task]][task], table.losses[after[task]][task]
        # The first step that gave the task its network.
        reason = next(reason for reason, serves in steps.items() if serves[task] == after[task])
        moves.append(
            Move(
                task=task,
                before=before[task],
                after=after[task],
                mean_before=float(old.mean()),
                mean_after=float(new.mean()),
                noise=mean_and_noise(old - new)[1] if len(table.seeds) > 1 else None,
                reason=reason,
            )
        )
    return tuple(moves)
