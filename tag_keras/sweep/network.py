"""One network: what it is, and how it is trained from its seed, saved and loaded."""

import contextlib
import dataclasses
import errno
import os
import random
import textwrap
import time
import urllib.parse
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tag_keras.saved_classes  # noqa: F401
from tag_keras.grouped_model import GroupedModel
from tag_keras.model import MultiTaskModel
from tag_keras.multitask.task_trainer import TaskTrainer
from tag_keras.results import Row, group_name, role_of_version_0_1
from tag_keras.selection.grouping import Grouping
from tag_keras.sweep.console import (
    is_quiet,
    progress_of,
    with_steps,
    without_retracing_warnings,
)
from tag_keras.sweep.fingerprint import of_run
from tag_keras.sweep.inputs import (
    arguments,
    callbacks_of,
    can_shuffle,
    check_build_model,
    check_callbacks,
    check_datasets,
    check_model,
    validation_of_fit,
)
from tag_keras.sweep.own_weights import build_alone, unchanged
from tag_keras.utils import files
from tag_keras.utils.checks import check
from tag_keras.utils.files import comparable, keep_settings
from tag_keras.utils.progress import Progress

BuildModel = Callable[[tuple[str, ...]], MultiTaskModel]
# A dataset, (x, y), (x, y, sample_weight), or a function that returns one of these, called after
# the seed is set: it shuffles anew for each network, in the same order in every run.
Data = Any

IF_NOT_FINITE = "Lower the learning rate, or look for NaN in the data."
# The product of two such numbers is infinite in float32.
_TOO_LARGE = 1e19
# File systems allow 255 bytes. Beside the file of a network lie some with longer endings.
_LONGEST = 255 - len(".partial-" + ".trained.json")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to train.

    Args:
        name: Name, for instance `"joint"`.
        tasks: Names of the tasks to train it on.
        seed: Seed of its weights and batches.
        role: `"joint"` for all tasks, `"single"` for one, `"group"` for a group, `"affinity"` to
            measure affinities, or the name of the method that trains it, such as `"uw"`. By
            default, role and the fields below are what version 0.1 would have read from `name`.
        index: Index of the network's group in its grouping. None for all others, and for a group
            that several groupings may hold.
        early: Whether the training stops after ESA's few epochs (Standley et al. 2020).
        half_size: Whether the network has half the size (Standley et al. 2020).
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
        """Cost in standard network times (Standley et al. 2020), 1 or 0.5 for half the size."""
        return 0.5 if self.half_size else 1.0

    def row(
        self,
        task: str,
        split: str,
        loss: float,
        metrics: Mapping[str, float],
        seconds: float,
        stacked: bool = False,
    ) -> Row:
        """A row of results.json.

        Args:
            task: Task of the row.
            split: Split of the data.
            loss: Mean loss of the task over the split.
            metrics: Further metrics of the task, by name.
            seconds: Wall time of the training.
            stacked: Whether the network was trained with others in one graph.
        """
        result = (self.name, self.tasks, self.seed, task, split, loss, metrics, seconds)
        return Row(*result, self.role, self.index, self.early, self.half_size, stacked)

    @property
    def file(self) -> str:
        """Name of the file of the trained network, quoted, as a task's name may hold a slash.

        A name that is then too long, as of 26 Chinese letters, is cut and gets a hash.
        """
        name, end = urllib.parse.quote(self.name, safe=" "), f"_seed{self.seed}"
        if len(name + end) > _LONGEST:
            name = f"{name[:100]}_{files.short_hash(self.name)}"
        return f"{name}{end}.keras"


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
    """Trains one network per group and combines them (TAG, section 3; arXiv 2109.04617).

    `experiment.run` also trains yardsticks, and lets `guard_groups` choose the network that serves
    each task.

    Args:
        build_model: Returns a compiled `MultiTaskModel` for a tuple of tasks. It makes all that a
            training changes anew at each call, which a second call for each network checks. Layers
            that are frozen or adapted may be made once outside.
        grouping: Groups, for instance from `select_groups`.
        train: Training data with the labels of all tasks: a dataset, `(x, y)`,
            `(x, y, sample_weight)`, or a function that returns one of these.
        validation_data: Data that `fit` evaluates on after each epoch, in the same forms.
        epochs: Number of epochs for each network.
        output_dir: Folder for the trained networks. A network that is there is loaded, so the same
            call resumes a stopped one; one whose file is damaged is trained anew. Register custom
            layers with `keras.saving.register_keras_serializable`, or they cannot be loaded.
        seed: Seed to set before each network is built.
        **fit: Further arguments of `fit`. Each network gets copies of the callbacks, so that those
            you gave record nothing; or give a function, `callbacks=lambda network: [...]`, which
            returns the callbacks of a network (`network.name`, `.tasks`, `.seed`). Without
            `verbose`, one line shows the progress of all networks; 1 or 2 adds Keras' lines for
            each, and 0 shows nothing.

    Returns:
        A `GroupedModel`, compiled to evaluate: each task has the loss and the metrics of the
        network that serves it. Its `histories` are those of the trainings, in the order of the
        groups, None for a network that `output_dir` had already.

    Raises:
        ValueError: If an argument cannot be used, if data lack labels, or if models have something
            in common that a training changes; if a model is for other tasks, or could not be loaded
            again from `output_dir`; if weights are not finite after a training, so that a network
            would predict NaN; or if this folder holds networks of another grouping, model, data,
            callbacks or settings, or another run is at work in it.

    Example:

    ```python
    grouped = tag_keras.train_groups(build_model, grouping, (x, y), epochs=10)
    grouped.evaluate(x_test, y_test, return_dict=True)
    grouped.histories[0]["loss"]  # of the network of the first group, by epoch
    grouped.save("grouped.keras")
    ```
    """
    check(
        isinstance(grouping, Grouping),
        "`grouping` should be a `Grouping`, such as `select_groups` returns",
        grouping=grouping,
    )
    check_build_model(build_model)
    check_datasets({"`train`": train, "`validation_data`": validation_data}, grouping.tasks)
    check_callbacks(fit.get("callbacks"))
    networks = [
        Network(group_name(index), tasks, seed, role="group", index=index)
        for index, tasks in enumerate(grouping.groups)
    ]
    fit = {"validation_data": validation_data, "epochs": epochs, **fit}
    if output_dir is None:
        models = _train_left(build_model, dict.fromkeys(networks), train, fit)
        return _combined(models, grouping)
    folder = Path(output_dir)
    with files.alone(folder, is_quiet(fit)):
        groups = [list(group) for group in grouping.groups]
        run = of_run(build_model, grouping.groups[0], seed, {"train": train}, fit)
        keep_settings(folder, {"groups": groups, "seed": seed, **comparable(fit)}, run)
        kept = {network: _load_finite(folder / network.file) for network in networks}
        models = _train_left(build_model, kept, train, fit, folder)
    return _combined(models, grouping)


