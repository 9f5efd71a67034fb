"""Results as rows in a file, and the figures made of them."""

import json
import math
import re
import sys

import numpy as np
import pytest

from tag_keras import results
from tag_keras.results import Row


def make_row(**changes):
    fields = {"network": "joint", "tasks": ("b", "a"), "seed": 0, "task": "a", "split": "test"}
    fields |= {"loss": 0.5, "metrics": {"accuracy": 0.75}, "seconds": 12.5}
    return Row(**(fields | changes))


def write(path, **changes):
    """A file of two rows, the second of them changed as a hand or another program might."""
    results.save_results(path, [make_row(), make_row(seed=1)])
    rows = json.loads(path.read_text())
    rows[1] |= changes
    rows[1] = {name: value for name, value in rows[1].items() if value != "absent"}
    path.write_text(json.dumps(rows))
    return path


def test_rows_come_back_as_they_were_in_their_order(tmp_path):
    rows = [
        make_row(seed=3, loss=0.1, metrics={}),
        make_row(network="single_a", tasks=("a",), split="validation", loss=2),
        make_row(task="b", metrics={"z": 1.0, "a": 2.0}),
    ]
    results.save_results(tmp_path / "results.json", iter(rows))
    loaded = results.load_results(tmp_path / "results.json")
    assert loaded == rows
    assert all(isinstance(row.tasks, tuple) for row in loaded)
    assert list(loaded[2].metrics) == ["z", "a"]


def test_a_frame_has_a_column_for_each_field_and_each_metric(tmp_path):
    pytest.importorskip("pandas")
    rows = [
        make_row(metrics={}),
        make_row(network="group_2", seed=1, stacked=True, metrics={"b": 0.25, "a": 0.5}),
        make_row(seed=2, metrics={"a": 0.75}),
    ]
    results.save_results(tmp_path / "results.json", rows)
    frame = results.load_frame(tmp_path / "results.json")
    fields = ["network", "tasks", "seed", "task", "split", "loss", "seconds", "role", "index"]
    assert [*frame.columns] == [
        *fields,
        *("early", "half_size", "stacked", "metric_b", "metric_a"),
    ]
    for name in fields[:8]:
        assert frame[name].tolist() == [getattr(row, name) for row in rows]
    np.testing.assert_array_equal(frame["metric_a"], [np.nan, 0.5, 0.75])
    np.testing.assert_array_equal(frame["metric_b"], [np.nan, 0.25, np.nan])
    assert frame["index"].isna().tolist() == [True, False, True] and frame["index"][1] == 2
    assert str(frame["index"].dtype) == "Int64"
    assert frame[frame.stacked].network.tolist() == ["group_2"]


def test_a_frame_of_no_rows_has_the_columns(tmp_path):
    pytest.importorskip("pandas")
    results.save_results(tmp_path / "results.json", [])
    frame = results.load_frame(tmp_path / "results.json")
    assert frame.empty and {"network", "loss", "index"} <= {*frame.columns}


def test_a_frame_says_what_to_install(tmp_path, monkeypatch):
    results.save_results(tmp_path / "results.json", [make_row()])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r'needs pandas\. .* pip install "tag_keras\[tools\]"'):
        results.load_frame(tmp_path / "results.json")


def test_no_rows(tmp_path):
    results.save_results(tmp_path / "results.json", [])
    assert results.load_results(tmp_path / "results.json") == []


def test_the_file_has_the_fields_that_other_programs_read(tmp_path):
    results.save_results(tmp_path / "results.json", [make_row()])
    (row,) = json.loads((tmp_path / "results.json").read_text())
    assert row == {
        "network": "joint",
        "tasks": ["b", "a"],
        "seed": 0,
        "task": "a",
        "split": "test",
        "loss": 0.5,
        "metrics": {"accuracy": 0.75},
        "seconds": 12.5,
        "role": "joint",
        "index": None,
        "early": False,
        "half_size": False,
        "stacked": False,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network", 1),
        ("tasks", "ab"),
        ("seed", 0.5),
        ("task", None),
        ("split", ["test"]),
        ("loss", None),
        ("loss", "0.5"),
        ("metrics", [0.75]),
        ("seconds", "12"),
    ],
)
def test_a_wrong_value_is_named_with_file_row_and_field(tmp_path, field, value):
    path = write(tmp_path / "results.json", **{field: value})
    message = f"{path}, row 1: the field {field!r} has a wrong value: {value!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        results.load_results(path)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"loss": "absent"}, ["loss"]),
        ({"author": "me"}, ["author"]),
        ({"seed": "absent", "sed": 1}, ["sed", "seed"]),
    ],
)
def test_missing_and_unknown_fields_are_named_with_file_and_row(tmp_path, changes, fields):
    path = write(tmp_path / "results.json", **changes)
    message = f"{path}, row 1 has missing or unknown fields: {fields}."
    with pytest.raises(ValueError, match=re.escape(message)):
        results.load_results(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", " is not a JSON file"),
        ('{"rows": []}', " should hold a list of rows."),
        ('["joint"]', ", row 0 should be an object. Received: 'joint'."),
    ],
)
def test_a_file_that_holds_something_else_is_named(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}{message}")):
        results.load_results(path)


