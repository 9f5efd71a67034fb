"""The files of the tables: what they keep, and what is said of damaged ones."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.truth import making
from benchmarks.truth import tables as truth_tables
from benchmarks.truth.problems import PROBLEMS
from benchmarks.truth.tables import Table, rounded

TASKS = ("a", "b", "c")


def make_table(**changes):
    random = np.random.default_rng(0)
    groups = np.arange(1, 8)
    members = groups[:, None] >> np.arange(3) & 1 > 0

    def losses(number):
        return np.where(members, random.lognormal(size=(number, 7, 3)), np.nan)

    parts = {
        "tasks": TASKS,
        "groups": groups,
        "seeds": (0, 1),
        **{name: losses(2) for name in ("validation", "test", "early")},
        "folds": losses(5),
        "affinities": {"lookahead": random.normal(size=(4, 3, 3))},
        "about": {"problem": "small", "size": None, "versions": {"numpy": "2"}},
    }
    return Table(**{**parts, **changes})


def test_a_file_keeps_about_four_digits(tmp_path):
    table = make_table()
    table.save(tmp_path / "small.npz")
    found = Table.load(tmp_path / "small.npz")
    assert (found.tasks, found.seeds, found.about) == (TASKS, (0, 1), table.about)
    assert np.array_equal(found.groups, table.groups)
    for name in ("validation", "test", "early", "folds"):
        wanted = getattr(table, name)
        assert getattr(found, name) == pytest.approx(wanted, rel=1 / 8192, nan_ok=True)
        assert getattr(found, name).dtype == np.float64
    assert [*found.affinities] == ["lookahead"]
    wanted = table.affinities["lookahead"]
    assert found.affinities["lookahead"] == pytest.approx(wanted, rel=1 / 8192)
    # What was rounded once stays as it is.
    found.save(tmp_path / "again.npz")
    again = Table.load(tmp_path / "again.npz")
    assert np.array_equal(again.test, found.test, equal_nan=True)
    assert {path.name for path in tmp_path.iterdir()} == {"small.npz", "again.npz"}


def test_values_are_rounded_to_thirteen_bits():
    values = np.array([[0.0, 1.0, -3.0, 8191.0, 16383.0, np.nan], [1e-20, 0.1, -1e20, 1, 1, 1]])
    found = rounded(values)
    assert found.dtype == np.float32
    # 16,383 has fourteen bits, of which the last is 1.
    assert np.array_equal(found[0, :5], [0, 1, -3, 8191, 16384]) and np.isnan(found[0, 5])
    assert found[1] == pytest.approx(values[1], rel=1 / 8192)
    # The last ten bits of a mantissa are 0.
    assert not (found.view(np.uint32)[0, :5] & 0x3FF).any()


def test_rows_and_members_of_groups():
    table = make_table()
    assert [table.row(group) for group in [("a",), ("b",), ("a", "b"), ("c",), TASKS]] == [
        *(0, 1, 2, 3, 6)
    ]
    assert table.members[table.row(("a", "c"))].tolist() == [True, False, True]
    assert np.array_equal(np.isfinite(table.test[0]), table.members)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": np.arange(7)}, "`groups` should be 1 to 7 for 3 tasks"),
        ({"tasks": ("a", "b")}, "`groups` should be 1 to 3 for 2 tasks"),
        ({"seeds": (0,)}, r"`validation` should have the shape \(1, 7, 3\). Received: \(2, 7, 3\)"),
        ({"test": np.ones((2, 7, 3))}, "`test` should be finite where the task is in the group"),
        ({"folds": np.ones((0, 7, 3))}, r"`folds` should have the shape \(0, 7, 3\)"),
        ({"affinities": {"x": np.ones((3, 2))}}, r"the affinities 'x' should have the shape"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_table(**changes)


def test_a_loss_that_is_missing_is_found():
    test = make_table().test.copy()
    test[1, 6, 2] = np.nan
    with pytest.raises(ValueError, match="`test` should be finite where the task is in the group"):
        dataclasses.replace(make_table(), test=test)


def cut(content):
    return content[: len(content) // 2]


def change_a_byte(content):
    place = content.index(b"test.npy") + 200
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage", [cut, change_a_byte, lambda content: b"", lambda content: b"losses"]
)
def test_a_damaged_file_is_named(damage, tmp_path):
    path = tmp_path / "small.npz"
    make_table().save(path)
    path.write_bytes(damage(path.read_bytes()))
    message = rf"^{re.escape(str(path))} is not a whole table .*\)\. Delete it, and run `python"
    with pytest.raises(ValueError, match=message):
        Table.load(path)


def test_another_npz_file_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(ValueError, match=r"other.npz is not a whole table \(KeyError: .*tasks"):
        Table.load(tmp_path / "other.npz")
    np.save(tmp_path / "other.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"other.npy is not a whole table"):
        Table.load(tmp_path / "other.npy")
    with pytest.raises(FileNotFoundError):
        Table.load(tmp_path / "none.npz")


def test_the_tables_that_ship_are_whole_and_small():
    folder = Path(truth_tables.__file__).with_name("tables")
    paths = sorted(folder.iterdir())
    assert paths and sum(path.stat().st_size for path in paths) < 5e6
    for path in paths:
        table = Table.load(path)
        about = table.about
        name = making.regime(about["width"], about["size"]).file_name(about["problem"])
        assert path.name == name and about["problem"] in PROBLEMS
        assert len(table.seeds) == 8 and len(table.folds) == 5
        assert [*table.affinities] == [*making.estimators()]
        assert about["examples"]["train"] == (about["size"] or about["examples"]["train"])
