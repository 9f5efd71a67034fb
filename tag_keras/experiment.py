"""From a data set to groups that were compared: measure, select, train, report, and resume.

Every stage writes its file whole or not at all and is skipped when the file is there, so a run that
was killed goes on where it stopped.
"""

import dataclasses
import functools
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import keras

from tag_keras import files
from tag_keras.affinity import Affinity, LookaheadAffinity
from tag_keras.comparison import compare
from tag_keras.grouped_model import GroupedModel
from tag_keras.model import MultiTaskModel
from tag_keras.network_selection import Grouping, select_groups
from tag_keras.results import (
    Row,
    load_results,
    losses_of,
    mean_and_deviation,
    save_results,
    total_error,
)
from tag_keras.tasks import check_task_names
from tag_keras.training import (
    BuildModel,
    Data,
    Network,
    evaluate_network,
    load_network,
    save_network,
    train_network,
)


class BuildMeasuredModel(Protocol):
    """Gives a compiled model for a tuple of tasks, which measures affinities if asked to."""

    def __call__(
        self, tasks: tuple[str, ...], affinity: LookaheadAffinity | None = None
    ) -> MultiTaskModel: ...


def train_groups(
    build_model: BuildModel,
    grouping: Grouping,
    train: Data,
    validation_data: Data = None,
    epochs: int = 1,
    output_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    **fit: Any,
) -> GroupedModel:
    """Trains one network per group and puts them together (TAG, section 3; arXiv 2109.04617).

    Args:
        build_model: Gives a compiled `MultiTaskModel` for a tuple of tasks.
        grouping: Groups, for instance from `select_groups`.
        train: A dataset, or `(x, y)` or `(x, y, sample_weight)`, or a function that gives one of
            these; one with all labels feeds every group.
        validation_data: As in `keras.Model.fit`.
        epochs: Number of epochs for each network.
        output_dir: Folder for the trained networks. A network that is there already is loaded
            instead of trained, so the same call goes on where it was stopped. To be loaded, custom
            layers must be registered with `keras.saving.register_keras_serializable`.
        seed: Seed that is set before each network is built.
        **fit: Further arguments of `fit`. Callbacks are copied for each network.

    Returns:
        A `GroupedModel`.

    Raises:
        ValueError: If `build_model` gives a model for other tasks, if `output_dir` is given and
            the model could not be loaded again, or if `output_dir` holds a damaged network or
            those of another grouping, seed or number of epochs.

    Example:

    ```python
    grouped = tag_keras.train_groups(build_model, grouping, (x, y), epochs=10)
    grouped.save("grouped.keras")
    ```
    """
    folder = None if output_dir is None else Path(output_dir)
    fit = {"validation_data": validation_data, "epochs": epochs, **fit}
    if folder is not None:
        groups = [list(group) for group in grouping.groups]
        keep_settings(folder, {"groups": groups, "seed": seed, **_comparable(fit)})
    models = []
    for index, tasks in enumerate(grouping.groups):
        network = Network(f"group_{index}", tasks, seed)
        path = None if folder is None else folder / network.file
        if path is not None and path.exists():
            models.append(load_network(path))
            continue
        saves = path is not None
        models.append(train_network(build_model, network, train, saves, **fit)[0])
        if path is not None:
            save_network(models[-1], path)
    return GroupedModel(models, grouping)


