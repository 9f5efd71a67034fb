"""The guard: decides by trained networks which of them serve."""

from collections.abc import Sequence

from tag_keras.affinity import Affinity
from tag_keras.comparison.comparison import best_networks, check_rows
from tag_keras.comparison.serving import Serving
from tag_keras.decision.decision import decide_groups
from tag_keras.decision.group_losses import GroupLosses, estimate_group_losses
from tag_keras.results import PLAIN, Row, group_name
from tag_keras.selection.grouping import Grouping


def guard_groups(
    grouping: Grouping,
    rows: Sequence[Row],
    split: str = "validation",
    probability: float = 0.8,
    affinity: Affinity | None = None,
) -> Serving:
    """Decides by trained networks which of them serve: the groups, or fewer networks, or others.

    Groups are a guess until they are trained. So `decide_groups` decides, by the losses of all
    networks that were trained for the tasks (the groups, the joint network, one network per task
    and other candidates), among choices of at most as many networks as `grouping` has groups, and
    one network per task. Without evidence for groups, the better yardstick serves: the joint
    network or one network per task. Of each network, the seed with the least loss over the tasks
    that it serves is served.

    Args:
        grouping: Groups of tasks, and the group that serves each task.
        rows: Results of networks named `"group_<index>"`, `"joint"` and `"single_<task>"`, and of
            candidates, such as `tag_keras.results.load_results("results.json")`.
        split: Split whose losses decide. A report of losses on the same split would flatter.
        probability: Least probability of a gain, as in `decide_groups`.
        affinity: Affinities for the estimate of the losses, as in `estimate_group_losses`.

    Returns:
        Serving: the decision, and the name and seed of each network that serves.

    Raises:
        ValueError: If `rows` lacks the losses of a group, of the joint network or of a task's own
            network, networks have other tasks, or an argument is out of range.

    Example:

    ```python
    from tag_keras.results import Row

    grouping = tag_keras.Grouping(["a", "b"], [["a"], ["b"]], {"a": 0, "b": 1}, 0.0, 0.0, True)
    losses = {"joint": {"a": 0.6, "b": 0.7}, "single_a": {"a": 0.5}, "single_b": {"b": 0.4}}
    losses |= {"group_0": {"a": 0.5}, "group_1": {"b": 0.4}}
    rows = [
        Row(name, tuple(by_task), seed, task, "validation", loss + 0.01 * seed, {}, 60.0)
        for name, by_task in losses.items()
        for task, loss in by_task.items()
        for seed in range(3)
    ]
    serving = tag_keras.guard_groups(grouping, rows)
    print(serving.networks)  # (("single_a", 0), ("single_b", 0))
    # With trained models by name and seed:
    # tag_keras.GroupedModel([models[network] for network in serving.networks], serving.grouping)
    ```
    """
    check_rows(grouping, rows)
    trained = {row.network for row in rows if row.split == split and row.role in PLAIN}
    for index in range(len(grouping.groups)):
        if group_name(index) not in trained:
            raise ValueError(
                f"`rows` should hold the losses of {group_name(index)!r} on {split!r}. Train the "
                "network, or evaluate it on data with the labels of its tasks."
            )
    estimate = estimate_group_losses(rows, affinity, split)
    return serve_measured(rows, estimate, len(grouping.groups), probability, split)


def serve_measured(
    rows: Sequence[Row],
    estimate: GroupLosses,
    num_groups: int,
    probability: float = 0.8,
    split: str = "validation",
) -> Serving:
    """Decides as `guard_groups`, for a largest number of groups.

    Args:
        rows: Results of the joint network, one network per task and any groups.
        estimate: The losses of all groups, estimated by these rows.
        num_groups: Largest number of groups, at least 1.
        probability: As in `guard_groups`.
        split: Split whose losses the estimate is of.
    """
    decision = decide_groups(estimate, num_groups, probability, only_measured=True)
    grouping = decision.grouping
    single = {task: (task,) for task in grouping.tasks}
    served = {task: grouping.groups[index] for task, index in grouping.serves.items()}
    networks, total = best_networks(rows, split, served)
    return Serving(
        decision=decision,
        networks=tuple(networks[group] for group in grouping.groups),
        total=total,
        total_joint=best_networks(rows, split, dict.fromkeys(served, grouping.tasks))[1],
        total_single=best_networks(rows, split, single)[1],
        split=split,
    )
