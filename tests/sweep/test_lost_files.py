import functools
import json
import re
import shutil

import keras
import numpy as np
import pytest
import sweep_job
from sweep_folders import ONE_SPLIT, contents, leave_out_fit, make_job, pretend
from sweep_job import BUILDS, DATA, build_model

import tag_keras
from tag_keras import results
from tag_keras.sweep import job, sweep


def test_a_network_that_finished_as_the_sweep_was_killed_is_not_lost(tmp_path, trained):
    # Killed before the rows of the first were put into results.json, and after, when they have
    # only not been deleted.
    jobs = [make_job("one", "a"), make_job("two", "b")]
    for one in jobs:
        pretend(tmp_path, one, ONE_SPLIT)
    sweep.run_sweep(tmp_path, [jobs[1]], ONE_SPLIT, processes=0)
    pretend(tmp_path, jobs[1], ONE_SPLIT)
    rows = sweep.run_sweep(tmp_path, jobs, ONE_SPLIT, processes=0)
    assert trained == []
    assert [row.network for row in rows] == ["one", "two"]
    assert not list(tmp_path.rglob("*.rows.json"))


@pytest.mark.parametrize("wrong", ["[{", "[]", "another network's"])
def test_rows_that_cannot_be_used_cost_an_evaluation(tmp_path, trained, capsys, wrong):
    one = make_job("one", "a")
    pretend(tmp_path, make_job("other", "a"), ONE_SPLIT)
    pretend(tmp_path, one, ONE_SPLIT)
    path = job.JobFiles(tmp_path, one.network).rows
    others = (tmp_path / "networks" / "other_seed0.rows.json").read_text()
    path.write_text(others if wrong.startswith("another") else wrong)
    rows = sweep.run_sweep(tmp_path, [one], ONE_SPLIT, processes=0)
    assert trained == ["one"] and [row.network for row in rows] == ["one"]
    assert not path.exists()
    assert (f"evaluated anew: {path} is not a JSON" in capsys.readouterr().out) == (wrong == "[{")


def test_a_network_whose_files_are_gone_is_trained_anew(tmp_path, trained):
    jobs = [
        make_job("saved", "a"),
        make_job("measured", "ab", saves=False, measures=True),
        make_job("neither", "b", saves=False),
    ]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    gone = [tmp_path / "networks" / f"saved_seed0{end}" for end in (".keras", ".rows.json")]
    gone += [tmp_path / "networks" / "measured_seed0.affinity.json"]
    # Rows that the sweep had not collected when it was killed do not count either.
    pretend(tmp_path, jobs[0], DATA)
    gone[0].unlink()
    gone[2].unlink()
    assert sweep.run_sweep(tmp_path, jobs, DATA, processes=0) == rows
    assert trained == ["saved", "measured", "neither", "saved", "measured"]
    assert [path.exists() for path in gone] == [True, False, True]


def test_a_twin_that_has_its_file_replaces_one_that_is_gone(tmp_path, trained):
    jobs = [make_job("joint", "ab"), make_job("group", "ab")]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    (tmp_path / "networks" / "joint_seed0.keras").unlink()
    assert sweep.run_sweep(tmp_path, jobs, DATA, processes=0) == rows
    assert trained == ["joint"] and (tmp_path / "networks" / "joint_seed0.keras").exists()


def evaluation_fails(monkeypatch, folder, one, error):
    """Trains a network whose evaluation raises; gives its weights."""

    def evaluate(*args):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(job, "evaluate_network", evaluate)
        with pytest.raises(type(error)):
            job.train_job(folder, one, DATA)
    return keras.models.load_model(job.JobFiles(folder, one.network).model).get_weights()


def test_damaged_results_cost_an_evaluation_and_no_training(tmp_path, monkeypatch, untrained):
    monkeypatch.setenv(BUILDS, str(tmp_path / "builds"))
    # Of twins, the first here has only been copied.
    jobs = [make_job("one", "ab"), make_job("twin", "ab"), make_job("brief", "c", saves=False)]
    sweep.run_sweep(tmp_path, [jobs[1]], DATA, processes=0)
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    path = tmp_path / "results.json"
    path.write_text(path.read_text()[:-5])
    wanted = rf"{path} is not a JSON file.* evaluates the networks that are in {tmp_path}/networks"
    with pytest.raises(ValueError, match=wanted):
        sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    path.unlink()
    anew = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    assert [row.network for row in anew] == [row.network for row in rows]
    np.testing.assert_allclose([r.loss for r in anew], [r.loss for r in rows], rtol=1e-6)
    assert [row.seconds for row in anew[:4]] == [row.seconds for row in rows[:4]]
    built = [tasks for tasks, _ in sweep_job.read_builds(tmp_path / "builds")]
    # Each time but the first, one network was built to be compared; "c" has kept its rows.
    assert built == ["ab", "ab", "c", "ab", "ab"]


@pytest.mark.slow
@pytest.mark.parametrize("affinity", [None, tag_keras.LookaheadAffinity(1)])
def test_a_failed_evaluation_does_not_lose_the_training(tmp_path, monkeypatch, affinity, request):
    if affinity is None:
        request.getfixturevalue("untrained")
    monkeypatch.setenv(BUILDS, str(tmp_path / "builds"))
    measured = functools.partial(build_model, affinity=affinity)
    one = make_job("one", "ab", build=measured, measures=affinity is not None)
    expected = sweep.run_sweep(tmp_path / "undisturbed", [one], DATA, processes=0)
    weights = evaluation_fails(monkeypatch, tmp_path / "folder", one, OSError("disc"))
    paths = job.JobFiles(tmp_path / "folder", one.network)
    seconds = json.loads(paths.trained.read_text())["seconds"]
    rows = sweep.run_sweep(tmp_path / "folder", [one], DATA, processes=0)
    # A network that is trained is built twice, `untrained` builds once, and the last one was only
    # to be compared.
    builds = sweep_job.read_builds(tmp_path / "builds")
    assert len(builds) == (2 if affinity is None else 4) + 1
    assert [row.seconds for row in rows] == [seconds] * 4
    np.testing.assert_allclose([r.loss for r in rows], [r.loss for r in expected], rtol=1e-5)
    assert [row.metrics for row in rows] == [row.metrics for row in expected]
    kept = keras.models.load_model(paths.model).get_weights()
    np.testing.assert_array_equal(
        np.concatenate([*map(np.ravel, kept)]), np.hstack([w.ravel() for w in weights])
    )


