"""How groups form while a model trains, and the affinities that they form from."""

import random

import keras
import numpy as np
import pytest
from selective_training import DECAY, GRAPH, Traced, compiled, fit
from small_models import TASKS, make_data, make_model

import tag_keras
from benchmarks import planted
from tag_keras.gradient_methods.selective_updates.clustering import cluster_tasks

layers = keras.layers
METHOD = "tag_keras.gradient_methods.selective_updates.method"


def test_groups_form_after_the_warm_up_and_the_step_is_traced_once(traced, monkeypatch):
    model, method = traced.restart(warmup=3), traced.model.gradient_method
    calls, call = [], layers.Dense.call

    def counted(*args, **kwargs):
        calls.append(args)
        return call(*args, **kwargs)

    monkeypatch.setattr(layers.Dense, "call", counted)
    assert method.groups == (("b",), ("a",), ("c",))
    fit(model, 3)
    # By what the three batches have measured.
    assert method.groups != (("b",), ("a",), ("c",))
    labels = cluster_tasks(method.affinity.numpy(), seed=0)
    np.testing.assert_array_equal(method.assignment.numpy(), labels)
    assert sorted(task for group in method.groups for task in group) == sorted(TASKS)
    fit(model, 6)
    assert not calls
    model(make_data(16)[0])
    assert calls


def recorded(monkeypatch, model):
    """The numbers of batches after which groups are formed."""
    numbers = []

    def record(*args, **kwargs):
        numbers.append(int(model.gradient_method.batches))

    monkeypatch.setattr(f"{METHOD}.cluster_tasks", record)
    fit(model)
    return numbers


def test_when_groups_are_formed(monkeypatch, traced):
    assert recorded(monkeypatch, traced.restart(warmup=5)) == [5, 6]
    assert recorded(monkeypatch, traced.restart(warmup=2, regroup_every=3)) == [3, 6]


@pytest.mark.slow
def test_groups_are_formed_after_an_execution_of_several_steps(monkeypatch):
    # Executions are of 2 batches, and of the one that is left of an epoch.
    options = {"warmup": 1, "compiled_with": {**GRAPH, "steps_per_execution": 2}}
    model = compiled(make_model(("a",)), "sgd", **options)
    assert recorded(monkeypatch, model) == [2, 3, 5, 6]


def test_groups_that_cannot_be_formed_stay(monkeypatch, traced):
    model = traced.restart(groups=[0, 1, 0], warmup=0)
    # No task has lowered its own loss.
    monkeypatch.setattr(
        "tag_keras.gradient_methods.selective_updates.clustering.similarities",
        lambda affinity: None,
    )
    fit(model)
    assert model.gradient_method.groups == (("b", "c"), ("a",))


def test_the_affinities_are_of_use_for_selecting_groups(traced):
    model = traced.restart(warmup=3)
    fit(model)
    assert model.measures_affinity
    affinity, method = model.get_affinity(), model.gradient_method
    assert affinity.tasks == TASKS and np.isnan(affinity.standard_error).all()
    np.testing.assert_array_equal(affinity.count, method.count.numpy())
    # The average of T values from 0 is too small by 1 - (1 - decay)^T.
    expected = method.affinity.numpy() / (1 - (1 - DECAY) ** affinity.count)
    np.testing.assert_allclose(affinity.mean, expected, rtol=1e-5)
    assert (np.diag(affinity.mean) > 0).all()
    grouping = tag_keras.select_groups(affinity, num_groups=2)
    assert set(grouping.serves) == set(TASKS)


def test_affinities_of_averages_that_keep_the_last_value_only():
    model = compiled(make_model(("b", "a")), decay=1.0)
    with pytest.raises(ValueError, match="No affinities have been measured"):
        model.get_affinity()
    fit(model, 2)
    method = model.gradient_method
    np.testing.assert_array_equal(model.get_affinity().mean, method.affinity.numpy())


@pytest.mark.slow
def test_tasks_of_a_planted_cluster_are_in_one_group():
    # benchmarks/planted.py: two of its clusters, of three tasks each, and one task of noise alone.
    clusters = planted.CLUSTERS[:2]
    tasks = (*clusters[0], *clusters[1], planted.RANDOM)

    def make_labelled(seed, **size):
        x, y = planted.make_data(seed, **size)
        return x, {task: y[task] for task in tasks}

    random.seed(0)
    encoder = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(16, "relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in tasks})
    some = make_labelled(0, size=16)
    traced = Traced(model, keras.optimizers.SGD(0.05), some, decay=0.01)
    for seed in range(2):
        x, y = make_labelled(seed)
        traced.restart(warmup=100, regroup_every=10)
        # Drawn by NumPy: a seed of TensorFlow would have it optimize the whole graph again.
        rng = np.random.default_rng([seed, 1])
        for kernel in model.trainable_variables:
            if kernel.path.endswith("kernel"):
                limit = np.sqrt(6 / sum(kernel.shape))
                kernel.assign(rng.uniform(-limit, limit, kernel.shape))
        # 192 batches, in which averages over some 100 forget the first ones.
        fit(model, data=(x, y), epochs=6, batch_size=32)
        groups = model.gradient_method.groups
        # Of some seeds two clusters are together, but none is torn apart.
        assert len(groups) > 1
        for cluster in clusters:
            assert any(set(cluster) <= set(group) for group in groups)
