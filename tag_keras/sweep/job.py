"""One network of a sweep: how it is trained, evaluated and written to its files."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tag_keras.model import MultiTaskModel
from tag_keras.results import save_results
from tag_keras.sweep.console import without_retracing_warnings
from tag_keras.sweep.evaluation import evaluate_network
from tag_keras.sweep.fingerprint import of_model
from tag_keras.sweep.inputs import check_model, splits_of
from tag_keras.sweep.network import (
    BuildModel,
    Data,
    Network,
    delete_damaged,
    load_network,
    save_network,
    train_network,
)
from tag_keras.utils import files
from tag_keras.utils.checks import check_number
from tag_keras.utils.progress import Progress


@dataclasses.dataclass(frozen=True)
class Job:
    """A network to train, and how to train it.

    Args:
        network: Network to train.
        build_model: Returns a compiled model for a tuple of tasks. It makes all that a training
            changes anew at each call.
        fit: Arguments of `fit`; `validation_data` may be a function that returns the data. Each
            network gets copies of `callbacks`, or what a function of the network gives. Without
            `verbose`, one line shows the progress of all networks; 1 or 2 adds Keras' lines for
            each, and 0 shows nothing.
        saves: Whether to keep the trained network as a file.
        measures: Whether the model measures affinities. Their file is then part of the result.
    """

    network: Network
    build_model: BuildModel
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    saves: bool = True
    measures: bool = False


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why the training of a network failed.

    Args:
        reason: Text of one to a few lines.
        lasting: Whether the same training would fail again.
        error: The error, if it was raised in this process.
    """

    reason: str
    lasting: bool
    error: BaseException | None = None


class JobFiles:
    """Files of a job: networks/ and logs/ in the folder of the sweep."""

    def __init__(self, folder: Path, network: Network) -> None:
        stem = network.file.removesuffix(".keras")
        self.log = folder / "logs" / f"{stem}.log"
        self.model = folder / "networks" / network.file
        # Affinities that the network has measured, if its model was compiled to.
        self.affinity = folder / "networks" / f"{stem}.affinity.json"
        # Seconds of the training, with which a saved network can be evaluated again, the checksum
        # of its file, and the fingerprint of the model before the training.
        self.trained = folder / "networks" / f"{stem}.trained.json"
        # Rows of the job, its last file; the sweep moves them into results.json, or copies them
        # if the network is not kept.
        self.rows = folder / "networks" / f"{stem}.rows.json"

    def are_there(self, job: Job) -> bool:
        """Whether the files that the job keeps are there."""
        if job.saves and not self.model.exists():
            return False
        return self.affinity.exists() or not job.measures


def parts_to_send(jobs: Sequence[Job], data: Mapping[str, Data]) -> Iterator[tuple[str, Any]]:
    """Names and values that another process needs; arguments that jobs share come once."""
    for build_model in {id(job.build_model): job.build_model for job in jobs}.values():
        yield "`build_model`", build_model
    for fit in {id(job.fit): job.fit for job in jobs}.values():
        yield "An argument of `fit`", fit
    yield "`data`", dict(data)


@without_retracing_warnings()
def train_job(
    folder: Path, job: Job, data: Mapping[str, Data], progress: Progress | None = None
) -> None:
    """Trains and evaluates a job in the folder of its sweep, and writes its rows last.

    A saved network without rows is evaluated without another training. `data` holds `"train"` and
    the splits to evaluate on. `progress` shows the steps.

    Raises:
        ValueError: If the model of `build_model` is for other tasks or does not measure although
            the job does, or if a loss is not finite.
    """
    paths = JobFiles(folder, job.network)
    # Otherwise Keras goes on numbering the layers of the networks before, for instance.
    keras.utils.clear_session()
    # Before the training, so that a function that gives other data than it should costs none.
    splits = splits_of(data, job.network.tasks)
    trained = _load_trained(job, paths) or _train(job, paths, data, progress)
    model, seconds, stacked = trained
    try:
        rows = evaluate_network(model, job.network, splits, seconds, stacked)
    except (ValueError, tf.errors.ResourceExhaustedError):
        # The network may be the cause, for instance by a loss of NaN: train anew next time.
        paths.trained.unlink(missing_ok=True)
        raise
    save_results(paths.rows, rows)