def run(
    output_dir: str | os.PathLike[str],
    build_model: BuildMeasuredModel,
    data: Mapping[str, Data],
    tasks: Sequence[str],
    num_groups: int,
    affinity: LookaheadAffinity,
    singletons: Literal["forbid", "baseline"] = "forbid",
    seeds: Sequence[int] = (0, 1, 2),
    settings: Mapping[str, Any] | None = None,
    **fit: Any,
) -> GroupedModel:
    """Measures affinities, selects groups, trains them and their yardsticks, and reports.

    The yardsticks are one joint network and one network per task. Everything is chosen on the
    split `"validation"`; `"test"` is only reported. Called again, it goes on where it stopped.

    Args:
        output_dir: Folder for affinity.json, groups.json, results.json, grouped.keras, report.html
            and, in networks/, every trained network.
        build_model: Gives a compiled model for a tuple of tasks.
        data: `"train"`, `"validation"` and `"test"`: each what `train` is in `train_groups`.
        tasks: Task names.
        num_groups: Number of groups at most.
        affinity: How to measure affinities.
        singletons: As in `select_groups`.
        seeds: Every network is trained once with each; affinities are measured with the first.
        settings: What else tells this run from another in the same folder.
        **fit: Arguments of `fit`.

    Returns:
        The deployable model: of each group the network of the seed with the least validation loss.

    Raises:
        ValueError: If there is no seed or one twice, or if the folder belongs to a run with other
            settings or has a damaged file.
    """
    from tag_keras.report import write_report  # It needs matplotlib, which the library does not.

    folder, tasks, seeds = Path(output_dir), check_task_names(list(tasks)), tuple(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"`seeds` should be different numbers. Received: seeds={list(seeds)}.")
    given = {"tasks": tasks, "num_groups": num_groups, "singletons": singletons, "seeds": seeds}
    given |= {**dataclasses.asdict(affinity), **_comparable(fit), **(settings or {})}
    keep_settings(folder, given)

    print(f"Measuring affinities between {len(tasks)} tasks ...", flush=True)
    measured = _measure(folder, build_model, data, tasks, affinity, seeds[0], **fit)
    grouping = _select(folder, measured, num_groups, singletons)
    print(f"Groups: {'; '.join(', '.join(group) for group in grouping.groups)}", flush=True)

    networks = [
        network
        for seed in seeds
        for network in (
            Network("joint", tasks, seed),
            *(Network(f"group_{i}", group, seed) for i, group in enumerate(grouping.groups)),
            *(Network(f"single_{task}", (task,), seed) for task in tasks),
        )
    ]
    print(f"Training {len(networks)} networks ...", flush=True)
    rows = train_networks(folder, networks, build_model, data, **fit)
    grouped = _put_together(folder, grouping, rows)
    write_report(folder / "report.html", measured, grouping, rows)
    print(f"{_table(grouping, rows)}\nReport: {folder / 'report.html'}")
    return grouped


def train_networks(
    folder: Path,
    networks: Sequence[Network],
    build_model: BuildModel,
    data: Mapping[str, Data],
    **fit: Any,
) -> list[Row]:
    """Trains and evaluates networks one after the other; those in results.json are skipped.

    Networks with the same tasks and seed are the same network, which is trained once.

    Args:
        folder: Folder of results.json and networks/.
        networks: What to train.
        build_model: Gives a compiled model for a tuple of tasks.
        data: `"train"` and the splits to evaluate on.
        **fit: Arguments of `fit`.

    Returns:
        All rows of results.json.
    """
    bar = keras.utils.Progbar(len(networks), unit_name="network")
    for number, network in enumerate(networks, start=1):
        rows = _load_rows(folder)
        if not _rows_of(rows, network):
            _train_or_copy(folder, rows, network, build_model, data, **fit)
        bar.update(number)
    return _load_rows(folder)


def _train_or_copy(
    folder: Path,
    rows: list[Row],
    network: Network,
    build_model: BuildModel,
    data: Mapping[str, Data],
    **fit: Any,
) -> None:
    path = folder / "networks" / network.file
    twins = [row for row in rows if (row.tasks, row.seed) == (network.tasks, network.seed)]
    twins = [row for row in twins if row.network not in ("affinity", network.name)]
    if twins:
        twin = Network(twins[0].network, network.tasks, network.seed)
        new = [dataclasses.replace(row, network=network.name) for row in _rows_of(rows, twin)]
        with files.replacing(path) as partial:
            shutil.copyfile(folder / "networks" / twin.file, partial)
    else:
        # What Keras keeps of the networks before, such as the numbers in layers' names.
        keras.utils.clear_session()
        model, seconds = train_network(build_model, network, data["train"], True, **fit)
        new = _evaluate(model, network, data, seconds)
        save_network(model, path)
    # Last, because a row says that all of its network is there.
    save_results(folder / "results.json", [*rows, *new])


