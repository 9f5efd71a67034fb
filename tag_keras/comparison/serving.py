"""What is served: the trained network of each task, the tasks that the guard moved, and why."""

import dataclasses
import os
from collections.abc import Iterable
from typing import Any, Literal, Self, get_args

from tag_keras.comparison.conclusion import MOST_NAMES
from tag_keras.results import FEWEST_SEEDS
from tag_keras.selection.grouping import Grouping
from tag_keras.utils import files
from tag_keras.utils.checks import check, check_bool, check_choice, check_number
from tag_keras.utils.html_tables import Cell, block, paragraph, table
from tag_keras.utils.text import counted, joined

Reason = Literal["beyond the noise", "the guarantee", "fewer networks"]

# What can be served, in words.
WAYS_TO_SERVE = {
    "served": "what is served",
    "grouped": "the groups without the guard",
    "joint": "the joint network",
    "single": "one network per task",
}


@dataclasses.dataclass(frozen=True)
class Move:
    """A task that moves from the network of its group to another one.

    Args:
        task: Name of the task.
        before: Name of the network of its group.
        after: Name of the network that serves it.
        mean_before: Validation loss of the task from `before`, mean over the seeds.
        mean_after: Validation loss of the task from `after`, mean over the seeds.
        noise: Two standard errors of the mean difference, paired by seed; None for one seed.
        reason: `"beyond the noise"`: the loss is less by more than the noise. `"the guarantee"`:
            the total validation loss would have been above that of the joint network, or of one
            network per task. `"fewer networks"`: more networks would have served than before.
    """

    task: str
    before: str
    after: str
    mean_before: float
    mean_after: float
    noise: float | None
    reason: Reason

    def __post_init__(self) -> None:
        for name in ("task", "before", "after"):
            value = getattr(self, name)
            check(isinstance(value, str), f"`{name}` should be a name", **{name: value})
        _check_losses(self, ["mean_before", "mean_after"], optional=["noise"])
        check_choice("reason", self.reason, get_args(Reason))


@dataclasses.dataclass(frozen=True)
class Serving:
    """What is served: a network for each group of `grouping`, and the losses of the alternatives.

    Fields that are wrong, or that contradict each other, are a `ValueError`.

    Args:
        grouping: The tasks that each served network was trained on, and which of them it serves;
            the second argument of `GroupedModel`. Its score is the one that the selection gave.
        networks: Name and seed of the network, for each group of `grouping`.
        moves: Tasks that the network of their group does not serve, in the order of the tasks.
        total: Total validation loss of what is served: the sum over the tasks.
        total_without: Total validation loss if the network of its group served each task.
        total_joint: Total validation loss of the joint network at its best seed. None if there is
            no joint network, and so no guarantee against it.
        total_single: Total validation loss of one network per task, each at its best seed. None
            if one of them is missing.
        split: Split whose losses decided.
        seeds: Seeds that were compared.
        beyond_noise: Whether tasks could move because another network is better beyond the noise.
        checksum: Checksum of the file of the model that serves; empty if it is not known. It is no
            part of what is compared.
    """

    grouping: Grouping
    networks: tuple[tuple[str, int], ...]
    moves: tuple[Move, ...]
    total: float
    total_without: float
    total_joint: float | None
    total_single: float | None
    split: str
    seeds: tuple[int, ...]
    beyond_noise: bool
    checksum: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        networks, number, seeds = self.networks, len(self.grouping.groups), self.seeds
        valid = isinstance(networks, list | tuple) and len(networks) == number
        check(
            valid and all(map(_is_network, networks)),
            f"`networks` should give a name and a seed for each of the {number} groups",
            networks=networks,
        )
        moved, tasks = [move.task for move in self.moves], self.grouping.tasks
        different = len({*moved}) == len(moved) and {*moved} <= {*tasks}
        check(different, f"`moves` should be of different tasks of {tasks}", moves=moved)
        _check_losses(self, ["total", "total_without"], optional=["total_joint", "total_single"])
        check(isinstance(self.split, str), "`split` should be a name", split=self.split)
        whole = isinstance(seeds, list | tuple) and {*map(type, seeds)} == {int}
        check(whole, "`seeds` should be at least one whole number", seeds=seeds)
        check_bool("beyond_noise", self.beyond_noise)
        check(isinstance(self.checksum, str), "`checksum` should be text", checksum=self.checksum)
        object.__setattr__(self, "networks", tuple((name, seed) for name, seed in networks))
        object.__setattr__(self, "moves", tuple(self.moves))
        object.__setattr__(self, "seeds", tuple(seeds))

    def network_of(self, task: str) -> tuple[str, int]:
        """Name and seed of the network that serves a task."""
        return self.networks[self.grouping.serves[task]]

    def _repr_html_(self) -> str:
        moves = {move.task: move for move in self.moves}
        rows: list[list[str | Cell]] = []
        for task in self.grouping.tasks:
            name, seed = self.network_of(task)
            moved = f"from {moves[task].before}: {moves[task].reason}" if task in moves else ""
            rows.append([task, name, Cell(str(seed), align="right"), moved])
        totals = {
            WAYS_TO_SERVE["served"]: self.total,
            WAYS_TO_SERVE["grouped"]: self.total_without,
            WAYS_TO_SERVE["joint"]: self.total_joint,
            WAYS_TO_SERVE["single"]: self.total_single,
        }
        losses: list[list[str | Cell]] = [
            [words, Cell(f"{total:.4g}", align="right")]
            for words, total in totals.items()
            if total is not None
        ]
        needed, seeds = len(self.networks), counted(len(self.seeds), "seed")
        words = f"{counted(needed, 'network')} for {counted(len(rows), 'task')}, out of {seeds}."
        return block(
            paragraph(words),
            table(["task", "served by", "seed", "moved"], rows),
            table(["", f"total {self.split} loss"], losses),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as JSON, atomically."""
        files.write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote; the `ValueError` for another file names it and a remedy."""
        fields = files.read_fields(path, [])
        try:
            fields["grouping"] = Grouping(**_object("grouping", fields.get("grouping")))
            moves = fields.get("moves")
            check(isinstance(moves, list), "`moves` should be a list", moves=moves)
            fields["moves"] = [Move(**_object("moves", move)) for move in moves or []]
            return cls(**fields)
        # A field too few or too many is a TypeError.
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)} does not say what is served: {error} Delete it and run the "
                "step that wrote it again."
            ) from None


