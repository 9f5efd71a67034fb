"""The command that makes truth tables (benchmarks/truth/), and its figure."""

import json

import keras
import numpy as np
import pytest

from benchmarks.truth import __main__ as truth
from benchmarks.truth import networks as truth_networks
from benchmarks.truth import regret as truth_regret
from benchmarks.truth import sets as truth_sets
from benchmarks.truth.plot import plot_regret
from tag_keras.utils import files


def test_the_figure_has_a_panel_for_each_set():
    best = np.ones((2, 4))
    joint = truth_regret.Line("joint", 0, "", best[:1] * 1.5, best[:1], best[:1])
    lookahead = truth_regret.Line("x", 1, "baseline", best * [[1.1], [1.3]], best, best)
    ways = {("x", 1, "baseline"): "lookahead", ("y", 1, ""): "not there", ("joint", 0, ""): "joint"}
    figure = plot_regret({"one": [joint, lookahead], "two": [joint]}, ways)
    one, two = figure.axes
    assert (one.get_title(), two.get_title()) == ("one", "two")
    assert [label.get_text() for label in one.get_yticklabels()] == [*ways.values()]
    points = [line.get_xydata()[0].tolist() for line in one.lines if len(line.get_xydata()) == 1]
    assert points == [pytest.approx([20, 0]), pytest.approx([50, 2])]
    # The first way comes first: on top.
    assert one.get_ylim()[0] > one.get_ylim()[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--seeds=1"], r"--seeds should be at least 2. Received: seeds=1."),
        (["--runs=0"], r"--runs should be at least 1. Received: runs=0."),
        (["--epochs=7"], r"holds another run: epochs was 20 and is 7"),
    ],
)
def test_the_command_ends_with_one_line(given, message, tmp_path, monkeypatch):
    files.write_json(tmp_path / "planted" / "settings.json", {"set": "planted", "epochs": 20})
    folder = f"--output_dir={tmp_path}"
    monkeypatch.setattr("sys.argv", ["truth", folder, "--sets", "planted", *given])
    with pytest.raises(SystemExit, match=f"^benchmarks.truth: .*{message}"):
        truth.main()


@pytest.mark.slow
def test_a_small_truth_table(tmp_path, monkeypatch):
    whole = truth_sets.planted_clusters(epochs=1)
    tasks = whole.tasks[:2]
    splits = {
        split: (x[:64], {task: y[task][:64] for task in tasks})
        for split, (x, y) in whole.splits.items()
    }

    def build_model(tasks, **options):
        # A few steps are made sooner than a graph.
        model = whole.build_model(tasks, run_eagerly=True, **options)
        model.steps_per_execution = 1
        return model

    monkeypatch.setattr(truth_sets, "STEPS_PER_EPOCH", 4)
    small = truth_sets.TruthSet(tasks, splits, build_model, epochs=1, largest=2)
    monkeypatch.setitem(truth_sets.SETS, "small", lambda epochs: small)
    # One of each kind of option. Without Adam's slots, as its eager steps take most of the time.
    some = ("held-out", "proximal")
    monkeypatch.setattr(keras.optimizers, "Adam", keras.optimizers.SGD)
    options = {name: truth_networks.estimators(small)[name] for name in some}
    monkeypatch.setattr(truth_networks, "estimators", lambda truth_set: options)
    folder = tmp_path / "small"
    lines = truth.judge("small", folder, 2, 2, 1)
    page = (folder / "truth.md").read_text()
    assert "| HOA " in page and "The guard:" in page
    # Of one epoch, the first fifth is all of it: ESA measures what the networks have at the end.
    rows = json.loads((folder / "results.json").read_text())
    of = {
        name: [row["loss"] for row in rows if row["network"] == name]
        for name in ("joint", "early_joint")
    }
    assert len(of["joint"]) == 8 and of["early_joint"] == of["joint"]
    names = {line["way"] for line in json.loads((folder / "truth.json").read_text())}
    assert {*some, "ESA", "random"} <= names
    # With other seeds than those of the groups.
    measured = folder / "affinities" / "held-out" / "networks"
    seeds = [path.name for path in sorted(measured.glob("*.affinity.json"))]
    assert seeds == ["joint_seed100.affinity.json", "joint_seed101.affinity.json"]
    # Nothing is trained again.
    monkeypatch.setattr("tag_keras.sweep.job.train_network", None)
    again = truth.judge("small", folder, 2, 2, 1)
    assert [line.totals.tolist() for line in again] == [line.totals.tolist() for line in lines]