def _measure(
    folder: Path,
    build_model: BuildMeasuredModel,
    data: Mapping[str, Data],
    tasks: tuple[str, ...],
    options: LookaheadAffinity,
    seed: int,
    **fit: Any,
) -> Affinity:
    path = folder / "affinity.json"
    if not path.exists():
        network = Network("affinity", tasks, seed)
        keras.utils.clear_session()
        build = functools.partial(build_model, affinity=options)
        model, seconds = train_network(build, network, data["train"], True, **fit)
        others = [row for row in _load_rows(folder) if row.network != network.name]
        new = _evaluate(model, network, data, seconds)
        save_results(folder / "results.json", [*others, *new])
        model.get_affinity().save(path)
    return Affinity.load(path)


def _select(
    folder: Path, affinity: Affinity, num_groups: int, singletons: Literal["forbid", "baseline"]
) -> Grouping:
    path = folder / "groups.json"
    if not path.exists():
        select_groups(affinity, num_groups, singletons).save(path)
    return Grouping.load(path)


def _put_together(folder: Path, grouping: Grouping, rows: Iterable[Row]) -> GroupedModel:
    path = folder / "grouped.keras"
    if not path.exists():
        rows = list(rows)
        models = []
        for index, group in enumerate(grouping.groups):
            name = f"group_{index}"
            served = {task: name for task, group in grouping.serves.items() if group == index}
            seeds = sorted({row.seed for row in rows if row.network == name})
            best = seeds[int(total_error(losses_of(rows, served, "validation")).argmin())]
            models.append(load_network(folder / "networks" / Network(name, group, best).file))
        save_network(GroupedModel(models, grouping), path)
    grouped: GroupedModel = load_network(path)
    return grouped


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a run into its folder, or checks that those there are the same.

    Raises:
        ValueError: If the folder belongs to a run with other settings.
    """
    path = folder / "settings.json"
    settings = json.loads(json.dumps(settings))  # As they come back: tuples are lists.
    if not path.exists():
        files.write_json(path, settings)
        return
    found = files.read_fields(path, [])
    names = sorted({*found, *settings})
    if different := [name for name in names if found.get(name) != settings.get(name)]:
        changes = [
            f"{name} was {found.get(name)} and is {settings.get(name)}" for name in different
        ]
        raise ValueError(
            f"{folder} holds another run: {'; '.join(changes)}. Give another output directory, or "
            "delete this one."
        )


def _table(grouping: Grouping, rows: Sequence[Row]) -> str:
    """Test losses, mean and deviation over the seeds for the terminal."""
    comparison = compare(grouping, rows)
    lines = ["test loss".ljust(20) + "".join(kind.rjust(18) for kind in comparison.losses)]
    for place, label in enumerate([*grouping.tasks, "total"]):
        cells = [mean_and_deviation(losses[place]) for losses in comparison.losses.values()]
        text = [
            f"{mean:.4f}" + (f" +- {deviation:.4f}" if math.isfinite(deviation) else "")
            for mean, deviation in cells
        ]
        lines.append(label.ljust(20) + "".join(cell.rjust(18) for cell in text))
    return "\n".join(lines)


def _comparable(fit: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `fit` that change a training and can be written down."""
    kept = {name: value for name, value in fit.items() if name != "verbose"}
    return {name: value for name, value in kept.items() if isinstance(value, int | float | str)}


def _evaluate(
    model: MultiTaskModel, network: Network, data: Mapping[str, Data], seconds: float
) -> list[Row]:
    splits = {split: data[split] for split in data if split != "train"}
    return evaluate_network(model, network, splits, seconds)


def _load_rows(folder: Path) -> list[Row]:
    path = folder / "results.json"
    return load_results(path) if path.exists() else []


def _rows_of(rows: Iterable[Row], network: Network) -> list[Row]:
    return [row for row in rows if (row.network, row.seed) == (network.name, network.seed)]