def build_function(job: Job) -> BuildModel:
    """The `build_model` of a job, which also checks that the model measures if it has to."""

    def build(tasks: tuple[str, ...]) -> MultiTaskModel:
        model = job.build_model(tasks)
        check_model(model, tasks)
        if job.measures and not _measures(model):
            raise ValueError(
                "`build_model` of a job that measures should compile with `affinity=`. Received: "
                f"measures={job.measures!r}."
            )
        return model

    return build


def _train(
    job: Job, paths: JobFiles, data: Mapping[str, Data], progress: Progress | None
) -> tuple[MultiTaskModel, float, bool]:
    """Trains the network of a job, and writes all files but its rows."""
    described: dict[str, Any] = {}
    checked = build_function(job)

    def build(tasks: tuple[str, ...]) -> MultiTaskModel:
        model = checked(tasks)
        described.update(of_model(model))
        return model

    paths.trained.unlink(missing_ok=True)
    options = {**job.fit, "validation": data.get("validation"), "progress": progress}
    model, seconds = train_network(build, job.network, data["train"], job.saves, **options)
    if _measures(model):
        model.get_affinity().save(paths.affinity)
    if job.saves:
        keep_network(job.network, paths, model, seconds, described)
    return model, seconds, False


def keep_network(
    network: Network,
    paths: JobFiles,
    model: MultiTaskModel,
    seconds: float,
    described: Mapping[str, Any],
    stacked: bool = False,
) -> None:
    """Writes the file of a trained network, and the record of its training."""
    save_network(model, paths.model)
    record = {"tasks": list(network.tasks), "seed": network.seed, "seconds": seconds}
    record |= {"checksum": files.checksum(paths.model), "model": described, "stacked": stacked}
    files.write_json(paths.trained, record)


def _load_trained(job: Job, paths: JobFiles) -> tuple[MultiTaskModel, float, bool] | None:
    """Loads the trained network of a job, if it is there; its seconds; whether it was stacked."""
    if not (job.saves and paths.trained.exists() and paths.are_there(job)):
        return None
    try:
        known = _record(job.network, paths)
        model = load_network(paths.model)
        if {*getattr(model, "tasks", ())} != {*job.network.tasks}:
            raise ValueError(f"{paths.model} is the network of other tasks.")
        return model, known["seconds"], known.get("stacked") is True
    except ValueError as error:
        # A file may be damaged, or the network may have a class that this program does not have.
        print(f"{job.network.name!r}, seed {job.network.seed}, is trained anew: {error}")
        return None


def _record(network: Network, paths: JobFiles) -> dict[str, Any]:
    """What a training has left in writing.

    Raises:
        ValueError: If it is damaged, or of another network than the one that is there; the message
            names the file.
    """
    known = files.read_fields(paths.trained, ("tasks", "seconds"))
    try:
        check_number("seconds", known["seconds"], "a number from 0 on", lambda s: s >= 0)
    except ValueError as error:
        raise ValueError(f"{paths.trained}: {error}") from None
    # Version 0.1 had neither seed nor checksum.
    own = (list(network.tasks), network.seed)
    if (known["tasks"], known.get("seed", network.seed)) != own:
        raise ValueError(f"{paths.trained} is of another network.")
    if known.get("checksum") not in (None, files.checksum(paths.model)):
        raise ValueError(f"{paths.model} is not the file that the training wrote.")
    return known


def delete_unusable(folder: Path, network: Network) -> bool:
    """Deletes the file of a network if it is damaged or another's; says so, and returns whether."""
    paths = JobFiles(folder, network)
    if delete_damaged(paths.model):
        return True
    try:
        if paths.trained.exists():
            _record(network, paths)
    except ValueError as error:
        print(f"{paths.model} is made anew: {error}", flush=True)
        paths.model.unlink()
        return True
    return False


def trained_model(network: Network, paths: JobFiles) -> dict[str, Any]:
    """The fingerprint of the model that a network was trained as; empty if it is not known."""
    try:
        known = files.read_fields(paths.trained, ["tasks", "seed", "model"])
    except (FileNotFoundError, ValueError):
        return {}  # Not there, of an earlier version, or damaged: then it is made anew.
    is_own = (known["tasks"], known["seed"]) == (list(network.tasks), network.seed)
    return known["model"] if is_own and isinstance(known["model"], dict) else {}


def _measures(model: keras.Model) -> bool:
    # The model may be of another class than `MultiTaskModel`.
    return getattr(model, "measures_affinity", False)
