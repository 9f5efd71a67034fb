"""Runner of a sweep on a Ray cluster, where each task has a process of its own."""

import contextlib
import io
import math
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tag_keras.sweep.job import Failure, Job, parts_to_send, train_job
from tag_keras.sweep.network import Data
from tag_keras.sweep.runners import SideBySide
from tag_keras.sweep.stack.jobs import ONE_BY_ONE, StackOptions, train_stacked
from tag_keras.utils import files
from tag_keras.utils.child_processes import is_lasting
from tag_keras.utils.progress import Progress

# Contents of the files of jobs that were trained on another machine, by path in the folder.
_Files = dict[str, bytes]


class OnRay(SideBySide):
    """Trains each job, or a stack for each core, as a task of Ray, which decides where and when.

    It uses the cluster that the program is connected to, or the one that `ray.init()` finds or
    starts. A task takes one core and, if there are GPUs, one GPU. Its machine need not see the
    folder of the sweep, but must import the modules of the jobs: if it cannot, connect with
    `ray.init(runtime_env={"working_dir": "."})`.

    Raises:
        ImportError: If Ray is not installed.
        ValueError: If an argument of the jobs, or `data`, cannot be sent to another process.
    """

    def __init__(self, folder: Path, jobs: Sequence[Job], data: Mapping[str, Data]) -> None:
        ray = import_ray()
        for what, value in parts_to_send(jobs, data):
            try:
                ray.cloudpickle.dumps(value)
            except Exception as error:
                # For a dataset, the error is one of TensorFlow.
                raise ValueError(
                    f"{what} cannot be sent to a cluster ({error}). Give a function that returns "
                    "it, for instance in place of a tf.data.Dataset."
                ) from None
        self._ray = ray
        # Read here, because Keras keeps one policy per thread.
        self._policy = keras.config.dtype_policy().name
        self._lock = threading.Lock()
        self._running: set[Any] = set()
        self._closed = False
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            ray.init(log_to_driver=False, include_dashboard=False)
        # One thread waits for each task; Ray queues the tasks that find no place yet.
        self.threads = max(1, len(jobs))
        there = ray.cluster_resources()
        gpus = 1 if there.get("GPU", 0) else 0
        super().__init__(folder, int(min(there.get("CPU", 1), there.get("GPU") or math.inf)))
        cores = [node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"]]
        self._most_of_a_machine = int(max(cores, default=1))
        # The sweep retries by itself. One call per process, because TensorFlow leaks memory.
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=1, max_retries=0)
        self._train_job, self._train_jobs = remote(_train_job), remote(_train_jobs)
        self._data = ray.put(dict(data))

    def train(self, job: Job, progress: Progress) -> Failure | None:
        contents = self._call(self._train_job, job)
        if isinstance(contents, Failure):
            return contents
        self._write(contents)
        return None

    def _train_part(self, jobs: Sequence[Job], options: StackOptions) -> str:
        # Those of one machine share its memory. A checkpoint would be gone with the task's folder.
        processes = min(options.processes, self._most_of_a_machine)
        options = options._replace(processes=processes, save_every=math.inf)
        result = self._call(self._train_jobs, jobs, options)
        if isinstance(result, Failure):
            return f"{len(jobs)} {ONE_BY_ONE}: {result.reason}"
        contents, reason = result
        self._write(contents)
        return str(reason)

    def _call(self, function: Any, *arguments: Any) -> Any:
        """What a function returns that Ray calls, or why it failed."""
        errors = self._ray.exceptions
        with self._lock:
            if self._closed:
                return Failure("the sweep was stopped", lasting=True)
            task = function.remote(self._data, self._policy, *arguments)
            self._running.add(task)
        try:
            return self._ray.get(task)
        except errors.RayTaskError as error:
            return _failure(error.cause or error)
        except errors.RayError as error:
            # The job's process or machine is gone, for instance.
            return _failure(error)
        finally:
            with self._lock:
                self._running.discard(task)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for task in self._running:
                self._ray.cancel(task, force=True)
            # Threads still wait for the cancelled tasks; the sweep closes again after them.
            if self._connected_here and not self._running:
                self._ray.shutdown()

    def _write(self, contents: _Files) -> None:
        # The rows last: they mark a job as done.
        for name in sorted(contents, key=lambda name: name.endswith(".rows.json")):
            with files.replacing(self._folder / name) as partial:
                partial.write_bytes(contents[name])


def import_ray() -> Any:
    """Imports Ray, or raises an `ImportError` that says how to install it."""
    try:
        import ray
    except ImportError as error:
        message = 'A sweep on a cluster needs Ray: pip install "tag_keras[cluster]".'
        raise ImportError(message) from error
    return ray


def _failure(error: BaseException) -> Failure:
    # After these lines, Ray's messages go on with a traceback.
    reason = "\n".join(f"{type(error).__name__}: {error}".splitlines()[:3])
    return Failure(reason, is_lasting(error), error)


def _train_job(data: Mapping[str, Data], policy: str, job: Job) -> _Files:
    with _folder(policy) as folder:
        train_job(folder, job, data)
        return _contents(folder)


def _train_jobs(
    data: Mapping[str, Data], policy: str, jobs: Sequence[Job], options: StackOptions
) -> tuple[_Files, str]:
    """Trains jobs together; returns their files, and why some have none."""
    said = io.StringIO()
    progress = Progress("", len(jobs), "networks", said, quiet=True)
    with _folder(policy) as folder:
        for _ in train_stacked(folder, jobs, data, progress, options):
            pass
        return _contents(folder), said.getvalue().strip()


@contextlib.contextmanager
def _folder(policy: str) -> Iterator[Path]:
    """A folder to train in, which is gone at the end of a task."""
    # TensorFlow reads it at its first step. Ray has given the task one core.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    keras.config.set_dtype_policy(policy)
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _contents(folder: Path) -> _Files:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
