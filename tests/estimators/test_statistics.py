"""Running statistics of probes, against numpy over all values at once."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.estimators.statistics import ProbeStatistics

TASKS = ("b", "a", "c")
ARRAYS = ("mean", "count", "history", "skipped")
ALL = (*ARRAYS, "standard_error", "replicates")
NAN = float("nan")


class Holder(keras.Model):
    """A model that holds statistics, as MultiTaskModel does."""

    def __init__(self, num_tasks):
        super().__init__()
        self.statistics = ProbeStatistics(num_tasks)
        self.layer = keras.layers.Dense(1)
        self.layer.build((None, 1))
        self.built = True


def make_probes(sizes, seed=0):
    """Values (N, 3, 3) of N probes for each of the epochs, a fifth of them to be skipped."""
    generator = np.random.default_rng(seed)
    epochs = [generator.normal(0.02, 0.05, (size, 3, 3)).astype("float32") for size in sizes]
    for epoch in epochs:
        epoch[generator.uniform(size=epoch.shape) < 0.2] = NAN
        epoch[generator.uniform(size=epoch.shape) < 0.02] = np.inf
        # One pair is never measured, one at the first probe alone, one not in the first epoch.
        epoch[:, 0, 1] = NAN
        epoch[:, 1, 2] = NAN
    first = next(epoch for epoch in epochs if len(epoch))
    first[0, 1, 2] = 0.5
    first[:, 2, 0] = NAN
    return epochs


def run(statistics, epochs, last_ends=True):
    update = tf.function(statistics.update)
    for index, epoch in enumerate(epochs):
        for values in epoch:
            update(tf.constant(values), 32)
        if last_ends or index < len(epochs) - 1:
            statistics.end_epoch()


def started(num_tasks=3):
    statistics = ProbeStatistics(num_tasks)
    statistics.start()
    return statistics


def expected_arrays(epochs):
    values = np.concatenate(epochs).astype(np.float64)
    usable = np.isfinite(values)
    values[~usable] = NAN
    count = usable.sum(axis=0)
    ends = np.cumsum([len(epoch) for epoch in epochs])[:-1]
    with warnings.catch_warnings():
        # numpy warns of means of nothing, which are what is wanted here.
        warnings.simplefilter("ignore", RuntimeWarning)
        return {
            "mean": np.nanmean(values, axis=0),
            "count": count,
            "history": np.stack([np.nanmean(part, axis=0) for part in np.split(values, ends)]),
            "skipped": (~usable).sum(axis=0),
        }


def assert_affinity(affinity, expected):
    for name in ARRAYS:
        np.testing.assert_allclose(
            getattr(affinity, name), expected[name], rtol=1e-5, atol=1e-7, err_msg=name
        )
    # Whatever the batches are, their replicates have the mean of all values.
    known = expected["count"] > 0
    assert (~np.isnan(affinity.replicates)).any(axis=0)[known].all()
    mean = np.nanmean(affinity.replicates[:, known], axis=0)
    np.testing.assert_allclose(mean, expected["mean"][known], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("last_ends", [True, False])
@pytest.mark.parametrize("sizes", [[7, 0, 5, 3], [0, 4], [6], [2, 0, 0, 2], [90, 17], [40] * 5])
def test_statistics_equal_those_of_all_values_at_once(sizes, last_ends):
    epochs = make_probes(sizes)
    statistics = started()
    run(statistics, epochs, last_ends)
    affinity = statistics.affinity(TASKS)
    expected = expected_arrays(epochs)
    assert affinity.tasks == TASKS
    assert_affinity(affinity, expected)
    # What makes the comparison worth something: all that make_probes promises is there.
    assert expected["count"][0, 1] == 0
    assert np.isnan(affinity.mean[0, 1])
    assert expected["count"][1, 2] == 1
    assert np.isnan(affinity.standard_error[1, 2])
    assert affinity.history.shape == (len(sizes), 3, 3)
    assert min(sum(sizes), 4) <= len(affinity.replicates) <= 8


@pytest.mark.parametrize("last_ends", [True, False])
@pytest.mark.parametrize("sizes", [[8], [3, 0, 5], [2, 2, 2, 2]])
def test_few_probes_are_the_replicates_themselves(sizes, last_ends):
    epochs = [epoch for epoch in make_probes(sizes) if len(epoch)]
    statistics = started()
    run(statistics, epochs, last_ends)
    values = np.concatenate(epochs).astype(np.float64)
    values[~np.isfinite(values)] = NAN
    count = (~np.isnan(values)).sum(axis=0)
    affinity = statistics.affinity(TASKS)
    np.testing.assert_allclose(affinity.replicates, values, atol=1e-6)
    several = count > 1
    error = np.nanstd(values[:, several], axis=0, ddof=1) / np.sqrt(count[several])
    np.testing.assert_allclose(affinity.standard_error[several], error, rtol=1e-4)


# Probes by epoch, and how many successive ones make one of the eight batches.
@pytest.mark.slow_cases
@pytest.mark.parametrize(
    ("sizes", "batch"),
    [([16], 2), ([128], 16), ([1024], 128), ([32] * 4, 16), ([16, 32, 16], 8)],
)
@pytest.mark.parametrize("last_ends", [True, False])
def test_the_standard_error_is_that_of_the_means_of_batches(sizes, batch, last_ends):
    values = np.random.default_rng(0).normal(0.5, 1, (sum(sizes), 3, 3)).astype("float32")
    # Neighbours are alike, so that other batches would give other errors.
    values += np.sin(np.arange(len(values)) / 20)[:, None, None].astype("float32")
    statistics = started()
    run(statistics, np.split(values, np.cumsum(sizes)[:-1]), last_ends)
    means = values.astype(np.float64).reshape(8, batch, 3, 3).mean(axis=1)
    affinity = statistics.affinity(TASKS)
    np.testing.assert_allclose(affinity.replicates, means, atol=1e-5)
    error = means.std(axis=0, ddof=1) / np.sqrt(8)
    np.testing.assert_allclose(affinity.standard_error, error, rtol=1e-4)


def test_a_value_is_in_the_batch_of_its_time_even_if_others_were_skipped():
    # 32 probes are 16 slots of 2, and 8 batches of 4; the first task is skipped in half of them.
    values = np.random.default_rng(0).normal(size=(32, 2, 2)).astype("float32")
    values[np.arange(32) % 4 < 2, 0] = NAN
    statistics = started(2)
    run(statistics, [values])
    affinity = statistics.affinity(("a", "b"))
    np.testing.assert_array_equal(affinity.count, [[16, 16], [32, 32]])
    batches = np.nanmean(values.reshape(8, 4, 2, 2), axis=1)
    np.testing.assert_allclose(affinity.replicates, batches, atol=1e-6)


def coverage(noise, sizes, truth=0.02):
    """Share of the pairs whose interval at 95 % holds the truth."""
    statistics = started(noise.shape[-1])
    run(statistics, np.split(truth + noise.astype("float32"), np.cumsum(sizes)[:-1]))
    affinity = statistics.affinity(tuple(f"t{index}" for index in range(noise.shape[-1])))
    low, high = affinity.interval(0.95)
    return np.mean((low <= truth) & (truth <= high))


# 40 tasks are 1600 pairs: the deviation of the share is 0.5 %.
@pytest.mark.parametrize("sizes", [[40], [97], [300], [25] * 4, [5] * 50])
def test_intervals_cover_the_true_mean(sizes):
    noise = np.random.default_rng(sum(sizes)).normal(0, 0.05, (sum(sizes), 40, 40))
    assert 0.92 <= coverage(noise, sizes) <= 0.98


def test_intervals_cover_the_true_mean_of_probes_that_are_alike():
    # x[t] = 0.6 x[t - 1] + noise: the error of a mean is twice that of independent values, whose
    # intervals would cover 68 %.
    noise = np.random.default_rng(0).normal(0, 0.05, (400, 40, 40))
    for step in range(1, 400):
        noise[step] += 0.6 * noise[step - 1]
    assert 0.90 <= coverage(noise, [400]) <= 0.97


def test_two_probes_worked_out_by_hand():
    # 0.1 and 0.3: mean 0.2, variance 0.01 + 0.01 by n - 1 = 1, standard error sqrt(0.02 / 2).
    statistics = started(1)
    run(statistics, [np.array([[[0.1]], [[0.3]]], "float32")])
    affinity = statistics.affinity(("a",))
    np.testing.assert_allclose(affinity.mean, [[0.2]], rtol=1e-6)
    np.testing.assert_allclose(affinity.standard_error, [[0.1]], rtol=1e-6)


def test_a_large_mean_does_not_swallow_the_variance():
    # In float32 the mean of squares less the square of the mean would be wrong by 1e-3, ten times
    # the variance.
    values = np.random.default_rng(0).normal(100, 0.01, (64, 1, 1)).astype("float32")
    statistics = started(1)
    run(statistics, [values[:32], values[32:]], last_ends=False)
    means = values.astype(np.float64).reshape(8, 8).mean(axis=1)
    expected = means.std(ddof=1) / np.sqrt(8)
    np.testing.assert_allclose(statistics.affinity(("a",)).standard_error, expected, rtol=0.01)


def test_a_running_epoch_without_probes_is_none_yet():
    epochs = make_probes([4, 3])
    statistics = started()
    run(statistics, epochs)
    assert len(statistics.affinity(TASKS).history) == 2
    statistics.update(tf.fill((3, 3), NAN), 32)
    assert len(statistics.affinity(TASKS).history) == 3


def test_reading_the_affinities_changes_nothing():
    epochs = make_probes([4, 3, 2])
    statistics = started()
    for epoch in epochs:
        run(statistics, [epoch], last_ends=False)
        statistics.affinity(TASKS)
        statistics.end_epoch()
        statistics.affinity(TASKS)
    assert_affinity(statistics.affinity(TASKS), expected_arrays(epochs))


def test_start_sets_everything_back_and_keeps_the_variables():
    statistics = started()
    run(statistics, make_probes([4, 3]), last_ends=False)
    statistics.update(tf.fill((3, 3), NAN), 32, overflowed=tf.constant([True] * 3))
    statistics.steps, statistics.steps_to_skip = 9, 5
    variables = list(statistics.weights)
    statistics.start()
    assert statistics.steps == statistics.steps_before_epoch == statistics.steps_to_skip == 0
    assert not statistics.is_running() and not statistics.overflowed().any()
    assert all(old is new for old, new in zip(variables, statistics.weights, strict=True))
    affinity = statistics.affinity(TASKS)
    assert not affinity.count.any()
    assert not affinity.skipped.any()
    assert affinity.history.shape == (0, 3, 3)

    # Nothing of the first run shows in a second one.
    epochs = make_probes([5], seed=1)
    for values in epochs[0]:
        # Also a smaller batch than before is a whole one now.
        statistics.update(tf.constant(values), 3)
    statistics.end_epoch()
    assert_affinity(statistics.affinity(TASKS), expected_arrays(epochs))


def test_there_are_no_weights_before_start_and_none_to_train_after_it():
    statistics = ProbeStatistics(3)
    assert statistics.weights == []
    statistics.start()
    names = ["mean", "count", "skipped", "overflowed", "probes", "width", "largest_batch"]
    assert [weight.name for weight in statistics.weights] == names
    assert statistics.trainable_weights == []
    assert {weight.aggregation for weight in statistics.weights} == {"mean"}


@pytest.mark.parametrize("last_ends", [True, False])
@pytest.mark.parametrize("is_started", [True, False])
def test_a_checkpoint_brings_everything_back_and_the_run_goes_on(tmp_path, last_ends, is_started):
    epochs = make_probes([4, 0, 43])
    model, restored = Holder(3), Holder(3)
    model.statistics.start()
    run(model.statistics, epochs, last_ends)
    model.save_weights(tmp_path / "model.weights.h5")
    if is_started:
        # What the model holds before is overwritten.
        restored.statistics.start()
        run(restored.statistics, make_probes([2, 2], seed=1), last_ends=False)
    restored.load_weights(tmp_path / "model.weights.h5")
    assert_affinity(restored.statistics.affinity(TASKS), expected_arrays(epochs))
    for name in ALL:
        values = [getattr(one.statistics.affinity(TASKS), name) for one in (model, restored)]
        np.testing.assert_array_equal(*values, name)

    more = np.random.default_rng(2).normal(size=(3, 3, 3)).astype("float32")
    run(restored.statistics, [more])
    epochs = [*epochs, more] if last_ends else [*epochs[:-1], np.concatenate([epochs[-1], more])]
    assert_affinity(restored.statistics.affinity(TASKS), expected_arrays(epochs))


def test_a_checkpoint_brings_counters_back(tmp_path):
    model, restored = Holder(3), Holder(3)
    statistics = model.statistics
    statistics.start()
    overflowed = tf.constant([True, False, True])
    statistics.update(tf.fill((3, 3), 0.1), 32, overflowed=overflowed)
    statistics.steps = 20
    statistics.end_epoch()
    statistics.update(tf.fill((3, 3), 0.1), 32, overflowed=overflowed)
    statistics.steps, statistics.steps_to_skip = 27, 3
    assert not statistics.is_restored
    model.save_weights(tmp_path / "model.weights.h5")
    restored.load_weights(tmp_path / "model.weights.h5")
    assert restored.statistics.is_restored
    assert (restored.statistics.steps, restored.statistics.steps_before_epoch) == (27, 20)
    # What is left to skip is of the fit that was interrupted.
    assert restored.statistics.steps_to_skip == 0
    np.testing.assert_array_equal(restored.statistics.overflowed(), [2, 0, 2])
    # A batch that was small before is small still.
    restored.statistics.update(tf.fill((3, 3), 0.1), 8)
    assert (restored.statistics.affinity(TASKS).count == 2).all()


def test_statistics_that_were_not_started_save_nothing():
    store = {}
    ProbeStatistics(3).save_own_variables(store)
    assert store == {}


def test_a_checkpoint_without_statistics_leaves_those_of_the_model(tmp_path):
    Holder(3).save_weights(tmp_path / "model.weights.h5")
    model = Holder(3)
    model.load_weights(tmp_path / "model.weights.h5")
    assert model.statistics.weights == []

    epochs = make_probes([4, 3])
    model.statistics.start()
    run(model.statistics, epochs)
    model.load_weights(tmp_path / "model.weights.h5")
    assert_affinity(model.statistics.affinity(TASKS), expected_arrays(epochs))


def test_values_too_large_to_average_are_skipped():
    statistics = ProbeStatistics(1)
    statistics.start()
    for value in (-1e20, 0.5, 3e38, 0.25):
        statistics.update(tf.constant([[value]]), 32)
    affinity = statistics.affinity(("a",))
    assert affinity.mean == 0.375 and affinity.count == 2 and affinity.skipped == 2
    assert affinity.standard_error == pytest.approx(0.125)


def test_probes_of_small_batches_are_left_out_and_not_called_skipped():
    statistics = ProbeStatistics(1)
    statistics.start()
    for value, batch_size in ((0.5, 10), (7.0, 7), (0.1, 16), (0.3, 8), (9.0, 1), (NAN, 2)):
        statistics.update(tf.constant([[value]]), batch_size)
    affinity = statistics.affinity(("a",))
    # Left out are 1 and 2, less than half of 16.
    assert affinity.count == 4 and affinity.skipped == 0
    assert affinity.mean == pytest.approx((0.5 + 7.0 + 0.1 + 0.3) / 4)


# Tasks without labels, and overflows.


def test_tasks_without_labels_take_no_part_and_are_not_called_skipped():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(50, 3, 3)).astype("float32")
    has_labels = generator.uniform(size=(50, 3)) < 0.6
    together = has_labels[:, :, None] & has_labels[:, None, :]
    # A loss without labels is 0, and so its column has no values; nor have others for once.
    values[~together] = NAN
    values[7:9] = NAN
    statistics = started()
    update = tf.function(lambda *args: statistics.update(args[0], 32, args[1]))
    for one, known in zip(values, has_labels, strict=True):
        update(tf.constant(one), tf.constant(known))
    affinity = statistics.affinity(TASKS)
    usable = together & ~np.isnan(values)
    np.testing.assert_array_equal(affinity.count, usable.sum(axis=0))
    np.testing.assert_array_equal(affinity.skipped, together[7:9].sum(axis=0))
    mean = np.where(usable, values, 0).sum(axis=0) / usable.sum(axis=0)
    np.testing.assert_allclose(affinity.mean, mean, atol=1e-6)
    assert 0 < affinity.skipped.max() <= 2


def test_a_value_of_a_task_without_labels_is_not_counted_either():
    statistics = started(2)
    statistics.update(tf.fill((2, 2), 0.5), 32, tf.constant([True, False]))
    affinity = statistics.affinity(("a", "b"))
    np.testing.assert_array_equal(affinity.count, [[1, 0], [0, 0]])
    assert not affinity.skipped.any()
    np.testing.assert_array_equal(affinity.mean, [[0.5, NAN], [NAN, NAN]])


def test_targets_may_have_other_labels_than_sources():
    statistics = ProbeStatistics(3)
    statistics.start()
    sources, targets = tf.constant([True, False, True]), tf.constant([True, True, False])
    statistics.update(tf.fill((3, 3), 0.5), 32, sources, has_target_labels=targets)
    statistics.end_epoch()
    count = statistics.affinity(("a", "b", "c")).count
    np.testing.assert_array_equal(count, [[1, 1, 0], [0, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(statistics.values_by_target(), [2, 2, 0])
    assert statistics.largest_batch() == 32


def test_overflows_are_counted_by_task_over_all_epochs():
    statistics = started()
    update = tf.function(lambda one: statistics.update(tf.fill((3, 3), NAN), 32, overflowed=one))
    for overflowed in ([True, False, False], [True, True, False], [False, False, False]):
        update(tf.constant(overflowed))
    np.testing.assert_array_equal(statistics.overflowed(), [2, 1, 0])
    statistics.end_epoch()
    np.testing.assert_array_equal(statistics.overflowed(), [2, 1, 0])
    update(tf.constant([True, False, False]))
    # That of a small batch is left out as all of its probe is.
    statistics.update(tf.fill((3, 3), NAN), 3, overflowed=tf.constant([True] * 3))
    np.testing.assert_array_equal(statistics.overflowed(), [3, 1, 0])
    assert (statistics.affinity(TASKS).skipped == 4).all()
    statistics.end_epoch()
    np.testing.assert_array_equal(statistics.overflowed(), [3, 1, 0])


def test_the_end_of_an_epoch_is_remembered():
    statistics = started(1)
    assert not statistics.is_running()
    statistics.update(tf.constant([[0.5]]), 32)
    assert statistics.is_running()
    statistics.steps = 12
    statistics.end_epoch()
    assert not statistics.is_running()
    assert statistics.steps_before_epoch == 12
