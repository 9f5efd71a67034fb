"""Networks that were trained together, and alone: data for them, and comparisons."""

import numpy as np
import pytest

from tag_keras.results import load_results
from tag_keras.sweep import load_network

TASKS = ("a", "b", "c")


def data(shape=(6,), kind="float32", sizes=(40, 24, 10)):
    """Splits of so many examples. Batches of different sizes are traced once for each size."""
    rng = np.random.default_rng(0)

    def split(number):
        x = rng.normal(size=(number, *shape))
        x = (np.abs(x) * 3).astype(kind) if kind == "int32" else x.astype(kind)
        y = {task: rng.normal(size=(number, 1)).astype("float32") for task in TASKS}
        y["b"][rng.random((number, 1)) < 0.3] = np.nan
        return x, y

    names = ("train", "validation", "test")
    return {name: split(size) for name, size in zip(names, sizes, strict=True)}


# Two batches of 16 in an epoch, and one for each evaluation.
EVEN = {"sizes": (32, 16, 16)}


def eagerly(build_model):
    """The same networks for a training alone, whose few steps take less time than their graph."""

    def build(tasks):
        model = build_model(tasks)
        model.run_eagerly = True
        return model

    return build


def check_equal(together, alone, networks, tolerance=1e-5):
    rows, expected = (load_results(folder / "results.json") for folder in (together, alone))
    assert all(row.stacked for row in rows)
    assert not any(row.stacked for row in expected)
    assert len(rows) == len(expected) == 2 * sum(len(network.tasks) for network in networks)
    for row, other in zip(rows, expected, strict=True):
        assert (row.network, row.seed, row.task, row.split) == (
            *(other.network, other.seed),
            *(other.task, other.split),
        )
        assert row.loss == pytest.approx(other.loss, abs=tolerance, rel=tolerance)
        assert row.metrics == pytest.approx(other.metrics, abs=tolerance, rel=tolerance)
    for network in networks:
        model, other = (load_network(f / "networks" / network.file) for f in (together, alone))
        check_same_variables(model, other, tolerance)


def check_same_variables(model, other, tolerance=1e-5):
    """Weights and slots of the optimizer. Files do not have the seeds of dropout."""
    pairs = [(model.weights, other.weights)]
    pairs.append((model.optimizer.variables, other.optimizer.variables))
    for ones, others in pairs:
        for one, wanted in zip(ones, others, strict=True):
            np.testing.assert_allclose(one, wanted, atol=tolerance, rtol=tolerance)
