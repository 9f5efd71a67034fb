"""The command that judges estimators by tables: figures by hand, and what it prints and refuses."""

import dataclasses

import numpy as np
import pytest
from group_tables import losses_of, random_table, table_of

from benchmarks.truth import affinities, making

LOSSES = {"a": (5,), "b": (5,), "c": (5,), "ab": (1, 3), "ac": (2, 9), "bc": (1, 9)}
LOSSES["abc"] = (4, 4, 4)
# Onto "a", "b" helps most; onto "b" does "c"; onto "c" does "a".
GOOD = np.array([[9, 1, 3], [3, 9, 2], [1, 2, 9.0]])


def test_mean_affinities_of_groups_by_hand():
    found = affinities.onto(table_of(losses_of(LOSSES)), GOOD)
    expected = {"ab": (3, 1), "ac": (1, 3), "bc": (2, 2), "abc": (2, 1.5, 2.5)}
    rows = losses_of({**dict.fromkeys("abc", (0,)), **expected})
    several = [row for row, values in enumerate(rows) if np.isfinite(values).sum() > 1]
    members = np.isfinite(rows[several])
    np.testing.assert_allclose(found[several][members], rows[several][members])


def test_figures_of_one_estimator_by_hand():
    table = table_of(losses_of(LOSSES), affinities=[GOOD, -GOOD])
    both = {**table.affinities, "lookahead_sgd": GOOD[None]}
    table = dataclasses.replace(table, affinities=both)
    ranks, gain, repeated, same = affinities.judge(table, "lookahead", [1], 2)
    # The second training says the contrary of the first.
    assert ranks == pytest.approx(0) and repeated == pytest.approx(-1) and same == pytest.approx(0)
    gains = [affinities.gain(table, one, 2) for one in (GOOD, -GOOD)]
    assert gain == pytest.approx(np.mean(gains)) and gains[0] > gains[1]


def test_draws_are_means_over_some_trainings():
    values = np.arange(3.0)[:, None, None] * np.ones((2, 2))
    assert [one[0, 0] for one in affinities.draws(values, 1)] == [0, 1, 2]
    assert [one[0, 0] for one in affinities.draws(values, 3)] == [1]
    found = {float(one[0, 0]) for one in affinities.draws(values, 2)}
    assert found == {0.5, 1.0, 1.5} and len(affinities.draws(values, 2)) == affinities.DRAWS


def test_a_line_for_each_estimator(monkeypatch, tmp_path, capsys):
    for seed, problem in enumerate(("one", "two", "two")):
        table = random_table(3, num_seeds=3, seed=seed, about={"problem": problem})
        both = dict.fromkeys(("features", "lookahead_sgd"), table.affinities["lookahead"])
        dataclasses.replace(table, affinities=both).save(tmp_path / f"{seed}.npz")
    options = [f"--tables={tmp_path}", "--trainings=1,2"]
    monkeypatch.setattr("sys.argv", ["affinities", *options])
    affinities.main()
    lines = [line.strip("|").split("|") for line in capsys.readouterr().out.strip().splitlines()]
    assert [cell.strip() for cell in lines[0]] == affinities.header([1, 2])
    assert [line[0].strip() for line in lines[2:]] == ["features", "lookahead_sgd"]
    assert lines[2][1:] == lines[3][1:] and all("±" in cell for cell in lines[2][1:])
    monkeypatch.setattr("sys.argv", ["affinities", *options, "--trainings=4"])
    with pytest.raises(SystemExit, match=r"--trainings should be 1 to 3\. Received: trainings=4\."):
        affinities.main()
    monkeypatch.setattr("sys.argv", ["affinities", f"--tables={tmp_path / 'none'}"])
    with pytest.raises(SystemExit, match="--tables should be a folder of tables"):
        affinities.main()


def test_only_what_a_table_lacks_is_measured(monkeypatch):
    measured = []
    monkeypatch.setattr(making, "_data", lambda *given: {"train": 1, "test": 2})
    monkeypatch.setattr(making, "_number", lambda *given: 3)
    monkeypatch.setattr(making, "_affinities", lambda *given: measured.append(given[2:]))
    known = [kind for kind in making.estimators() if kind != "features"]
    regime = making.regime(8, 100)
    found = making.measure_affinities(None, regime, making.Path("x"), 8, known)
    assert [*found] == ["features"]
    ((data, folder, estimator, seeds),) = measured
    assert data == {"train": 1} and folder == making.Path("x") / "features" and seeds == 8
    assert estimator == making.estimators()["features"]
