"""The networks of a study: plain ones by their tasks, groups of tasks, and what a method chose."""

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence

import numpy as np

from tag_keras.results import JOINT, single_name
from tag_keras.selection.grouping import Grouping
from tag_keras.sweep.network import Network
from tag_keras.utils import files
from tag_keras.utils.checks import check

Group = tuple[str, ...]

# More tasks have too many groups to train them all, or to put them into a table.
MOST_TASKS = 12


@dataclasses.dataclass(frozen=True)
class Choice:
    """Networks that serve all tasks.

    Args:
        networks: The networks.
        serves: Index of the network that serves the task, by task.
    """

    networks: tuple[Network, ...]
    serves: Mapping[str, int]

    def names(self) -> dict[str, str]:
        """Name of the network that serves the task, by task."""
        return {task: self.networks[index].name for task, index in self.serves.items()}


def plain_network(
    group: Group, tasks: Group, early: bool = False, half_size: bool = False
) -> Network:
    """A network that trains as any model, the same one for every method.

    Args:
        group: Tasks to train it on, in the order of `tasks`.
        tasks: Tasks of the study.
        early: Whether the training stops after the few epochs that ESA chooses by.
        half_size: Whether the network has half the size.

    Returns:
        Network with the name `"joint"`, `"single_<task>"`, or `"group_0-2"` for the first and the
        third of the tasks, after `"early_"` and `"half_"`.
    """
    if group == tasks:
        role = name = JOINT
    elif len(group) == 1:
        role, name = "single", single_name(group[0])
    else:
        # The names of many tasks together are too long for the name of a file.
        role, name = "group", "group_" + "-".join(str(tasks.index(task)) for task in group)
    name = "early_" * early + "half_" * half_size + name
    return Network(name, group, role=role, early=early, half_size=half_size)


def method_network(method: str, tasks: Group) -> Network:
    """The network of all tasks that a method trains in its own way, or measures with."""
    return Network(f"{method}_{JOINT}", tasks, role=method)


def groups_of(tasks: Group, largest: int) -> list[Group]:
    """All groups of 1 to `largest` tasks, small ones first.

    Raises:
        ValueError: If there are more than `MOST_TASKS` tasks.
    """
    wanted = f"this method looks at all groups of the tasks, which should be at most {MOST_TASKS}"
    check(len(tasks) <= MOST_TASKS, wanted, num_tasks=len(tasks))
    sizes = range(1, largest + 1)
    return [group for size in sizes for group in itertools.combinations(tasks, size)]


def random_groups(tasks: Group, number: int, random: np.random.Generator) -> list[Group]:
    """Draws different groups that cover the tasks, each set of such groups with the same chance.

    Each task joins one group or more, drawn uniformly. A draw with an empty group, or with the same
    group twice, is made again.

    Args:
        tasks: Task names.
        number: Number of groups.
        random: Generator.

    Raises:
        ValueError: If there are not as many groups.
    """
    wanted = f"the number of groups of {len(tasks)} tasks should be from 1 to their number"
    check(1 <= number <= len(tasks), wanted, num_groups=number)
    while True:
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
    """Writes a grouping as `Grouping.save` does, and which networks have half the size.

    Args:
        path: File to write.
        grouping: Groups.
        half_size: Whether the network has half the size, by group. Defaults to none.
    """
    halves = half_size or [False] * len(grouping.groups)
    kinds = ["half" if half else "plain" for half in halves]
    files.write_json(path, {**dataclasses.asdict(grouping), "kinds": kinds})


def load_choice(path: str | os.PathLike[str], tasks: Group) -> Choice:
    """Reads what `save_choice` wrote.

    Args:
        path: Path of the file.
        tasks: Task names of the study.

    Raises:
        ValueError: If the file holds something else, or the choice of another study; the message
            names it and the remedy.
    """
    try:
        grouping = Grouping.load(path)
        kinds = files.read_fields(path, ["kinds"])["kinds"]
        if grouping.tasks != tasks:
            raise ValueError(
                f"{os.fspath(path)} should have the tasks {list(tasks)}. "
                f"Received: {list(grouping.tasks)}."
            )
        if not isinstance(kinds, list) or len(kinds) != len(grouping.groups):
            raise ValueError(f"{os.fspath(path)}: `kinds` should have a name for each group.")
        if wrong := [kind for kind in kinds if kind not in ("plain", "half")]:
            raise ValueError(f'{os.fspath(path)}: `kinds` should be "plain" or "half": {wrong}.')
    except ValueError as error:
        raise ValueError(f"{error} Delete the file, and the choice is made anew.") from None
    networks = [
        plain_network(group, tasks, half_size=kind == "half")
        for group, kind in zip(grouping.groups, kinds, strict=True)
    ]
    return Choice(tuple(networks), grouping.serves)
