"""Sweeps: `run_sweep` trains many networks in a folder and resumes after any kill."""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import pickle
import shutil
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

from tag_keras.results import Row, load_results, load_sweep_results, save_results
from tag_keras.sweep.console import is_quiet, progress_of
from tag_keras.sweep.descriptions import describe
from tag_keras.sweep.fingerprint import of_data, of_fit, of_network
from tag_keras.sweep.inputs import check_build_model, check_callbacks, check_datasets
from tag_keras.sweep.job import Failure, Job, JobFiles, trained_model
from tag_keras.sweep.network import Data, delete_damaged
from tag_keras.sweep.runners import InProcesses, InThisProcess, Runner, visible_gpus
from tag_keras.sweep.stack import checkpoint
from tag_keras.sweep.stack.jobs import StackOptions
from tag_keras.utils import files
from tag_keras.utils.checks import check, check_number, check_whole
from tag_keras.utils.child_processes import exit_if_imported_by_child
from tag_keras.utils.differences import differences
from tag_keras.utils.progress import Progress


class SweepError(RuntimeError):
    """Some networks of a sweep could not be trained; all others are done."""


def run_sweep(
    folder: str | os.PathLike[str],
    jobs: Sequence[Job],
    data: Mapping[str, Data],
    processes: int = 1,
    cluster: bool = False,
    stack: bool | Literal["auto"] = "auto",
    save_every: float = 600.0,
) -> list[Row]:
    """Trains and evaluates networks: together in one graph where that works, or one by one.

    The same call resumes after any kill: it trains only networks that were cut off, or whose files
    were deleted. If only results.json is gone, or a split is new, it evaluates the networks in
    networks/ again. A network that fails is tried once more, unless the error is one of the code or
    its input. Jobs with the same tasks, seed, `build_model` and `fit` are trained once and copied.
    Damaged files of networks are named and made anew. A folder keeps the fingerprints of its
    models, data and callbacks, in settings.json and beside the networks: other ones are refused,
    and the message names what differs.

    Args:
        folder: Folder of results.json, logs/ and networks/, where each job writes
            `<name>_seed<seed>.keras`, `<name>_seed<seed>.affinity.json` if its model was compiled
            with `affinity=`, and what it needs to resume. Methods may share it, one after the
            other.
        jobs: Jobs to train; no two may have both name and seed in common.
        data: `"train"` and the splits to evaluate on. Callbacks that monitor a validation loss or
            metric, such as `EarlyStopping`, get `"validation"` after each epoch, unless `fit` has
            `validation_data`. Another process needs what can be pickled: arrays, or functions that
            return datasets. It takes over Keras' dtype policy and no
            other setting of this process: set all else in `build_model`.
        processes: Number of processes at once; 0 trains in this process. They share the cores, and
            another number of threads rounds sums differently: set `TF_NUM_INTRAOP_THREADS` in the
            environment if results must agree to the last digits.
        cluster: Whether to train on a Ray cluster instead: the one that `ray.init()` finds or
            starts, which decides how many networks, or stacks of networks, train at once.
        stack: Whether to train networks of the same `build_model` and `fit` in one graph, with
            their weights stacked, if each is made of parts of the network for all tasks. They end
            as they end alone, to about 1e-6, in a small part of the time. `"auto"` does so from
            three networks on, of up to a million weights: large ones gain nothing. Those that
            cannot be stacked are trained one by one, and a line says why: models of other classes,
            with gradient methods or loss weightings, or with state that Keras does not know;
            callbacks but `EarlyStopping`, `LearningRateScheduler` and `ReduceLROnPlateau`; Keras'
            lines of each network. Networks that measure affinities are stacked if all have the same
            tasks.
        save_every: Seconds after which networks that are trained together write a checkpoint, at
            the end of an epoch; on a cluster they write none. A network that is trained alone
            begins anew after a kill.

    Returns:
        All rows of results.json. New networks stand in the order of the jobs.

    Raises:
        ValueError: If an argument cannot be used, if the folder has networks of the same names but
            other tasks, models, data or arguments of `fit`, or if another run is at work in it.
        SweepError: If networks failed; the message lists them and their logs.
        ImportError: If Ray is needed and not installed.
    """
    exit_if_imported_by_child()
    folder, jobs = Path(folder), list(jobs)
    processes = check_whole("processes", processes)
    check(
        isinstance(stack, bool) or stack == "auto",
        '`stack` should be "auto", True or False',
        stack=stack,
    )
    wanted = "a number of seconds, at least 0"
    save_every = check_number("save_every", save_every, wanted, lambda seconds: seconds >= 0)
    options = StackOptions(save_every=save_every) if stack else None
    if options and stack is True:
        options = options._replace(fewest=1, large=True)
    keys = [_key(job) for job in jobs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    check(not twice, "`jobs` should differ in the name or the seed of their networks", twice=twice)
    _check_inputs(jobs, data)
    files.check_case(folder, [job.network.file for job in jobs])
    fits = [job.fit for job in jobs]
    with (
        contextlib.closing(_make_runner(folder, jobs, data, processes, cluster)) as runner,
        files.alone(folder, quiet=all(map(is_quiet, fits))) as is_free,
    ):
        if is_free:
            # Else this is a part of a run, which has looked at its settings itself.
            _check_settings(folder, jobs, data, visible_gpus() if processes or cluster else ())
        for job in jobs:
            if job.saves:
                # If its rows are there, nothing else may read it.
                delete_damaged(JobFiles(folder, job.network).model)
        table = SweepTable(folder, jobs, [split for split in data if split != "train"])
        left = [twins for twins in _find_twins(jobs) if not table.settle(twins)]
        done = len(jobs) - sum(map(len, left))
        failed: list[tuple[Job, Failure]] = []
        if left and (processes or cluster) and not all(map(is_quiet, fits)):
            where = " on a Ray cluster" if cluster else f"; logs in {folder / 'logs'}"
            print(f"Training {len(jobs) - done} of {len(jobs)} networks{where}", flush=True)
        measure = all(job.measures for job in jobs)
        what = "Measuring affinities" if measure else "Training networks"
        with (
            contextlib.closing(progress_of(fits, what, done)) as progress,
            contextlib.closing(_outcomes(runner, folder, left, progress, options)) as outcomes,
        ):
            for groups, failure in outcomes:
                if failure is None:
                    table.settle(*groups)
                    progress.add(sum(map(len, groups)))
                else:
                    failed += [(job, failure) for job in groups[0]]
                    progress.say(f"Failed: {_describe(groups[0][0], failure, folder)}")
    # Of stacks that were cut off, and whose networks were trained otherwise since.
    checkpoint.delete_all(folder / "networks", {job.network.file for job in jobs})
    if failed:
        others = "; the others are done" if len(failed) < len(jobs) else ""
        texts = [f"- {_describe(job, failure, folder)}" for job, failure in failed]
        again = "The same command tries these again"
        if all(failure.lasting for _, failure in failed):
            again = "They would fail again: mend the cause, then run the same command"
        raise SweepError(
            f"{len(failed)} of {len(jobs)} networks failed{others}. {again}:\n" + "\n".join(texts)
        ) from failed[0][1].error
    return table.rows


def _check_inputs(jobs: Sequence[Job], data: Mapping[str, Data]) -> None:
    check("train" in data, '`data` should hold "train"', splits=sorted(data))
    tasks = list(dict.fromkeys(task for job in jobs for task in job.network.tasks))
    check_datasets({f'`data["{split}"]`': one for split, one in data.items()}, tasks)
    for job in {id(job.build_model): job for job in jobs}.values():
        check_build_model(job.build_model)
    for fit in {id(job.fit): job.fit for job in jobs}.values():
        check_datasets({"`validation_data`": fit.get("validation_data")}, tasks)
        check_callbacks(fit.get("callbacks"))


def _check_settings(
    folder: Path, jobs: Sequence[Job], data: Mapping[str, Data], gpus: Sequence[str]
) -> None:
    """Compares data, arguments of `fit` and models with those that the networks are trained with.

    Raises:
        ValueError: If they differ; the message names what does.
    """
    fits = {id(job.fit): {**files.comparable(job.fit), **of_fit(job.fit)} for job in jobs}
    networks = {job.network.file.removesuffix(".keras"): fits[id(job.fit)] for job in jobs}
    files.keep_settings(folder, None, {"data": of_data(data), "networks": networks})
    # One network of each function stands for the others: there may be hundreds.
    seen = set()
    for job in jobs:
        function = json.dumps(describe(job.build_model))
        known = trained_model(job.network, JobFiles(folder, job.network))
        if not known or function in seen:
            continue
        seen.add(function)
        now = of_network(job.build_model, job.network.tasks, job.network.seed, gpus)
        if changes := differences({"model": known}, {"model": now}):
            raise ValueError(
                f"{folder} holds another network {job.network.name!r}: {'; '.join(changes)}. Give "
                "another folder, or delete this one."
            )


def _make_runner(
    folder: Path, jobs: Sequence[Job], data: Mapping[str, Data], processes: int, cluster: bool
) -> Runner:
    if cluster:
        # Ray is an optional dependency.
        from tag_keras.sweep.ray_runner import OnRay

        return OnRay(folder, jobs, data)
    if processes:
        return InProcesses(folder, jobs, data, processes)
    return InThisProcess(folder, data)


def _find_twins(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups the jobs whose trainings are one and the same."""
    found: dict[Hashable, list[Job]] = {}
    for job, how in zip(jobs, _ways(jobs), strict=True):
        key = (job.network.tasks, job.network.seed, job.saves, job.measures, how)
        found.setdefault(key, []).append(job)
    return list(found.values())


def _find_stacks(folder: Path, left: Sequence[list[Job]], fewest: int) -> list[list[list[Job]]]:
    """Groups jobs that may be trained in one graph; of groups below `fewest`, none."""
    found: dict[Hashable, list[list[Job]]] = {}
    for twins, how in zip(left, _ways([twins[0] for twins in left]), strict=True):
        paths = JobFiles(folder, twins[0].network)
        # Networks that are there are only evaluated.
        if not (paths.trained.exists() and paths.are_there(twins[0])):
            tasks = twins[0].network.tasks if twins[0].measures else ()
            found.setdefault((twins[0].saves, tasks, how), []).append(twins)
    return [stack for stack in found.values() if len(stack) >= fewest]


def _parts_of(value: Any) -> Hashable:
    """What tells a value that cannot be pickled from another: the parts of a partial function."""
    if not isinstance(value, functools.partial):
        return id(value)
    options = tuple((name, id(one)) for name, one in sorted(value.keywords.items()))
    return id(value.func), tuple(map(id, value.args)), options


def _ways(jobs: Sequence[Job]) -> Iterator[Hashable]:
    """How each job is trained: hashes of its `build_model` and of its `fit`."""
    # Many jobs may share large arguments: each is pickled once.
    known: dict[int, Hashable] = {}
    for job in jobs:
        for one in (job.build_model, job.fit):
            if id(one) not in known:
                known[id(one)] = _fingerprint(one) or _parts_of(one)
        yield known[id(job.build_model)], known[id(job.fit)]


def _fingerprint(argument: Any) -> str | None:
    """Hash of an argument of a training; `None` if it cannot be pickled."""
    try:
        return hashlib.sha256(pickle.dumps(argument)).hexdigest()
    except Exception:
        # Each object has its own error: a dataset raises one of TensorFlow.
        return None


def _outcomes(
    runner: Runner,
    folder: Path,
    left: Sequence[list[Job]],
    progress: Progress,
    options: StackOptions | None = None,
) -> Generator[tuple[list[list[Job]], Failure | None], None, None]:
    """Trains the first job of each group; yields groups whose trainings have ended together."""
    if options:
        for together in _find_stacks(folder, left, options.fewest):
            by_key = {_key(twins[0]): twins for twins in together}
            first = [twins[0] for twins in together]
            for done in runner.train_stack(first, progress, options):
                groups = [by_key[_key(job)] for job in done]
                left = [twins for twins in left if twins not in groups]
                yield groups, None
    if not runner.threads:
        for twins in left:
            yield [twins], _train(runner, folder, twins[0], progress)
        return
    pool = ThreadPoolExecutor(runner.threads)
    try:
        futures = {pool.submit(_train, runner, folder, twins[0], progress): twins for twins in left}
        for future in as_completed(futures):
            yield [futures[future]], future.result()
    finally:
        # After Ctrl-C, for instance, the threads wait for trainings that the runner stops.
        runner.close()
        pool.shutdown(cancel_futures=True)


def _train(runner: Runner, folder: Path, job: Job, progress: Progress) -> Failure | None:
    JobFiles(folder, job.network).log.unlink(missing_ok=True)
    failure = runner.train(job, progress)
    if failure and not failure.lasting:
        failure = runner.train(job, progress)
    return failure


def _describe(job: Job, failure: Failure, folder: Path) -> str:
    network, log = job.network, JobFiles(folder, job.network).log
    text = f"{network.name!r}, seed {network.seed}, of the tasks {', '.join(network.tasks)}"
    return f"{text}: {failure.reason}" + (f" ({log})" if log.exists() else "")


class SweepTable:
    """The rows in the folder of a sweep: of its jobs with files, and of other networks.

    A network that has a place in results.json keeps it. The place of a new one is behind the job
    before it.

    A job counts as done if each of its tasks has a row of each of `splits`. Where its network is
    not kept, the splits that it was evaluated on are enough.

    Raises:
        ValueError: If results.json is damaged, or has a network of the same name and seed but other
            tasks.
    """

    def __init__(self, folder: Path, jobs: Sequence[Job], splits: Sequence[str]) -> None:
        self._folder, self._path, self._splits = folder, folder / "results.json", splits
        self._jobs = {_key(job): job for job in jobs}
        self._others: dict[tuple[str, int], list[Row]] = {}
        self._own: dict[tuple[str, int], list[Row]] = {}
        rows = load_sweep_results(folder)
        self._order = list(dict.fromkeys((row.network, row.seed) for row in rows))
        first = next((key for key in self._order if key in self._jobs), None)
        place = len(self._order) if first is None else self._order.index(first)
        for key in self._jobs:
            if key not in self._order:
                self._order.insert(place, key)
            place = self._order.index(key) + 1
        for row in rows:
            key = (row.network, row.seed)
            job = self._jobs.get(key)
            if job is None:
                self._others.setdefault(key, []).append(row)
            elif row.tasks != job.network.tasks:
                raise ValueError(
                    f"{self._path} has another network {row.network!r}, seed {row.seed}, of the "
                    f"tasks {list(row.tasks)}. Give another folder, or another name. Received: "
                    f"tasks={list(job.network.tasks)}."
                )
            elif self._files(job).are_there(job):
                # A network without its files is trained anew.
                self._own.setdefault(key, []).append(row)
        whole = [key for key, rows in self._own.items() if self._is_whole(self._jobs[key], rows)]
        self._own = {key: self._own[key] for key in whole}

    @property
    def rows(self) -> list[Row]:
        found = {**self._others, **self._own}
        return [row for key in self._order for row in found.get(key, [])]

    def settle(self, *groups: Sequence[Job]) -> bool:
        """Adds the rows of jobs, and writes results.json. Returns whether all have been trained.

        The jobs of a group are one training: where one is trained, the others get its files.
        """
        known = len(self._own)
        trained = [twins for twins in groups if self._add(twins)]
        if len(self._own) > known:
            save_results(self._path, self.rows)
        for job in itertools.chain(*trained):
            # Without its network, they could not come back if results.json was lost.
            if job.saves:
                self._files(job).rows.unlink(missing_ok=True)
        return len(trained) == len(groups)

    def _add(self, twins: Sequence[Job]) -> bool:
        """Adds the rows of jobs that are one training; returns whether one has been trained."""
        for job in twins:
            paths = self._files(job)
            if not paths.are_there(job):
                paths.rows.unlink(missing_ok=True)
            elif _key(job) not in self._own:
                rows = _collect(job, paths)
                if rows and self._is_whole(job, rows):
                    self._own[_key(job)] = rows
        source = next((job for job in twins if _key(job) in self._own), None)
        if source is None:
            return False
        for job in twins:
            if _key(job) not in self._own:
                self._copy(source, job)
        return True

    def _is_whole(self, job: Job, rows: Sequence[Row]) -> bool:
        splits = {row.split for row in rows}.union(self._splits if job.saves else ())
        found = {(row.task, row.split) for row in rows}
        return found >= {*itertools.product(job.network.tasks, splits)}

    def _copy(self, source: Job, job: Job) -> None:
        given, wanted = self._files(source), self._files(job)
        pairs = [(given.affinity, wanted.affinity), (given.trained, wanted.trained)]
        pairs = [(path, new) for path, new in pairs if path.exists()]
        if job.saves:
            pairs.append((given.model, wanted.model))
        for path, new in pairs:
            with files.replacing(new) as partial:
                shutil.copyfile(path, partial)
        self._own[_key(job)] = [
            job.network.row(row.task, row.split, row.loss, row.metrics, row.seconds, row.stacked)
            for row in self._own[_key(source)]
        ]

    def _files(self, job: Job) -> JobFiles:
        return JobFiles(self._folder, job.network)


def _collect(job: Job, paths: JobFiles) -> list[Row]:
    """Reads the rows that a job has written last; none if they are not whole, or another's."""
    try:
        rows = load_results(paths.rows)
    except FileNotFoundError:
        return []
    except ValueError as error:
        print(f"{job.network.name!r}, seed {job.network.seed}, is evaluated anew: {error}")
        return []
    own = (*_key(job), job.network.tasks)
    return rows if all((row.network, row.seed, row.tasks) == own for row in rows) else []


def _key(job: Job) -> tuple[str, int]:
    return job.network.name, job.network.seed
