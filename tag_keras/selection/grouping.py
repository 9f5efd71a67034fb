"""A grouping: the groups of tasks that share a network, and the group that serves each task."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Self

from tag_keras.utils import files
from tag_keras.utils.checks import check, check_bool, is_number
from tag_keras.utils.tasks import check_task_names


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Groups of tasks, a network for each, and the group that serves each task.

    A field that is wrong or contradicts another raises a `ValueError`.

    Args:
        tasks: Task names, in the user's order.
        groups: Tuples of task names; `select_groups` sorts names and groups by position.
        serves: By task, the index of the group that serves it.
        score: Mean over tasks of the best score that a group gives the task.
        upper_bound: No family of as many groups scores more than this.
        optimal: Whether the family is proven to be the best.
    """

    tasks: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    serves: Mapping[str, int]
    score: float
    upper_bound: float
    optimal: bool

    def __post_init__(self) -> None:
        check(isinstance(self.tasks, list | tuple), "`tasks` should be a tuple", tasks=self.tasks)
        tasks, groups, serves = check_task_names(self.tasks), self.groups, self.serves
        valid = isinstance(groups, list | tuple) and all(
            type(group) in (list, tuple)
            and len(group) > 0
            and all(task in tasks and group.count(task) == 1 for task in group)
            for group in groups
        )
        check(valid, f"`groups` should be tuples of names out of {tasks}", groups=groups)
        group_of = dict(enumerate(groups))
        check(
            isinstance(serves, Mapping)
            and set(serves) == set(tasks)
            and all(type(i) is int and task in group_of.get(i, ()) for task, i in serves.items()),
            f"`serves` should give each of {tasks} the index of a group that contains it",
            serves=serves,
            groups=groups,
        )
        for name, value in {"score": self.score, "upper_bound": self.upper_bound}.items():
            valid = isinstance(value, float | int) and is_number(value)
            check(valid, f"`{name}` should be a finite number", **{name: value})
        check_bool("optimal", self.optimal)
        object.__setattr__(self, "tasks", tasks)
        object.__setattr__(self, "groups", tuple(tuple(group) for group in groups))
        object.__setattr__(self, "serves", {task: serves[task] for task in tasks})

    def served(self, index: int) -> list[str]:
        """Tasks that a group serves, in the order of the group.

        Args:
            index: Index of the group in `groups`.
        """
        return [task for task in self.groups[index] if self.serves[task] == index]

    def helpers(self, index: int) -> list[str]:
        """Tasks that train with a group and are served by another.

        Args:
            index: Index of the group in `groups`.
        """
        return [task for task in self.groups[index] if self.serves[task] != index]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the grouping as JSON, atomically.

        Args:
            path: File to write, such as `"groups.json"`.
        """
        files.write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote.

        Args:
            path: File to read.

        Raises:
            ValueError: If the file holds anything else; the message names the file and the field.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        fields = files.read_fields(path, names)
        try:
            grouping = cls(**{name: fields[name] for name in names})
            # Those of networks may be chosen by losses, and have a group twice.
            if cls is Grouping:
                _check_selected(grouping)
            return grouping
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)} does not hold a grouping: {error}") from None


def _check_selected(grouping: Grouping) -> None:
    """Checks what no selection of groups gives."""
    score, bound, groups = grouping.score, grouping.upper_bound, grouping.groups
    slack = 1e-9 + 1e-3 * max(abs(score), abs(bound))
    wanted = "`score` should be at most `upper_bound`"
    check(score <= bound + slack, wanted, score=score, upper_bound=bound)
    different = len({frozenset(group) for group in groups}) == len(groups)
    check(different, "`groups` should be different", groups=groups)