def _combined(models: list[keras.Model], grouping: Grouping) -> GroupedModel:
    """One model of the networks, compiled as they are if they are models of this package."""
    grouped = GroupedModel(models, grouping)
    if all(isinstance(model, TaskTrainer) for model in models):
        grouped.compile_as_networks()
    return grouped


def _load_finite(path: Path) -> keras.Model | None:
    """Loads a network, if it is there and neither its file nor its weights are damaged."""
    if not path.exists() or delete_damaged(path):
        return None
    model = load_network(path)
    if is_finite(model):
        return model
    print(f"{path} has weights that are not finite, and is made anew.", flush=True)
    return None


@without_retracing_warnings()
def _train_left(
    build_model: BuildModel,
    kept: Mapping[Network, keras.Model | None],
    train: Data,
    fit: Mapping[str, Any],
    folder: Path | None = None,
) -> list[keras.Model]:
    """The networks in their order: those that are there, the others trained and saved."""
    models, saves = dict(kept), folder is not None
    done = sum(model is not None for model in kept.values())
    with contextlib.closing(progress_of([fit] * len(kept), done=done)) as progress:
        for network in [one for one, model in kept.items() if model is None]:
            options = {"saves": saves, "progress": progress, **fit}
            models[network], _ = train_network(build_model, network, train, **options)
            if folder is not None:
                save_network(models[network], folder / network.file)
            progress.add()
    return [*models.values()]


