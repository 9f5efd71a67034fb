"""When probes are made, with steps in plain Python, and steps on the device against single ones."""

import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.backend.steps import on_device, steps_of
from tag_keras.estimators import cadence
from tag_keras.estimators.base import AffinityEstimator
from tag_keras.estimators.cadence import Cadence, EpochEnds, ProbeSchedule
from tag_keras.estimators.statistics import ProbeStatistics

TASKS = ("b", "a", "c")
NAN = float("nan")


class Training:
    """A cadence whose steps only write down what they are: "P" with a probe, "-" without one."""

    def __init__(self, every=None, at_once=1, accumulated=1, **options):
        self.statistics = ProbeStatistics(3)
        self.statistics.start()
        self.made, self.asked, self.seconds, self.is_slow = [], [], 0.0, True
        self.estimator = AffinityEstimator(every, **options)
        self.given = accumulated, at_once
        self.begin()

    def begin(self):
        """A new program, which knows the statistics of the one before."""
        schedule = ProbeSchedule(self.estimator, [self.statistics], *self.given)
        self.cadence = Cadence(
            self.statistics,
            schedule,
            self.given[1],
            self.steps("-"),
            self.steps("P"),
            lambda: "logs so far",
        )

    def steps(self, kind):
        def make(iterator, number):
            self.asked.append(number)
            batches = [batch for _, batch in zip(range(number), iterator, strict=False)]
            self.made += [(kind, batch) for batch in batches]
            self.seconds += sum(self.seconds_of(kind) for _ in batches)
            return f"logs of {len(self.made)}", len(batches)

        return make

    def seconds_of(self, kind):
        """The first of each kind makes its graph, and one call in three is slow."""
        number = self.kinds.count(kind)
        more = 100.0 if number <= 1 else 3.0 * (self.is_slow and number % 3 == 0)
        return more + {"P": 8.0, "-": 1.0}[kind]

    def epoch(self, size):
        """Runs an epoch of so many batches as Keras does; gives its logs, call by call."""
        batches, logs = iter(range(size)), []
        while True:
            try:
                logs.append(self.cadence(batches))
            except StopIteration:
                return logs

    @property
    def kinds(self):
        return "".join(kind for kind, _ in self.made)


@pytest.mark.parametrize("at_once", [1, 4, 7, 30])
@pytest.mark.parametrize(
    ("every", "expected"),
    [(1, "PPPPPPPPPPP"), (3, "P--P--P--P-"), (4, "P---P---P--"), (100, "P----------")],
)
def test_one_step_in_so_many_has_a_probe(every, expected, at_once):
    training = Training(every, at_once)
    logs = training.epoch(11)
    assert training.kinds == expected
    # No batch is lost, none is used twice.
    assert [batch for _, batch in training.made] == list(range(11))
    assert training.statistics.steps == 11
    # One call for so many steps; its logs are those of its last step.
    ends = [min(end, 11) for end in range(at_once, 11 + at_once, at_once)]
    assert logs == [f"logs of {end}" for end in ends]


def test_steps_of_one_kind_are_asked_for_at_once():
    training = Training(every=3, at_once=7)
    training.epoch(14)
    # P--P--P and --P--P-, and at the end of the data one more, which is not there.
    assert training.asked == [1, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1]
    training = Training(every=100, at_once=7)
    training.epoch(14)
    assert training.asked == [1, 6, 7, 7]


@pytest.mark.parametrize("at_once", [1, 4, 7])
def test_the_cadence_goes_on_over_epochs(at_once):
    # Epochs of 5, 0 and 4 batches, whose length nothing told before.
    training = Training(3, at_once)
    logs = [training.epoch(size) for size in (5, 0, 4)]
    assert training.kinds == "P--P--P--"
    assert logs[1] == []
    assert training.statistics.steps == 9


@pytest.mark.parametrize("at_once", [1, 4, 7])
def test_data_may_end_between_two_executions(at_once):
    training = Training(3, at_once)
    assert len(training.epoch(3 * at_once)) == 3
    assert training.statistics.steps == 3 * at_once


@pytest.mark.parametrize("at_once", [1, 4, 7])
def test_a_restart_passes_over_what_an_epoch_has_behind_it(at_once):
    # 12 steps were made, 5 of them in the epoch of 8 that was interrupted.
    training = Training(3, at_once)
    training.statistics.steps, training.statistics.steps_to_skip = 12, 5
    logs = training.epoch(8)
    assert training.made == [("P", 5), ("-", 6), ("-", 7)]
    assert training.statistics.steps == 15
    assert training.statistics.steps_to_skip == 0
    assert logs[0] == ("logs of 2" if at_once == 7 else "logs so far")
    training.epoch(4)
    assert training.kinds == "P--P--P"


def test_data_that_ends_before_what_is_to_be_passed_over():
    training = Training(3, 4)
    training.statistics.steps, training.statistics.steps_to_skip = 6, 6
    assert training.epoch(5) == ["logs so far", "logs so far"]
    assert training.made == []
    assert training.statistics.steps_to_skip == 1


@pytest.fixture
def timed(monkeypatch):
    """A training whose clock is that of its steps."""

    def make(*args, **options):
        training = Training(*args, **options)
        clock = types.SimpleNamespace(perf_counter=lambda: training.seconds)
        monkeypatch.setattr(cadence, "time", clock)
        return training

    return make


def probes_of(training):
    return [place for place, kind in enumerate(training.kinds) if kind == "P"]


