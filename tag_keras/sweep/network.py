"""Training networks: each built from its seed, evaluated into rows, saved and loaded whole."""

import copy
import dataclasses
import math
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

import tag_keras.saved_classes  # noqa: F401
from tag_keras.grouped_model import GroupedModel
from tag_keras.model import MultiTaskModel
from tag_keras.results import Row, group_name, role_of_version_0_1
from tag_keras.selection.grouping import Grouping
from tag_keras.utils import files
from tag_keras.utils.files import comparable, keep_settings

BuildModel = Callable[[tuple[str, ...]], MultiTaskModel]
# A dataset, or (x, y) or (x, y, sample_weight), or a function that gives one of these: called after
# the seed was set, it shuffles each network's batches anew and in the same order in every run.
Data = Any


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to train.

    Args:
        name: For instance `"joint"`.
        tasks: Tasks to train it on.
        seed: Seed of its weights and batches.
        role: What it is there for: `"joint"` for all tasks, `"single"` for one task, `"group"` for
            a group of them, `"affinity"` to measure, or the name of the method that trains it, such
            as `"uw"`. By default what version 0.1 would have read from the name.
        index: Index of the group in the grouping, for the network of a group of one grouping.
        early: Whether the training stops after the few epochs that ESA chooses by.
        half_size: Whether the network has half the size.
    """

    name: str
    tasks: tuple[str, ...]
    seed: int = 0
    role: str = ""
    index: int | None = None
    early: bool = False
    half_size: bool = False

    def __post_init__(self) -> None:
        if not self.role:
            for field, value in role_of_version_0_1(self.name).items():
                object.__setattr__(self, field, value)

    @property
    def cost(self) -> float:
        """Cost in standard network times: 1, or 0.5 for half the size (Standley et al. 2020)."""
        return 0.5 if self.half_size else 1.0

    def row(
        self, task: str, split: str, loss: float, metrics: Mapping[str, float], seconds: float
    ) -> Row:
        """A row of results.json."""
        what = (self.name, self.tasks, self.seed, task, split, loss, metrics, seconds)
        return Row(*what, self.role, self.index, self.early, self.half_size)

    @property
    def file(self) -> str:
        """Name of the file that the trained network is saved in."""
        # A task's name may hold a slash.
        return f"{urllib.parse.quote(self.name, safe=' ')}_seed{self.seed}.keras"


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

    It trains no other network to compare them with. Who does, as `experiment.run` does, may let
    `guard_groups` choose which network serves each task.

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
        keep_settings(folder, {"groups": groups, "seed": seed, **comparable(fit)})
    models = []
    for index, tasks in enumerate(grouping.groups):
        network = Network(group_name(index), tasks, seed, role="group", index=index)
        path = None if folder is None else folder / network.file
        if path is not None and path.exists():
            models.append(load_network(path))
            continue
        saves = path is not None
        models.append(train_network(build_model, network, train, saves, **fit)[0])
        if path is not None:
            save_network(models[-1], path)
    return GroupedModel(models, grouping)


def train_network(
    build_model: BuildModel, network: Network, train: Data, saves: bool = False, **fit: Any
) -> tuple[MultiTaskModel, float]:
    """Builds and trains one network from its seed.

    Args:
        build_model: Gives a compiled model for a tuple of tasks.
        network: What to train.
        train: Training data.
        saves: Whether the model is to be saved, and so must be one that can be loaded again.
        **fit: Further arguments of `fit`. Callbacks are copied.

    Returns:
        The model, and the seconds that `fit` took.

    Raises:
        ValueError: If `build_model` gives a model for other tasks, or one that could not be loaded
            again.
    """
    keras.utils.set_random_seed(network.seed)
    model = build_model(network.tasks)
    if set(model.tasks) != set(network.tasks):
        raise ValueError(
            f"`build_model` should give a model for the tasks {list(network.tasks)}. "
            f"Received: a model for {list(model.tasks)}."
        )
    if saves:
        _check_loadable(model)
    start = time.perf_counter()
    data = _arguments(train)
    if len(data) == 1:
        # Keras warns of its own default: it cannot shuffle a dataset.
        fit.setdefault("shuffle", False)
    # Callbacks such as EarlyStopping keep what they saw of the network before.
    fit["callbacks"] = copy.deepcopy(fit.get("callbacks"))
    model.fit(**data, **fit)
    return model, time.perf_counter() - start


def evaluate_network(
    model: MultiTaskModel, network: Network, splits: Mapping[str, Data], seconds: float
) -> list[Row]:
    """Loss and metrics of each task of a network on each split, as rows of results.json.

    Raises:
        ValueError: If a loss or metric is not finite.
    """
    rows = []
    for split, data in splits.items():
        logs = model.evaluate(**_arguments(data), return_dict=True, verbose=0)
        metrics: dict[str, dict[str, float]] = {task: {} for task in network.tasks}
        for name, value in logs.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"{name} of the network {network.name!r}, seed {network.seed}, is {value} on "
                    f"the split {split!r}. Lower the learning rate, or look for NaN in the data."
                )
            # The longest name, because one task's name may begin another's.
            owners = [task for task in network.tasks if name.startswith(f"{task}_")]
            if owners:
                owner = max(owners, key=len)
                metrics[owner][name.removeprefix(f"{owner}_")] = float(value)
        for task in network.tasks:
            loss = metrics[task].pop("loss")
            rows.append(network.row(task, split, loss, metrics[task], seconds))
    return rows


def save_network(model: keras.Model, path: Path) -> None:
    """Saves a model, atomically."""
    with files.replacing(path) as partial:
        model.save(partial)


def load_network(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a saved model, of whichever classes of the package it is.

    It does what `keras.models.load_model` does, which knows these classes only if `keras` was
    imported before `tag_keras`, or something of `tag_keras` has been used.

    Args:
        path: File that `save` of a model wrote.

    Returns:
        The model, compiled as it was.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged; the message names it.

    Example:

    ```python
    grouped = tag_keras.load_network("grouped.keras")
    predictions = grouped.predict(x)
    ```
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no saved model {os.fspath(path)!r}.")
    try:
        return keras.models.load_model(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} cannot be loaded as a model. Register custom layers and losses with "
            "keras.saving.register_keras_serializable, and import the module that does; an encoder "
            "and a head that have layers in common have to be one Functional model, for "
            "MultiTaskModel.from_functional; if the file is damaged, delete it and run the same "
            f"command again. Keras says: {error}"
        ) from error


def _check_loadable(model: MultiTaskModel) -> None:
    """Finds out before the training what would only come to light after it."""
    config = keras.saving.serialize_keras_object(model)
    try:
        keras.saving.deserialize_keras_object(config)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The model could be saved, but not loaded again. Register its custom layers and "
            "losses with keras.saving.register_keras_serializable, and give them a get_config. "
            f"Keras says: {str(error).splitlines()[0]}"
        ) from error


def _arguments(data: Data) -> dict[str, Any]:
    if isinstance(data, Iterator):
        raise ValueError(
            "An iterator would be used up by the first network. Give a function that returns it."
        )
    if callable(data):
        data = data()
    if isinstance(data, tuple | list):
        return dict(zip(("x", "y", "sample_weight"), data, strict=False))
    return {"x": data}
