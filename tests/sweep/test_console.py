"""What a user sees while networks are trained."""

import contextlib
import functools
import io
import logging
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.selection.grouping import Grouping
from tag_keras.sweep import console, job, sweep
from tag_keras.sweep import network as training
from tag_keras.utils import progress

X = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
TRAIN = (X, {"a": X[:, 0], "b": X[:, 1]})
GROUPING = Grouping(("a", "b"), [("a",), ("b",)], {"a": 0, "b": 1}, 0.0, 0.0, True)


def build_model(tasks, affinity=None):
    encoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    model.compile("sgd", "mse", affinity=affinity, run_eagerly=True)
    return model


def build_measured(tasks):
    return build_model(tasks, tag_keras.LookaheadAffinity(1))


def train_groups(**fit):
    tag_keras.train_groups(build_model, GROUPING, TRAIN, epochs=2, **fit)


def run_sweep(folder, **fit):
    measured = training.Network("measured", ("a", "b"), role="affinity")
    jobs = [job.Job(measured, build_measured, fit, saves=False, measures=True)]
    sweep.run_sweep(folder, jobs, {"train": TRAIN, "test": TRAIN}, processes=0)


@pytest.mark.slow
def test_a_stage_writes_one_line_and_keras_none(tmp_path, capsys):
    train_groups()
    assert re.fullmatch(r"Training networks: 2/2 in \d+ s\n", capsys.readouterr().out)
    run_sweep(tmp_path)
    assert re.fullmatch(r"Measuring affinities: done in \d+ s\n", capsys.readouterr().out)


@pytest.mark.slow
def test_networks_that_are_there_do_not_count_for_the_speed(tmp_path, capsys):
    train_groups(output_dir=tmp_path)
    (tmp_path / "group_1_seed0.keras").unlink()
    capsys.readouterr()
    train_groups(output_dir=tmp_path)
    assert capsys.readouterr().out.startswith("Training networks: 2/2 in ")
    train_groups(output_dir=tmp_path)
    assert capsys.readouterr().out.startswith("Nothing to train")


@pytest.mark.slow
def test_keras_bars_come_when_asked_for_and_verbose_0_is_silent(tmp_path, capsys):
    train_groups(verbose=2)
    printed = capsys.readouterr().out
    assert printed.count("Epoch 2/2") == 2 and "Training networks: 2/2 in" in printed
    train_groups(verbose=0)
    # The second time, nothing is left to train.
    for _ in range(2):
        run_sweep(tmp_path, verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("fit", "rewrites"), [({}, True), ({"verbose": 1}, False)])
def test_beside_bars_of_keras_the_line_is_not_rewritten(monkeypatch, fit, rewrites):
    for name, value in {"TERM": "xterm", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(console.sys, "stdout", terminal)
    with contextlib.closing(console.progress_of([fit])) as line:
        line.add()
    printed = terminal.getvalue()
    assert ("\x1b" in printed) == rewrites and "Training networks: done in" in printed


def test_the_line_shows_the_steps_of_the_network_at_work(monkeypatch):
    clock, shown = types.SimpleNamespace(now=0.0), []
    monkeypatch.setattr(console.time, "monotonic", lambda: clock.now)
    line = types.SimpleNamespace(within=lambda share, words: shown.append((share, words)))
    callback = console.ShowSteps(line)
    callback.set_params({"epochs": 2, "steps": 4})
    # The first step traces for 100 seconds; others take half a second each.
    clock.now = 99.5
    for epoch in (0, 1):
        callback.on_epoch_begin(epoch)
        # With `steps_per_execution=2`, Keras tells of every second step.
        for batch in (1, 3):
            clock.now += 1.0
            callback.on_train_batch_end(batch)
    assert shown == [
        (0.25, "epoch 1/2"),
        (0.5, "epoch 1/2, 2 steps/s"),
        (0.75, "epoch 2/2, 2 steps/s"),
        (1.0, "epoch 2/2, 2 steps/s"),
    ]
    # The steps of an epoch are not known yet.
    callback.set_params({"epochs": 2, "steps": None})
    callback.on_epoch_begin(1)
    callback.on_train_batch_end(3)
    assert shown[-1][0] == 0.5


@pytest.mark.slow
def test_a_long_measuring_shows_a_line_a_minute(tmp_path, monkeypatch, capsys):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)

    def pass_time(batch, logs=None):
        clock.now += 15

    callbacks = [keras.callbacks.LambdaCallback(on_train_batch_begin=pass_time)]
    run_sweep(tmp_path, epochs=3, batch_size=2, callbacks=lambda network: callbacks)
    lines = capsys.readouterr().out.splitlines()
    # Four steps an epoch take a minute.
    assert lines == [
        "Measuring affinities: epoch 1/3, 0.067 steps/s, 2 min left",
        "Measuring affinities: epoch 2/3, 0.067 steps/s, 1 min left",
        "Measuring affinities: epoch 3/3, 0.067 steps/s, 0 s left",
        "Measuring affinities: done in 3 min",
    ]


def trace_often(times):
    for _ in range(times):
        # Each call is the first of its function, as the only batch of a network is.
        tf.function(lambda x: x + 1)(tf.constant(1.0))


class Messages(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def test_tracing_many_networks_is_no_reason_to_warn(monkeypatch, request):
    logger, messages = tf.get_logger(), Messages()
    # Other tests may have changed the logger.
    monkeypatch.setattr(logger, "handlers", [messages])
    monkeypatch.setattr(logger, "disabled", False)
    request.addfinalizer(functools.partial(logger.setLevel, logger.level))
    logger.setLevel("WARNING")
    before = list(logger.filters)
    with console.without_retracing_warnings():
        trace_often(5)
        logger.warning("another")
    assert messages.texts == ["another"]
    with pytest.raises(ValueError, match="no"), console.without_retracing_warnings():
        raise ValueError("no")
    assert logger.filters == before
    # Elsewhere TensorFlow warns of the same.
    trace_often(1)
    assert "triggered tf.function retracing" in messages.texts[-1]
