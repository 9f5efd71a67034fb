"""One network of a sweep: trained, evaluated and written down, in whichever process."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tag_keras.model import MultiTaskModel
from tag_keras.results import save_results
from tag_keras.sweep.network import (
    BuildModel,
    Data,
    Network,
    evaluate_network,
    load_network,
    save_network,
    train_network,
)
from tag_keras.utils import files
from tag_keras.utils.checks import check


@dataclasses.dataclass(frozen=True)
class Job:
    """A network to train, and how.

    Args:
        network: What to train.
        build_model: Gives a compiled model for a tuple of tasks.
        fit: Arguments of `fit`; `validation_data` may be a function that gives them.
        saves: Whether the trained network is kept as a file.
        measures: Whether its model measures affinities, whose file is part of the result.
    """

    network: Network
    build_model: BuildModel
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    saves: bool = True
    measures: bool = False


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a network could not be trained.

    Args:
        reason: One or a few lines.
        lasting: Whether it would fail again.
        error: The error, if it was raised in this process.
    """

    reason: str
    lasting: bool
    error: BaseException | None = None


@dataclasses.dataclass(frozen=True)
class JobFiles:
    """Where a job writes: networks/ and logs/ in the folder of the sweep."""

    folder: Path
    network: Network

    @property
    def model(self) -> Path:
        return self._networks / self.network.file

    @property
    def affinity(self) -> Path:
        """What the network has measured, if its model was compiled to."""
        return self._networks / f"{self._stem}.affinity.json"

    @property
    def trained(self) -> Path:
        """Seconds of the training, with which a saved network can be evaluated into rows anew."""
        return self._networks / f"{self._stem}.trained.json"

    @property
    def rows(self) -> Path:
        """The last file of a job, which the sweep puts into results.json."""
        return self._networks / f"{self._stem}.rows.json"

    @property
    def log(self) -> Path:
        return self.folder / "logs" / f"{self._stem}.log"

    @property
    def _networks(self) -> Path:
        return self.folder / "networks"

    @property
    def _stem(self) -> str:
        return self.network.file.removesuffix(".keras")

    def are_there(self, job: Job) -> bool:
        """Whether the files that a job leaves are there."""
        wanted = [self.model] * job.saves + [self.affinity] * job.measures
        return all(path.exists() for path in wanted)


def parts_to_send(jobs: Sequence[Job], data: Mapping[str, Data]) -> Iterator[tuple[str, Any]]:
    """What another process needs, each with its name; what jobs have in common only once."""
    for build_model in {id(job.build_model): job.build_model for job in jobs}.values():
        yield "`build_model`", build_model
    for fit in {id(job.fit): job.fit for job in jobs}.values():
        yield "An argument of `fit`", fit
    yield "`data`", dict(data)


def train_job(folder: Path, job: Job, data: Mapping[str, Data]) -> None:
    """Trains and evaluates the network of a job; its rows are written last.

    A network that was saved is not trained again if only its evaluation failed or was killed, or if
    its rows are gone.

    Args:
        folder: Folder of the sweep.
        job: What to train.
        data: `"train"` and the splits to evaluate on.

    Raises:
        ValueError: If `build_model` gives a model for other tasks or one that does not measure as
            it should, or if a loss is not finite.
    """
    paths = JobFiles(folder, job.network)
    # What Keras keeps of the networks before, such as the numbers in layers' names.
    keras.utils.clear_session()
    model, seconds = _load_trained(job, paths) or _train(job, paths, data["train"])
    splits = {split: data[split] for split in data if split != "train"}
    try:
        rows = evaluate_network(model, job.network, splits, seconds)
    except (ValueError, tf.errors.ResourceExhaustedError):
        # It may be the network's fault, such as a loss that is NaN: the next time trains anew.
        paths.trained.unlink(missing_ok=True)
        raise
    save_results(paths.rows, rows)


def _train(job: Job, paths: JobFiles, train: Data) -> tuple[MultiTaskModel, float]:
    """Trains the network of a job and saves all but its rows."""
    paths.trained.unlink(missing_ok=True)
    fit = dict(job.fit)
    if callable(fit.get("validation_data")):
        fit["validation_data"] = fit["validation_data"]()
    build = functools.partial(_build, job)
    model, seconds = train_network(build, job.network, train, job.saves, **fit)
    if job.saves:
        save_network(model, paths.model)
    if _measures(model):
        model.get_affinity().save(paths.affinity)
    if job.saves:
        known = {"tasks": list(job.network.tasks), "seconds": seconds}
        files.write_json(paths.trained, known)
    return model, seconds


def _load_trained(job: Job, paths: JobFiles) -> tuple[MultiTaskModel, float] | None:
    """A network without rows, and the seconds of its training, if there is one."""
    if not (job.saves and paths.trained.exists() and paths.are_there(job)):
        return None
    try:
        known = files.read_fields(paths.trained, ("tasks", "seconds"))
        same = known["tasks"] == list(job.network.tasks)
        return (load_network(paths.model), float(known["seconds"])) if same else None
    except ValueError:
        # Damaged, or made of what this program does not have.
        return None


def _build(job: Job, tasks: tuple[str, ...]) -> MultiTaskModel:
    model = job.build_model(tasks)
    wanted = "`build_model` of a job that measures should compile with `affinity=`"
    check(_measures(model) or not job.measures, wanted, measures=job.measures)
    return model


def _measures(model: keras.Model) -> bool:
    # A network of another class may be trained, too.
    return getattr(model, "measures_affinity", False)
