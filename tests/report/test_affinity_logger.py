"""Affinities by epoch in the history of `fit`, in TensorBoard and in other loggers."""

import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import TASKS, in_batches, make_data, make_model

import tag_keras
from tag_keras.affinity import Affinity
from tag_keras.report import affinity_logger

pytest.importorskip("tensorboard")
X, Y = make_data(64)
PAIRS = [(source, target) for source in TASKS for target in TASKS if source != target]
# What MLflow takes as the name of a metric.
MLFLOW = re.compile(r"[/\w.\- :]*")


def fit(*callbacks):
    """Three epochs of two steps, of which 0 and 3 are probed: the last epoch has no probe."""
    model = make_model()
    options = {"affinity": tag_keras.LookaheadAffinity(every=3), "run_eagerly": True}
    model.compile("sgd", "mse", **options)
    data = in_batches(X, {task: Y[task] for task in TASKS}, 32)
    history = model.fit(data, epochs=3, shuffle=False, verbose=0, callbacks=[*callbacks])
    return model.get_affinity(), history.history


def read_events(folder):
    """Scalars by name and step, and the number of images by step."""
    scalars, images = {}, {}
    for path in sorted(folder.iterdir()):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images":
                    images[event.step] = images.get(event.step, 0) + 1
                else:
                    scalars[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    return scalars, images


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A training that logs everywhere: affinities, history, calls of `log`, CSV, events."""
    folder, calls = tmp_path_factory.mktemp("logs"), []
    logger = tag_keras.AffinityLogger(
        folder / "events", log=lambda values, step: calls.append((step, values))
    )
    csv = keras.callbacks.CSVLogger(folder / "log.csv")
    affinity, history = fit(logger, csv)
    return (
        affinity,
        history,
        calls,
        (folder / "log.csv").read_text(),
        read_events(folder / "events"),
    )


def test_the_history_has_the_affinities_of_each_epoch_as_floats(logged):
    affinity, history, *_ = logged
    names = [name for name in history if name.startswith("affinity/")]
    assert names == [f"affinity/{source}->{target}" for source, target in PAIRS]
    for name, (source, target) in zip(names, PAIRS, strict=True):
        expected = affinity.history[:, TASKS.index(source), TASKS.index(target)]
        assert [type(value) for value in history[name]] == [float] * 3
        np.testing.assert_array_equal(history[name], expected)
    # The epochs differ, and so do the pairs; the last epoch has measured nothing.
    assert len({value for name in names for value in history[name][:2]}) == 12
    assert np.isnan([history[name][2] for name in names]).all()


def test_the_logs_of_fit_stay_as_they_are(logged):
    history, csv = logged[1], logged[3]
    losses = ["a_loss", "b_loss", "c_loss", "loss"]
    assert sorted(name for name in history if not name.startswith("affinity/")) == losses
    assert csv.startswith("epoch,a_loss,") and "affinity" not in csv


def test_a_function_gets_the_affinities_under_names_that_mlflow_takes(logged):
    affinity, history, calls, *_ = logged
    # Not of the epoch without a probe.
    assert [step for step, _ in calls] == [0, 1]
    for step, values in calls:
        assert [*values] == [f"affinity/{source}_to_{target}" for source, target in PAIRS]
        assert all(MLFLOW.fullmatch(name) for name in values)
        for source, target in PAIRS:
            value = values[f"affinity/{source}_to_{target}"]
            assert value == history[f"affinity/{source}->{target}"][step]
    assert np.isfinite(affinity.mean).all()


def test_tensorboard_gets_scalars_and_a_heat_map_of_each_epoch(logged):
    history, (scalars, images) = logged[1], logged[4]
    assert images == {0: 1, 1: 1, 2: 1}
    # The epoch without a probe has an image of those before.
    assert {step for _, step in scalars} == {0, 1} and len(scalars) == 12
    for (name, step), value in scalars.items():
        assert value == pytest.approx(history[name][step], rel=1e-6)


def test_before_anything_is_measured_all_is_nan():
    logger, model = tag_keras.AffinityLogger(), make_model()
    model.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity())
    model.history = keras.callbacks.History()
    logger.set_model(model)
    logger.on_epoch_end(0)
    assert np.isnan(model.history.history["affinity/a->b"]).tolist() == [True]


class Measured:
    """A model that has measured affinities without epochs."""

    tasks = ("t0", "t1", "t2", "t3")
    measures_affinity, distribute_strategy = True, tf.distribute.get_strategy()

    def get_affinity(self):
        return Affinity(self.tasks, np.arange(16.0).reshape(4, 4), count=np.ones((4, 4)))


def log_once(logger, model):
    model.history = keras.callbacks.History()
    logger.set_model(model)
    logger.on_train_begin()
    logger.on_epoch_end(0)
    logger.on_train_end()
    return model.history.history


def test_of_many_tasks_tensorboard_gets_the_image_only(tmp_path):
    log_once(tag_keras.AffinityLogger(tmp_path / "image", max_tasks=3), Measured())
    log_once(tag_keras.AffinityLogger(tmp_path / "both", max_tasks=4), Measured())
    assert read_events(tmp_path / "image") == ({}, {0: 1})
    scalars, images = read_events(tmp_path / "both")
    assert len(scalars) == 12 and scalars["affinity/t1->t0", 0] == 4 and images == {0: 1}


def test_without_matplotlib_there_is_no_image(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "tag_keras.report.plots", raising=False)
    monkeypatch.delattr("tag_keras.report.plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    log_once(tag_keras.AffinityLogger(tmp_path), Measured())
    scalars, images = read_events(tmp_path)
    assert len(scalars) == 12 and not images


def test_averages_without_epochs_count_as_those_of_the_epoch():
    history = log_once(tag_keras.AffinityLogger(), Measured())
    assert history["affinity/t1->t0"] == [4.0] and len(history) == 12
    assert log_once(tag_keras.AffinityLogger(history=False), Measured()) == {}


def test_other_workers_than_the_first_write_nothing(tmp_path, monkeypatch):
    calls = []
    logger = tag_keras.AffinityLogger(tmp_path / "events", lambda *call: calls.append(call))
    monkeypatch.setattr(logger, "_is_first_worker", lambda: False)
    assert len(log_once(logger, Measured())) == 12
    assert not calls and not (tmp_path / "events").exists()


def test_a_model_that_measures_nothing_is_refused():
    model = make_model()
    model.compile("sgd", "mse")
    logger = tag_keras.AffinityLogger()
    logger.set_model(model)
    with pytest.raises(
        ValueError, match=r"model measures no affinities\. Compile it with `affinity"
    ):
        logger.on_train_begin()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_dir": 3}, "`log_dir` should be a path, or None. Received: log_dir=3"),
        ({"log": "wandb"}, "`log` should be a function of a dict and a step, or None"),
        ({"history": 1}, "`history` should be a bool"),
        ({"max_tasks": 0}, "`max_tasks` should be at least 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tag_keras.AffinityLogger(**options)


def test_a_folder_needs_tensorboard(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    affinity_logger.AffinityLogger(log=print)
    with pytest.raises(ImportError, match=r'TensorBoard .* pip install "tag_keras\[tools\]"'):
        affinity_logger.AffinityLogger(tmp_path)
