"""Results of trained networks: rows, the file that holds them, and numbers for tables."""

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
from tag_keras.utils.frames import data_frame

Array = npt.NDArray[np.float64]
# With fewer seeds, the noise between them counts as unknown.
FEWEST_SEEDS = 3
_LARGEST = 1e100
_NUM_PARTS = 5
JOINT = "joint"
# The network that measures affinities.
MEASURES = "affinity"
# Roles of networks that are trained by plain `fit`. Most other roles are names of methods. A
# candidate is a group that was trained to learn from; the groups of a grouping have the role group.
PLAIN = (JOINT, "single", "group", "candidate")


def single_name(task: str) -> str:
    """Name of the network that is trained on one task."""
    return f"single_{task}"


def part_names(split: str) -> tuple[str, ...]:
    """Names of the splits that are equal parts of a split."""
    return tuple(f"{split} {part}/{_NUM_PARTS}" for part in range(1, _NUM_PARTS + 1))


def is_part(split: str) -> bool:
    """Whether a split is a part of another one, by its name."""
    return split in part_names(split.rpartition(" ")[0])


def group_name(index: int) -> str:
    """Name of the network of a group, by the index of the group in its grouping."""
    return f"group_{index}"


@dataclasses.dataclass(frozen=True)
class Row:
    """Loss and metrics of one network on one task of one split.

    Args:
        network: Name of the network, for instance `"joint"`.
        tasks: Tasks that the network was trained on.
        seed: Seed of the network's weights and batches.
        task: The task of this row, one of `tasks`.
        split: Split of the data, for instance `"validation"` or `"test"`.
        loss: Mean loss of the task over the split.
        metrics: Further metrics of the task: value by name.
        seconds: Wall time of training the network.
        role: `"joint"`, `"single"`, `"group"`, `"candidate"` (another group that was trained to
            learn from), `"affinity"` or the name of a method. By default, role and the fields below
            are what version 0.1 would have read from the name.
        index: Index of the network's group in its grouping, or None.
        early: Whether the training stopped after ESA's few epochs.
        half_size: Whether the network has half the size.
        stacked: Whether it was trained with others in one graph. `seconds` is then its share.
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
    stacked: bool = False

    def __post_init__(self) -> None:
        if not self.role:
            for field, value in role_of_version_0_1(self.network).items():
                object.__setattr__(self, field, value)


def plain_rows(rows: Iterable[Row]) -> list[Row]:
    """Rows of networks of full size that were trained to the end by plain `fit`, one of each kind.

    Of several networks with the same tasks and seed, those of the first role count, in the order
    `"joint"`, `"single"`, `"group"`, `"candidate"`, and of one role those of the first name.
    """
    plain = [row for row in rows if row.role in PLAIN and not row.early and not row.half_size]
    plain.sort(key=lambda row: PLAIN.index(row.role))
    names: dict[tuple[frozenset[str], int], str] = {}
    return [
        row
        for row in plain
        if names.setdefault((frozenset(row.tasks), row.seed), row.network) == row.network
    ]


def role_of_version_0_1(name: str) -> dict[str, Any]:
    """Role, index, early and half size, which version 0.1 wrote into the name of a network."""
    plain = re.fullmatch(r"(early_)?(half_)?(joint|single_.+|group_[\d-]+)", name, re.DOTALL)
    if not plain:
        return {"role": name.removesuffix("_joint")}
    early, half, rest = plain.groups()
    role, _, which = rest.partition("_")
    index = int(which) if role == "group" and which.isdecimal() else None
    return {"role": role, "index": index, "early": bool(early), "half_size": bool(half)}


def save_results(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Writes rows as JSON, atomically.

    Args:
        path: File to write, such as `"results.json"`.
        rows: Results of networks.
    """
    files.write_json(path, [dataclasses.asdict(row) for row in rows])


def load_results(path: str | os.PathLike[str]) -> list[Row]:
    """Reads the rows that `save_results` wrote.

    Args:
        path: File to read.

    Returns:
        The rows, in the order of the file.

    Raises:
        ValueError: If the file holds something else; the message names file, row and field.
    """
    values = files.read_json(path)
    if not isinstance(values, list):
        raise ValueError(f"{os.fspath(path)} should hold a list of rows.")
    rows = [_row(value, f"{os.fspath(path)}, row {index}") for index, value in enumerate(values)]
    found: dict[tuple[Any, ...], int] = {}
    for index, row in enumerate(rows):
        first = found.setdefault((row.network, row.seed, row.split, row.task), index)
        if first < index:
            raise ValueError(
                f"{os.fspath(path)}, row {index} has network, seed, split and task of row {first}."
            )
    return rows


def load_frame(path: str | os.PathLike[str]) -> Any:
    """Reads results.json as a `pandas.DataFrame`: one row for each network, seed, split and task.

    Args:
        path: File that `save_results`, a sweep or an experiment wrote.

    Returns:
        A frame with a column for each field of `Row`, and instead of `metrics` one for each metric,
        `metric_<name>`, which is NaN for a task that lacks it. `index` is a nullable integer.

    Raises:
        ImportError: If there is no pandas: `pip install "tag_keras[tools]"`.
        ValueError: If the file holds something else; the message names file, row and field.

    Example:

    ```python
    frame = tag_keras.results.load_frame("runs/digits/results.json")
    test = frame[frame.split == "test"]
    test.pivot_table(index="task", columns="role", values="loss")
    ```
    """
    rows = load_results(path)
    names = [field.name for field in dataclasses.fields(Row) if field.name != "metrics"]
    columns = {name: [getattr(row, name) for row in rows] for name in names}
    for metric in dict.fromkeys(metric for row in rows for metric in row.metrics):
        columns[f"metric_{metric}"] = [row.metrics.get(metric, np.nan) for row in rows]
    return data_frame(columns).astype({"index": "Int64"})