def test_losses_take_each_task_from_its_network_at_the_seeds_of_all():
    rows = [
        # Served by group_0: seeds 2, 0 and 1, in the order in which they finished.
        make_row(network="group_0", task="a", seed=2, loss=0.2),
        make_row(network="group_0", task="a", seed=0, loss=0.1),
        make_row(network="group_0", task="a", seed=1, loss=0.3),
        # Served by group_1: seeds 1, 2 and 5.
        make_row(network="group_1", task="b", seed=1, loss=30.0),
        make_row(network="group_1", task="b", seed=2, loss=20.0),
        make_row(network="group_1", task="b", seed=5, loss=50.0),
        # Not to be read: a helper's own loss, another network, another split, another task.
        make_row(network="group_1", task="a", seed=1, loss=99.0),
        make_row(network="joint", task="b", seed=1, loss=99.0),
        make_row(network="group_0", task="a", seed=2, loss=99.0, split="validation"),
        make_row(network="group_0", task="c", seed=2, loss=99.0),
    ]
    losses = results.ResultTable(iter(rows)).losses({"b": "group_1", "a": "group_0"}, "test")
    # Both networks have the seeds 1 and 2.
    assert list(losses) == ["b", "a"]
    np.testing.assert_array_equal(losses["b"], [30.0, 20.0])
    np.testing.assert_array_equal(losses["a"], [0.3, 0.2])


def test_losses_name_every_task_without_a_result():
    rows = [make_row(network="joint", task="a"), make_row(network="other", task="b")]
    serves = {"a": "joint", "b": "joint", "c": "single_c"}
    message = "There is no result on 'test' for: b from joint, c from single_c."
    with pytest.raises(ValueError, match=re.escape(message)):
        results.ResultTable(rows).losses(serves, "test")
    with pytest.raises(ValueError, match="no result on 'validation' for: a from joint"):
        results.ResultTable(rows).losses({"a": "joint"}, "validation")


def test_total_error_sums_over_tasks_at_each_seed():
    # 1 + 10 + 100 at the first seed, 2 + 20 + 200 at the second.
    losses = {"a": np.array([1.0, 2.0]), "b": np.array([10.0, 20.0]), "c": np.array([100.0, 200.0])}
    np.testing.assert_array_equal(results.total_error(losses), [111.0, 222.0])
    np.testing.assert_array_equal(results.total_error({"a": np.array([3.0])}), [3.0])


def test_mean_and_deviation_of_a_sample():
    # Deviations from the mean 5 are -3, -1, -1 and 5: squares 9 + 1 + 1 + 25 = 36, by n - 1 = 3.
    mean, deviation = results.mean_and_deviation([2, 4, 4, 10])
    assert mean == 5.0
    assert deviation == pytest.approx(math.sqrt(12))
    assert type(mean) is type(deviation) is float


def test_the_deviation_of_one_seed_is_not_known():
    mean, deviation = results.mean_and_deviation(np.array([0.25]))
    assert mean == 0.25
    assert math.isnan(deviation)


def test_mean_and_noise_of_differences():
    # Deviation sqrt(12) of four, as above: two standard errors are 2 * sqrt(12) / sqrt(4).
    assert results.mean_and_noise([2, 4, 4, 10]) == pytest.approx((5, math.sqrt(12)))
    mean, noise = results.mean_and_noise([0.25])
    assert mean == 0.25 and math.isnan(noise)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", True),
        ("loss", True),
        ("loss", math.nan),
        ("seconds", math.inf),
        ("seconds", 10**400),
        ("loss", 1e308),
        ("metrics", {"accuracy": -1e200}),
        ("tasks", [1, "a"]),
        ("task", "c"),
        ("metrics", {"accuracy": "high"}),
        ("tasks", ["a", "b", "a"]),
        ("seed", -1),
    ],
)
def test_a_value_that_no_run_writes_is_named(tmp_path, field, value):
    path = write(tmp_path / "results.json", **{field: value})
    message = f"results.json, row 1: the field {field!r} has a wrong value"
    with pytest.raises(ValueError, match=re.escape(message)):
        results.load_results(path)


def test_a_row_that_comes_twice_is_named(tmp_path):
    path = write(tmp_path / "results.json", seed=0, loss=0.25)
    message = f"{path}, row 1 has network, seed, split and task of row 0."
    with pytest.raises(ValueError, match=re.escape(message)):
        results.load_results(path)
    for other in ({"seed": 1}, {"seed": 0, "task": "b"}, {"seed": 0, "split": "validation"}):
        assert len(results.load_results(write(path, **other))) == 2


def test_networks_without_a_common_seed_are_named():
    rows = [make_row(network="x", seed=0), make_row(network="y", task="b", seed=1)]
    with pytest.raises(
        ValueError, match=r"seed in common. Received seeds: {'x': \[0\], 'y': \[1\]}"
    ):
        results.ResultTable(rows).losses({"a": "x", "b": "y"}, "test")


def test_seconds_count_each_training_once():
    def rows_of(network, seconds, losses):
        return [
            make_row(network=network, task=task, seed=seed, loss=loss, seconds=seconds + seed)
            for seed, loss in enumerate(losses)
            for task in "ab"
        ]

    rows = [
        *rows_of("joint", 10.0, [0.5, 0.6]),
        # The same training under another name, but for its second seed.
        *rows_of("group_0", 10.0, [0.5, 0.7]),
        *rows_of("other", 3.0, [0.5]),
    ]
    table = results.ResultTable(rows)
    assert table.seconds(["joint", "group_0", "nobody"]) == {
        "joint": {0: 10.0, 1: 11.0},
        "group_0": {1: 11.0},
    }
    assert table.seconds(["group_0", "joint"]) == {
        "group_0": {0: 10.0, 1: 11.0},
        "joint": {1: 11.0},
    }
    assert table.find("other", 0, "test", "a").loss == 0.5
    assert table.find("other", 1, "test", "a") is None
    assert table.seeds({"a": "joint", "b": "group_0"}, "test") == [0, 1]
    assert table.seeds({"a": "joint", "b": "other"}, "test") == [0]
    assert table.seeds({"a": "joint"}, "validation") == []
