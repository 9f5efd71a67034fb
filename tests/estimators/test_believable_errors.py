"""Whether the confidence intervals of the affinities hold what they say."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from digits import data, network
from tag_keras.backend.steps import build_for, on_device
from tag_keras.estimators.statistics import ProbeStatistics


@dataclasses.dataclass(frozen=True)
class Recorded(tag_keras.LookaheadAffinity):
    """Lookahead affinities of every step with several updates, (steps, updates, T, T), all kept."""

    every: int = 1
    updates: tuple = ()
    values: tf.Variable | None = None

    def measure(self, probe):
        options = {"baseline": self.baseline}
        values = [
            tag_keras.LookaheadAffinity(update=update, **options).measure(probe)
            for update in self.updates
        ]
        step = tf.cast(probe.optimizer.iterations, "int32")
        self.values.scatter_nd_update([[step]], [tf.stack(values)])
        return values[0]


def recorded(num_steps, num_tasks, *updates, **options):
    values = tf.Variable(tf.zeros((num_steps, len(updates), num_tasks, num_tasks)))
    return Recorded(values=values, updates=updates, **options)


def traced_statistics(num_tasks):
    """Statistics of probes, and how they take those (N, T, T) of an epoch, traced once."""
    statistics = ProbeStatistics(num_tasks)

    @tf.function(input_signature=[tf.TensorSpec((None, num_tasks, num_tasks))])
    def update(probes):
        for probe in probes:
            statistics.update(probe, tf.constant(32))

    return statistics, update


def coverage(statistics, update, epochs, truth):
    """Share of the pairs whose 95 % interval, from the probes (N, T, T) of epochs, has `truth`."""
    statistics.start()
    for probes in epochs[:-1]:
        update(probes)
        statistics.end_epoch()
    update(epochs[-1])
    low, high = statistics.affinity(tuple("abcdefghi"[: len(truth)])).interval()
    different = ~np.eye(len(truth), dtype=bool)
    return ((low <= truth) & (truth <= high))[different].mean()


@pytest.mark.slow
def test_at_fixed_weights_the_interval_covers_the_mean_of_all_batches():
    tasks, steps, probes = ("a", "b", "c"), 2000, 40
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    # No task has a weight in the joint loss: the training does not move anything.
    options = recorded(steps, 3, "sgd")
    weights = dict.fromkeys(tasks, 0.0)
    model.compile(keras.optimizers.SGD(0.1), "mse", weights, affinity=options, jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * 16, 6)).astype("float32")
    y = {task: x[:, i] + x[:, i + 1] + rng.normal(size=len(x)) for i, task in enumerate(tasks)}
    batches = iter(tf.data.Dataset.from_tensor_slices((x, y)).batch(16))
    build_for(model, (x, y))
    before = encoder.get_weights()
    # All in one call: `fit` probes one step in a call, which the test below does.
    _, done = on_device(model, model.probe_step())(batches, steps)
    assert done == steps
    for value, start in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, start)
    values, statistics = options.values.numpy()[:, 0], traced_statistics(3)
    shares = [
        coverage(*statistics, [part], values.mean(axis=0))
        for part in np.split(values, steps // probes)
    ]
    assert 0.90 <= np.mean(shares) <= 0.98


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*shuffle=True.*")
def test_every_tenth_step_of_a_run_tells_the_mean_of_all_its_steps():
    epochs, per_epoch = 15, 20
    keras.utils.set_random_seed(0)
    tasks, updates = data.TASKS[:3], ("sgd", "optimizer")
    options = recorded(epochs * per_epoch, len(tasks), *updates, baseline=True)

    def encoder(tasks):
        pixels = [keras.Input((8, 8, 1)), keras.layers.Flatten()]
        return keras.Sequential([*pixels, keras.layers.Dense(16, "relu")])

    model = network.build_model(
        tasks, steps=epochs * per_epoch, build_encoder=encoder, affinity=options, jit_compile=False
    )
    batches = data.batches(data.load(100)["train"], batch_size=25)
    model.fit(batches, epochs=epochs, steps_per_epoch=per_epoch, verbose=0)
    statistics = traced_statistics(len(tasks))
    for update, values in zip(updates, options.values.numpy().swapaxes(0, 1), strict=True):
        by_epoch = values.reshape(epochs, per_epoch, *values.shape[1:])
        shares = [
            coverage(*statistics, by_epoch[:, offset::10], values.mean(axis=0))
            for offset in range(10)
        ]
        assert np.mean(shares) >= 0.90, update
