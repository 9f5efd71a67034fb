"""Networks of a study, groups of its tasks, and the files of what a method chose."""

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence

import numpy as np

from tag_keras.results import JOINT, single_name
from tag_keras.selection.grouping import Grouping
from tag_keras.sweep.network import Network
from tag_keras.utils import files

Group = tuple[str, ...]

# With more tasks, there are too many groups to train all of them, or to list them in a table.
MOST_TASKS = 12


@dataclasses.dataclass(frozen=True)
class Choice:
    """Networks that serve all tasks.

    Args:
        networks: The networks.
        serves: By task, the index of the network that serves it.
    """

    networks: tuple[Network, ...]
    serves: Mapping[str, int]

    def names(self) -> dict[str, str]:
        """By task, the name of the network that serves it."""
        return {task: self.networks[index].name for task, index in self.serves.items()}


def plain_network(
    group: Group, tasks: Group, early: bool = False, half_size: bool = False
) -> Network:
    """Names a network that plain `fit` trains on some of the study's tasks; all methods share it.

    The name is `"joint"`, `"single_<task>"` or, for the first and third task, `"group_0-2"`, after
    `"early_"` if it trains for ESA's few epochs only and `"half_"` if it has half the size.
    """
    if group == tasks:
        role = name = JOINT
    elif len(group) == 1:
        role, name = "single", single_name(group[0])
    else:
        # Indices, because the names of many tasks are too long for the name of a file.
        role, name = "group", "group_" + "-".join(str(tasks.index(task)) for task in group)
    if half_size:
        name = f"half_{name}"
    if early:
        name = f"early_{name}"
    return Network(name, group, role=role, early=early, half_size=half_size)


def method_network(method: str, tasks: Group) -> Network:
    """The network of all tasks that a method trains in its own way or measures affinities with."""
    return Network(f"{method}_{JOINT}", tasks, role=method)


def groups_of(tasks: Group, largest: int) -> list[Group]:
    """All groups of 1 to `largest` tasks, smaller groups first.

    Raises:
        ValueError: If there are more than `MOST_TASKS` tasks.
    """
    if len(tasks) > MOST_TASKS:
        raise ValueError(
            "this method looks at all groups of the tasks, which should be at most "
            f"{MOST_TASKS}. Received: num_tasks={len(tasks)}."
        )
    sizes = range(1, largest + 1)
    return [group for size in sizes for group in itertools.combinations(tasks, size)]


def random_groups(tasks: Group, number: int, random: np.random.Generator) -> list[Group]:
    """Draws `number` different groups that cover the tasks, uniformly from all such sets of groups.

    Each task joins one or more groups, drawn uniformly. A draw with an empty or a repeated group is
    drawn again.

    Raises:
        ValueError: If `number` is below 1 or above the number of tasks.
    """
    if not 1 <= number <= len(tasks):
        raise ValueError(
            f"the number of groups of {len(tasks)} tasks should be from 1 to their number. "
            f"Received: num_groups={number!r}."
        )
    while True:
        # Bit g of a task's pattern says whether the task is in group g.
        patterns = random.integers(1, 2**number, size=len(tasks))
        members = (patterns[:, None] >> np.arange(number)) & 1
        groups = [
            tuple(task for task, member in zip(tasks, column, strict=True) if member)
            for column in members.T
        ]
        if all(groups) and len(set(groups)) == number:
            return sorted(groups, key=lambda group: [tasks.index(task) for task in group])


def save_choice(
    path: str | os.PathLike[str], grouping: Grouping, half_size: Sequence[bool] | None = None
) -> None:
    """Writes a grouping as `Grouping.save` does, with the sizes of its networks (whole or half)."""
    halves = half_size or [False] * len(grouping.groups)
    fields = {one.name: getattr(grouping, one.name) for one in dataclasses.fields(Grouping)}
    fields["kinds"] = ["half" if half else "plain" for half in halves]
    files.write_json(path, fields)


def load_choice(path: str | os.PathLike[str], tasks: Group) -> Choice:
    """Reads the choice that `save_choice` wrote for a study of `tasks`.

    Raises:
        ValueError: If the file holds anything else; the message names the file and the remedy.
    """
    name = os.fspath(path)
    try:
        grouping = Grouping.load(path)
        kinds, found = files.read_fields(path, ["kinds"])["kinds"], list(grouping.tasks)
        if grouping.tasks != tasks:
            raise ValueError(f"{name} should have the tasks {list(tasks)}. Received: {found}.")
        if not isinstance(kinds, list) or len(kinds) != len(grouping.groups):
            raise ValueError(f"{name}: `kinds` should have a name for each group.")
        if wrong := [kind for kind in kinds if kind not in ("plain", "half")]:
            raise ValueError(f'{name}: `kinds` should be "plain" or "half": {wrong}.')
    except ValueError as error:
        raise ValueError(f"{error} Delete the file, and the choice is made anew.") from None
    networks = [
        plain_network(group, tasks, half_size=kind == "half")
        for group, kind in zip(grouping.groups, kinds, strict=True)
    ]
    return Choice(tuple(networks), grouping.serves)
