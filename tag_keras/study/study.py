"""A study: where and how the networks are trained that methods choose among, in one folder.

Plain networks are the same whichever method trains them, so none is trained twice.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tag_keras.affinity import Affinity
from tag_keras.estimators.base import AffinityEstimator
from tag_keras.model import MultiTaskModel
from tag_keras.results import PLAIN, Row
from tag_keras.sweep.job import Job, JobFiles
from tag_keras.sweep.network import Data, Network
from tag_keras.sweep.sweep import run_sweep
from tag_keras.utils.checks import check, check_count
from tag_keras.utils.tasks import check_task_names


class BuildStudyModel(Protocol):
    """Gives a compiled model for a tuple of tasks.

    `method` is the name of a method that trains one network in its own way, such as `"uw"`;
    `affinity` is what the model measures; `half_size` asks for a network of half the size. A study
    passes only the arguments that its networks need.
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
        build_model: Gives a compiled model for a tuple of tasks, a `BuildStudyModel`; one without
            the arguments that no network needs will do.
        data: `"train"`, `"validation"` and `"test"`: each what `train` is in `train_groups`.
        fit: Arguments of `fit`.
        estimators: What networks measure, by their role: for the methods `"tag"`, `"first_order"`
            and `"cs"`, the estimator by the name of the method.
        seeds: Every network that serves is trained with each; those that are there to choose by,
            with the first.
        num_groups: Numbers of networks to choose.
        budgets: Sums of costs, in standard network times, for the methods that choose by losses.
            Defaults to `num_groups`.
        errors: Gives rows whose `loss` is what is to be chosen by and summed up, such as an error
            rate. Defaults to the losses.
        early_epochs: Number of epochs of the short trainings of ESA.
        num_draws: Number of random choices for each budget.
        half_size: Whether HOA, ESA and the optimal selection may choose networks of half the size
            for single tasks.
        processes: Number of networks that train at once, each in a process of its own; 0 trains
            one after the other in this process.
        cluster: Whether to train on a Ray cluster instead.

    Raises:
        ValueError: If a number is out of range, or a seed, task or number of networks twice there.
    """

    folder: Path
    tasks: tuple[str, ...]
    build_model: Callable[..., MultiTaskModel]
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
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        folder: Path | None = None,
        saves: bool = True,
    ) -> list[Row]:
        """Trains networks that are not there yet, and gives their rows.

        Args:
            networks: Networks, whatever their seeds.
            seeds: Each network is trained once with each.
            folder: Folder of results.json and networks/. Defaults to the study's.
            saves: Whether the networks are kept. Those of short trainings never are: there may be
                hundreds.
        """
        every = [dataclasses.replace(one, seed=seed) for seed in seeds for one in networks]
        jobs = [self._job(network, saves) for network in every]
        rows = run_sweep(folder or self.folder, jobs, self.data, self.processes, self.cluster)
        wanted = {(network.name, network.seed) for network in every}
        return [row for row in rows if (row.network, row.seed) in wanted]

    def affinity_of(self, network: Network, folder: Path | None = None) -> Affinity:
        """What a network has measured that was trained with the first seed.

        Args:
            network: Network whose role is one of `estimators`.
            folder: The folder that it was trained in. Defaults to the study's.
        """
        trained = dataclasses.replace(network, seed=self.seeds[0])
        return Affinity.load(JobFiles(folder or self.folder, trained).affinity)

    def _job(self, network: Network, saves: bool) -> Job:
        options, fit = dict[str, Any](), dict(self.fit)
        if network.early:
            fit["epochs"] = self.early_epochs
        if network.half_size:
            options["half_size"] = True
        measures = network.role in self.estimators
        if measures:
            options["affinity"] = self.estimators[network.role]
        elif network.role not in PLAIN:
            options["method"] = network.role
        build = functools.partial(self.build_model, **options)
        return Job(network, build, fit, saves=saves and not network.early, measures=measures)
