"""What a run was made with: kept once, and anew where it changes."""

import datetime
import json

import keras
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.study import environment
from tag_keras.study.environment import keep_environment


def test_it_is_kept_once(tmp_path):
    (found,) = keep_environment(tmp_path)
    assert found["tag_keras"] == tag_keras.__version__
    assert (found["TensorFlow"], found["Keras"]) == (tf.__version__, keras.__version__)
    age = datetime.datetime.now() - datetime.datetime.strptime(found["date"], "%Y-%m-%d %H:%M")
    assert age < datetime.timedelta(minutes=5)
    assert json.loads((tmp_path / "environment.json").read_text()) == [found]
    # A later start with the same keeps the first date.
    (tmp_path / "environment.json").write_text(json.dumps([{**found, "date": "2020-01-01 10:00"}]))
    assert [one["date"] for one in keep_environment(tmp_path)] == ["2020-01-01 10:00"]


def test_other_versions_are_added(tmp_path, monkeypatch):
    (first,) = keep_environment(tmp_path)
    monkeypatch.setattr(keras, "__version__", "9.9")
    found = keep_environment(tmp_path)
    assert found[0] == first and [one["Keras"] for one in found] == [first["Keras"], "9.9"]
    assert keep_environment(tmp_path) == found


def test_a_file_of_a_version_that_kept_other_things_goes_on(tmp_path):
    before = {"date": "2030-01-01 00:00", "tag_keras": "9.0", "CUDA": "99"}
    (tmp_path / "environment.json").write_text(json.dumps([before]))
    found = keep_environment(tmp_path)
    assert found[0] == before and "Keras" in found[1] and len(found) == 2


def test_devices_in_words(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environment._device().startswith("CPU (")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    assert environment._device() == "2 x GPU"


@pytest.mark.parametrize(("status", "name"), [(0, "NVIDIA H200"), (9, "GPU")])
def test_the_name_of_a_gpu(tmp_path, monkeypatch, status, name):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\necho NVIDIA H200\nexit {status}\n")
    command.chmod(0o755)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(environment.shutil, "which", lambda _: str(command))
    assert environment._device() == f"1 x {name}"


@pytest.mark.parametrize(
    "content",
    ["{", "{}", "[1]", '[{"device": "CPU"}]', '[{"date": 1}]', '"text"'],
)
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "environment.json").write_text(content)
    with pytest.raises(ValueError, match=r"environment\.json .* Delete it"):
        keep_environment(tmp_path)
