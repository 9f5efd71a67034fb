import functools
import json

import keras
import numpy as np
from sweep_job import DATA, build_model

import tag_keras
from tag_keras import job, sweep, training

FIT = {"epochs": 2, "verbose": 0}


def make_job(name, tasks, seed=0, build=build_model, **kwargs):
    return job.Job(training.Network(name, tuple(tasks), seed), build, FIT, **kwargs)


def contents(folder):
    """All rows without the seconds that the training took, the weights, and the names of files."""
    rows = json.loads((folder / "results.json").read_text())
    rows = [{**row, "seconds": 0} for row in rows]
    paths = sorted(folder.rglob("*.keras"))
    weights = [keras.models.load_model(path).get_weights() for path in paths]
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return rows, [[w.tolist() for w in one] for one in weights], names


def test_processes_give_what_this_process_gives(tmp_path):
    options = tag_keras.LookaheadAffinity(1)
    jobs = [
        make_job("joint", "abc"),
        make_job("group", "abc", build=functools.partial(build_model, affinity=options)),
    ]
    expected = sweep.run_sweep(tmp_path / "here", jobs, DATA, processes=0)
    rows = sweep.run_sweep(tmp_path / "there", jobs, DATA, processes=2)
    assert [(r.network, r.task, r.split) for r in rows] == [
        (name, task, split)
        for name in ("joint", "group")
        for split in ("validation", "test")
        for task in "abc"
    ]
    np.testing.assert_allclose([r.loss for r in rows], [r.loss for r in expected], rtol=1e-5)
