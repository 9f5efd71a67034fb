"""The command that makes tables, and the networks behind them."""

import dataclasses

import keras
import numpy as np
import pytest

from benchmarks.truth import make, making
from benchmarks.truth.problems.packages import MissingProblemError
from benchmarks.truth.problems.problem import split_at_random
from benchmarks.truth.tables import Table
from tag_keras.sweep import Network
from tag_keras.sweep.job import Job
from tag_keras.sweep.sweep import run_sweep


def small_problem():
    """Two numbers and a class, of which the first two are alike."""
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 3))
    y = {"a": x[:, 0] + 0.1 * random.normal(size=60), "b": x[:, 0] - x[:, 1]}
    return split_at_random(x, {**y, "c": (x[:, 2] > 0) * 1.0}, classes=("c",))


def call(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["make", *options])
    make.main()


def test_regimes():
    assert making.regime(8, 100) == making.Regime(8, 100, steps=400, batch_size=25)
    assert making.regime(8, None) == making.Regime(8, None, steps=800, batch_size=64)
    assert making.regime(128, 1000) == making.Regime(128, 1000, steps=400, batch_size=25)
    assert making.regime(128, None) == making.Regime(128, None, steps=400, batch_size=64)
    assert making.regime(8, 100).file_name("rf1") == "rf1-w8-n100.npz"
    assert making.regime(128, None).file_name("rf1") == "rf1-w128-nall.npz"


def test_a_network_has_two_shared_layers_and_the_losses_of_its_tasks():
    problem = small_problem()
    model = making.build_model(problem.classes, making.regime(8, 100), ("a", "c"))
    x, y = problem.validation
    logs = model.evaluate(x, y, return_dict=True, verbose=0)
    shapes = [weights.shape for weights in model.get_weights()]
    assert shapes == [(3, 8), (8,), (8, 8), (8,), *[(8, 1), (1,)] * 2]
    predicted = model.predict(x, verbose=0)
    assert logs["a_loss"] == pytest.approx(np.mean((predicted["a"] - y["a"]) ** 2), rel=1e-5)
    right = np.where(y["c"] == 1, predicted["c"], -predicted["c"])
    assert logs["c_loss"] == pytest.approx(np.log1p(np.exp(-right)).mean(), rel=1e-5)
    rate = model.optimizer.learning_rate
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, 400)
    assert float(rate) == pytest.approx(float(schedule(0)))


def test_batches_are_of_the_first_examples_and_keep_inputs_and_labels_together():
    x, _ = small_problem().train
    dataset = making.batches((x[:10], {"a": x[:10, :1]}), 4)
    seen = []
    for inputs, labels in dataset.take(10):
        assert inputs.shape == (4, 3)
        assert np.array_equal(inputs[:, :1], labels["a"])
        seen.extend(inputs.numpy()[:, 0].tolist())
    # Four epochs of ten examples.
    values, counts = np.unique(seen, return_counts=True)
    assert np.array_equal(values, np.sort(x[:10, 0])) and {*counts} == {4}


def test_a_problem_that_cannot_be_had_is_a_sentence(monkeypatch, tmp_path, capsys):
    def load():
        raise MissingProblemError("the package x 1 cannot be downloaded (no network)")

    monkeypatch.setattr(make, "PROBLEMS", {"small": small_problem, "x": load})
    sizes = ["--sizes=100", "--widths=8"]
    call(monkeypatch, f"--output_dir={tmp_path}", "--problems", "x", "small", *sizes)
    assert capsys.readouterr().out.splitlines() == [
        "x is left out: the package x 1 cannot be downloaded (no network)",
        "small has 32 training examples, not 100: no table",
    ]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--widths", "0"], "--widths should be at least 1. Received: widths=.0.."),
        (["--sizes=all,0"], "--sizes should be at least 1. Received: sizes=.None, 0.."),
        (["--num_seeds", "0"], "--num_seeds should be at least 1. Received: num_seeds=.0.."),
    ],
)
def test_wrong_options_end_with_one_line(option, message, monkeypatch, tmp_path):
    monkeypatch.setattr(make, "PROBLEMS", {})
    with pytest.raises(SystemExit, match=f"^benchmarks.truth.make: {message}$"):
        call(monkeypatch, f"--output_dir={tmp_path}", *option)


