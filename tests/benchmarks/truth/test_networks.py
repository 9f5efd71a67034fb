"""What is trained for a truth table, and what is read of it again."""

import dataclasses

from benchmarks.truth import networks as truth_networks
from benchmarks.truth import sets as truth_sets
from tag_keras.sweep import Network
from tag_keras.sweep.stack.refusals import check_fit


def test_short_trainings_are_a_fifth(tmp_path, monkeypatch):
    whole = truth_sets.planted_clusters()
    small = dataclasses.replace(whole, tasks=whole.tasks[:3], largest=3)
    listed = []

    def sweep(folder, jobs, data, processes):
        listed.extend(jobs)
        return [
            job.network.row(task, split, float(job.fit["epochs"]), {}, 1.0)
            for job in [*jobs, dataclasses.replace(jobs[0], network=Network("joint", tasks, 7))]
            for task in job.network.tasks
            for split in ("validation", "test")
        ]

    tasks = small.tasks
    monkeypatch.setattr(truth_networks, "run_sweep", sweep)
    rows, early = truth_networks.train_groups_of(small, tmp_path, range(2))
    trained = [(job.network.tasks, job.network.seed) for job in listed]
    assert len(set(trained)) == 7 * 2 and len(trained) == 2 * len(set(trained))
    keys = [(row.tasks, row.seed, row.task) for row in rows if row.split == "validation"]
    assert [(row.tasks, row.seed, row.task) for row in early] == keys
    assert {row.loss for row in rows} == {20.0}
    assert {(row.split, row.loss) for row in early} == {("validation", 4.0)}
    # They can be trained together.
    check_fit(listed[0].fit)


def test_groups_of_the_sets():
    assert len(truth_networks.groups_to_train(truth_sets.digits_of_6())) == 63
    nine = truth_networks.groups_to_train(truth_sets.digits_of_9())
    assert len(nine) == len(set(nine)) == 9 + 36 + 84 + 20 + 1
    assert nine[-1] == truth_sets.digits_of_9().tasks
    assert all(3 < len(group) < 9 for group in nine[129:-1])
