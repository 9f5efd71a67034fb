"""The networks of a study: their names, those a method trains to choose by, and its choices.

A study compares methods that divide a set of tasks among networks, as the tables of TAG (Fifty et
al. 2021, arXiv 2109.04617) and of Standley et al. 2020 (arXiv 1905.07553) do.
"""

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence

import numpy as np

from tag_keras.selection.grouping import Grouping
from tag_keras.utils import files
from tag_keras.utils.checks import check

Group = tuple[str, ...]

# By the names of the papers' tables.
METHODS = {
    "stl": "one network per task (single-task learning)",
    "mtl": "one network for all tasks, by plain joint training",
    "uw": "one network, with uncertainty weighting (Kendall et al. 2018)",
    "gradnorm": "one network, with GradNorm (Chen et al. 2018)",
    "pcgrad": "one network, with PCGrad (Yu et al. 2020)",
    "dwa": "one network, with dynamic weight average (Liu et al. 2019)",
    "mtan": "one multi-task attention network (Liu et al. 2019)",
    "tag": "groups by inter-task affinity, measured in one joint training (Fifty et al. 2021)",
    "first_order": "groups by the first-order approximation of that affinity",
    "cs": "groups by the cosine similarity of the tasks' gradients",
    "hoa": "networks by the losses of pairs: higher order approximation (Standley et al. 2020)",
    "esa": "networks by losses after a short training: early stopping approximation (the same)",
    "optimal": "networks by the losses of all groups, each trained to the end",
    "random": "random networks that leave no task out",
}
# One network for all tasks; groups by affinities that one joint training measures; networks within
# a budget, by the losses of networks that are trained first.
ONE_NETWORK = ("mtl", "uw", "gradnorm", "pcgrad", "dwa", "mtan")
BY_AFFINITY = ("tag", "first_order", "cs")
BY_LOSS = ("hoa", "esa", "optimal")
CHOOSING = (*BY_AFFINITY, *BY_LOSS, "random")

# All groups of more tasks would be too many networks to train, or to put into a table.
MOST_TASKS = 12


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network that a method may train.

    Args:
        tasks: Tasks to train it on, in the order of the study.
        kind: How it is built and trained: `"plain"`; `"half"`, of half the size; `"early"` and
            `"early_half"`, the same for a short training; one of `ONE_NETWORK`; or one of
            `BY_AFFINITY`, which measures.
    """

    tasks: Group
    kind: str = "plain"

    @property
    def cost(self) -> float:
        """Cost in standard network times: 1, or 0.5 of a network of half the size."""
        return 0.5 if self.kind.endswith("half") else 1.0

    def name(self, tasks: Group) -> str:
        """Name of the network in results.json, in a study of `tasks`.

        Plain networks have the same name whichever method trains them: `"joint"`,
        `"single_<task>"`, or `"group_0-2"` for the first and the third of the tasks.
        """
        if self.tasks == tasks:
            plain = "joint"
        elif len(self.tasks) == 1:
            plain = f"single_{self.tasks[0]}"
        else:
            # Names of many tasks together would be too long for a file's name.
            plain = "group_" + "-".join(str(tasks.index(task)) for task in self.tasks)
        if self.kind == "plain":
            return plain
        return f"{self.kind}_{plain}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Networks that serve all tasks.

    Args:
        networks: The networks.
        serves: Index of the network that serves it, by task.
    """

    networks: tuple[Candidate, ...]
    serves: Mapping[str, int]

    def names(self, tasks: Group) -> dict[str, str]:
        """Name of the network that serves it, by task."""
        return {task: self.networks[index].name(tasks) for task, index in self.serves.items()}


def fixed_choice(method: str, tasks: Group) -> Choice:
    """What there is nothing to choose about: a network for each task (stl), or one for all."""
    if method == "stl":
        networks = [Candidate((task,)) for task in tasks]
        return Choice(tuple(networks), {task: index for index, task in enumerate(tasks)})
    kind = "plain" if method == "mtl" else method
    return Choice((Candidate(tasks, kind),), dict.fromkeys(tasks, 0))


def choosing_networks(method: str, tasks: Group, half_size: bool) -> list[Candidate]:
    """The networks that a method trains in order to choose.

    Args:
        method: One of `CHOOSING`.
        tasks: Task names.
        half_size: Whether networks of half the size, for one task each, may be chosen, too.

    Raises:
        ValueError: If there are too many tasks for it to train all their groups or pairs.
    """
    if method == "random":
        return []
    if method in BY_AFFINITY:
        return [Candidate(tasks, method)]
    largest = 2 if method == "hoa" else len(tasks)
    full = [Candidate(group) for group in groups_of(tasks, largest)]
    if method == "esa":
        return [Candidate(one.tasks, "early") for one in full] + _halves(
            tasks, half_size, "early_half"
        )
    return full + _halves(tasks, half_size, "half")


def groups_of(tasks: Group, largest: int) -> list[Group]:
    """All groups of 1 to `largest` tasks, small ones first.

    Raises:
        ValueError: If there are more tasks than `MOST_TASKS`, which have too many groups.
    """
    wanted = f"this method looks at all groups of the tasks, which should be at most {MOST_TASKS}"
    check(len(tasks) <= MOST_TASKS, wanted, num_tasks=len(tasks))
    sizes = range(1, largest + 1)
    return [group for size in sizes for group in itertools.combinations(tasks, size)]


def random_groups(tasks: Group, number: int, random: np.random.Generator) -> list[Group]:
    """Different groups that leave no task out, each such set of groups as likely as any other.

    The membership of a task in one group or more is drawn uniformly, task by task, which is a
    uniform draw of `number` groups that cover the tasks; those with an empty group, or the same
    group twice, are drawn again.

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


def save_choice(path: str | os.PathLike[str], grouping: Grouping, kinds: Sequence[str]) -> None:
    """Writes a grouping as `Grouping.save` does, and with it the kind of each group's network."""
    files.write_json(path, {**dataclasses.asdict(grouping), "kinds": list(kinds)})


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
    networks = map(Candidate, grouping.groups, kinds)
    return Choice(tuple(networks), grouping.serves)


def _halves(tasks: Group, half_size: bool, kind: str) -> list[Candidate]:
    return [Candidate((task,), kind) for task in tasks] if half_size else []