@pytest.mark.parametrize(("overhead", "every"), [(0.1, 70), (0.5, 14), (0.11, 64), (7.5, 1)])
def test_probes_take_their_share_of_the_time(timed, overhead, every):
    # A probe takes 7 s more than the step of 1 s that it stands for.
    training = timed(overhead=overhead)
    for _ in range(4):
        training.epoch(100)
    late = range(max(6, 3 * every), 400, every)
    assert probes_of(training) == [0, 2, 4, *late]
    assert 7 / every <= overhead


def test_what_was_measured_outlives_a_restart(timed):
    training = timed()
    training.epoch(11)
    assert training.statistics.every == 70
    store = {}
    training.statistics.save_own_variables(store)
    training.statistics.load_own_variables(store)
    training.statistics.is_restored = False
    training.begin()
    training.epoch(270)
    assert probes_of(training) == [0, 2, 4, 210, 280]


def test_a_restart_before_the_times_are_known_takes_them_anew(timed):
    training = timed()
    training.epoch(3)
    assert training.statistics.every == 0
    training.begin()
    training.epoch(8)
    assert training.kinds == "P-PP-P-P---"


def test_the_first_batch_of_an_accumulation_is_probed(timed):
    training = timed(accumulated=4)
    training.statistics.steps = 2  # A restart in its midst.
    training.is_slow = False
    training.epoch(350)
    # In blocks of four batches; a probe takes 7 s more, and 72 is the next multiple of four.
    assert training.statistics.every == 72
    assert probes_of(training) == [2, 10, 18, 214, 286]


def test_steps_at_once_are_timed_at_once(timed):
    training = timed(at_once=10)
    training.epoch(300)
    assert probes_of(training) == [0, 20, 40, 210, 280]
    assert training.asked[:5] == [1, 9, 10, 1, 9]


def test_all_workers_probe_the_same_steps(timed):
    training = timed()
    schedule = ProbeSchedule(
        training.estimator, [training.statistics], agree=lambda every: (every + 30) / 2
    )
    training.cadence._schedule = schedule
    training.epoch(160)
    assert probes_of(training) == [0, 2, 4, 150]


def test_probes_are_numbered_without_a_gap(timed):
    training = timed()
    schedule, steps = training.cadence._schedule, []
    training.cadence._schedule = types.SimpleNamespace(
        next=schedule.next,
        timed=lambda kind, step: steps.append(step) or schedule.timed(kind, step),
    )
    numbers = []
    plain = training.cadence._probing

    def probing(iterator, number):
        numbers.append(schedule.number(training.statistics.steps))
        return plain(iterator, number)

    training.cadence._probing = probing
    training.epoch(300)
    assert numbers == [0, 1, 2, 3, 4]


def test_with_every_no_time_is_taken(monkeypatch):
    monkeypatch.setattr(cadence, "time", None)
    training = Training(every=2)
    training.epoch(9)
    assert training.kinds == "P-P-P-P-P"


def test_steps_one_at_a_time_end_with_the_data():
    model = types.SimpleNamespace(steps_per_execution=1, _make_function=lambda step: step)
    steps = steps_of(model, lambda iterator: f"logs of {next(iterator)}")
    batches = iter("ab")
    assert steps(batches, 1) == ("logs of a", 1)
    assert steps(batches, 1) == ("logs of b", 1)
    with pytest.raises(StopIteration):
        steps(batches, 1)


# On the device.


def make_model(run_eagerly=False, jit_compile=False):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "tanh")])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, "mse", run_eagerly=run_eagerly, jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model


def make_batches(number=10, unknown=False):
    x, y = np.random.default_rng(0).normal(size=(2, 4 * number, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, y[:, :2])).batch(4)
    return data.filter(lambda x, y: True) if unknown else data


@pytest.mark.slow_cases
@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize(
    ("run_eagerly", "jit_compile"), [(True, False), (False, False), (False, True)]
)
def test_steps_on_the_device_equal_single_ones(run_eagerly, jit_compile, unknown):
    alone, together = (make_model(run_eagerly, jit_compile) for _ in range(2))
    for batch in make_batches():
        alone.train_step(batch)
    steps, batches = on_device(together, together.train_step), iter(make_batches(unknown=unknown))
    numbers, logs = zip(*(steps(batches, number)[::-1] for number in (1, 3, 4, 5, 5)), strict=True)
    # Of the last but one only two are left, and none of the last.
    assert numbers == (1, 3, 4, 2, 0)
    for one, other in zip(alone.variables, together.variables, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), atol=1e-6)
    assert int(together.optimizer.iterations) == 10
    assert float(logs[-1]["loss"]) == pytest.approx(float(alone.get_metrics_result()["loss"]))


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_steps_with_batches_of_a_python_iterator(run_eagerly):
    # As `train_on_batch` gives it.
    alone, together = make_model(), make_model(run_eagerly)
    for batch in make_batches(3):
        alone.train_step(batch)
    steps, batches = on_device(together, together.train_step), (batch for batch in make_batches(3))
    assert [steps(batches, number)[1] for number in (2, 2, 2)] == [2, 1, 0]
    for one, other in zip(alone.variables, together.variables, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), atol=1e-6)


def test_the_number_of_steps_does_not_trace_anew():
    model, traced = make_model(), []

    def step(batch):
        traced.append(1)
        return model.train_step(batch)

    steps, batches = on_device(model, step), iter(make_batches())
    for number in (1, 2, 3):
        steps(batches, number)
    assert len(traced) == 1


# The ends of epochs.


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
