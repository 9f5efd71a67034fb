"""Affinities over several runs: the noise is that between the runs."""

import re

import numpy as np
import pytest

from tag_keras.affinity import Affinity

TASKS = ("b", "a", "c")
NAN = float("nan")


def make_runs(number=4):
    """Runs of three tasks over two epochs; the second never measured "c" -> "b"."""
    generator = np.random.default_rng(3)
    runs = []
    for index in range(number):
        mean, history = generator.normal(size=(3, 3)), generator.normal(size=(2, 3, 3))
        count, skipped = generator.integers(1, 50, size=(2, 3, 3))
        if index == 1:
            mean[2, 0], history[:, 2, 0], count[2, 0] = NAN, NAN, 0
        error, replicates = np.abs(generator.normal(size=(3, 3))), generator.normal(size=(8, 3, 3))
        runs.append(Affinity(TASKS, mean, error, count, history, skipped, replicates))
    return runs


def test_two_runs_worked_out_by_hand():
    first = Affinity(
        ["a", "b"],
        [[1, 2], [3, 4]],
        standard_error=[[9, 9], [9, 9]],
        count=[[10, 10], [1, 2]],
        history=[[[1, 0], [0, 0]], [[3, 0], [0, 0]]],
        skipped=[[0, 1], [0, 0]],
        replicates=np.ones((8, 2, 2)),
    )
    second = Affinity(
        ["a", "b"],
        [[3, 2], [NAN, 8]],
        count=[[30, 1], [0, 2]],
        history=[[[5, 2], [0, 0]], [[NAN, 4], [0, 0]]],
        skipped=[[2, 1], [40, 0]],
    )
    combined = Affinity.combine([first, second])
    assert combined.tasks == ("a", "b")
    # Runs count alike, whatever their probes; b -> a was measured by the first alone.
    np.testing.assert_array_equal(combined.mean, [[2, 2], [3, 6]])
    # Half of the difference: the deviation of x and y is |x - y| / sqrt(2), by sqrt(2).
    np.testing.assert_allclose(combined.standard_error, [[1, 0], [NAN, 2]])
    np.testing.assert_array_equal(combined.count, [[40, 11], [1, 4]])
    np.testing.assert_array_equal(combined.skipped, [[2, 2], [40, 0]])
    np.testing.assert_array_equal(combined.history, [[[3, 1], [0, 0]], [[3, 2], [0, 0]]])
    np.testing.assert_array_equal(combined.replicates, [first.mean, second.mean])


def test_the_interval_of_two_runs_is_that_of_one_degree_of_freedom():
    runs = [Affinity(["a"], [[value]]) for value in (1.0, 3.0)]
    low, high = Affinity.combine(runs).interval()
    # tan(0.95 pi / 2) = 12.706 is the quantile of Cauchy's distribution.
    assert (low.item(), high.item()) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


def test_a_pair_that_no_run_measured_is_not_known():
    count = [[1, 0], [1, 1]]
    run = Affinity(["a", "b"], [[1, NAN], [1, 1]], count=count)
    combined = Affinity.combine([run, run, run])
    np.testing.assert_array_equal(combined.mean, run.mean)
    np.testing.assert_array_equal(combined.standard_error, [[0, NAN], [0, 0]])
    np.testing.assert_array_equal(combined.count, 3 * np.array(count))


def test_histories_of_other_lengths_are_left_out():
    runs = make_runs(2)
    shorter = Affinity(TASKS, runs[1].mean, count=runs[1].count, history=runs[1].history[:1])
    assert Affinity.combine([runs[0], shorter]).history.shape == (0, 3, 3)
    assert Affinity.combine(runs).history.shape == (2, 3, 3)


def assert_same(one, other, order):
    assert one.tasks == tuple(other.tasks[place] for place in order)
    pairs = np.ix_(order, order)
    for name in ("mean", "standard_error", "count", "skipped"):
        expected = getattr(other, name)[pairs]
        np.testing.assert_allclose(getattr(one, name), expected, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(one.history, other.history[:, order][:, :, order], rtol=1e-12)
    assert len(one.replicates) == len(other.replicates)


def test_permuting_the_tasks_permutes_the_result_and_the_order_of_runs_does_not_matter():
    runs, order = make_runs(), [2, 0, 1]
    combined = Affinity.combine(runs)
    pairs = np.ix_(order, order)
    permuted = [
        Affinity(
            [TASKS[place] for place in order],
            run.mean[pairs],
            run.standard_error[pairs],
            run.count[pairs],
            run.history[:, order][:, :, order],
            run.skipped[pairs],
            run.replicates[:, order][:, :, order],
        )
        for run in runs
    ]
    assert_same(Affinity.combine(permuted), combined, order)
    assert_same(Affinity.combine(reversed(runs)), combined, [0, 1, 2])


def test_save_and_load_of_combined_runs(tmp_path):
    combined = Affinity.combine(make_runs())
    combined.save(tmp_path / "affinity.json")
    loaded = Affinity.load(tmp_path / "affinity.json")
    np.testing.assert_array_equal(loaded.replicates, combined.replicates)
    np.testing.assert_array_equal(loaded.standard_error, combined.standard_error)
    np.testing.assert_array_equal(loaded.better_sources(), combined.better_sources())


@pytest.mark.parametrize("number", [0, 1])
def test_one_run_is_too_few(number):
    kinds = ["Affinity"] * number
    message = f"`runs` should be two Affinity objects or more. Received: {kinds}."
    with pytest.raises(ValueError, match=re.escape(message)):
        Affinity.combine(make_runs(number))


def test_runs_are_affinities():
    with pytest.raises(ValueError, match=r"Received: \['Affinity', 'str'\]\."):
        Affinity.combine([*make_runs(1), "affinity.json"])


@pytest.mark.parametrize(
    ("tasks", "how"),
    [
        (("a", "b", "c"), "has the order ('a', 'b', 'c')"),
        (("b", "a", "d"), "lacks ['c'] and has ['d']"),
        (("b", "a"), "lacks ['c'] and has no other"),
        (("b", "a", "c", "d"), "lacks none and has ['d']"),
    ],
)
def test_other_tasks_are_named(tasks, how):
    runs = [*make_runs(2), Affinity(tasks, np.eye(len(tasks)))]
    message = (
        "`runs` should have the same tasks in the same order. Received: runs[0] with "
        f"('b', 'a', 'c'), and runs[2], which {how}."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        Affinity.combine(runs)
