"""Trains jobs of a sweep in stacks. They leave the same files as jobs that are trained alone."""

import collections
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tag_keras.backend.epochs import Epochs
from tag_keras.backend.steps import build_for
from tag_keras.results import Row, save_results
from tag_keras.sweep.console import is_quiet, without_retracing_warnings
from tag_keras.sweep.evaluation import rows_of
from tag_keras.sweep.inputs import arguments, callbacks_of, can_shuffle, listed, validation_of_fit
from tag_keras.sweep.job import Job, JobFiles, keep_network
from tag_keras.sweep.network import Data
from tag_keras.sweep.own_weights import symbolic_inputs
from tag_keras.sweep.stack.checkpoint import Checkpoint
from tag_keras.sweep.stack.memory import most_networks
from tag_keras.sweep.stack.network_stack import NetworkStack
from tag_keras.sweep.stack.parts import MANY_WEIGHTS, Part, Parts
from tag_keras.sweep.stack.probes import StackedProbes
from tag_keras.sweep.stack.refusals import NotStackedError, check_built, check_fit
from tag_keras.sweep.stack.training import evaluate_stack, train_stack
from tag_keras.utils.labelled_data import check_data
from tag_keras.utils.progress import Progress

ONE_BY_ONE = "networks are trained one by one"
# Networks of one seed see the same batches, which is faster: from this number on, they have a stack
# of their own.
_FEWEST_OF_A_SEED = 8


class StackOptions(NamedTuple):
    """How stacks are trained.

    Args:
        fewest: Number of networks from which on they are trained together. Fewer are trained one by
            one: making the graph for several takes longer.
        large: Whether to train networks of more than a million weights, too. Their steps take
            longer than what a stack saves, and a network also computes the heads that it lacks.
        save_every: Seconds after which a stack writes a checkpoint, at the end of an epoch.
        processes: Number of processes that train stacks at once, and share the memory.
    """

    fewest: int = 3
    large: bool = False
    save_every: float = 600.0
    processes: int = 1


def train_stacked(
    folder: Path,
    jobs: Sequence[Job],
    data: Mapping[str, Data],
    progress: Progress,
    options: StackOptions,
) -> Iterator[list[Job]]:
    """Trains jobs together, and gives those that are done; the others must be trained alone.

    A line says why, if none can be trained together. Arguments are those of `StackedJobs`.
    """
    left = len(jobs)
    with without_retracing_warnings():
        try:
            for done in StackedJobs(folder, jobs, data, progress, options).train():
                left -= len(done)
                yield done
        except NotStackedError as error:
            reason = str(error)
        except Exception as error:
            # If it is an error of the model or of the data, it comes again where each is alone.
            lines = str(error).strip().splitlines() or ["no message"]
            reason = f"{type(error).__name__}: {lines[0]}"
        else:
            return
    if not is_quiet(jobs[0].fit):
        progress.say(f"{left} {ONE_BY_ONE}: {reason.rstrip('.')}.")


