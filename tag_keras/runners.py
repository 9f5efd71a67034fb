"""Where the jobs of a sweep are trained: in this process, or each in one of its own."""

import dataclasses
import functools
import pickle
import queue
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import keras

from tag_keras.child_processes import FAILS_AGAIN, ChildProcesses, is_lasting, pickled
from tag_keras.job import Failure, Job, JobFiles, parts_to_send, train_job
from tag_keras.machine_shares import machine_shares
from tag_keras.training import Data


class Runner(Protocol):
    """Trains jobs."""

    @property
    def threads(self) -> int:
        """Number of threads that may call `train` at once; 0: none but the one that made it."""

    def train(self, job: Job) -> Failure | None:
        """Trains a job. Unless it fails, all its files are there then."""

    def close(self) -> None:
        """Ends all that is still training, from any thread."""


class InThisProcess:
    """Trains one job after the other.

    Args:
        folder: Folder of the sweep.
        data: As in `train_job`.
    """

    threads = 0

    def __init__(self, folder: Path, data: Mapping[str, Data]) -> None:
        self._folder, self._data = folder, data

    def train(self, job: Job) -> Failure | None:
        try:
            train_job(self._folder, job, self._data)
        except Exception as error:
            return Failure(f"{type(error).__name__}: {error}", is_lasting(error), error)
        return None

    def close(self) -> None:
        pass


class InProcesses:
    """Trains each job in a process of its own, so many at once.

    Args:
        folder: Folder of the sweep.
        jobs: All that will be trained.
        data: As in `train_job`.
        processes: How many processes at once.

    Raises:
        ValueError: If something could not be sent to another process.
    """

    def __init__(
        self, folder: Path, jobs: Sequence[Job], data: Mapping[str, Data], processes: int
    ) -> None:
        self.threads = processes
        self._folder = folder
        # Keras has one for each thread.
        self._policy = keras.config.dtype_policy().name
        payloads = {what: pickled(value, what) for what, value in parts_to_send(jobs, data)}
        self._data = payloads["`data`"]
        self._children = ChildProcesses()
        self._shares: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for share in machine_shares(processes):
            self._shares.put(share)

    def train(self, job: Job) -> Failure | None:
        paths = JobFiles(self._folder, job.network)
        paths.log.parent.mkdir(parents=True, exist_ok=True)
        call = functools.partial(_train_in_child, self._folder, job, self._data, self._policy)
        share = self._shares.get()
        try:
            code = self._children.call(pickle.dumps(call), paths.log, share)
        finally:
            self._shares.put(share)
        # Once they are there, nothing can be lost any more, whatever TensorFlow does at its end.
        if paths.rows.exists():
            return None
        return Failure(_reason(code, paths.log), lasting=code == FAILS_AGAIN)

    def close(self) -> None:
        self._children.stop()


def _train_in_child(folder: Path, job: Job, data: bytes, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    # Lines by epoch for the log, unless something else was asked for.
    job = dataclasses.replace(job, fit={"verbose": 2, **job.fit})
    train_job(folder, job, pickle.loads(data))


def _reason(code: int, log: Path) -> str:
    """Why a process ended: the signal, or the last error in its log."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    _, found, trace = text.rpartition("Traceback (most recent call last):\n")
    lines = [line for line in (trace if found else text).splitlines() if line.strip()]
    if found:
        lines = [line for line in lines if not line.startswith(" ")]
        return "\n".join(lines[:3])
    return "\n".join([f"ended with exit code {code}", *lines[-3:]])
