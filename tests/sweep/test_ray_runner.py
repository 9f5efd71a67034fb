"""Sweeps on a Ray cluster, here the one that Ray starts in this machine."""

import os
import sys
import threading

import numpy as np
import pytest
import sweep_job
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


@pytest.mark.slow
# Files and sockets that some versions of Ray leave open.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cluster_gives_what_this_process_gives(tmp_path, cluster):
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
