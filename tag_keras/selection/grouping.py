"""A grouping: the groups of tasks that share a network, and the group that serves each task."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Self

from tag_keras.utils import files
from tag_keras.utils.checks import check, check_bool, is_number
from tag_keras.utils.html_tables import block, paragraph, table
from tag_keras.utils.tasks import check_task_names
from tag_keras.utils.text import counted


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

    @staticmethod
    def from_groups(
        tasks: Sequence[str],
        groups: Sequence[Sequence[str]],
        serves: Mapping[str, int] | None = None,
    ) -> "Grouping":
        """A grouping of your own, to train, compare and serve.

        Args:
            tasks: Task names, in your order.
            groups: Different groups of names, each task in at least one. The names of a group are
                put into the order of `tasks`; the groups stay in their order.
            serves: By task, the index of the group that serves it. It may leave out the tasks that
                are in one group only.

        Returns:
            A `Grouping`. Nothing scored it: `score` and `upper_bound` are 0, `optimal` is false.

        Raises:
            ValueError: If names are repeated or unknown, groups are empty or equal, a task is in no
                group, or one is in several and `serves` lacks it.

        Example:

        ```python
        grouping = tag_keras.Grouping.from_groups(["a", "b", "c"], [["a", "c"], ["b"]])
        grouping.serves  # {"a": 0, "b": 1, "c": 0}
        grouped = tag_keras.train_groups(build_model, grouping, (x, y), epochs=10)
        ```
        """
        check(isinstance(tasks, list | tuple), "`tasks` should be a list of names", tasks=tasks)
        tasks = check_task_names(tasks)
        lists = isinstance(groups, list | tuple) and all(
            isinstance(group, list | tuple) and all(isinstance(task, str) for task in group)
            for group in groups
        )
        check(lists, "`groups` should be lists of task names", groups=groups)
        chosen = dict(serves) if isinstance(serves, Mapping) else {}
        wanted = "`serves` should be a dict from tasks to indices of groups, or None"
        check(serves is None or isinstance(serves, Mapping), wanted, serves=serves)
        for task in tasks:
            found = [index for index, group in enumerate(groups) if task in group]
            check(bool(found), f"`groups` should have the task {task!r} in a group", groups=groups)
            wanted = f"`serves` should name the group that serves {task!r}, which is in several"
            check(len(found) == 1 or task in chosen, wanted, serves=serves, groups=groups)
            chosen.setdefault(task, found[0])
        # The checks of the class find names that are unknown or repeated.
        place = {task: index for index, task in enumerate(tasks)}
        ordered = tuple(
            tuple(sorted(group, key=lambda task: place.get(task, len(place)))) for group in groups
        )
        grouping = Grouping(tasks, ordered, chosen, 0.0, 0.0, False)
        _check_different(grouping)
        return grouping

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

    def _repr_html_(self) -> str:
        rows = [
            [f"group_{index}", *map(", ".join, (group, self.served(index), self.helpers(index)))]
            for index, group in enumerate(self.groups)
        ]
        words = f"{counted(len(self.tasks), 'task')} in {counted(len(self.groups), 'group')}"
        if self.optimal or self.score or self.upper_bound:
            proof = "proven to be the best" if self.optimal else f"bound {self.upper_bound:.4g}"
            words += f", score {self.score:.4g} ({proof})"
        return block(
            paragraph(f"{words}."), table(["network", "trains", "serves", "helped by"], rows)
        )

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
    score, bound = grouping.score, grouping.upper_bound
    slack = 1e-9 + 1e-3 * max(abs(score), abs(bound))
    wanted = "`score` should be at most `upper_bound`"
    check(score <= bound + slack, wanted, score=score, upper_bound=bound)
    _check_different(grouping)


def _check_different(grouping: Grouping) -> None:
    groups = grouping.groups
    different = len({frozenset(group) for group in groups}) == len(groups)
    check(different, "`groups` should be different", groups=groups)
