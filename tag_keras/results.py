"""Results of trained networks: rows in a file, and the figures that a table needs."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tag_keras.utils import files
from tag_keras.utils.checks import is_number

Array = npt.NDArray[np.float64]
# With fewer seeds the noise between them counts as not known.
FEWEST_SEEDS = 3


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
    """

    network: str
    tasks: tuple[str, ...]
    seed: int
    task: str
    split: str
    loss: float
    metrics: Mapping[str, float]
    seconds: float


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
    expected = {field.name for field in dataclasses.fields(Row)}
    if wrong := expected.symmetric_difference(value):
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
    }
    for name, right in checks.items():
        if not right:
            raise ValueError(f"{where}: the field {name!r} has a wrong value: {value[name]!r}.")
    return Row(**{**value, "tasks": tuple(value["tasks"])})


def losses_of(rows: Iterable[Row], serves: Mapping[str, str], split: str) -> dict[str, Array]:
    """Losses by task over the seeds, each task from the network that serves it.

    Args:
        rows: Results.
        serves: Name of the network that serves it, by task.
        split: Split to read.

    Returns:
        Array (S,) by task, of the S seeds that every serving network has, in increasing order.

    Raises:
        ValueError: If a task has no result from its network, or if there is no common seed.
    """
    rows = list(rows)
    table: dict[str, dict[int, float]] = collections.defaultdict(dict)
    for row in rows:
        if row.split == split and serves.get(row.task) == row.network:
            table[row.task][row.seed] = row.loss
    if missing := [f"{task} from {serves[task]}" for task in serves if not table[task]]:
        raise ValueError(f"There is no result on {split!r} for: {', '.join(missing)}.")
    seeds = sorted(complete_seeds(rows, serves, split))
    if not seeds:
        found = {serves[task]: sorted(table[task]) for task in serves}
        raise ValueError(f"The networks should have a seed in common. Received seeds: {found}.")
    return {task: np.array([table[task][seed] for seed in seeds]) for task in serves}


def complete_seeds(rows: Iterable[Row], serves: Mapping[str, str], split: str) -> set[int]:
    """Seeds for which each task has a result from the network that serves it."""
    seeds: dict[str, set[int]] = {task: set() for task in serves}
    for row in rows:
        if row.split == split and serves.get(row.task) == row.network:
            seeds[row.task].add(row.seed)
    return set.intersection(*seeds.values())


def training_seconds(rows: Iterable[Row], names: Iterable[str]) -> dict[str, dict[int, float]]:
    """Seconds of training by seed, by name of the network, each training once.

    Networks with the same tasks and seed are trained once, and have the same rows but for the name.

    Args:
        rows: Results.
        names: Names of networks; of those that are the same, the first has the seconds.

    Returns:
        Seconds by seed, by name, of the networks that have rows.
    """
    found: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        found.setdefault(row.network, {}).setdefault(row.seed, []).append(row)
    seconds: dict[str, dict[int, float]] = {}
    known = set()
    for name in (name for name in names if name in found):
        seconds[name] = {}
        for seed, same in found[name].items():
            training = frozenset(
                (row.tasks, seed, row.task, row.split, row.loss, row.seconds) for row in same
            )
            if training not in known:
                known.add(training)
                seconds[name][seed] = same[-1].seconds
    return seconds


def total_error(losses: Mapping[str, Array]) -> Array:
    """Total error (Standley et al. 2020, arXiv 1905.07553): sum over the tasks, for each seed.

    Args:
        losses: Array (S,) of losses by task.

    Returns:
        Array (S,).
    """
    total: Array = np.sum(list(losses.values()), axis=0)
    return total


def relative_change(losses: Array, baseline: Array) -> Array:
    """Relative change `losses / baseline - 1`; negative is an improvement."""
    return losses / baseline - 1


def mean_and_deviation(values: Sequence[float] | Array) -> tuple[float, float]:
    """Mean and sample standard deviation over seeds; the deviation of one seed is NaN."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def mean_and_noise(differences: Sequence[float] | Array) -> tuple[float, float]:
    """Mean of differences paired by seed (S,), and two standard errors of it; NaN for one seed."""
    mean, deviation = mean_and_deviation(differences)
    return mean, 2 * deviation / len(differences) ** 0.5
