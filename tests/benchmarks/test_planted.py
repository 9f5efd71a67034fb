"""Affinities on a problem whose answer is known (benchmarks/planted.py)."""

import functools

import keras
import numpy as np
import pytest
import scipy.stats

import tag_keras
from benchmarks import planted

SEEDS = range(10)


@pytest.fixture(scope="module", autouse=True)
def loop_over_the_tasks():
    """As for more than twelve tasks: the graph of these ten takes half the time, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tag_keras.multitask.backward_passes._MOST_UNROLLED", 0)
        yield


@functools.cache
def traced():
    """A compiled model for all seeds, which is traced once, and all its variables at the start."""
    encoder = keras.Sequential([keras.layers.Dense(64, activation="relu") for _ in range(2)])
    heads = {task: keras.layers.Dense(1) for task in planted.TASKS}
    model = tag_keras.MultiTaskModel(encoder, heads)
    model(np.zeros((1, 9)))
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9)
    options = tag_keras.LookaheadAffinity(every=5, baseline=True)
    model.compile(optimizer, "mse", affinity=options)
    optimizer.build(model.trainable_variables)
    return model, [(one, one.numpy()) for one in [*model.variables, *optimizer.variables]]


@functools.cache
def measure(seed, missing=0.0):
    model, start = traced()
    for variable, value in start:
        variable.assign(value)
    model._statistics.start()
    # Drawn by NumPy: a seed of TensorFlow would have it optimize the whole graph again.
    rng = np.random.default_rng([seed, 1])
    for kernel in model.trainable_variables:
        if kernel.path.endswith("kernel"):
            limit = np.sqrt(6 / sum(kernel.shape))
            kernel.assign(rng.uniform(-limit, limit, kernel.shape))
    x, y = planted.make_data(seed)
    rng = np.random.default_rng(seed)
    y = {task: np.where(rng.uniform(size=len(x)) < missing, np.nan, y[task]) for task in y}
    # The examples are in a random order.
    model.fit(x, y, batch_size=64, epochs=5, shuffle=False, verbose=0)
    return model.get_affinity()


def figures(affinity):
    """Area under the curve, mean within clusters, mean of the random task onto the others."""
    same, different = planted.same_cluster(), ~np.eye(len(planted.TASKS), dtype=bool)
    area = planted.area_under_the_curve(affinity.mean[different], same[different])
    return area, affinity.mean[same].mean(), affinity.mean[-1, :-1].mean()


def check(seeds):
    areas, within, random = np.array([figures(measure(seed)) for seed in seeds]).T
    assert (areas >= 0.95).all()
    assert (within > 0).all()
    assert (np.abs(random) < within / 10).all()


@pytest.mark.slow
def test_tasks_of_one_cluster_have_the_highest_affinities():
    check([0])


@pytest.mark.slow
def test_tasks_of_one_cluster_have_the_highest_affinities_with_ten_seeds():
    check(SEEDS)


@pytest.mark.slow
def test_half_of_the_labels_tell_what_all_of_them_tell():
    every, half = measure(0), measure(0, missing=0.5)
    same, different = planted.same_cluster(), ~np.eye(len(planted.TASKS), dtype=bool)
    assert (half.mean[same] > 0).all()
    assert planted.area_under_the_curve(half.mean[different], same[different]) > 0.95
    beyond_noise = different & (np.abs(every.mean) > 2 * every.standard_error)
    agree = np.sign(half.mean) == np.sign(every.mean)
    assert agree[beyond_noise].mean() > 0.9
    # Of the pairs of different clusters, most affinities are noise around 0.
    rank = scipy.stats.spearmanr(half.mean[different], every.mean[different]).statistic
    assert rank > 0.5


def select_without_random(seed, **options):
    affinity = measure(seed)
    tasks = planted.TASKS[:-1]
    without_random = tag_keras.Affinity(tasks, affinity.mean[:-1, :-1])
    return tag_keras.select_groups(without_random, num_groups=3, **options).groups


@pytest.mark.slow
@pytest.mark.parametrize("partition", [False, True])
def test_selection_finds_the_clusters(partition):
    assert select_without_random(0, partition=partition) == planted.CLUSTERS


@pytest.mark.slow
def test_a_partition_is_the_clusters_with_ten_seeds():
    for seed in SEEDS:
        assert select_without_random(seed, partition=True) == planted.CLUSTERS


@pytest.mark.slow
def test_noise_does_not_hide_the_clusters():
    affinity = measure(0)
    mean, error = affinity.mean[:-1, :-1], affinity.standard_error[:-1, :-1]
    same = planted.same_cluster()[:-1, :-1]
    shares = []
    for scale in (1, 10):
        scaled = tag_keras.Affinity(planted.TASKS[:-1], mean, scale * error)
        shares.append(tag_keras.grouping_stability(scaled, 3, num_samples=25).share[same])
    assert shares[0].min() > 0.9
    assert shares[1].mean() < shares[0].mean() - 0.1
