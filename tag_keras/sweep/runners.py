"""Runners train a sweep's jobs: in this process, or each in its own with its cores and GPUs."""

import abc
import contextlib
import dataclasses
import functools
import itertools
import os
import pickle
import queue
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

import keras

from tag_keras.sweep.console import progress_of
from tag_keras.sweep.job import Failure, Job, JobFiles, parts_to_send, train_job
from tag_keras.sweep.network import Data
from tag_keras.sweep.stack.jobs import ONE_BY_ONE, StackOptions, train_stacked
from tag_keras.utils.child_processes import FAILS_AGAIN, ChildProcesses, is_lasting, pickled
from tag_keras.utils.progress import Progress

# A process takes as long to start as a few networks to train.
_FEWEST_OF_A_PROCESS = 4


class Runner(Protocol):
    """Trains jobs."""

    @property
    def threads(self) -> int:
        """Number of threads that may call `train` at once; 0 for the sweep's own thread only."""

    def train(self, job: Job, progress: Progress) -> Failure | None:
        """Trains a job and leaves all its files, or returns why it failed.

        In this process, `progress` shows the steps.
        """

    def train_stack(
        self, jobs: Sequence[Job], progress: Progress, options: StackOptions
    ) -> Iterator[list[Job]]:
        """Trains jobs together, and gives those that are done; the others must be trained alone."""

    def close(self) -> None:
        """Stops all trainings; any thread may call it."""


class InThisProcess:
    """Trains one job after the other in this process, in the folder of the sweep."""

    threads = 0

    def __init__(self, folder: Path, data: Mapping[str, Data]) -> None:
        self._folder, self._data = folder, data

    def train(self, job: Job, progress: Progress) -> Failure | None:
        try:
            train_job(self._folder, job, self._data, progress)
        except Exception as error:
            return Failure(f"{type(error).__name__}: {error}", is_lasting(error), error)
        return None

    def train_stack(
        self, jobs: Sequence[Job], progress: Progress, options: StackOptions
    ) -> Iterator[list[Job]]:
        yield from train_stacked(self._folder, jobs, self._data, progress, options)

    def close(self) -> None:
        pass


