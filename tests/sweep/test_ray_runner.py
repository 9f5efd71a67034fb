"""Sweeps on a Ray cluster, here the one that Ray starts in this machine."""

import os
import signal
import sys
import threading

import numpy as np
import pytest
import small_sweeps
import sweep_job
from small_sweeps import NETWORKS, TASKS, make_data, stacked, tasks_wide
from sweep_job import DATA, build_model

from tag_keras import results
from tag_keras.sweep import job, sweep
from tag_keras.sweep import network as training

FIT = {"epochs": 2, "verbose": 0}


def make_job(name, tasks, build=build_model):
    return job.Job(training.Network(name, tuple(tasks)), build, FIT)


def test_without_ray_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "tag_keras\[cluster\]"'):
        sweep.run_sweep(tmp_path / "new", [make_job("one", "a")], DATA, cluster=True)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    # The workers inherit it.
    monkeypatch.setenv(sweep_job.BUILDS, str(tmp_path / "builds"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def on_a_cluster(test):
    """Marks a test that needs Ray."""
    # Files and sockets that some versions of Ray leave open.
    for category in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{category}")(test)
    return pytest.mark.slow(pytest.mark.usefixtures("cluster")(test))


@on_a_cluster
def test_a_cluster_gives_what_this_process_gives(tmp_path):
    def build_local(tasks):  # Ray can send what pickle cannot.
        return build_model(tasks)

    jobs = [
        make_job("killed", "a", build=sweep_job.build_killed),
        make_job("local", "abc", build=build_local),
        make_job("wrong", "b", build=sweep_job.build_for_other_tasks),
    ]
    with pytest.raises(sweep.SweepError, match=r"- 'wrong', seed 0, .*: ValueError: `build_model`"):
        sweep.run_sweep(tmp_path / "there", jobs, DATA, cluster=True)
    built = sweep_job.read_builds(tmp_path / "builds")
    # Each process builds its network twice, unless it was killed or refused at the first.
    assert sorted(tasks for tasks, _ in built) == ["a", "a", "a", "abc", "abc", "be"]
    # A process of its own for each.
    assert len({process for _, process in built}) == 4
    jobs = [make_job("killed", "a"), make_job("local", "abc")]
    expected = sweep.run_sweep(tmp_path / "here", jobs, DATA, processes=0)
    rows = results.load_results(tmp_path / "there" / "results.json")
    np.testing.assert_allclose([r.loss for r in rows], [r.loss for r in expected], rtol=1e-5)
    for place in ("here", "there"):
        names = sorted(path.name for path in (tmp_path / place / "networks").iterdir())
        ends = ("_seed0.keras", "_seed0.trained.json")
        assert names == [f"{name}{end}" for name in ("killed", "local") for end in ends]
    with pytest.raises(ValueError, match=r"`data` cannot be sent to a cluster .* Give a function"):
        sweep.run_sweep(tmp_path / "new", jobs, {"train": threading.Lock()}, cluster=True)
    assert not (tmp_path / "new").exists()


@on_a_cluster
def test_each_core_of_a_cluster_trains_a_stack(tmp_path):
    def build(tasks):
        sweep_job.build_model(tasks)  # Writes down its process.
        return small_sweeps.build_model(tasks)

    more = [training.Network("joint", TASKS, 2), training.Network("a", ("a",), 2)]
    jobs = [job.Job(network, build, FIT) for network in (*NETWORKS, *more)]
    rows = sweep.run_sweep(tmp_path / "there", jobs, make_data(), cluster=True)
    assert len({process for _, process in sweep_job.read_builds(tmp_path / "builds")}) == 2
    expected = sweep.run_sweep(tmp_path / "here", jobs, make_data(), processes=0)
    assert len(stacked(rows)) == len(stacked(expected)) == 8
    np.testing.assert_allclose([r.loss for r in rows], [r.loss for r in expected], rtol=1e-5)
    there, here = (sorted(os.listdir(tmp_path / name / "networks")) for name in ("there", "here"))
    assert there == here


@on_a_cluster
def test_what_a_cluster_cannot_stack_is_trained_one_by_one_and_a_line_says_why(tmp_path, capsys):
    def build_killed(tasks):
        path = tmp_path / "killed"
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return tasks_wide(tasks)

    networks = [training.Network("both", ("a", "b")), training.Network("a", ("a",))]
    jobs = [job.Job(network, tasks_wide, {"epochs": 1}) for network in networks]
    jobs.append(job.Job(training.Network("killed", ("a",)), build_killed, {"epochs": 1}))
    rows = sweep.run_sweep(tmp_path / "new", jobs, make_data(), cluster=True, stack=True)
    assert {row.network for row in rows} == {"both", "a", "killed"}
    assert not stacked(rows)
    text = capsys.readouterr().out
    assert "2 networks are trained one by one: the encoder of the network for a differs" in text
    assert "1 networks are trained one by one: WorkerCrashedError: " in text
