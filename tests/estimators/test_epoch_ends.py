"""Epochs of the statistics are closed, and a warning tells what is wrong with what was measured."""

import re

import numpy as np
import pytest
import tensorflow as tf

from tag_keras.estimators.cadence import EpochEnds
from tag_keras.estimators.statistics import ProbeStatistics

TASKS = ("b", "a", "c")
NAN = float("nan")


def started(labels=(5, 5, 5)):
    statistics = ProbeStatistics(3)
    statistics.start()
    return statistics, EpochEnds(statistics, TASKS, lambda: labels)


def probe(statistics, values=0.1, overflowed=None):
    values = tf.broadcast_to(tf.constant(values, "float32"), (3, 3))
    overflowed = None if overflowed is None else tf.constant(overflowed)
    statistics.update(values, 32, overflowed=overflowed)


LEFT_OUT = (
    "Some probe values were left out of the affinities, because a loss was not positive or not "
    "finite, because a step made it more than 1e15 times as large, or because a gradient was 0 or "
    "overflowed. Values left out by target: {}."
)


def test_epochs_are_closed_and_a_warning_tells_what_was_left_out_by_target():
    statistics, ends = started()
    ends.on_train_begin()
    # Two values onto "b" and, an epoch later, one more and one onto "c"; none onto "a".
    probe(statistics, [[NAN, 0.1, 0.1], [0.1, 0.1, 0.1], [NAN, 0.1, 0.1]])
    ends.on_epoch_end(0)
    probe(statistics, [[NAN, 0.1, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, NAN]])
    ends.on_epoch_end(1)
    assert statistics.affinity(TASKS).history.shape == (2, 3, 3)
    message = LEFT_OUT.format("{'b': 3, 'c': 1}")
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        ends.on_train_end()


def test_affinities_beyond_all_reason_are_told_once_with_the_remedy():
    statistics, ends = started()
    # Means of 0.1 and -999.9, which may come from one odd batch, and of -2.25e10.
    probe(statistics, [[0.1, 0.1, -1000.0], [0.1, -4.5e10, 0.1], [0.1, 0.1, 0.1]])
    probe(statistics, [[0.1, 0.1, -999.8], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]])
    with pytest.warns(UserWarning) as warned:
        ends.on_train_end()
    (message,) = (str(one.message) for one in warned)
    assert "beyond all reason, so groups chosen by them may mean nothing: a -> a: -2.25e" in message
    assert "Lower the learning rate, or clip the gradients" in message and "-> c" not in message


def test_overflows_are_told_by_source():
    statistics, ends = started()
    probe(statistics, [[0.1] * 3, [NAN] * 3, [0.1] * 3], [False, True, False])
    probe(statistics, [[0.1] * 3, [NAN] * 3, [NAN] * 3], [False, True, True])
    ends.on_epoch_end(0)
    message = LEFT_OUT.format("{'b': 3, 'a': 3, 'c': 3}")
    message += " Overflows by source: {'a': 2, 'c': 1}."
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        ends.on_train_end()


def test_nothing_is_said_when_nothing_was_left_out():
    statistics, ends = started()
    probe(statistics)
    ends.on_epoch_end(0)
    # A warning would be an error.
    ends.on_train_end()
    np.testing.assert_allclose(statistics.affinity(TASKS).mean, 0.1)


def test_an_epoch_that_was_interrupted_is_closed_by_the_next_training():
    statistics, ends = started()
    ends.on_train_begin()
    probe(statistics, 0.5)
    ends.on_train_begin()
    probe(statistics, 0.1)
    ends.on_epoch_end(0)
    np.testing.assert_allclose(statistics.affinity(TASKS).history[:, 0, 0], [0.5, 0.1])


