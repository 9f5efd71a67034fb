"""When probes are made, with steps in plain Python: one in so many, or a share of the time."""

import types

import pytest

from tag_keras.estimators import cadence
from tag_keras.estimators.base import AffinityEstimator
from tag_keras.estimators.cadence import Cadence, ProbeSchedule
from tag_keras.estimators.statistics import ProbeStatistics


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
