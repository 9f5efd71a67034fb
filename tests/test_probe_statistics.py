"""Running statistics of probes, against numpy over all values at once."""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.probe_statistics import EpochEnds, ProbeStatistics

TASKS = ("b", "a", "c")
ARRAYS = ("mean", "standard_error", "count", "history", "skipped")
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
            "standard_error": np.nanstd(values, axis=0, ddof=1) / np.sqrt(count),
            "count": count,
            "history": np.stack([np.nanmean(part, axis=0) for part in np.split(values, ends)]),
            "skipped": (~usable).sum(axis=0),
        }


def assert_affinity(affinity, expected):
    for name in ARRAYS:
        np.testing.assert_allclose(
            getattr(affinity, name), expected[name], rtol=1e-5, atol=1e-7, err_msg=name
        )


@pytest.mark.parametrize("last_ends", [True, False])
@pytest.mark.parametrize("sizes", [[7, 0, 5, 3], [0, 4], [6], [2, 0, 0, 2]])
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
    values = np.random.default_rng(0).normal(100, 0.01, (50, 1, 1)).astype("float32")
    statistics = started(1)
    run(statistics, [values[:20], values[20:]], last_ends=False)
    expected = values.std(ddof=1, dtype=np.float64) / np.sqrt(50)
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
    variables = list(statistics.weights)
    statistics.start()
    assert all(old is new for old, new in zip(variables, statistics.weights, strict=True))
    affinity = statistics.affinity(TASKS)
    assert not affinity.count.any()
    assert not affinity.skipped.any()
    assert affinity.history.shape == (0, 3, 3)

    # Nothing of the first run shows in a second one.
    epochs = make_probes([5], seed=1)
    run(statistics, epochs)
    assert_affinity(statistics.affinity(TASKS), expected_arrays(epochs))


def test_there_are_no_weights_before_start_and_none_to_train_after_it():
    statistics = ProbeStatistics(3)
    assert statistics.weights == []
    statistics.start()
    names = ["mean", "squares", "count", "skipped", "largest_batch"]
    assert [weight.name for weight in statistics.weights] == names
    assert statistics.trainable_weights == []
    assert {weight.aggregation for weight in statistics.weights} == {"mean"}


@pytest.mark.parametrize("last_ends", [True, False])
@pytest.mark.parametrize("is_started", [True, False])
def test_a_checkpoint_brings_everything_back_and_the_run_goes_on(tmp_path, last_ends, is_started):
    epochs = make_probes([4, 0, 3])
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
    for name in ARRAYS:
        values = [getattr(one.statistics.affinity(TASKS), name) for one in (model, restored)]
        np.testing.assert_array_equal(*values, name)

    more = np.random.default_rng(2).normal(size=(3, 3, 3)).astype("float32")
    run(restored.statistics, [more])
    epochs = [*epochs, more] if last_ends else [*epochs[:-1], np.concatenate([epochs[-1], more])]
    assert_affinity(restored.statistics.affinity(TASKS), expected_arrays(epochs))


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


def test_epoch_ends_closes_epochs_and_warns_of_what_was_left_out_by_target():
    statistics = started()
    callback = EpochEnds(statistics, TASKS)
    values = np.full((3, 3), 0.1, "float32")
    # Two values onto "b" and, an epoch later, one more and one onto "c"; none onto "a".
    values[[0, 2], 0] = NAN
    statistics.update(tf.constant(values), 32)
    callback.on_epoch_end(0)
    values[[0, 1, 2], [0, 1, 2]] = [0.1, 0.1, NAN]
    statistics.update(tf.constant(values), 32)
    callback.on_epoch_end(1)
    assert statistics.affinity(TASKS).history.shape == (2, 3, 3)
    message = (
        "Some probe values were left out of the affinities, because a loss was not positive or "
        "not finite, or because a gradient overflowed. "
        "Values left out by target: {'b': 3, 'c': 1}."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        callback.on_train_end()


def test_epoch_ends_is_silent_when_nothing_was_left_out():
    statistics = started()
    callback = EpochEnds(statistics, TASKS)
    statistics.update(tf.fill((3, 3), 0.1), 32)
    callback.on_epoch_end(0)
    # A warning would be an error.
    callback.on_train_end()
    np.testing.assert_allclose(statistics.affinity(TASKS).mean, 0.1)


def test_values_too_large_to_square_are_skipped():
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


def test_an_epoch_that_was_interrupted_is_closed_by_the_next_training():
    statistics = ProbeStatistics(1)
    statistics.start()
    ends = EpochEnds(statistics, ("a",))
    ends.on_train_begin()
    statistics.update(tf.constant([[0.5]]), 8)
    ends.on_train_begin()
    statistics.update(tf.constant([[0.1]]), 8)
    ends.on_epoch_end(0)
    np.testing.assert_allclose(statistics.affinity(("a",)).history.ravel(), [0.5, 0.1])