def test_an_epoch_that_a_backup_holds_the_beginning_of_is_not_begun_anew():
    statistics, ends = started()
    statistics.steps = 12
    statistics.end_epoch()
    statistics.steps = 17
    # The callback that restores comes after this one.
    ends.on_train_begin()
    statistics.steps_before_epoch, statistics.is_restored = 12, True
    ends.on_epoch_begin(1)
    assert statistics.steps_to_skip == 5
    statistics.steps_to_skip = 0
    ends.on_epoch_end(1)
    ends.on_epoch_begin(2)
    assert statistics.steps_to_skip == 0


def test_a_checkpoint_read_before_the_training_passes_over_nothing():
    statistics, ends = started()
    probe(statistics)
    statistics.steps, statistics.is_restored = 5, True
    ends.on_train_begin()
    ends.on_epoch_begin(0)
    assert statistics.steps_to_skip == 0
    assert statistics.steps_before_epoch == 5


def test_an_interrupted_epoch_without_probes_is_not_passed_over_later():
    statistics, ends = started()
    statistics.steps = 4
    ends.on_train_begin()
    assert statistics.steps_before_epoch == 4


def test_a_checkpoint_read_between_two_epochs_passes_over_nothing():
    statistics, ends = started()
    ends.on_train_begin()
    ends.on_epoch_begin(0)
    ends.on_epoch_end(0)
    # Some callback has read one that was written in the midst of an epoch.
    probe(statistics)
    statistics.steps, statistics.steps_before_epoch, statistics.is_restored = 15, 10, True
    ends.on_epoch_begin(1)
    assert statistics.steps_to_skip == 0
    assert statistics.steps_before_epoch == 15
    assert not statistics.is_running()


NO_LABEL = (
    "The tasks {} had no label in the whole first epoch: all are NaN or have the sample weight 0. "
    "Check the labels, or leave these tasks out of the model."
)


@pytest.mark.parametrize(
    ("labels", "without"), [((0, 5, 0), ["b", "c"]), ((5, 0, 5), ["a"]), ((0.0,) * 3, list(TASKS))]
)
def test_a_task_without_any_label_in_the_first_epoch(labels, without):
    _, ends = started(labels)
    with pytest.raises(ValueError, match=f"^{re.escape(NO_LABEL.format(without))}$"):
        ends.on_epoch_end(0)


def test_a_task_may_lack_labels_in_a_later_epoch():
    seen = [(5, 5, 5), (5, 0, 5)]
    statistics, _ = started()
    ends = EpochEnds(statistics, TASKS, lambda: seen.pop(0))
    ends.on_epoch_end(0)
    ends.on_epoch_end(1)


def test_labels_are_counted_before_validation_sets_the_counters_back():
    counters = [5, 5, 5]
    statistics, _ = started()
    ends = EpochEnds(statistics, TASKS, lambda: tuple(counters))
    ends.on_test_begin()
    counters[:] = [1, 0, 1]
    ends.on_epoch_end(0)

    counters[:] = [5, 0, 5]
    ends = EpochEnds(statistics, TASKS, lambda: tuple(counters))
    ends.on_test_begin()
    counters[:] = [1, 1, 1]
    with pytest.raises(ValueError, match=re.escape(NO_LABEL.format(["a"]))):
        ends.on_epoch_end(0)


def test_labels_of_an_epoch_that_began_before_a_restart_are_not_counted():
    # Of the first epoch there was nothing left to do; the second one is whole.
    seen = [(5, 0, 5)]
    statistics, _ = started()
    ends = EpochEnds(statistics, TASKS, lambda: seen.pop(0))
    ends.on_train_begin()
    statistics.steps, statistics.is_restored = 5, True
    ends.on_epoch_begin(0)
    assert statistics.steps_to_skip == 5
    ends.on_test_begin()
    statistics.steps_to_skip = 0
    ends.on_epoch_end(0)
    ends.on_epoch_begin(1)
    with pytest.raises(ValueError, match=re.escape(NO_LABEL.format(["a"]))):
        ends.on_epoch_end(1)
