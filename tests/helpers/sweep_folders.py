"""Jobs of a sweep, and the files that they leave in its folder."""

import json
import zipfile

import keras
from sweep_job import DATA, build_model

from tag_keras import results
from tag_keras.sweep import job
from tag_keras.sweep import network as training

FIT = {"epochs": 2, "verbose": 0}
ONE_SPLIT = {split: DATA[split] for split in ("train", "test")}


def make_job(name, tasks, seed=0, build=build_model, **kwargs):
    return job.Job(training.Network(name, tuple(tasks), seed), build, FIT, **kwargs)


def contents(folder):
    """Rows without the seconds that the training took, weights by file, and all other files."""
    rows = json.loads((folder / "results.json").read_text())
    rows = [{**row, "seconds": 0} for row in rows]
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    models = {path.name: keras.models.load_model(path) for path in folder.rglob("*.keras")}
    weights = {name: [w.tolist() for w in models[name].get_weights()] for name in models}
    return rows, weights, sorted(name for name in names if not name.startswith("logs"))


def pretend(folder, one, data):
    """Leaves the files that `train_job` leaves, with losses and a network that tell the job."""
    paths = job.JobFiles(folder, one.network)
    paths.model.parent.mkdir(parents=True, exist_ok=True)
    name, tasks, seed = one.network.name, one.network.tasks, one.network.seed
    if one.saves:
        with zipfile.ZipFile(paths.model, "w") as file:
            file.writestr("name", name)
    if one.measures:
        paths.affinity.write_text(name)
    splits = [split for split in data if split != "train"]
    rows = [
        results.Row(name, tasks, seed, task, split, len(name), {}, 1.0)
        for split in splits
        for task in tasks
    ]
    results.save_results(paths.rows, rows)


def leave_out_fit(build, network, train, saves, **fit):
    """Builds a network from its seed."""
    keras.utils.set_random_seed(network.seed)
    model = build(network.tasks)
    model(DATA["train"][0])
    return model, 0.5
