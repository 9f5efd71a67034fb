"""A study: how it trains the networks of its methods."""

import pickle

import numpy as np
import pytest

from tag_keras.estimators.lookahead import LookaheadAffinity
from tag_keras.study import study as studies
from tag_keras.study.study import Study
from tag_keras.sweep import sweep
from tag_keras.sweep.network import Network


def test_plain_networks_are_trained_alike_also_by_a_function_that_cannot_be_pickled(
    tmp_path, monkeypatch
):
    def build_model(tasks, affinity=None, half_size=False):
        raise NotImplementedError

    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(build_model)
    caught = []

    def run_sweep(folder, jobs, *args):
        caught.extend(jobs)
        return []

    monkeypatch.setattr(studies, "run_sweep", run_sweep)
    data = {"train": (np.zeros((4, 2)), {"a": np.zeros(4), "b": np.zeros(4)})}
    fit = {"epochs": 2, "callbacks": lambda network: []}
    estimators = {"tag": LookaheadAffinity(), "other": LookaheadAffinity()}
    study = Study(tmp_path, ("a", "b"), build_model, data, fit, estimators, (0, 1))
    networks = [
        Network("joint", ("a", "b"), role="joint"),
        Network("single_a", ("a",), role="single"),
        Network("early_single_a", ("a",), role="single", early=True),
        Network("half_single_a", ("a",), role="single", half_size=True),
        Network("tag", ("a", "b"), role="tag"),
        Network("other", ("a", "b"), role="other"),
    ]
    study.train(networks, (0, 1))
    ways = dict(zip([job.network.name for job in caught], sweep._ways(caught), strict=True))
    # One graph may hold the first two; of the others, each has its own arguments.
    assert ways["joint"] == ways["single_a"]
    assert len({*ways.values()}) == 5
    # The seeds of each have the same arguments, of which a partial function is made anew.
    first, second = caught[:6], caught[6:]
    assert [*sweep._ways(first)][4:] == [*sweep._ways(second)][4:] == [ways["tag"], ways["other"]]
    assert caught[4].build_model is not caught[10].build_model
    assert caught[2].fit["epochs"] == 1 and fit["epochs"] == 2
