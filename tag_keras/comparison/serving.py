"""What is served: the decision, and the trained network of each of its groups."""

import dataclasses
import os
from collections.abc import Iterable
from typing import Any, Self

from tag_keras.decision.decision import Decision, Gain, Option
from tag_keras.selection.grouping import Grouping
from tag_keras.utils import files
from tag_keras.utils.checks import check, check_choice, check_number
from tag_keras.utils.html_tables import Cell, block, paragraph, table
from tag_keras.utils.text import counted

_GAINS = ("over_joint", "over_yardstick", "over_fewer", "over_decided")
# What can be served, in words.
WAYS_TO_SERVE = {
    "served": "what is served",
    "grouped": "the groups as selected",
    "joint": "the joint network",
    "single": "one network per task",
}


@dataclasses.dataclass(frozen=True)
class Serving:
    """What is served: a trained network for each group of a decision. `guard_groups` makes it.

    Args:
        decision: The decision by the losses of all seeds; `decision.grouping` has the groups.
        networks: Name and seed of the network, for each group of the decision: of its seeds, the
            one with the least loss over the tasks that it serves.
        total: Total loss of these networks: the sum over the tasks.
        total_joint: Total loss of the joint network at its best seed.
        total_single: Total loss of one network per task, each at its best seed.
        split: Split whose losses decided, and of the totals.
        checksum: Checksum of the file of the model that serves; empty if it is not known. It is no
            part of what is compared.

    Raises:
        ValueError: If fields are wrong, or contradict each other.
    """

    decision: Decision
    networks: tuple[tuple[str, int], ...]
    total: float
    total_joint: float
    total_single: float
    split: str
    checksum: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        networks, number = self.networks, len(self.grouping.groups)
        valid = isinstance(networks, list | tuple) and len(networks) == number
        check(
            valid and all(map(_is_network, networks)),
            f"`networks` should give a name and a seed for each of the {number} groups",
            networks=networks,
        )
        for name in ("total", "total_joint", "total_single"):
            check_number(name, getattr(self, name), "a finite number")
        check(isinstance(self.split, str), "`split` should be a name", split=self.split)
        check(isinstance(self.checksum, str), "`checksum` should be text", checksum=self.checksum)
        object.__setattr__(self, "networks", tuple((name, seed) for name, seed in networks))

    @property
    def grouping(self) -> Grouping:
        """The groups that are served, for `GroupedModel`."""
        return self.decision.grouping

    def network_of(self, task: str) -> tuple[str, int]:
        """Name and seed of the network that serves a task.

        Args:
            task: Name of the task.
        """
        return self.networks[self.grouping.serves[task]]

    def _repr_html_(self) -> str:
        rows: list[list[str | Cell]] = []
        for task in self.grouping.tasks:
            name, seed = self.network_of(task)
            rows.append([task, name, Cell(str(seed), align="right")])
        totals = {"served": self.total, "joint": self.total_joint, "single": self.total_single}
        losses: list[list[str | Cell]] = [
            [WAYS_TO_SERVE[kind], Cell(f"{total:.4g}", align="right")]
            for kind, total in totals.items()
        ]
        return block(
            paragraph(self.decision.reason),
            table(["task", "served by", "seed"], rows),
            table(["", f"total {self.split} loss"], losses),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as JSON, atomically.

        Args:
            path: File to write, such as `"served.json"`.
        """
        files.write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote.

        Args:
            path: File to read.

        Raises:
            ValueError: If the file holds anything else; the message names the file and a remedy.
        """
        fields = files.read_fields(path, [])
        try:
            return cls(**{**fields, "decision": _decision(fields.get("decision"))})
        # A field too few or too many is a TypeError.
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)} does not say what is served: {error} Delete it and run the "
                "step that wrote it again."
            ) from None


def serving_as_text(serving: Serving) -> str:
    """What is served, why, and the total losses, in a few sentences."""
    decision, joint = serving.decision, serving.decision.options[0]
    parts = [decision.reason]
    # A gain over the joint network alone would flatter where one network per task is better.
    if decision.kind == "groups" and decision.over_yardstick != decision.gain:
        share, probability = decision.over_yardstick.share, decision.over_yardstick.probability
        parts.append(
            f"Of these groups it is {abs(100 * share):.1f} % {'below' if share > 0 else 'above'} "
            f"that of one network per task; that it is below has a probability of "
            f"{probability:.2f}."
        )
    number = counted(len(serving.networks), "network")
    losses = f"{serving.total:.4g} by {'it' if number == '1 network' else 'them'}"
    if decision.grouping.groups != joint.grouping.groups:
        losses += f", {serving.total_joint:.4g} by {WAYS_TO_SERVE['joint']}"
    if decision.kind != "single" and len(decision.grouping.tasks) > 1:
        losses += f", {serving.total_single:.4g} by {WAYS_TO_SERVE['single']}"
    parts.append(f"{number} served. Total {serving.split} loss at the best seeds: {losses}.")
    return " ".join(parts)


def _is_network(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and isinstance(value[0], str) and type(value[1]) is int


def _decision(value: Any) -> Decision:
    fields = _object("decision", value)
    reason = fields.get("reason")
    check(isinstance(reason, str), "`reason` should be text", reason=reason)
    options = fields.get("options")
    if not isinstance(options, list) or not options:
        raise ValueError(
            f"`options` should be a list, with the joint network at least. Received: {options!r}."
        )
    fields["options"] = tuple(
        Option(**_choice(_object("options", option), _GAINS)) for option in options
    )
    return Decision(**_choice(fields, ("gain", "over_yardstick")))


def _choice(fields: dict[str, Any], gains: Iterable[str]) -> dict[str, Any]:
    check_choice("kind", fields.get("kind"), ("joint", "single", "groups"))
    grouping = Grouping(**_object("grouping", fields.get("grouping")))
    return {
        **fields,
        "grouping": grouping,
        **{name: _gain(_object(name, fields.get(name))) for name in gains},
    }


def _gain(fields: dict[str, Any]) -> Gain:
    ends = fields.pop("interval", None)
    if not isinstance(ends, list) or len(ends) != 2:
        raise ValueError(f"`interval` should have two ends. Received: {ends!r}.")
    for name, number in {**fields, "low": ends[0], "high": ends[1]}.items():
        check_number(name, number, "a finite number")
    return Gain(**fields, interval=(ends[0], ends[1]))


def _object(name: str, value: Any) -> dict[str, Any]:
    check(isinstance(value, dict), f"`{name}` should hold objects", **{name: value})
    return dict(value)
