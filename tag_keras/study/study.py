"""A study trains the networks of its methods in one folder. They share plain networks."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tag_keras.affinity import Affinity
from tag_keras.estimators.base import AffinityEstimator
from tag_keras.model import MultiTaskModel
from tag_keras.results import PLAIN, Row, load_sweep_results
from tag_keras.sweep.console import is_quiet
from tag_keras.sweep.inputs import check_callbacks, check_datasets, check_on_arrays
from tag_keras.sweep.job import Job, JobFiles, build_function
from tag_keras.sweep.network import Data, Network
from tag_keras.sweep.own_weights import build_alone
from tag_keras.sweep.sweep import run_sweep
from tag_keras.utils import files
from tag_keras.utils.checks import check, check_count
from tag_keras.utils.tasks import check_task_names


class BuildStudyModel(Protocol):
    """Returns a compiled model for a tuple of tasks.

    `method` names a method with a training of its own, such as `"uw"`; `affinity` is the estimator
    to compile with; `half_size` asks for half the size. A study passes only what a network needs.
    """

    def __call__(
        self,
        tasks: tuple[str, ...],
        method: str = "mtl",
        affinity: AffinityEstimator | None = None,
        half_size: bool = False,
    ) -> MultiTaskModel: ...


@dataclasses.dataclass(frozen=True)
class Study:
    """Where and how the networks of a study are trained.

    Args:
        folder: Folder of results.json, networks/, and a folder for the choices of each method.
        tasks: Names of the tasks.
        build_model: A `BuildStudyModel`; it may lack the arguments that no network needs.
        data: `"train"`, `"validation"` and `"test"`, each a dataset, `(x, y)`,
            `(x, y, sample_weight)`, or a function that returns one of these.
        fit: Arguments of `fit`. Each network gets copies of `callbacks`, or what a function of the
            network gives; those that monitor a validation loss or metric get `data["validation"]`.
            Without `verbose`, one line shows the progress; 0 shows nothing.
        estimators: Affinity estimators by the role of the networks that measure with them, such as
            the names of the methods `"tag"`, `"first_order"` and `"cs"`.
        seeds: Seeds of networks that serve. Networks to choose by are trained with the first.
        num_groups: Numbers of networks to choose.
        budgets: Sums of costs in standard network times, for methods that choose by losses.
            Defaults to `num_groups`.
        errors: Returns rows whose `loss` is the error to choose by and to sum up, such as an error
            rate. Defaults to the losses.
        early_epochs: Number of epochs of ESA's short trainings.
        num_draws: Number of random choices for each number of networks.
        half_size: Whether HOA, ESA and the optimal selection may choose networks of half the size
            for single tasks.
        processes: Number of networks to train at once, each in its own process; 0 trains one after
            the other in this process.
        cluster: Whether to train on a Ray cluster instead.

    Raises:
        ValueError: If a number is out of range, or a seed, task, budget or number of networks is
            repeated.
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
    errors: Callable[[list[Row]], list[Row]] = list
    early_epochs: int = 1
    num_draws: int = 5
    half_size: bool = False
    processes: int = 1
    cluster: bool = False

    def __post_init__(self) -> None:
        files.check_case(self.folder, check_task_names(list(self.tasks)))
        for name in ("seeds", "num_groups", "budgets"):
            values = getattr(self, name)
            check(isinstance(values, list | tuple), f"`{name}` should be a tuple", **{name: values})
            different = len(set(values)) == len(values)
            check(different, f"`{name}` should be different", **{name: values})
        check(bool(self.seeds), "`seeds` should have at least one", seeds=self.seeds)
        for number in self.num_groups:
            check_count("num_groups", number)
        check_count("early_epochs", self.early_epochs)
        check_count("num_draws", self.num_draws)
        check_callbacks(self.fit.get("callbacks"))
        splits = {f'`data["{split}"]`': one for split, one in self.data.items()}
        check_datasets(splits, self.tasks)

    def train(
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        folder: Path | None = None,
        saves: bool = True,
    ) -> list[Row]:
        """Trains the networks that are not there yet with each seed, and returns the rows of all.

        Args:
            networks: Networks to train; their own seeds do not count.
            seeds: Seeds.
            folder: Folder of results.json and networks/. Defaults to the study's.
            saves: Whether to keep the networks. Early ones are never kept: there may be hundreds.
        """
        every = [dataclasses.replace(one, seed=seed) for seed in seeds for one in networks]
        jobs = [self._job(network, saves) for network in every]
        rows = run_sweep(folder or self.folder, jobs, self.data, self.processes, self.cluster)
        wanted = {(network.name, network.seed) for network in every}
        return [row for row in rows if (row.network, row.seed) in wanted]

    def try_out(self, network: Network) -> None:
        """Builds a network with the first seed, to check `build_model`, and trains nothing.

        Arrays also show whether it can be trained on them.

        Args:
            network: Network to build.
        """
        job = self._job(dataclasses.replace(network, seed=self.seeds[0]), saves=False)
        build = build_function(job)
        train = self.data["train"]
        model, _ = build_alone(lambda: build(network.tasks), self.seeds[0], train)
        check_on_arrays(model, train, self.fit.get("batch_size"))

    def affinity_of(
        self, network: Network, seed: int | None = None, folder: Path | None = None
    ) -> Affinity:
        """Loads the affinities of a network.

        Args:
            network: Network that has measured them.
            seed: Seed that it was trained with, by default the study's first.
            folder: Folder of the network, by default the study's.
        """
        seed = self.seeds[0] if seed is None else seed
        trained = dataclasses.replace(network, seed=seed)
        return Affinity.load(JobFiles(folder or self.folder, trained).affinity)

    def has_lost_rows(self, network: Network, seeds: Sequence[int]) -> bool:
        """Whether a network that is not kept has its rows, with one of the seeds, and no result.

        It is so after results.json was deleted; training the network brings them back.

        Args:
            network: The network.
            seeds: Seeds that it was trained with.
        """
        results = {(row.network, row.seed) for row in load_sweep_results(self.folder)}
        trained = [dataclasses.replace(network, seed=seed) for seed in seeds]
        kept = [one for one in trained if JobFiles(self.folder, one).rows.exists()]
        return any((one.name, one.seed) not in results for one in kept)

    def say(self, message: str) -> None:
        """Prints a message, unless `fit` has `verbose=0`.

        Args:
            message: The message.
        """
        if not is_quiet(self.fit):
            print(message, flush=True)

    def _job(self, network: Network, saves: bool) -> Job:
        options = dict[str, Any]()
        fit = {**self.fit, "epochs": self.early_epochs} if network.early else self.fit
        if network.half_size:
            options["half_size"] = True
        measures = network.role in self.estimators
        if measures:
            options["affinity"] = self.estimators[network.role]
        elif network.role not in PLAIN:
            options["method"] = network.role
        # The function itself where that will do: of functions that cannot be pickled, such as those
        # inside another function, a sweep only knows that one is one.
        build = functools.partial(self.build_model, **options) if options else self.build_model
        return Job(network, build, fit, saves=saves and not network.early, measures=measures)