class SideBySide(abc.ABC):
    """Trains stacks outside of this process, several at once.

    Args:
        folder: Folder of the sweep.
        places: Number of stacks to train at once.
    """

    def __init__(self, folder: Path, places: int) -> None:
        self._folder, self._places = folder, places

    def train_stack(
        self, jobs: Sequence[Job], progress: Progress, options: StackOptions
    ) -> Iterator[list[Job]]:
        number = max(1, min(self._places, len(jobs) // _FEWEST_OF_A_PROCESS))
        options = options._replace(processes=number)
        parts = [jobs[place::number] for place in range(number)]
        for job in jobs:
            # Of an earlier run, perhaps for other splits.
            self._files(job).rows.unlink(missing_ok=True)
        with ThreadPoolExecutor(number) as pool, self._closing_after_errors():
            running = {pool.submit(self._train_part, part, options) for part in parts}
            left = {job.network: job for job in jobs}
            reasons: dict[str, None] = {}
            while left:
                ended, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                if done := [job for job in left.values() if self._files(job).rows.exists()]:
                    yield [left.pop(job.network) for job in done]
                reasons |= {words: None for future in ended if (words := future.result())}
                if not running:
                    break
        for reason in reasons if left else ():
            progress.say(reason)

    @abc.abstractmethod
    def _train_part(self, jobs: Sequence[Job], options: StackOptions) -> str:
        """Trains jobs together and leaves their files; returns why some may be trained alone."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stops all trainings; any thread may call it."""

    @contextlib.contextmanager
    def _closing_after_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # Also after Ctrl-C: the pool would wait for its processes.
            self.close()
            raise

    def _files(self, job: Job) -> JobFiles:
        return JobFiles(self._folder, job.network)


class InProcesses(SideBySide):
    """Trains each job in a process of its own, `processes` at once, in the folder of the sweep.

    Raises:
        ValueError: If an argument of the jobs, or `data`, cannot be sent to another process.
    """

    def __init__(
        self, folder: Path, jobs: Sequence[Job], data: Mapping[str, Data], processes: int
    ) -> None:
        super().__init__(folder, processes)
        self.threads = processes
        # Read here, because Keras keeps one policy per thread.
        self._policy = keras.config.dtype_policy().name
        payloads = {what: pickled(value, what) for what, value in parts_to_send(jobs, data)}
        self._data = payloads["`data`"]
        self._children = ChildProcesses()
        self._shares: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for share in machine_shares(processes):
            self._shares.put(share)

    def train(self, job: Job, progress: Progress) -> Failure | None:
        paths = self._files(job)
        call = functools.partial(_train_in_child, self._folder, job, self._data, self._policy)
        code = self._call(call, paths.log)
        # With its rows the job is done, even if TensorFlow fails as the process ends.
        if paths.rows.exists():
            return None
        return Failure(_reason(code, paths.log), lasting=code == FAILS_AGAIN)

    def _train_part(self, jobs: Sequence[Job], options: StackOptions) -> str:
        log = self._files(jobs[0]).log
        log.unlink(missing_ok=True)
        arguments = (jobs, self._data, self._policy, options)
        call = functools.partial(_train_stack_in_child, self._folder, *arguments)
        if (code := self._call(call, log)) == 0:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            return next((line for line in reversed(lines) if ONE_BY_ONE in line), "")
        return f"{len(jobs)} {ONE_BY_ONE}: {_reason(code, log)}"

    def _call(self, call: Callable[[], None], log: Path) -> int:
        """Calls a function in a process with its share of the machine; returns the exit code."""
        log.parent.mkdir(parents=True, exist_ok=True)
        share = self._shares.get()
        try:
            return self._children.call(pickle.dumps(call), log, share)
        finally:
            self._shares.put(share)

    def close(self) -> None:
        self._children.stop()


def _train_in_child(folder: Path, job: Job, data: bytes, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    # A line for each epoch in the log, unless `fit` says otherwise.
    job = dataclasses.replace(job, fit={"verbose": 2, **job.fit})
    train_job(folder, job, pickle.loads(data))


def _train_stack_in_child(
    folder: Path, jobs: Sequence[Job], data: bytes, policy: str, options: StackOptions
) -> None:
    keras.config.set_dtype_policy(policy)
    fit = {"verbose": 0, **jobs[0].fit}
    with contextlib.closing(progress_of([fit] * len(jobs))) as progress:
        for done in train_stacked(folder, jobs, pickle.loads(data), progress, options):
            progress.add(len(done))


def _reason(code: int, log: Path) -> str:
    """The signal that killed a process, or the last error in its log."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    # Without a traceback, the last part is the whole text.
    _, found, trace = text.rpartition("Traceback (most recent call last):\n")
    lines = [line for line in trace.splitlines() if line.strip()]
    if found:
        return "\n".join([line for line in lines if not line.startswith(" ")][:3])
    return "\n".join([f"ended with exit code {code}", *lines[-3:]])


def machine_shares(processes: int) -> list[dict[str, str]]:
    """Environment variables for each of several processes at once. What the user has set stays.

    The processes divide the cores evenly and take several GPUs in turn; those that share a GPU
    allocate its memory as they need it.
    """
    gpus = visible_gpus() if processes > 1 else []
    # TensorFlow writes its notices before a process can send them to its log.
    wanted = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    if processes > 1:
        threads = str(max(1, _cores() // processes))
        wanted |= {"OMP_NUM_THREADS": threads, "TF_NUM_INTRAOP_THREADS": threads}
    if 0 < len(gpus) < processes:
        wanted["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    share = {name: value for name, value in wanted.items() if name not in os.environ}
    if len(gpus) < 2:
        return [share] * processes
    turns = itertools.islice(itertools.cycle(gpus), processes)
    return [{**share, "CUDA_VISIBLE_DEVICES": gpu} for gpu in turns]


def visible_gpus() -> list[str]:
    """Names of the GPUs that TensorFlow would see. It is not asked, because it would take them."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in chosen.split(",")]
        # CUDA stops at the first name that is no device.
        end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:end]
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=uuid", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False)
    return listed.stdout.split() if listed.returncode == 0 else []


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
