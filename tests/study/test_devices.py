"""Strategies by name, models built under them, and the folders of several hosts."""

import functools
import json
import pickle

import keras
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.study.devices import build_on_devices, make_strategy, worker_folder
from tag_keras.utils import files


def build_model(tasks, units=2):
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    model.compile("sgd", "mse")
    return model


def test_strategies_by_name():
    assert make_strategy("none") is None
    mirrored = make_strategy("mirrored")
    assert isinstance(mirrored, tf.distribute.MirroredStrategy)
    assert make_strategy("mirrored") is mirrored
    with pytest.raises(ValueError, match=r'`name` should be "none", .* or "tpu"\.'):
        make_strategy("gpu")
    with pytest.raises(ValueError, match="There is no TPU: "):
        make_strategy("tpu")


def test_a_model_is_built_under_its_strategy():
    build = pickle.loads(
        pickle.dumps(functools.partial(build_on_devices, build_model, "mirrored", False))
    )
    model = build(("a", "b"), units=3)
    assert model.distribute_strategy is make_strategy("mirrored")
    assert model.tasks == ("a", "b")
    assert model.encoder.layers[-1].units == 3


def test_mixed_precision():
    before = keras.mixed_precision.dtype_policy()
    try:
        model = build_on_devices(build_model, "none", True, ("a",))
        assert model.encoder.layers[-1].compute_dtype == "float16"
        assert model.encoder.layers[-1].variable_dtype == "float32"
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert build_on_devices(build_model, "none", False, ("a",)).compute_dtype == "float32"


def set_worker(monkeypatch, index, kind="worker", chief=False):
    cluster = {"worker": ["a:1", "b:1"], **({"chief": ["c:1"]} if chief else {})}
    config = {"cluster": cluster, "task": {"type": kind, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


def test_the_other_workers_begin_with_what_the_first_one_has(tmp_path, monkeypatch):
    written = {"results.json": "1", "tag/groups_2.json": "2", "networks/a.affinity.json": "3"}
    written["networks/a.keras"] = "4"
    for name, text in {**written, ".partial-results.json": "x", ".lock": "x"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for strategy in ("none", "mirrored"):
        assert worker_folder(tmp_path, strategy) == tmp_path
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert worker_folder(tmp_path, "multiworker") == tmp_path
    for kind, chief in (("worker", False), ("chief", True)):
        set_worker(monkeypatch, 0, kind, chief)
        assert worker_folder(tmp_path, "multiworker") == tmp_path
    # Where there is a chief, the first of the workers is not the first of all.
    set_worker(monkeypatch, 0, "worker", chief=True)
    assert worker_folder(tmp_path, "multiworker") == tmp_path / "worker_worker_0"
    set_worker(monkeypatch, 1)
    own = worker_folder(tmp_path, "multiworker")
    assert own == tmp_path / "worker_worker_1"
    (own / "results.json").write_text("its own")
    (own / "more.json").write_text("its own")
    with files.replacing(own / "networks" / "a.keras") as partial:
        partial.write_text("its own")
    assert (tmp_path / "networks" / "a.keras").read_text() == "4"
    # Of an earlier run, or another worker's, nothing is left.
    assert worker_folder(tmp_path, "multiworker") == own
    set_worker(monkeypatch, 2)
    for folder in (own, worker_folder(tmp_path, "multiworker")):
        found = {
            str(path.relative_to(folder)): path.read_text()
            for path in folder.rglob("*")
            if path.is_file()
        }
        assert found == written