@pytest.mark.slow
def test_a_small_table(monkeypatch, tmp_path, capsys):
    few = making.Regime(width=4, size=20, steps=10, batch_size=5)
    monkeypatch.setattr(make, "PROBLEMS", {"small": small_problem})
    monkeypatch.setattr(making, "regime", lambda *given: few)
    every = making.estimators()
    one = {"lookahead_sgd": every["lookahead_sgd"]}
    options = [f"--output_dir={tmp_path}", "--problems", "small", "--widths=4"]
    options += ["--sizes=20", "--num_seeds=2"]

    def stop():
        raise KeyboardInterrupt

    # Stopped after the groups are trained.
    monkeypatch.setattr(making, "estimators", stop)
    with pytest.raises(SystemExit, match=r"stopped\. The same command goes on."):
        call(monkeypatch, *options)
    trained = tmp_path / make.WORK / "small-w4-n20" / "groups" / "results.json"
    before = trained.stat().st_mtime_ns
    monkeypatch.setattr(making, "estimators", lambda: one)
    monkeypatch.setattr(make.shutil, "rmtree", lambda folder: None)
    call(monkeypatch, *options)
    assert trained.stat().st_mtime_ns == before
    assert "small-w4-n20.npz: " in capsys.readouterr().out
    call(monkeypatch, *options)
    assert capsys.readouterr().out == f"{tmp_path / 'small-w4-n20.npz'} is there\n"

    table = Table.load(tmp_path / "small-w4-n20.npz")
    assert (table.tasks, table.seeds) == (("a", "b", "c"), (0, 1))
    assert table.about["problem"] == "small" and table.about["width"] == 4
    assert table.about["examples"] == {"train": 20, "validation": 10, "test": 18}
    assert table.validation == pytest.approx(table.validation, nan_ok=True)
    assert np.nanmax(np.abs(table.folds.mean(axis=0) - table.validation.mean(axis=0))) < 1e-3
    assert [*table.affinities] == ["lookahead_sgd"]
    assert table.affinities["lookahead_sgd"].shape == (2, 3, 3)
    # An estimator that came later is added, and all else stays.
    later = {**one, "features": every["features"]}
    monkeypatch.setattr(making, "estimators", lambda: later)
    call(monkeypatch, f"--output_dir={tmp_path}", "--add_affinities")
    assert "small-w4-n20.npz: features in " in capsys.readouterr().out
    call(monkeypatch, f"--output_dir={tmp_path}", "--add_affinities")
    assert capsys.readouterr().out == f"{tmp_path / 'small-w4-n20.npz'} has all affinities\n"
    added = Table.load(tmp_path / "small-w4-n20.npz")
    assert [*added.affinities] == ["lookahead_sgd", "features"]
    np.testing.assert_array_equal(added.test, table.test)
    np.testing.assert_array_equal(
        added.affinities["lookahead_sgd"], table.affinities["lookahead_sgd"]
    )
    assert (added.affinities["features"].diagonal(axis1=1, axis2=2) > 0).all()
    assert_as_alone(table, small_problem(), few, tmp_path / "alone")


def assert_as_alone(table, problem, regime, folder):
    """Networks that are trained one by one, and evaluated on whole splits, have the same losses."""
    x, y = problem.train
    train = x[: regime.size], {task: values[: regime.size] for task, values in y.items()}
    data = {
        "train": lambda: making.batches(train, regime.batch_size),
        "validation": problem.validation,
        "test": problem.test,
    }

    def build(tasks):
        return making.build_model(problem.classes, regime, tasks)

    for epochs, splits in ((5, ("validation", "test")), (1, ("early",))):
        fit = {"epochs": epochs, "steps_per_epoch": 2, "verbose": 0}
        network = Network("alone", ("a", "c"), 1)
        own = folder / str(epochs)
        job = dataclasses.replace(Job(network, build, fit), saves=False)
        rows = run_sweep(own, [job], data, processes=0, stack=False)
        losses = {(row.split, row.task): row.loss for row in rows}
        for split in splits:
            for task in network.tasks:
                found = getattr(table, split)[1, table.row(network.tasks), table.tasks.index(task)]
                known = losses["validation" if split == "early" else split, task]
                assert found == pytest.approx(known, rel=5e-4)
