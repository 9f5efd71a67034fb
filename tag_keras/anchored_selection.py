"""What the groups of a run are selected by: affinities as measured, or anchored in yardsticks."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.anchoring import anchor_affinity
from tag_keras.checks import check, check_choice, check_count
from tag_keras.group_selection import TABLE_TASKS
from tag_keras.results import Row
from tag_keras.selection_rules import build_problem

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
