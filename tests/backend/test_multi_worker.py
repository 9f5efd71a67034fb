"""Several workers of tf.distribute.MultiWorkerMirroredStrategy, in processes of this machine."""

import json
import pickle
import signal
import time
import types

import forks
import keras
import multi_worker_job as job
import numpy as np
import pytest
import tensorflow as tf
from ports import free_ports

from tag_keras.backend import multi_worker

# Much longer than any of it takes, even on a busy machine; for what would hang otherwise.
PATIENCE = 600


def run_workers(folder, *arguments, number=2):
    """Runs one process per worker.

    Returns:
        Exit status and output of each.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(number)]
    logs = [folder / f"{index}.log" for index in range(number)]
    processes = []
    try:
        for index, log in enumerate(logs):
            log.write_text("")
            worker = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": worker}
            environment = {"TF_CONFIG": json.dumps(config), "CUDA_VISIBLE_DEVICES": "-1"}
            options = {"environment": environment, "log": log}
            processes.append(forks.start(job.main, str(folder), *arguments, **options))
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0.1))
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [(p.exitcode, log.read_text()) for p, log in zip(processes, logs, strict=True)]


def load_results(folder, outcomes):
    for status, output in outcomes:
        assert status == 0, output[-3000:]
    return [pickle.loads((folder / f"{i}.pickle").read_bytes()) for i in range(len(outcomes))]


def assert_equal(one, other, tolerance=1e-5):
    """Of two structures of numbers."""
    keras.tree.assert_same_structure(one, other)
    for left, right in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
        if left is not None:
            np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def one_device(case, *arguments):
    return case(tf.distribute.get_strategy(), *arguments)


def find(folder, *cases):
    """What each of two workers found, by case."""
    return load_results(folder, run_workers(folder, "cases", ",".join(cases)))


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    return find(tmp_path_factory.mktemp("workers"), "momentum", "apart", "average")


@pytest.fixture(scope="module")
def slow_workers(tmp_path_factory):
    return find(tmp_path_factory.mktemp("slow_workers"), "own_part", "arrays", "held_out")


def assert_case(workers, case):
    expected = one_device(job.CASES[case])
    for found in workers:
        assert_equal(found[case], expected)
    if case in ("momentum", "held_out"):
        assert (expected["count"] > 1).all()
        assert (np.abs(expected["affinity"]) > 1e-4).all()


@pytest.mark.slow
def test_two_workers_find_what_one_device_finds(workers):
    assert_case(workers, "momentum")


# In "own_part" Keras is mended, and does not mind the detours.
@pytest.mark.slow
@pytest.mark.parametrize("case", ["own_part", "arrays", "held_out"])
def test_two_workers_find_it_with_other_data(slow_workers, case):
    assert_case(slow_workers, case)


@pytest.mark.slow
def test_workers_that_start_from_different_steps_are_refused(workers):
    for found in workers:
        assert found["apart"]["error"] == (
            "All workers should start from the same training step. `backup_dir` of "
            "BackupAndRestore is written by the first worker and read by all: name a folder that "
            "they share, or copy the first worker's to the others. "
            "Received: training steps [4, 0], by replica."
        )


@pytest.mark.slow
def test_workers_agree_on_what_each_measures_for_itself(workers):
    assert [found["average"]["mean"] for found in workers] == [8.0, 8.0]
    assert one_device(job.average) == {"mean": 3.0}


@pytest.mark.slow
def test_when_a_worker_is_killed_the_other_says_so_and_all_resume(tmp_path):
    weights = tmp_path / "backup" / "latest.weights.h5"
    # The training that goes on without the first worker is also the one that loses the second.
    for victim in (0, 1):
        outcomes = run_workers(tmp_path, "backup", str(victim))
        assert outcomes[victim][0] == -signal.SIGKILL
        status, output = outcomes[1 - victim]
        assert status == 1, output[-3000:]
        # Not always the last line: TensorFlow 2.16 may log from another thread after it.
        assert "\nRuntimeError: Another worker has failed or cannot be reached" in output
        if victim == 0:
            # As if it had been killed while it wrote the backup: the one before is whole.
            weights.write_bytes(weights.read_bytes()[:9000])
    resumed = load_results(tmp_path, run_workers(tmp_path, "backup"))
    assert not weights.parent.exists()
    expected = one_device(job.train_with_backup)
    history = {name: values[2:] for name, values in expected["history"].items()}
    for found in resumed:
        assert_equal(found, expected | {"history": history})


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("kind", [list, keras.callbacks.CallbackList])
def test_only_the_first_worker_writes_backups(tmp_path, is_first, kind):
    extended = types.SimpleNamespace(should_checkpoint=is_first)
    model = types.SimpleNamespace(distribute_strategy=types.SimpleNamespace(extended=extended))
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    other = keras.callbacks.TerminateOnNaN()
    callbacks = multi_worker._for_several_workers(kind([backup, other]), model)
    assert isinstance(callbacks, kind)
    kinds = [type(callback).__name__ for callback in getattr(callbacks, "callbacks", callbacks)]
    kinds = [name for name in kinds if name != "History"]
    given = ["BackupAndRestore", "TerminateOnNaN"]
    assert kinds == ([*given, "_Meeting"] if is_first else ["_Meeting", *given]) + ["_SameStart"]

    written = []
    backup.set_model(types.SimpleNamespace(save_weights=lambda **_: written.append(1)))
    for batch in range(3):
        backup.on_train_batch_end(batch)
    backup.on_epoch_end(0)
    assert written == [1] * is_first
    # The other workers leave the folder to the first also when all is done.
    (tmp_path / "backup").mkdir(exist_ok=True)
    backup.on_train_end()
    assert (tmp_path / "backup").exists() != is_first


def test_one_callback_or_none_are_callbacks_too():
    extended = types.SimpleNamespace(should_checkpoint=True)
    model = types.SimpleNamespace(distribute_strategy=types.SimpleNamespace(extended=extended))
    callback = keras.callbacks.TerminateOnNaN()
    assert multi_worker._for_several_workers(callback, model)[0] is callback
    assert len(multi_worker._for_several_workers(None, model)) == 2


# As TensorFlow 2.21 reports a worker that is gone, and one that does not answer in time.
GONE = """Graph execution error:

Collective ops is aborted by: The following tasks are unhealthy:
/job:worker/replica:0/task:1
The error could be from a previous operation. Restart your program to reset.
\t [[{{node CollectiveReduceV2}}]] [Op:__inference_1]"""
LATE = "Collective has timed out during execution.\n\t [[{{node CollectiveReduceV2}}]]"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (GONE, "The following tasks are unhealthy: /job:worker/replica:0/task:1"),
        (LATE, "Collective has timed out during execution."),
        (f"Collective ops is aborted by: {LATE}", "Collective has timed out during execution."),
    ],
)
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_a_lost_worker_is_explained(monkeypatch, message, reason, method):
    error = tf.errors.UnavailableError(None, None, message)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(keras.Model, method, fail)
    model = job.make_model(tf.distribute.get_strategy(), job.momentum)
    with pytest.raises(tf.errors.UnavailableError, match="Collective"):
        getattr(model, method)(np.zeros((2, 6)))
    monkeypatch.setattr(multi_worker, "has_several_workers", lambda strategy: True)
    monkeypatch.setattr(multi_worker, "_for_several_workers", lambda callbacks, model: callbacks)
    with pytest.raises(RuntimeError, match="Another worker has failed") as raised:
        getattr(model, method)(np.zeros((2, 6)))
    assert raised.value.__cause__ is error
    assert str(raised.value).endswith(f"TensorFlow's reason: {reason}")


def test_other_errors_of_several_workers_stay_what_they_are(monkeypatch):
    def fail(*args, **kwargs):
        raise tf.errors.InvalidArgumentError(None, None, "bad file")

    monkeypatch.setattr(keras.Model, "predict", fail)
    monkeypatch.setattr(multi_worker, "has_several_workers", lambda strategy: True)
    model = job.make_model(tf.distribute.get_strategy(), job.momentum)
    with pytest.raises(tf.errors.InvalidArgumentError, match="bad file"):
        model.predict(np.zeros((2, 6)))


def test_one_worker_is_not_several():
    devices = tf.config.list_logical_devices("CPU")
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(devices),
        tf.distribute.OneDeviceStrategy("cpu:0"),
    ):
        assert not multi_worker.has_several_workers(strategy)
