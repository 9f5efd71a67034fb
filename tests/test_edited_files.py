"""Every loader of JSON and of tables on files that were edited at random, by seed.

It gives one clear error, a ValueError that names the file, or loads what the file says; and never
raises another error.
"""

import dataclasses
import json
import random

import numpy as np
import pytest
from guard_cases import GROUPING, make_rows
from random_edits import edit_bytes, edit_text

import tag_keras
from tag_keras import Affinity, Grouping, NetworkSelection, NetworkTable, Serving, results
from tag_keras.study.environment import keep_environment
from tag_keras.study.networks import load_choice, save_choice
from tag_keras.utils import files

ARRAYS = ("mean", "standard_error", "count", "history", "skipped", "replicates")


def make_affinity(path):
    pairs = np.random.default_rng(0).normal(size=(4, 3, 3))
    Affinity(
        ["a", "b", "c"], pairs.mean(axis=0), count=np.ones((3, 3)), history=pairs, replicates=pairs
    ).save(path)


def make_selection(path):
    losses = [{"a": 0.25, "b": 0.4}, {"a": 0.3}, ({"b": 0.22}, 0.5)]
    tag_keras.select_networks(losses, 1.5, "min").save(path)


def check_affinity(affinity, path):
    affinity.save(path)
    again = Affinity.load(path)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(affinity, name))


def check_saved(loaded, path):
    loaded.save(path)
    assert type(loaded).load(path) == loaded


def check_rows(rows, path):
    results.save_results(path, rows)
    assert results.load_results(path) == rows


def check_table(table, path):
    assert np.isfinite(table.scores).sum() == sum(map(len, table.networks))
    again = NetworkTable(table.tasks, table.networks, table.scores, table.costs)
    np.testing.assert_array_equal(again.scores, table.scores)
    best = tag_keras.select_networks(table, 1e50, "min")
    assert best.score <= np.nanmean(np.nanmax(table.scores, axis=0)) + 1e-9 * np.nanmax(
        abs(table.scores)
    )


TABLE = b"a\tb\tcost\n0.25\t0.4\t1\n0.3\t\t1\n\t0.22\t0.5\n"
# By name of the file: how to make it, how to load it, and what must be true of what it gives.
LOADERS = {
    "affinity.json": (make_affinity, Affinity.load, check_affinity),
    "groups.json": (lambda path: GROUPING.save(path), Grouping.load, check_saved),
    "selection.json": (make_selection, NetworkSelection.load, check_saved),
    "served.json": (
        lambda path: tag_keras.guard_groups(GROUPING, make_rows()).save(path),
        Serving.load,
        check_saved,
    ),
    "results.json": (
        lambda path: results.save_results(path, make_rows()),
        results.load_results,
        check_rows,
    ),
    "of_table.json": (
        lambda path: results.save_results(path, make_rows()),
        NetworkTable.load,
        check_table,
    ),
    "table.txt": (lambda path: path.write_bytes(TABLE), NetworkTable.load, check_table),
    "groups_2.json": (
        lambda path: save_choice(path, GROUPING, [False] * len(GROUPING.groups)),
        lambda path: load_choice(path, GROUPING.tasks),
        lambda choice, path: None,
    ),
    "settings.json": (
        lambda path: files.write_json(path, {"tasks": ["a"], "rate": 0.1}),
        lambda path: files.keep_settings(path.parent, {"tasks": ["a"], "rate": 0.1}),
        lambda nothing, path: None,
    ),
    "environment.json": (
        lambda path: keep_environment(path.parent),
        lambda path: keep_environment(path.parent),
        lambda found, path: None,
    ),
}
SEEDS = [range(30), pytest.param(range(30, 400), marks=pytest.mark.slow)]


@pytest.mark.parametrize("seeds", SEEDS, ids=["few", "many"])
@pytest.mark.parametrize("name", LOADERS)
def test_an_edited_file_loads_or_is_named(name, seeds, tmp_path):
    make, load, check = LOADERS[name]
    path, loaded = tmp_path / name, 0
    make(path)
    whole = path.read_bytes()
    edit = edit_text if name.endswith(".json") else edit_bytes
    for seed in seeds:
        path.write_bytes(edit(whole, random.Random(seed)))
        try:
            value = load(path)
        except ValueError as error:
            where = str(path.parent if name == "settings.json" else path)
            assert where in str(error), seed
            continue
        loaded += 1
        check(value, tmp_path / "again.json")
    # Otherwise the edits say nothing of what loads.
    assert loaded < len(seeds)


def test_what_is_edited_is_what_loads(tmp_path):
    """A change that makes another right file is no damage: what loads is what it says."""
    path = tmp_path / "affinity.json"
    make_affinity(path)
    fields = json.loads(path.read_text())
    fields["mean"][0][1], fields["tasks"] = 7.5, ["a", "é", "c"]
    del fields["replicates"]
    path.write_text(json.dumps(fields))
    affinity = Affinity.load(path)
    assert affinity.tasks == ("a", "é", "c") and affinity.mean[0, 1] == 7.5
    make_selection(path)
    selection = NetworkSelection.load(path)
    path.write_text(json.dumps(dataclasses.asdict(selection) | {"cost": 3}))
    assert NetworkSelection.load(path) == dataclasses.replace(selection, cost=3)