def _check_losses(record: object, needed: Iterable[str], optional: Iterable[str]) -> None:
    for name in needed:
        check_number(name, getattr(record, name), "a finite number")
    for name in optional:
        if getattr(record, name) is not None:
            check_number(name, getattr(record, name), "a finite number or None")


def _is_network(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and isinstance(value[0], str) and type(value[1]) is int


def _object(name: str, value: Any) -> dict[str, Any]:
    check(isinstance(value, dict), f"`{name}` should hold objects", **{name: value})
    return dict(value)


def serving_as_text(grouping: Grouping, serving: Serving) -> str:
    """Which tasks moved and why, and the total validation losses, in a few sentences."""
    totals = {"joint": serving.total_joint, "single": serving.total_single}
    known = {WAYS_TO_SERVE[kind]: total for kind, total in totals.items() if total is not None}
    parts = [_moves_as_text(serving, known)]
    if not serving.beyond_noise:
        seeds = len(serving.seeds)
        unknown = f"With {counted(seeds, 'seed')} the noise is not known: no"
        parts.append(f"{unknown if seeds < FEWEST_SEEDS else 'No'} task moves for its own sake.")
    losses = [f"Total {serving.split} loss: {serving.total:.4g} served"]
    if serving.moves:
        losses.append(f"{serving.total_without:.4g} without the guard")
    losses += [f"{total:.4g} by {name}" for name, total in known.items()]
    parts.append(", ".join(losses) + ".")
    if not known:
        parts.append(
            "There is neither a joint network nor one network per task to compare with, so nothing "
            "is guaranteed."
        )
    needed, before = len(serving.networks), len({*grouping.serves.values()})
    if needed != before:
        parts.append(f"It takes {counted(needed, 'network')}, the groups {before}.")
    return " ".join(parts)


def _moves_as_text(serving: Serving, known: Iterable[str]) -> str:
    """Which tasks moved and why; the guarantee holds against the networks `known`."""
    if not serving.moves:
        return "The guard moved no task: each is served by the network of its group."
    held_to = joined(f"of {name}" for name in known)
    why = {
        "beyond the noise": "better there beyond the noise between seeds",
        "the guarantee": f"to keep the total at or below that {held_to}",
        "fewer networks": "so that fewer networks serve",
    }
    moved: dict[Reason, list[str]] = {}
    for move in serving.moves:
        words = f"{move.task} from {move.before} to {move.after}"
        moved.setdefault(move.reason, []).append(words)
    parts = [
        f"{joined(words) if len(words) <= MOST_NAMES else counted(len(words), 'task')}, "
        f"{why[reason]}"
        for reason, words in moved.items()
    ]
    num_tasks = counted(len(serving.grouping.tasks), "task")
    return f"The guard moved {len(serving.moves)} of {num_tasks}: {'; '.join(parts)}."
