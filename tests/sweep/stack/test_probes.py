"""Affinities that networks measure in a stack are those that they measure alone."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks_together import EVEN, check_equal, data, eagerly

import tag_keras
from tag_keras.affinity import Affinity
from tag_keras.multitask import backward_passes
from tag_keras.sweep import Job, Network, load_network, run_sweep
from tag_keras.sweep.job import JobFiles
from tag_keras.sweep.stack.probes import StackedProbes

L = keras.layers
# The labels of the second are missing for some examples.
TASKS = ("a", "b")
SEEDS = [Network("joint", TASKS, seed) for seed in (0, 1)]


def build(affinity, layers):
    def build_model(tasks):
        model = tag_keras.MultiTaskModel(
            keras.Sequential(layers()), {task: L.Dense(1) for task in tasks}
        )
        rate = keras.optimizers.schedules.CosineDecay(0.1, 6)
        optimizer = keras.optimizers.SGD(rate, momentum=0.9)
        model.compile(optimizer, "mse", affinity=affinity)
        return model

    return build_model


def measure(folder, build_model, sizes=EVEN["sizes"], **fit):
    """Trains networks together, and alone, and compares all that is left."""
    fit = {"epochs": 2, "batch_size": 16, "verbose": 0, **fit}
    folders = folder / "together", folder / "alone"
    for path, build in zip(folders, (build_model, eagerly(build_model)), strict=True):
        jobs = [Job(network, build, fit, measures=True) for network in SEEDS]
        run_sweep(path, jobs, data(sizes=sizes), processes=0, stack=build is build_model)
    check_equal(*folders, SEEDS)
    affinities = []
    for network in SEEDS:
        paths = [JobFiles(path, network) for path in folders]
        together, alone = (Affinity.load(path.affinity) for path in paths)
        check_same(together, alone)
        check_same(load_network(paths[0].model).get_affinity(), alone)
        affinities.append(together)
    assert not np.allclose(*(one.mean for one in affinities), atol=1e-4)
    return affinities


def check_same(affinity, other):
    assert affinity.tasks == other.tasks
    for name in ("mean", "history", "standard_error"):
        one, wanted = getattr(affinity, name), getattr(other, name)
        np.testing.assert_allclose(one, wanted, atol=1e-5, rtol=1e-4, err_msg=name)
    for name in ("count", "skipped"):
        np.testing.assert_array_equal(getattr(affinity, name), getattr(other, name), name)


def with_state():
    """Layers whose passes move statistics and draw masks."""
    # A bias before BatchNormalization would have a gradient of 0, but for rounding.
    first = L.Dense(5, use_bias=False)
    return [first, L.BatchNormalization(), L.ReLU(), L.Dropout(0.3)]


def dense():
    return [L.Dense(4, "tanh")]


@pytest.mark.slow
def test_lookaheads_in_a_loop_with_state_and_missing_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(backward_passes, "_MOST_UNROLLED", 1)
    build_model = build(tag_keras.LookaheadAffinity(every=1), with_state)
    found = measure(tmp_path, build_model)
    assert found[0].history.shape == (2, 2, 2)


@pytest.mark.slow
def test_affinities_by_features(tmp_path):
    measure(tmp_path, build(tag_keras.FeatureAffinity(every=2), with_state))


HELD_OUT = data()["validation"]


def test_held_out_batches_are_as_large_as_the_largest_of_any_network():
    """A network that has stopped has not seen the largest batch."""
    seen = []
    stack = types.SimpleNamespace(
        model=build(tag_keras.LookaheadAffinity(on=HELD_OUT), dense)(TASKS),
        size=2,
        changing=np.zeros(1),
        get=lambda variables, index: [np.float32((4, 8)[index])],
        probe_on=lambda batches, held_out: seen.append(held_out),
    )
    batch = keras.tree.map_structure(lambda one: tf.constant(one[:4]), data()["train"])
    StackedProbes(stack).train_on([batch])
    assert seen[0][0].shape == (8, 6)


@pytest.mark.slow
def test_lookaheads_on_held_out_data(tmp_path):
    options = {"update": "sgd", "baseline": True, "on": HELD_OUT}
    measure(tmp_path, build(tag_keras.LookaheadAffinity(every=2, **options), dense))


@pytest.mark.slow
def test_the_affinities_of_the_best_epoch(tmp_path, monkeypatch):
    """Networks stop at different epochs, and go back to what they had measured until their best.

    They measure the sum of two affinities, so that one graph does for both.
    """
    first_order, cosine = tag_keras.FirstOrderAffinity, tag_keras.CosineAffinity()
    own = first_order.measure
    monkeypatch.setattr(first_order, "measure", lambda *a: own(*a) + cosine.measure(a[1]))
    fit = {"epochs": 6, "callbacks": [tag_keras.EarlyStopping(patience=0)]}
    found = measure(tmp_path, build(first_order(every=1), dense), sizes=(40, 16, 16), **fit)
    # Of three batches in an epoch, the last has less than half of the examples of the others.
    assert [one.history.shape for one in found] == [(2, 2, 2), (1, 2, 2)]