def train_network(
    build_model: BuildModel,
    network: Network,
    train: Data,
    saves: bool = False,
    validation: Data = None,
    progress: Progress | None = None,
    **fit: Any,
) -> tuple[MultiTaskModel, float]:
    """Builds and trains one network from its seed; returns it, and the seconds that `fit` took.

    Callbacks in `fit` are copied, unless they are a function of the network. `validation` is for
    those that monitor it, if `fit` has no `validation_data`. With `saves`, the model must be one
    that can be loaded again. `progress` shows the steps; Keras' bars only come if `fit` asks.

    Raises:
        ValueError: If the model is for other tasks, could not be loaded again, has something in
            common with others that its training changes, or has weights that are not finite after
            its training.
    """

    def build() -> MultiTaskModel:
        model = build_model(network.tasks)
        check_model(model, network.tasks)
        return model

    fit["callbacks"] = callbacks_of(fit.get("callbacks"), network)
    fit["validation_data"] = validation_of_fit(fit, validation, network.tasks)
    fit = {"verbose": 0, **fit, "callbacks": with_steps(fit["callbacks"], progress)}
    model, common = build_alone(build, network.seed, train)
    if saves:
        check_loadable(model)
    start = time.perf_counter()
    data = arguments("The training data", train, network.tasks)
    if len(data) == 1 and not can_shuffle(data["x"]):
        # Keras would warn of its own default.
        fit.setdefault("shuffle", False)
    with unchanged(common):
        model.fit(**data, **fit)
    seconds = time.perf_counter() - start
    if not is_finite(model):
        raise ValueError(
            f"The network {network.name!r}, seed {network.seed}, of the tasks "
            f"{list(network.tasks)} has weights that are not finite or far too large after its "
            f"training, so that it would predict NaN. {IF_NOT_FINITE}"
        )
    return model, seconds


def is_finite(model: keras.Model) -> bool:
    """Whether all weights that predict are finite, also means of inputs that are not trained."""
    # A loss weighting begins with losses of NaN.
    methods = getattr(model, "compiled_methods", None)
    others = {id(one) for one in methods.weights} if methods else set()
    own = [weight for weight in model.weights if id(weight) not in others]
    return all(are_valid(keras.ops.convert_to_numpy(one), one.trainable) for one in own)


def are_valid(values: Any, is_trained: bool) -> bool:
    """Whether values of a weight can predict.

    Trained ones that are so large that their products are not finite cannot. A constant may be
    infinite, such as the mask of an attention.
    """
    if is_trained:
        return bool(np.all(np.abs(values.astype("float64")) < _TOO_LARGE))
    return not np.isnan(values).any()


def save_network(model: keras.Model, path: Path) -> None:
    """Saves a model, atomically."""
    with files.replacing(path) as partial:
        model.save(partial)


def load_network(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a saved model of any class of this package, compiled as it was.

    `keras.models.load_model` does the same, but knows these classes only if `keras` was imported
    before `tag_keras`, or something of `tag_keras` has been used.

    Args:
        path: File that the model's `save` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or its classes are not known; the message names it and
            the remedy.

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
    except Exception as error:
        # Of any type: what a damaged file makes of itself may ask for a library or for terabytes.
        if damage := _damage(Path(path)):
            raise ValueError(
                f"{path} cannot be loaded as a model: the file is damaged ({damage}). Delete it, "
                "and run the command that wrote it again."
            ) from error
        # Keras may add all of the configuration.
        reason = textwrap.shorten(str(error) or type(error).__name__, 1000)
        raise ValueError(
            f"{path} cannot be loaded as a model. Register custom layers and losses with "
            "keras.saving.register_keras_serializable, and import the module that does; an encoder "
            "and a head that have layers in common have to be one Functional model, for "
            "MultiTaskModel.from_functional; if the file is damaged, delete it and run the same "
            f"command again. Keras says: {reason}"
        ) from error


def delete_damaged(path: Path) -> bool:
    """Deletes the file of a network if it is damaged, and says so; returns whether it was."""
    damage = _damage(path)
    if damage:
        print(f"{path} is damaged ({damage}), and made anew.", flush=True)
        path.unlink()
    return bool(damage)


def _damage(path: Path) -> str:
    """What is wrong with the bytes of a .keras file, by their checksums; empty if nothing is."""
    if path.suffix != ".keras" or not path.is_file():
        return ""
    try:
        with zipfile.ZipFile(path) as file:
            wrong = file.testzip()
    except Exception as error:
        # A damaged number may lead to a place before the file. Any other error of the disc says
        # nothing of the bytes.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            return ""
        # Besides BadZipFile also that of a decompressor or of a feature that zipfile lacks.
        return str(error) or type(error).__name__
    return f"bad checksum of {wrong}" if wrong else ""


def check_loadable(model: MultiTaskModel) -> None:
    config = keras.saving.serialize_keras_object(model)
    # Its copies of initialisers draw seeds, which layers that are not built yet shall draw.
    state = random.getstate()
    try:
        keras.saving.deserialize_keras_object(config)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The model could be saved, but not loaded again. Register its custom layers and "
            "losses with keras.saving.register_keras_serializable, and give them a get_config. "
            f"Keras says: {str(error).splitlines()[0]}"
        ) from error
    finally:
        random.setstate(state)
