"""A study: where and how the networks are trained that methods choose among, in one folder.

Plain networks are the same whichever method trains them, so none is trained twice.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tag_keras.estimators.base import AffinityEstimator
from tag_keras.model import MultiTaskModel
from tag_keras.results import Row
from tag_keras.study.networks import BY_AFFINITY, ONE_NETWORK, Candidate
from tag_keras.sweep.job import Job
from tag_keras.sweep.network import Data, Network
from tag_keras.sweep.sweep import run_sweep
from tag_keras.utils.checks import check, check_count
from tag_keras.utils.tasks import check_task_names


class BuildStudyModel(Protocol):
    """Gives a compiled model for a tuple of tasks.

    `method` is one of `networks.ONE_NETWORK`, `half_size` asks for a network of half the
    size, and the model measures affinities if asked to.
    """

    def __call__(
        self,
        tasks: tuple[str, ...],
        method: str = "mtl",
        affinity: AffinityEstimator | None = None,
        half_size: bool = False,
    ) -> MultiTaskModel: ...


def _as_they_are(rows: list[Row]) -> list[Row]:
    return rows


@dataclasses.dataclass(frozen=True)
class Study:
    """Where and how a study trains its networks.

    Args:
        folder: Folder of results.json, networks/, and one folder for what each method chose.
        tasks: Task names.
        build_model: Gives a compiled model.
        data: `"train"`, `"validation"` and `"test"`: each what `train` is in `train_groups`.
        fit: Arguments of `fit`.
        estimators: How the methods of `BY_AFFINITY` measure, by their name.
        seeds: Every network that serves is trained with each; those that are there to choose by,
            with the first.
        num_groups: Numbers of networks to choose.
        budgets: Sums of costs, in standard network times, for the methods of `BY_LOSS`. Defaults to
            `num_groups`.
        errors: Gives rows whose `loss` is what is to be chosen by and summed up, such as an error
            rate. Defaults to the losses.
        early_epochs: Number of epochs of the short trainings of ESA.
        num_draws: Number of random choices for each budget.
        half_size: Whether HOA, ESA and the optimal selection may choose networks of half the size
            for single tasks.
        processes: As in `run_sweep`.
        cluster: As in `run_sweep`.

    Raises:
        ValueError: If a number is out of range, or a seed, task or number of networks twice there.
    """

    folder: Path
    tasks: tuple[str, ...]
    build_model: BuildStudyModel
    data: Mapping[str, Data]
    fit: Mapping[str, Any]
    estimators: Mapping[str, AffinityEstimator]
    seeds: tuple[int, ...] = (0, 1, 2)
    num_groups: tuple[int, ...] = (2, 3, 4)
    budgets: tuple[float, ...] = ()
    errors: Callable[[list[Row]], list[Row]] = _as_they_are
    early_epochs: int = 1
    num_draws: int = 5
    half_size: bool = False
    processes: int = 1
    cluster: bool = False

    def __post_init__(self) -> None:
        check_task_names(list(self.tasks))
        for name in ("seeds", "num_groups", "budgets"):
            values = getattr(self, name)
            check(
                len(set(values)) == len(values), f"`{name}` should be different", **{name: values}
            )
        check(bool(self.seeds), "`seeds` should have at least one", seeds=self.seeds)
        for number in self.num_groups:
            check_count("num_groups", number)
        check_count("early_epochs", self.early_epochs)
        check_count("num_draws", self.num_draws)

    def train(
        self, networks: Sequence[Candidate], seeds: Sequence[int], folder: Path | None = None
    ) -> list[Row]:
        """Trains networks that are not there yet; gives their rows, as they were measured.

        Args:
            networks: Networks.
            seeds: Seeds.
            folder: Folder of what depends on a method's own options. Defaults to the study's.
        """
        jobs = [self._job(network, seed) for seed in seeds for network in networks]
        where = folder or self.folder
        rows = run_sweep(where, jobs, self.data, self.processes, self.cluster)
        wanted = {(job.network.name, job.network.seed) for job in jobs}
        return [row for row in rows if (row.network, row.seed) in wanted]

    def _job(self, candidate: Candidate, seed: int) -> Job:
        kind, options, fit = candidate.kind, dict[str, Any](), dict(self.fit)
        if kind.startswith("early"):
            fit["epochs"] = self.early_epochs
        if kind.endswith("half"):
            options["half_size"] = True
        elif kind in ONE_NETWORK:
            options["method"] = kind
        elif kind in BY_AFFINITY:
            options["affinity"] = self.estimators[kind]
        network = Network(candidate.name(self.tasks), candidate.tasks, seed)
        build = functools.partial(self.build_model, **options)
        # What is only there to be chosen by may be hundreds of networks.
        saves, measures = not kind.startswith("early"), "affinity" in options
        return Job(network, build, fit, saves, measures)
