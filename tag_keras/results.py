"""Results of trained networks: rows in a file, and the figures that a table needs."""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tag_keras.utils import files
from tag_keras.utils.checks import is_number

Array = npt.NDArray[np.float64]
# With fewer seeds the noise between them counts as not known.
FEWEST_SEEDS = 3


# Roles of networks that train as any model; every other role is the name of a method.
PLAIN = ("joint", "single", "group")
JOINT = "joint"


def single_name(task: str) -> str:
    """Name of the network of one task."""
    return f"single_{task}"


def group_name(index: int) -> str:
    """Name of the network of the group with that index in a grouping."""
    return f"group_{index}"


@dataclasses.dataclass(frozen=True)
class Row:
    """What one network scored on one task of one split.

    Args:
        network: Name of the network, for instance `"joint"`.
        tasks: Tasks that the network was trained on.
        seed: Seed of its weights and batches.
        task: Task that was measured, one of `tasks`.
        split: For instance `"validation"` or `"test"`.
        loss: Mean loss of the task over the split.
        metrics: Value by name of the task's further metrics.
        seconds: Wall time of training the network.
        role: What the network is there for: `"joint"` for all tasks, `"single"` for one task,
            `"group"` for a group of them, `"affinity"` to measure, or the name of the method that
            trains it, such as `"uw"`. By default what a file of version 0.1 says by `network`.
        index: Index of the group in the grouping, for the network of a group of one grouping.
        early: Whether the training stops after the few epochs that ESA chooses by.
        half_size: Whether the network has half the size.
    """

    network: str
    tasks: tuple[str, ...]
    seed: int
    task: str
    split: str
    loss: float
    metrics: Mapping[str, float]
    seconds: float
    role: str = ""
    index: int | None = None
    early: bool = False
    half_size: bool = False

    def __post_init__(self) -> None:
        if not self.role:
            for field, value in role_of_version_0_1(self.network).items():
                object.__setattr__(self, field, value)


def role_of_version_0_1(name: str) -> dict[str, Any]:
    """Role, index, early and half size of a network of version 0.1, which had them in its name."""
    plain = re.fullmatch(r"(early_)?(half_)?(joint|single_.+|group_[\d-]+)", name, re.DOTALL)
    if not plain:
        return {"role": name.removesuffix("_joint")}
    early, half, rest = plain.groups()
    role, _, which = rest.partition("_")
    index = int(which) if role == "group" and which.isdecimal() else None
    return {"role": role, "index": index, "early": bool(early), "half_size": bool(half)}