@pytest.mark.slow_cases
@pytest.mark.parametrize(
    "what", ["a wrong value", "no model", "damaged", "a byte", "seconds", "no JSON", "tasks"]
)
def test_what_cannot_be_evaluated_is_trained_anew(tmp_path, monkeypatch, untrained, what):
    monkeypatch.setenv(BUILDS, str(tmp_path / "builds"))
    one = make_job("one", "ab")
    # A loss that is NaN is one again, as long as the network is the same.
    error = ValueError("nan") if what == "a wrong value" else OSError("disc")
    evaluation_fails(monkeypatch, tmp_path, one, error)
    paths = job.JobFiles(tmp_path, one.network)
    if what == "no model":
        paths.model.unlink()
    elif what == "damaged":
        paths.model.write_bytes(b"")
    elif what == "a byte":
        contents = bytearray(paths.model.read_bytes())
        contents[len(contents) // 2] ^= 1
        paths.model.write_bytes(contents)
    elif what == "seconds":
        paths.trained.write_text(json.dumps({"tasks": ["a", "b"], "seconds": None}))
    elif what == "no JSON":
        paths.trained.write_text("{")
    elif what == "tasks":
        one = make_job("one", "bc")
    job.train_job(tmp_path, one, DATA)
    assert len(sweep_job.read_builds(tmp_path / "builds")) == 2
    assert {row.task for row in results.load_results(paths.rows)} == set(one.network.tasks)


@pytest.mark.slow
def test_a_damaged_network_is_named_where_all_results_are_there(
    tmp_path, monkeypatch, untrained, capsys
):
    monkeypatch.setenv(BUILDS, str(tmp_path / "builds"))
    jobs = [make_job("one", "ab"), make_job("other", "c")]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    whole, path = contents(tmp_path), job.JobFiles(tmp_path, jobs[1].network).model
    path.write_bytes(path.read_bytes()[:-9])
    capsys.readouterr()
    assert sweep.run_sweep(tmp_path, jobs, DATA, processes=0) == rows
    assert re.search(rf"{path} is damaged \(.*\), and made anew", capsys.readouterr().out)
    assert contents(tmp_path) == whole


@pytest.mark.slow
def test_a_split_or_row_that_is_missing_costs_an_evaluation(tmp_path, monkeypatch, untrained):
    jobs = [make_job("one", "ab"), make_job("brief", "c", saves=False)]
    first = sweep.run_sweep(tmp_path, jobs, ONE_SPLIT, processes=0)
    monkeypatch.setattr(job, "_train", None)
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    # What is not kept cannot be evaluated again.
    found = [(row.network, row.split, row.task) for row in rows]
    assert found == [
        *(("one", split, task) for split in ("validation", "test") for task in "ab"),
        ("brief", "test", "c"),
    ]
    assert [row.loss for row in rows[2:4]] == pytest.approx([row.loss for row in first[:2]])
    assert [row.seconds for row in rows[:4]] == [first[0].seconds] * 4
    # One of each split.
    for lost in (0, 3):
        path = tmp_path / "results.json"
        results.save_results(path, [row for index, row in enumerate(rows) if index != lost])
        again = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
        assert [(row.network, row.split, row.task) for row in again] == found
        assert [row.loss for row in again] == pytest.approx([row.loss for row in rows])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder of three networks, their jobs and their rows."""
    folder = tmp_path_factory.mktemp("swept")
    jobs = [make_job("one", "a"), make_job("other", "b"), make_job("one", "a", seed=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "train_network", leave_out_fit)
        return folder, jobs, sweep.run_sweep(folder, jobs, ONE_SPLIT, processes=0)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["networks", "networks and records", "seeds", "old networks"])
def test_swapped_files_are_trained_anew(swept, tmp_path, untrained, capsys, what):
    folder, jobs, rows = swept
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    losses = [row.loss for row in rows]
    left, right = (
        job.JobFiles(tmp_path, jobs[index].network) for index in (0, 2 if what == "seeds" else 1)
    )
    ends = ("model", "trained") if what in ("networks and records", "seeds") else ("model",)
    for end in ends:
        one, other = getattr(left, end), getattr(right, end)
        contents = one.read_bytes(), other.read_bytes()
        one.write_bytes(contents[1])
        other.write_bytes(contents[0])
    if what == "old networks":
        for paths in (left, right):
            known = json.loads(paths.trained.read_text())
            paths.trained.write_text(json.dumps({n: known[n] for n in ("tasks", "seconds")}))
    (tmp_path / "results.json").unlink()
    again = sweep.run_sweep(tmp_path, jobs, ONE_SPLIT, processes=0)
    assert [row.loss for row in again] == pytest.approx(losses)
    assert [(row.network, row.seed) for row in again] == [(row.network, row.seed) for row in rows]
    wanted = {
        "networks": f"{left.model} is not the file that the training wrote",
        "old networks": f"{left.model} is the network of other tasks",
    }
    wanted = wanted.get(what, f"{left.trained} is of another network")
    assert f"'one', seed 0, is trained anew: {wanted}." in capsys.readouterr().out
