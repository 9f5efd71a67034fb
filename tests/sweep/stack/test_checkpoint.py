"""A stack that is killed goes on from its last checkpoint."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_sweeps import NETWORKS, build_model, make_data, stacked

import tag_keras
from tag_keras.affinity import Affinity
from tag_keras.results import load_results
from tag_keras.sweep import Job, Network, load_network, run_sweep
from tag_keras.sweep.stack.checkpoint import Checkpoint, delete_all
from tag_keras.sweep.stack.jobs import StackedJobs

L = keras.layers
ADAM = {"optimizer": "adam", "layers": [L.BatchNormalization, lambda: L.Dropout(0.3)]}


def build_large(tasks):
    return build_model(tasks, **{**ADAM, "optimizer": keras.optimizers.Adam(0.1)})


def build_measuring(tasks):
    return build_model(tasks, **ADAM, affinity=tag_keras.LookaheadAffinity(every=2))


def callbacks():
    early = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    return [early, keras.callbacks.ReduceLROnPlateau("val_loss", 0.5, patience=1, min_delta=0.05)]


def train(folder, build, networks=NETWORKS, stop=None, monkeypatch=None, data=None, **fit):
    """Runs a sweep, up to the first step of epoch `stop`; returns the epochs that it has begun."""
    epochs, shows = [], StackedJobs._shows

    def recording(self, *arguments):
        show = shows(self, *arguments)

        def on_step(epoch, step):
            if step == 0:
                epochs.append(epoch)
                if epoch == stop:
                    raise KeyboardInterrupt
            show(epoch, step)

        return on_step

    monkeypatch.setattr(StackedJobs, "_shows", recording)
    fit = {"epochs": 6, "batch_size": 8, "verbose": 0, **fit}
    listed = [Job(network, build, fit, measures=build is build_measuring) for network in networks]
    data = data or make_data()
    data["validation"] = data["test"]
    try:
        run_sweep(folder, listed, data, processes=0, save_every=0)
    except KeyboardInterrupt:
        assert stop is not None
    monkeypatch.undo()
    return epochs


def checkpoints(folder):
    return list((folder / "networks").glob(".stack-*"))


@pytest.mark.slow
def test_it_goes_on_after_the_last_epoch(tmp_path, monkeypatch):
    """With slots, statistics, dropout, two orders of the data, early stopping and plateaus."""
    fit = {"callbacks": callbacks()}
    assert train(tmp_path, build_large, stop=3, monkeypatch=monkeypatch, **fit) == [0, 1, 2, 3]
    assert len(checkpoints(tmp_path)) == 1
    assert train(tmp_path, build_large, monkeypatch=monkeypatch, **fit)[0] == 3
    whole = tmp_path / "whole"
    train(whole, build_large, monkeypatch=monkeypatch, **fit)
    rows, expected = (load_results(one / "results.json") for one in (tmp_path, whole))
    assert len(stacked(rows)) == len(NETWORKS)
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in expected], rel=1e-5)
    for network in NETWORKS:
        one, other = (load_network(path / "networks" / network.file) for path in (tmp_path, whole))
        assert one.optimizer.iterations.numpy() == other.optimizer.iterations.numpy()
        for value, wanted in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(value, wanted, atol=1e-5)
    assert not checkpoints(tmp_path) and not checkpoints(whole)


def shuffled():
    (x, y), _ = make_data().values()
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    return dataset.shuffle(20, seed=1, reshuffle_each_iteration=True).batch(8)


@pytest.mark.slow
def test_the_next_epoch_has_its_own_order(tmp_path, monkeypatch):
    """A dataset that is shuffled anew: the order of an epoch follows from those before."""
    data = {**make_data(), "train": shuffled}
    given = {"data": data, "monkeypatch": monkeypatch, "networks": NETWORKS[:4], "epochs": 3}
    train(tmp_path, build_model, stop=2, **given)
    train(tmp_path, build_model, **given)
    train(tmp_path / "whole", build_model, **given)
    rows = (load_results(one / "results.json") for one in (tmp_path, tmp_path / "whole"))
    losses, expected = ([row.loss for row in own] for own in rows)
    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_affinities_go_on(tmp_path, monkeypatch):
    networks = [Network("joint", ("a", "b"), seed) for seed in range(4)]
    given = {"networks": networks, "monkeypatch": monkeypatch}
    assert train(tmp_path, build_measuring, stop=4, **given) == [0, 1, 2, 3, 4]
    assert train(tmp_path, build_measuring, **given) == [4, 5]
    train(tmp_path / "whole", build_measuring, **given)
    for seed in range(4):
        name = f"joint_seed{seed}.affinity.json"
        one = Affinity.load(tmp_path / "networks" / name)
        other = Affinity.load(tmp_path / "whole" / "networks" / name)
        np.testing.assert_array_equal(one.count, other.count)
        np.testing.assert_allclose(one.history, other.history, atol=1e-5)
        np.testing.assert_allclose(one.standard_error, other.standard_error, atol=1e-5)


@pytest.mark.slow
def test_a_damaged_checkpoint_or_one_of_another_model_does_not_count(tmp_path, monkeypatch, capsys):
    given = {"networks": NETWORKS[:4], "monkeypatch": monkeypatch}
    train(tmp_path, build_model, stop=1, **given)
    (path,) = checkpoints(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    assert train(tmp_path, build_model, stop=2, **given)[0] == 0
    assert f"{path} is damaged" in capsys.readouterr().out

    def faster(tasks):
        return build_model(tasks, rate=0.02)

    assert train(tmp_path, faster, **given)[0] == 0
    assert not checkpoints(tmp_path)


def test_only_checkpoints_of_other_networks_stay(tmp_path):
    """A run of several sweeps may be killed in a later one: the first must leave its own."""
    of_others = Checkpoint(tmp_path, ["c.keras"], "", 0.0)
    for one in Checkpoint(tmp_path, ["a.keras", "b.keras"], "", 0.0), of_others:
        one.save({})
    (tmp_path / ".stack-damaged.npz").write_bytes(b"PK")
    delete_all(tmp_path, {"b.keras"})
    assert len(list(tmp_path.iterdir())) == 1
    assert of_others.load() is not None


def test_all_values_come_back(tmp_path):
    state = {
        "numbers": [1, 0.1, float("inf"), None, True, np.float32(0.25), np.array(7)],
        "arrays": [np.arange(6).reshape(2, 3), {"empty": np.zeros((0, 2)), "seed": np.uint32([1])}],
        "half": np.asarray(keras.ops.convert_to_numpy(keras.ops.ones(3, "bfloat16"))),
    }
    saved = Checkpoint(tmp_path, ["a.keras"], "one", 0.0)
    assert saved.load() is None and saved.is_due()
    saved.save(state)
    for other in (["a.keras"], "other"), (["b.keras"], "one"):
        assert Checkpoint(tmp_path, *other, 0.0).load() is None
    found = Checkpoint(tmp_path, ["a.keras"], "one", 100.0)
    loaded = found.load()
    assert loaded["numbers"] == [1, 0.1, float("inf"), None, True, 0.25, 7]
    np.testing.assert_array_equal(loaded["arrays"][0], state["arrays"][0])
    assert loaded["arrays"][1]["empty"].shape == (0, 2)
    assert loaded["arrays"][1]["seed"].dtype == np.uint32
    np.testing.assert_array_equal(loaded["half"], np.ones(3))
    assert found.seconds() >= loaded["seconds"] and not found.is_due()
    found.delete()
    assert found.load() is None
