"""Where the jobs of a sweep are trained: in this process, or each in one of its own."""

import dataclasses
import functools
import os
import pickle
import queue
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import keras

from tag_keras.sweep.job import Failure, Job, JobFiles, parts_to_send, train_job
from tag_keras.sweep.network import Data
from tag_keras.utils.child_processes import FAILS_AGAIN, ChildProcesses, is_lasting, pickled


def machine_shares(processes: int) -> list[dict[str, str]]:
    """Variables of the environment for each of so many processes at once.

    Cores are divided evenly. Several GPUs are given to the processes in turn; processes that
    share one take its memory as they need it. What the user has set stays.
    """
    shares: list[dict[str, str]] = [{} for _ in range(processes)]
    gpus = visible_gpus() if processes > 1 else []
    for index, share in enumerate(shares):
        # Its notices would come before the process can send them to its log.
        share["TF_CPP_MIN_LOG_LEVEL"] = "2"
        if processes > 1:
            threads = str(max(1, _cores() // processes))
            share["OMP_NUM_THREADS"] = threads
            share["TF_NUM_INTRAOP_THREADS"] = threads
        if gpus and processes > len(gpus):
            share["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        for name in set(share) & set(os.environ):
            del share[name]
        if len(gpus) > 1:
            share["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return shares


def visible_gpus() -> list[str]:
    """Names of the GPUs that TensorFlow would see, found out without it: it would take them."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in chosen.split(",")]
        # CUDA stops at the first that there is not.
        end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:end]
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    listed = subprocess.run(
        [command, "--query-gpu=uuid", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return listed.stdout.split() if listed.returncode == 0 else []


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