def save_results(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Writes rows as JSON, atomically."""
    files.write_json(path, [dataclasses.asdict(row) for row in rows])


def load_results(path: str | os.PathLike[str]) -> list[Row]:
    """Reads what `save_results` wrote.

    Raises:
        ValueError: If the file is not such a file; the message names the file, the row and the
            field.
    """
    values = files.read_json(path)
    if not isinstance(values, list):
        raise ValueError(f"{os.fspath(path)} should hold a list of rows.")
    return [_row(value, f"{os.fspath(path)}, row {index}") for index, value in enumerate(values)]


def load_sweep_results(folder: Path) -> list[Row]:
    """The rows in the folder of a sweep; none before it began.

    Raises:
        ValueError: If results.json is damaged; the message says what it costs to do without it.
    """
    path = folder / "results.json"
    try:
        return load_results(path) if path.exists() else []
    except ValueError as error:
        raise ValueError(
            f"{error} Once {path} is deleted, the same sweep evaluates the networks that are in "
            f"{folder / 'networks'} anew, and trains those that it has not kept."
        ) from None


def _row(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"{where} should be an object. Received: {value!r}.")
    fields = dataclasses.fields(Row)
    # Version 0.1 had none of the fields with a default.
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    known = {field.name for field in fields}
    if wrong := (needed - {*value}) | ({*value} - known):
        raise ValueError(f"{where} has missing or unknown fields: {sorted(wrong)}.")
    checks = {
        "network": isinstance(value["network"], str),
        "tasks": isinstance(value["tasks"], list)
        and all(isinstance(task, str) for task in value["tasks"]),
        "seed": type(value["seed"]) is int,
        "task": isinstance(value["tasks"], list) and value["task"] in value["tasks"],
        "split": isinstance(value["split"], str),
        "loss": is_number(value["loss"]),
        "metrics": isinstance(value["metrics"], dict)
        and all(is_number(metric) for metric in value["metrics"].values()),
        "seconds": is_number(value["seconds"]),
        "role": isinstance(value.get("role", ""), str),
        "index": value.get("index") is None or type(value["index"]) is int,
        "early": isinstance(value.get("early", False), bool),
        "half_size": isinstance(value.get("half_size", False), bool),
    }
    for name, right in checks.items():
        if not right:
            raise ValueError(f"{where}: the field {name!r} has a wrong value: {value[name]!r}.")
    return Row(**{**value, "tasks": tuple(value["tasks"])})


class ResultTable:
    """Results by network, seed, split and task.

    Where networks serve tasks, `serves` gives the name of the network by task.

    Args:
        rows: Results; of two of the same, the last one counts.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        # By network and seed, the rows by split and task.
        self._rows: dict[str, dict[int, dict[tuple[str, str], Row]]] = {}
        for row in rows:
            by_seed = self._rows.setdefault(row.network, {})
            by_seed.setdefault(row.seed, {})[row.split, row.task] = row

    def find(self, network: str, seed: int, split: str, task: str) -> Row | None:
        """The result of a network, if it has one."""
        return self._rows.get(network, {}).get(seed, {}).get((split, task))

    def seeds(self, serves: Mapping[str, str], split: str) -> list[int]:
        """Seeds for which each task has a result from its network, in increasing order."""
        return sorted(set.intersection(*map(set, self._seeds_by_task(serves, split).values())))

    def losses(
        self, serves: Mapping[str, str], split: str, seeds: Iterable[int] | None = None
    ) -> dict[str, Array]:
        """Losses by task, each from its network.

        Args:
            serves: Name of the network by task.
            split: Split to read.
            seeds: S seeds. Defaults to those of `self.seeds`.

        Returns:
            Array (S,) by task.

        Raises:
            ValueError: If a task has no result from its network, or if there is no common seed.
        """
        found = self._seeds_by_task(serves, split)
        if missing := [f"{task} from {serves[task]}" for task in serves if not found[task]]:
            raise ValueError(f"There is no result on {split!r} for: {', '.join(missing)}.")
        chosen = self.seeds(serves, split) if seeds is None else list(seeds)
        if not chosen:
            have = {serves[task]: found[task] for task in serves}
            raise ValueError(f"The networks should have a seed in common. Received seeds: {have}.")
        return {
            task: np.array([self._rows[name][seed][split, task].loss for seed in chosen])
            for task, name in serves.items()
        }

    def seconds(self, networks: Iterable[str]) -> dict[str, dict[int, float]]:
        """Seconds of training by seed, by name of the network, each training once.

        Networks with the same tasks and seed are trained once and differ in their names only: the
        first of `networks` has the seconds. A network without results is left out.
        """
        seconds: dict[str, dict[int, float]] = {}
        known = set()
        for name in (name for name in networks if name in self._rows):
            seconds[name] = {}
            for seed, rows in self._rows[name].items():
                results = [(*key, row.tasks, row.loss, row.seconds) for key, row in rows.items()]
                training = (seed, *sorted(results))
                if training not in known:
                    known.add(training)
                    seconds[name][seed] = next(iter(rows.values())).seconds
        return seconds

    def _seeds_by_task(self, serves: Mapping[str, str], split: str) -> dict[str, list[int]]:
        return {
            task: sorted(
                seed for seed, rows in self._rows.get(name, {}).items() if (split, task) in rows
            )
            for task, name in serves.items()
        }


def total_error(losses: Mapping[str, Array]) -> Array:
    """Total error (Standley et al. 2020, arXiv 1905.07553): sum over the tasks, for each seed.

    Args:
        losses: Array (S,) of losses by task.

    Returns:
        Array (S,).
    """
    total: Array = np.sum(list(losses.values()), axis=0)
    return total


def mean_and_deviation(values: Sequence[float] | Array) -> tuple[float, float]:
    """Mean and sample standard deviation over seeds; the deviation of one seed is NaN."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def mean_and_noise(differences: Sequence[float] | Array) -> tuple[float, float]:
    """Mean of differences paired by seed (S,), and two standard errors of it; NaN for one seed."""
    mean, deviation = mean_and_deviation(differences)
    return mean, 2 * deviation / len(differences) ** 0.5
