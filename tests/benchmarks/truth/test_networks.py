"""What is trained for a truth table, and what is read of it again."""

import dataclasses
from types import SimpleNamespace

import pytest

from benchmarks.truth import networks as truth_networks
from benchmarks.truth import sets as truth_sets
from tag_keras.results import Row, load_results, save_results
from tag_keras.study.networks import plain_network
from tag_keras.utils import files


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A set of three tasks, and a folder with what two seeds of all its groups left."""
    whole = truth_sets.planted_clusters(epochs=1)
    small = dataclasses.replace(whole, tasks=whole.tasks[:3], largest=3)
    rows = [
        Row(plain_network(group, small.tasks).name, group, seed, task, split, 1.0, {}, 1.0)
        for seed in (0, 1)
        for group in truth_networks.groups_to_train(small)
        for task in group
        for split in ("validation", "test")
    ]
    save_results(tmp_path / "results.json", rows)
    for row in rows:
        write_early(tmp_path, row)
    trained_now = []

    def sweep(folder, jobs, data, processes):
        found = load_results(folder / "results.json")
        known = {(row.network, row.seed) for row in found}
        trained_now.extend(
            job.network for job in jobs if (job.network.name, job.network.seed) not in known
        )
        for row in rows:
            write_early(folder, row)
        return rows

    monkeypatch.setattr(truth_networks, "run_sweep", sweep)
    return small, tmp_path, trained_now


def write_early(folder, row):
    path = folder / "early" / f"{row.network}_seed{row.seed}.json"
    if not path.exists():
        files.write_json(path, dict.fromkeys(row.tasks, 2.0))


def test_short_trainings_are_read(trained):
    small, folder, trained_now = trained
    rows, early = truth_networks.train_groups_of(small, folder, range(2))
    assert trained_now == []
    validation = [row for row in rows if row.split == "validation"]
    assert [(row.tasks, row.seed, row.task) for row in early] == [
        (row.tasks, row.seed, row.task) for row in validation
    ]
    assert {(row.split, row.loss) for row in early} == {("validation", 2.0)}


def test_without_its_short_training_a_network_is_trained_again(trained):
    small, folder, trained_now = trained
    (folder / "early" / "joint_seed1.json").unlink()
    truth_networks.train_groups_of(small, folder, range(2))
    assert [(one.name, one.seed) for one in trained_now] == [("joint", 1)]


@pytest.mark.parametrize("task", ["a1", "e"])
def test_short_trainings_of_what_is_no_loss_or_of_other_tasks(task, trained):
    small, folder, _ = trained
    losses = {**dict.fromkeys(small.tasks, 2.0), task: "low"}
    files.write_json(folder / "early" / "joint_seed1.json", losses)
    with pytest.raises(ValueError, match=r"joint_seed1.json should hold the losses of .*delete it"):
        truth_networks.train_groups_of(small, folder, range(2))


def test_short_trainings_are_a_fifth(tmp_path, monkeypatch):
    # After epochs 1, 2, 3 and so on, of which the fourth of 20 is written.
    jobs = []
    monkeypatch.setattr(truth_networks, "run_sweep", lambda folder, own, *_, **__: jobs.extend(own))
    with pytest.raises(FileNotFoundError):
        truth_networks.train_groups_of(truth_sets.planted_clusters(), tmp_path, [0])
    (callback,) = jobs[0].fit["callbacks"]
    task = jobs[0].network.tasks[0]
    model = SimpleNamespace(tasks=(task,), evaluate=lambda *_, **__: {f"{task}_loss": 0.5})
    callback.set_model(model)
    early = tmp_path / "early" / f"single_{task}_seed0.json"
    for epoch in range(4):
        assert not early.exists()
        callback.on_epoch_end(epoch)
    assert files.read_json(early) == {task: 0.5}


def test_groups_of_the_sets():
    assert len(truth_networks.groups_to_train(truth_sets.digits_of_6())) == 63
    nine = truth_networks.groups_to_train(truth_sets.digits_of_9())
    assert len(nine) == len(set(nine)) == 9 + 36 + 84 + 20 + 1
    assert nine[-1] == truth_sets.digits_of_9().tasks
    assert all(3 < len(group) < 9 for group in nine[129:-1])