class StackedJobs:
    """Jobs of one `build_model` and one `fit`, which differ in tasks and seeds.

    Args:
        folder: Folder of the sweep.
        jobs: The jobs.
        data: `"train"` and the splits to evaluate on.
        progress: Shows the steps.
        options: How stacks are trained.

    Raises:
        NotStackedError: If they cannot be trained in one graph.
    """

    def __init__(
        self,
        folder: Path,
        jobs: Sequence[Job],
        data: Mapping[str, Data],
        progress: Progress,
        options: StackOptions,
    ) -> None:
        check_fit(jobs[0].fit)
        jobs = _with_labels(jobs, data)
        self._folder, self._jobs, self._data = folder, jobs, data
        self._progress, self._save_every = progress, options.save_every
        # The largest network first: the others are made of its parts.
        largest = sorted(jobs, key=lambda job: len(job.network.tasks), reverse=True)
        self._tasks = tuple(dict.fromkeys(task for job in largest for task in job.network.tasks))
        keras.utils.clear_session()
        keras.utils.set_random_seed(jobs[0].network.seed)
        epochs = self._epochs("train", **self._order())
        self._spec, self._batch = epochs.spec, next(epochs.batches())
        batch = self._batch
        first, *others = dict.fromkeys(job.network.seed for job in jobs)
        other = others[0] if others else None
        self._parts = Parts(jobs[0], self._tasks, first, other, _symbolic_inputs(batch))
        self._whole = self._parts.whole
        if self._whole.count_params() > MANY_WEIGHTS and not options.large:
            raise NotStackedError("large networks gain nothing in a stack")
        if self._whole.measures_affinity and any(job.network.tasks != self._tasks for job in jobs):
            raise NotStackedError("networks that measure affinities have different tasks")
        build_for(self._whole, batch)
        self._whole.check_encoder()
        self._most = most_networks(self._whole, check_built(self._whole, batch), options.processes)
        self._stack: NetworkStack | None = None

    def train(self) -> Iterator[list[Job]]:
        """Trains one stack after the other, and gives the jobs that are done.

        A job whose network is not finite, or has no labels to be evaluated on, is left out.
        """
        left = collections.deque(_chunks(self._jobs, self._most))
        while left:
            chunk = left.popleft()
            try:
                yield self._train(chunk)
            except tf.errors.ResourceExhaustedError:
                if len(chunk) == 1:
                    raise
                self._stack = None
                left.extendleft([chunk[len(chunk) // 2 :], chunk[: len(chunk) // 2]])

    def _train(self, chunk: Sequence[Job]) -> list[Job]:
        """Trains a stack, and writes the files of its networks; gives those that are done."""
        seeds = list(dict.fromkeys(job.network.seed for job in chunk))
        networks = [job.network for job in chunk]
        parts = [self._parts.part(one.tasks, one.seed) for one in networks]
        starts = [
            part.start(one.seed, seeds.index(one.seed))
            for one, part in zip(networks, parts, strict=True)
        ]
        if self._stack is None or not self._stack.begin(starts):
            self._stack = NetworkStack(self._whole, starts, self._spec)
        self._check_losses(self._stack, chunk, parts)
        streams = []
        for seed in seeds:
            keras.utils.set_random_seed(seed)
            order = {**self._order(), "is_one_of_several": len(seeds) > 1}
            streams.append(self._epochs("train", **order))
        callbacks = [listed(callbacks_of(self._fit.get("callbacks"), job.network)) for job in chunk]
        shows = self._shows(len(chunk), streams[0])
        probes = StackedProbes(self._stack) if self._whole.measures_affinity else None
        files = [one.file for one in networks]
        identity = [one.tasks for one in networks], self._parts.described
        checkpoint = Checkpoint(self._folder / "networks", files, identity, self._save_every)
        how = self._validation(), self._fit, shows, probes, checkpoint
        train_stack(self._stack, streams, callbacks, *how)
        seconds = checkpoint.seconds() / len(chunk)
        rows = self._evaluate(self._stack, chunk, seconds)
        measured = [None] * len(chunk) if probes is None else probes.statistics
        done = []
        for job, part, values, statistics in zip(
            chunk, parts, self._stack.values(), measured, strict=True
        ):
            part.check_common(values)
            if job.network not in rows or not part.is_finite(values):
                continue
            paths = JobFiles(self._folder, job.network)
            if statistics is not None:
                try:
                    statistics.measured_affinity(self._whole.tasks).save(paths.affinity)
                except ValueError:
                    # Nothing could be measured: alone, it shows why.
                    continue
            if job.saves:
                part.end(values, statistics)
                keep_network(job.network, paths, part.model, seconds, part.described, stacked=True)
            save_results(paths.rows, rows[job.network])
            done.append(job)
        checkpoint.delete()
        return done

    def _check_losses(
        self, stack: NetworkStack, chunk: Sequence[Job], parts: Sequence[Part]
    ) -> None:
        """Compares the losses on one batch with those of the networks themselves.

        It finds what configurations do not show, such as an attribute that depends on the tasks.
        """
        stack.reset_metrics()
        stack.test_on(self._batch, self._spec)
        for job, part, logs in zip(chunk, parts, stack.logs(), strict=True):
            if part.seed != job.network.seed:
                continue
            for task, loss in part.losses(self._batch).items():
                if not np.isclose(logs[f"{task}_loss"], loss, rtol=1e-2, equal_nan=True):
                    raise NotStackedError(
                        f"the network for {', '.join(job.network.tasks)} computes something else "
                        "than the one for all tasks does"
                    )

    def _evaluate(
        self, stack: NetworkStack, chunk: Sequence[Job], seconds: float
    ) -> dict[Any, list[Row]]:
        """The rows of each network, without those that cannot be evaluated."""
        rows: dict[Any, list[Row]] = {job.network: [] for job in chunk}
        failed = set()
        for split in self._data:
            if split == "train":
                continue
            evaluate_stack(stack, self._epochs(split))
            lacking = stack.tasks_without_labels()
            for job, logs in zip(chunk, stack.logs(), strict=True):
                network = job.network
                without = [task for task in network.tasks if task in lacking]
                try:
                    rows[network] += rows_of(network, split, logs, without, seconds, stacked=True)
                except ValueError:
                    # Alone, it shows why.
                    failed.add(network)
        return {network: own for network, own in rows.items() if network not in failed}

    @property
    def _fit(self) -> Mapping[str, Any]:
        return self._jobs[0].fit

    def _order(self) -> dict[str, Any]:
        """How `fit` takes batches from the training data."""
        return {
            "batch_size": self._fit.get("batch_size"),
            "steps": self._fit.get("steps_per_epoch"),
            "shuffle": self._fit.get("shuffle", True),
        }

    def _epochs(self, split: str, **order: Any) -> Epochs:
        is_train = split == "train"
        what = "The training data" if is_train else f"The split {split!r}"
        # A network without labels to be evaluated on is found by itself.
        state = random.getstate()
        parts = arguments(what, self._data[split], self._tasks if is_train else ())
        is_listed = isinstance(parts["x"], keras.utils.PyDataset)
        if is_train and (random.getstate() != state or is_listed):
            # Alone, building a network draws such numbers, too.
            raise NotStackedError("the order of the data depends on Python's random numbers")
        if len(parts) == 1 and not can_shuffle(parts["x"]) and "shuffle" in order:
            order["shuffle"] = self._fit.get("shuffle", False)
        return Epochs(parts, **order)

    def _validation(self) -> Epochs | None:
        data = validation_of_fit(self._fit, self._data.get("validation"), self._tasks)
        if data is None:
            return None
        size = self._fit.get("validation_batch_size") or self._fit.get("batch_size")
        parts = arguments("The validation data", data, self._tasks)
        return Epochs(parts, size, self._fit.get("validation_steps"))

    def _shows(self, networks: int, stream: Epochs) -> Callable[[int, int], None]:
        epochs = self._fit.get("epochs", 1)

        def show(epoch: int, step: int) -> None:
            share = (step + 1) / stream.num_batches if stream.num_batches else 0.0
            words = f"{networks} networks at once, epoch {epoch + 1}/{epochs}"
            self._progress.within(min(1.0, (epoch + share) / epochs), words, networks)

        return show


def _with_labels(jobs: Sequence[Job], data: Mapping[str, Data]) -> list[Job]:
    """The jobs that can be evaluated, as far as is known of data before they are read."""

    def can_be_evaluated(job: Job) -> bool:
        try:
            for split, one in loaded.items():
                check_data(split, one, job.network.tasks)
        except ValueError:
            # Alone, it shows why.
            return False
        return True

    loaded = {
        split: one() if callable(one) else one for split, one in data.items() if split != "train"
    }
    found = [job for job in jobs if can_be_evaluated(job)]
    if not found:
        raise NotStackedError("none can be evaluated")
    return found


def _chunks(jobs: Sequence[Job], most: int) -> Iterator[Sequence[Job]]:
    """Cuts jobs into stacks of at most `most` networks, of about the same size."""
    by_seed: dict[int, list[Job]] = {}
    for job in jobs:
        by_seed.setdefault(job.network.seed, []).append(job)
    groups = list(by_seed.values())
    if min(map(len, groups)) < _FEWEST_OF_A_SEED:
        groups = [[job for group in groups for job in group]]
    for group in groups:
        number = -(-len(group) // most)
        for part in np.array_split(np.arange(len(group)), number):
            yield [group[index] for index in part]


def _symbolic_inputs(batch: Any) -> Any:
    """Symbolic inputs of a model, for batches of any size."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if any(isinstance(one, tf.SparseTensor | tf.RaggedTensor) for one in keras.tree.flatten(x)):
        raise NotStackedError("the inputs are sparse or ragged")
    return symbolic_inputs((x,))
