"""Which trained network serves each task, and which tasks were moved to it, and why."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self, get_args

from tag_keras.comparison.conclusion import MOST_NAMES
from tag_keras.results import FEWEST_SEEDS
from tag_keras.selection.grouping import Grouping
from tag_keras.utils import files
from tag_keras.utils.checks import check, check_bool, check_choice, is_number
from tag_keras.utils.text import counted, joined

Reason = Literal["beyond the noise", "the guarantee", "fewer networks"]


@dataclasses.dataclass(frozen=True)
class Move:
    """A task that another network serves than that of its group.

    Args:
        task: Name of the task.
        before: Name of the network of its group.
        after: Name of the network that serves it.
        mean_before: Validation loss of the task from `before`, mean over the seeds.
        mean_after: The same from `after`.
        noise: Two standard errors of the mean difference, paired by seed; None for one seed.
        reason: `"beyond the noise"`; or `"the guarantee"`: the total validation loss would have
            been above that of the joint network, or of one network per task; or `"fewer networks"`:
            more would have served than there were groups.
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
        for name in ("mean_before", "mean_after", "noise"):
            _check_loss(name, getattr(self, name), optional=name == "noise")
        check_choice("reason", self.reason, get_args(Reason))


@dataclasses.dataclass(frozen=True)
class Serving:
    """What is served: one network for each group of `grouping`, and what it would be otherwise.

    Fields that are wrong, or that contradict each other, are a `ValueError`.

    Args:
        grouping: Tasks that each served network was trained on, and which of them it serves; the
            second argument of `GroupedModel`. Its score is that of the groups as they were chosen.
        networks: Name and seed of the network, for each group of `grouping`.
        moves: Tasks that are not served by the network of their group, in the order of the tasks.
        total: Sum over the tasks of the validation losses of the networks that serve them.
        total_without: The same if each task were served by the network of its group.
        total_joint: The same if all were served by the joint network of its best seed; None if
            there is none, and so no guarantee against it.
        total_single: The same if each task were served by the best seed of a network of its own.
        split: Split whose losses decided.
        seeds: Seeds that were compared.
        beyond_noise: Whether tasks could move because another network is better beyond the noise.
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

    def __post_init__(self) -> None:
        groups, networks = self.grouping.groups, self.networks
        valid = isinstance(networks, list | tuple) and len(networks) == len(groups)
        valid = valid and all(_is_network(network) for network in networks)
        wanted = f"`networks` should give a name and a seed for each of the {len(groups)} groups"
        check(valid, wanted, networks=networks)
        moved = [move.task for move in self.moves]
        valid = len({*moved}) == len(moved) and {*moved} <= {*self.grouping.tasks}
        check(valid, f"`moves` should be of different tasks of {self.grouping.tasks}", moves=moved)
        for name in ("total", "total_without", "total_joint", "total_single"):
            optional = name in ("total_joint", "total_single")
            _check_loss(name, getattr(self, name), optional)
        check(isinstance(self.split, str), "`split` should be a name", split=self.split)
        valid = isinstance(self.seeds, list | tuple) and {*map(type, self.seeds)} == {int}
        check(valid, "`seeds` should be at least one whole number", seeds=self.seeds)
        check_bool("beyond_noise", self.beyond_noise)
        object.__setattr__(self, "networks", tuple((name, seed) for name, seed in networks))
        object.__setattr__(self, "moves", tuple(self.moves))
        object.__setattr__(self, "seeds", tuple(self.seeds))

    def network_of(self, task: str) -> tuple[str, int]:
        """Name and seed of the network that serves a task."""
        return self.networks[self.grouping.serves[task]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as JSON, atomically."""
        files.write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote; the `ValueError` for another file names it and a remedy."""
        fields = files.read_fields(path, [])
        try:
            grouping = Grouping(**_mapping("grouping", fields.get("grouping")))
            moves = [Move(**_mapping("moves", move)) for move in _list(fields.get("moves"))]
            return cls(**{**fields, "grouping": grouping, "moves": tuple(moves)})
        # A field too few or too many is a TypeError.
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)} does not say what is served: {error} Delete it and run the "
                "step that wrote it again."
            ) from None


def _check_loss(name: str, value: Any, optional: bool) -> None:
    valid = is_number(value) or (optional and value is None)
    check(valid, f"`{name}` should be a finite number{' or None' * optional}", **{name: value})


def _is_network(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and isinstance(value[0], str) and type(value[1]) is int


def _mapping(name: str, value: Any) -> dict[str, Any]:
    check(isinstance(value, dict), f"`{name}` should hold objects", **{name: value})
    return dict(value)


def _list(value: Any) -> Sequence[Any]:
    check(isinstance(value, list), "`moves` should be a list", moves=value)
    return list(value)


_NAMES = {
    "served": "what is served",
    "grouped": "the groups without the guard",
    "joint": "the joint network",
    "single": "one network per task",
}


def serving_as_text(grouping: Grouping, serving: Serving) -> str:
    """Which tasks were moved and why, and the total validation losses, in a few sentences."""
    seeds = len(serving.seeds)
    others = {"joint": serving.total_joint, "single": serving.total_single}
    known = {_NAMES[kind]: total for kind, total in others.items() if total is not None}
    parts = [_moves_as_text(serving, known)]
    if not serving.beyond_noise:
        unknown = f"With {counted(seeds, 'seed')} the noise is not known: no"
        parts.append(f"{unknown if seeds < FEWEST_SEEDS else 'No'} task moves for its own sake.")
    totals = f"Total {serving.split} loss: {serving.total:.4g} served"
    if serving.moves:
        totals += f", {serving.total_without:.4g} without the guard"
    parts.append(", ".join([totals, *(f"{one:.4g} by {by}" for by, one in known.items())]) + ".")
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
    """Which tasks were moved and why; `known` names the networks that the guarantee speaks of."""
    if not serving.moves:
        return "The guard moved no task: each is served by the network of its group."
    held_to = joined(f"of {name}" for name in known)
    why = {
        "beyond the noise": "better there beyond the noise between seeds",
        "the guarantee": f"to keep the total at or below that {held_to}",
        "fewer networks": "so that fewer networks serve",
    }
    # The first reason of a run comes first.
    reasons = dict.fromkeys(move.reason for move in serving.moves)
    moved = [f"{_moved(serving.moves, reason)}, {why[reason]}" for reason in reasons]
    num_tasks = counted(len(serving.grouping.tasks), "task")
    return f"The guard moved {len(serving.moves)} of {num_tasks}: {'; '.join(moved)}."


def _moved(moves: Sequence[Move], reason: str) -> str:
    words = [
        f"{one.task} from {one.before} to {one.after}" for one in moves if one.reason == reason
    ]
    return joined(words) if len(words) <= MOST_NAMES else counted(len(words), "task")
