"""One network of a sweep: trained, evaluated and written down, in whichever process."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tag_keras.results import Row, load_results, save_results
from tag_keras.training import (
    BuildModel,
    Data,
    Network,
    evaluate_network,
    save_network,
    train_network,
)


@dataclasses.dataclass(frozen=True)
class Job:
    """A network to train, and how.

    Args:
        network: What to train.
        build_model: Gives a compiled model for a tuple of tasks.
        fit: Arguments of `fit`; `validation_data` may be a function that gives them.
        saves: Whether the trained network is kept as a file.
    """

    network: Network
    build_model: BuildModel
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    saves: bool = True


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

    def take_rows(self) -> list[Row]:
        """The rows of a job that is finished, otherwise none."""
        return load_results(self.rows) if self.rows.exists() else []


def parts_to_send(jobs: Sequence[Job], data: Mapping[str, Data]) -> Iterator[tuple[str, Any]]:
    """What another process needs, each with its name; what jobs have in common only once."""
    for build_model in {id(job.build_model): job.build_model for job in jobs}.values():
        yield "`build_model`", build_model
    for fit in {id(job.fit): job.fit for job in jobs}.values():
        yield "An argument of `fit`", fit
    yield "`data`", dict(data)


def train_job(folder: Path, job: Job, data: Mapping[str, Data]) -> None:
    """Trains and evaluates the network of a job; its rows are written last.

    Args:
        folder: Folder of the sweep.
        job: What to train.
        data: `"train"` and the splits to evaluate on.
    """
    paths = JobFiles(folder, job.network)
    # What Keras keeps of the networks before, such as the numbers in layers' names.
    keras.utils.clear_session()
    fit = dict(job.fit)
    if callable(fit.get("validation_data")):
        fit["validation_data"] = fit["validation_data"]()
    model, seconds = train_network(job.build_model, job.network, data["train"], job.saves, **fit)
    splits = {split: data[split] for split in data if split != "train"}
    rows = evaluate_network(model, job.network, splits, seconds)
    if job.saves:
        save_network(model, paths.model)
    # A network of another class may be trained, too.
    if getattr(model, "measures_affinity", False):
        model.get_affinity().save(paths.affinity)
    save_results(paths.rows, rows)
