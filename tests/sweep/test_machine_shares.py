"""Rules of CUDA_VISIBLE_DEVICES: CUDA C++ Programming Guide, section on environment variables."""

import os

import pytest

from tag_keras.sweep import runners as machine_shares
from tag_keras.sweep.runners import visible_gpus

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "TF_NUM_INTRAOP_THREADS",
)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of eight cores, without GPUs unless a test says so."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine_shares.shutil, "which", lambda name: None)


def test_cores_are_divided():
    for processes, threads in ((2, "4"), (3, "2"), (9, "1")):
        (share, *others) = machine_shares.machine_shares(processes)
        assert share["TF_NUM_INTRAOP_THREADS"] == share["OMP_NUM_THREADS"] == threads
        assert others == [share] * (processes - 1)


def test_one_process_has_all():
    assert machine_shares.machine_shares(1) == [{"TF_CPP_MIN_LOG_LEVEL": "2"}]


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert machine_shares.machine_shares(2) == [{"OMP_NUM_THREADS": "4"}] * 2


def test_gpus_are_given_in_turn(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    shares = machine_shares.machine_shares(3)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["2", "GPU-5", "2"]
    # Two of them share the first.
    assert {share["TF_FORCE_GPU_ALLOW_GROWTH"] for share in shares} == {"true"}
    for share in machine_shares.machine_shares(2):
        assert "TF_FORCE_GPU_ALLOW_GROWTH" not in share
    # One network at a time may use all of them.
    assert "CUDA_VISIBLE_DEVICES" not in machine_shares.machine_shares(1)[0]


def test_processes_on_one_gpu_share_its_memory(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for share in machine_shares.machine_shares(2):
        assert share["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
        assert "CUDA_VISIBLE_DEVICES" not in share


@pytest.mark.parametrize(
    ("chosen", "gpus"), [("", []), ("-1", []), ("1, 0", ["1", "0"]), ("1,-1,2", ["1"])]
)
def test_gpus_that_cuda_would_see(monkeypatch, chosen, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == gpus


def test_gpus_that_the_driver_lists(monkeypatch, tmp_path):
    assert visible_gpus() == []
    command = tmp_path / "nvidia-smi"
    monkeypatch.setattr(machine_shares.shutil, "which", lambda name: str(command))
    for code, gpus in ((0, ["GPU-1", "GPU-2"]), (9, [])):
        command.write_text(f"#!/bin/sh\nprintf 'GPU-1\\nGPU-2\\n'\nexit {code}\n")
        command.chmod(0o755)
        assert visible_gpus() == gpus