def load_sweep_results(folder: Path) -> list[Row]:
    """Reads the rows in the folder of a sweep; none before the sweep has begun.

    Raises:
        ValueError: If results.json is damaged; the message says what deleting it costs.
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
    # Version 0.1 had none of the fields with a default.
    defaults = {field.name: field.default for field in dataclasses.fields(Row)}
    needed = {name for name, default in defaults.items() if default is dataclasses.MISSING}
    if wrong := (needed - {*value}) | ({*value} - {*defaults}):
        raise ValueError(f"{where} has missing or unknown fields: {sorted(wrong)}.")
    tasks, metrics = value["tasks"], value["metrics"]
    checks = {
        "network": isinstance(value["network"], str),
        "tasks": isinstance(tasks, list)
        and all(isinstance(task, str) for task in tasks)
        and len({*tasks}) == len(tasks),
        "seed": type(value["seed"]) is int and value["seed"] >= 0,
        "task": isinstance(tasks, list) and value["task"] in tasks,
        "split": isinstance(value["split"], str),
        "loss": _is_figure(value["loss"]),
        "metrics": isinstance(metrics, dict) and all(map(_is_figure, metrics.values())),
        "seconds": _is_figure(value["seconds"]),
        "role": isinstance(value.get("role", ""), str),
        "index": value.get("index") is None or type(value["index"]) is int,
        "early": isinstance(value.get("early", False), bool),
        "half_size": isinstance(value.get("half_size", False), bool),
    }
    for name, right in checks.items():
        if not right:
            raise ValueError(f"{where}: the field {name!r} has a wrong value: {value[name]!r:.80}.")
    return Row(**{**value, "tasks": tuple(tasks)})


def _is_figure(value: Any) -> bool:
    """Whether it is a number whose sums and squares are finite, too."""
    return is_number(value) and abs(value) <= _LARGEST


class ResultTable:
    """Results by network, seed, split and task.

    In every method, `serves` maps each task to the name of the network that serves it.

    Args:
        rows: Results. The last one counts where several agree in all four.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        # Network -> seed -> (split, task) -> row.
        self._rows: dict[str, dict[int, dict[tuple[str, str], Row]]] = {}
        for row in rows:
            by_seed = self._rows.setdefault(row.network, {})
            by_seed.setdefault(row.seed, {})[row.split, row.task] = row

    def find(self, network: str, seed: int, split: str, task: str) -> Row | None:
        """The row of a network, or None if there is none."""
        return self._rows.get(network, {}).get(seed, {}).get((split, task))

    def seeds(self, serves: Mapping[str, str], split: str) -> list[int]:
        """Seeds for which every task has a result from its network, in increasing order."""
        found = self._seeds_by_task(serves, split).values()
        return sorted(set.intersection(*map(set, found)))

    def losses(
        self, serves: Mapping[str, str], split: str, seeds: Iterable[int] | None = None
    ) -> dict[str, Array]:
        """Losses (S,) of each task from the network that serves it, for S seeds.

        Args:
            serves: Name of the network by task.
            split: Split to read.
            seeds: The seeds. Defaults to all that the networks have in common.

        Raises:
            ValueError: If a task has no result from its network, or no seed is common to all.
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
        """Seconds of training by network and seed, without networks that have no results.

        Networks with the same tasks and seed are trained once, under several names: the first of
        `networks` gets the seconds.
        """
        seconds: dict[str, dict[int, float]] = {}
        counted = set()
        for name in networks:
            for seed, rows in self._rows.get(name, {}).items():
                by_seed = seconds.setdefault(name, {})
                results = [(*key, row.tasks, row.loss, row.seconds) for key, row in rows.items()]
                training = (seed, *sorted(results))
                if training not in counted:
                    counted.add(training)
                    by_seed[seed] = next(iter(rows.values())).seconds
        return seconds

    def seconds_once(self, networks: Iterable[str]) -> dict[str, float]:
        """Seconds of training each network once, as `seconds` counts them.

        It is the mean over the seeds. Of the network that measures affinities it is their sum,
        because the affinities are of all its seeds.
        """
        return {
            name: float(sum(one.values()) / (1 if name == MEASURES else max(1, len(one))))
            for name, one in self.seconds(networks).items()
        }

    def _seeds_by_task(self, serves: Mapping[str, str], split: str) -> dict[str, list[int]]:
        found = {}
        for task, name in serves.items():
            by_seed = self._rows.get(name, {})
            found[task] = sorted(seed for seed in by_seed if (split, task) in by_seed[seed])
        return found


def total_error(losses: Mapping[str, Array]) -> Array:
    """Total error (Standley et al. 2020, 1905.07553): sum over the tasks of the losses (S,)."""
    total: Array = np.sum(list(losses.values()), axis=0)
    return total


def mean_and_deviation(values: Sequence[float] | Array) -> tuple[float, float]:
    """Mean and sample standard deviation over seeds (S,); for one seed, the deviation is NaN."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def mean_and_noise(differences: Sequence[float] | Array) -> tuple[float, float]:
    """Mean of differences paired by seed (S,), and two standard errors, NaN for one seed."""
    mean, deviation = mean_and_deviation(differences)
    return mean, 2 * deviation / len(differences) ** 0.5
