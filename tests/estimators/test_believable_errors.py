"""Whether the confidence intervals of the affinities hold what they say."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from digits import data, network
from tag_keras.estimators.statistics import ProbeStatistics


@dataclasses.dataclass(frozen=True)
class Recorded(tag_keras.LookaheadAffinity):
    """Lookahead affinities of every step, each of which is kept, too."""

    every: int = 1
    values: tf.Variable | None = None

    def measure(self, probe):
        values = super().measure(probe)
        step = tf.cast(probe.optimizer.iterations, "int32")
        self.values.scatter_nd_update([[step]], [values])
        return values


def recorded(num_steps, num_tasks, **options):
    return Recorded(values=tf.Variable(tf.zeros((num_steps, num_tasks, num_tasks))), **options)


def traced_statistics(num_tasks):
    """Statistics of probes, and how they take one, traced once."""
    statistics = ProbeStatistics(num_tasks)
    return statistics, tf.function(statistics.update)


def coverage(statistics, update, values, epochs, truth):
    """Share of the pairs whose 95 % interval, from probes (N, T, T) in `epochs`, has the truth."""
    statistics.start()
    for index, probe in enumerate(values):
        if index and epochs[index] != epochs[index - 1]:
            statistics.end_epoch()
        update(tf.constant(probe), tf.constant(32))
    low, high = statistics.affinity(tuple("abcdefghi"[: values.shape[1]])).interval()
    different = ~np.eye(len(truth), dtype=bool)
    return ((low <= truth) & (truth <= high))[different].mean()


@pytest.mark.slow
def test_at_fixed_weights_the_interval_covers_the_mean_of_all_batches():
    tasks, steps, probes = ("a", "b", "c"), 2000, 40
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    # No task has a weight in the joint loss: the training does not move anything.
    options = recorded(steps, 3, update="sgd")
    weights = dict.fromkeys(tasks, 0.0)
    model.compile(keras.optimizers.SGD(0.1), "mse", weights, affinity=options)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * 16, 6)).astype("float32")
    y = {task: x[:, i] + x[:, i + 1] + rng.normal(size=len(x)) for i, task in enumerate(tasks)}
    before = encoder.get_weights()
    model.fit(x, y, batch_size=16, verbose=0)
    for value, start in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, start)
    values, statistics = options.values.numpy(), traced_statistics(3)
    shares = [
        coverage(*statistics, part, np.zeros(probes), values.mean(axis=0))
        for part in np.split(values, steps // probes)
    ]
    assert 0.90 <= np.mean(shares) <= 0.98


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*shuffle=True.*")
@pytest.mark.parametrize("update", ["sgd", "optimizer"])
def test_every_tenth_step_of_a_run_tells_the_mean_of_all_its_steps(update):
    epochs, per_epoch = 15, 20
    keras.utils.set_random_seed(0)
    tasks = data.TASKS[:3]
    options = recorded(epochs * per_epoch, len(tasks), update=update, baseline=True)
    model = network.build_model(tasks, steps=epochs * per_epoch, affinity=options)
    batches = data.batches(data.load(100)["train"], batch_size=25)
    model.fit(batches, epochs=epochs, steps_per_epoch=per_epoch, verbose=0)
    values, statistics = options.values.numpy(), traced_statistics(len(tasks))
    steps = np.arange(len(values))
    shares = [
        coverage(
            *statistics, values[offset::10], steps[offset::10] // per_epoch, values.mean(axis=0)
        )
        for offset in range(10)
    ]
    assert np.mean(shares) >= 0.90
