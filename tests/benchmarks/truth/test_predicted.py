"""The command that judges predicted groups: gains and correlations by hand, and a small run."""

import numpy as np
import pytest
from group_tables import best_by_search, losses_of, random_table, rows, table_of

from benchmarks.truth import making, predicted
from benchmarks.truth.__main__ import TABLES
from benchmarks.truth.making import Regime
from benchmarks.truth.problems import factors
from benchmarks.truth.tables import Table

LOSSES = {"a": (5,), "b": (5,), "c": (5,), "ab": (1, 3), "ac": (2, 9), "bc": (1, 9)}
LOSSES["abc"] = (4, 4, 4)


def test_gains_by_hand():
    other = {**LOSSES, "ab": (5, 5), "abc": (6, 6, 6)}
    table = table_of(losses_of(LOSSES), losses_of(other))
    # Joint 12 and 18, mean 15; "ab" beside "c" 1 + 3 + 5 and 5 + 5 + 5.
    found = predicted.gains_of(table, rows("ab", "ab", "c"))
    np.testing.assert_allclose(found, [3 / 15, 3 / 15])


def test_rank_correlation_leaves_tasks_alone_out():
    table = table_of(losses_of(LOSSES))
    assert predicted.rank_correlation(table, 2 * table.test[0] + 1) == pytest.approx(1)
    # The order turns for "a", of three groups; what is alone would count, too.
    losses = table.test[0].copy()
    losses[:, 0] *= -1
    losses[rows("a"), 0] = 100
    assert predicted.rank_correlation(table, losses) == pytest.approx((-1 + 1 + 1) / 3)


def test_the_cells_of_a_table(monkeypatch):
    table = random_table(3, num_seeds=3, seed=1)
    monkeypatch.setattr(making, "regime", lambda width, size: (width, size))
    seen = []

    def predict(problem, how, seeds):
        seen.append((problem, how, list(seeds)))
        scores = table.test.mean(axis=0)
        groups = [[t for i, t in enumerate("abc") if mask >> i & 1] for mask in range(1, 8)]
        return [predicted.tag_keras.NetworkTable(list("abc"), groups, scores)] * 2

    monkeypatch.setattr(predicted, "predict", predict)
    served, gain, correlation, _ = predicted.judge(table, "problem", 2, 2)
    assert seen == [("problem", (8, None), [200, 201])]
    best = best_by_search(table.test.mean(axis=0), 2)
    assert served == str(len({*best})) == "2" and correlation == "1.00"
    assert gain == predicted.with_error(predicted.gains_of(table, best).tolist())


@pytest.mark.slow
def test_joint_networks_of_a_small_problem():
    how = Regime(width=4, size=50, steps=10, batch_size=5)
    first, second = predicted.predict(factors.load(0), how, [200, 201])
    assert (
        first.scores.shape == (127, 7)
        and first.tasks == Table.load(TABLES / "factors0-w32-n100.npz").tasks
    )
    assert not np.allclose(first.scores, second.scores, equal_nan=True)
