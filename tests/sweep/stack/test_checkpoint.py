"""A stack that is killed goes on from its last checkpoint."""

import contextlib
import shutil

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
from tag_keras.sweep.stack.network_stack import NetworkStack

L = keras.layers
# Of both seeds, which see two orders of the data.
FOUR = NETWORKS[:4]


def build_large(tasks):
    layers = [L.BatchNormalization, lambda: L.Dropout(0.3)]
    return build_model(tasks, optimizer=keras.optimizers.Adam(0.1), layers=layers)


def build_measuring(tasks):
    return build_model(tasks, affinity=tag_keras.LookaheadAffinity(every=2))


def callbacks():
    early = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    return [early, keras.callbacks.ReduceLROnPlateau("val_loss", 0.5, patience=1, min_delta=0.05)]


def examples(size):
    x, y = make_data()["train"]
    return x[:size], {task: labels[:size] for task, labels in y.items()}


def train(folder, build, at=None, do=None, networks=FOUR, train=None, **fit):
    """Runs a sweep, and calls `do` after the first step of epoch `at`; returns its epochs."""
    epochs, shows = [], StackedJobs._shows

    def recording(self, *arguments):
        show = shows(self, *arguments)

        def on_step(epoch, step):
            if step == 0:
                epochs.append(epoch)
                if epoch == at:
                    do()
            show(epoch, step)

        return on_step

    # Two batches of one size: each size is traced.
    few = examples(16)
    data = {"train": train or few, "validation": few, "test": few}
    fit = {"epochs": 6, "batch_size": 8, "verbose": 0, **fit}
    listed = [Job(network, build, fit, measures=build is build_measuring) for network in networks]
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(StackedJobs, "_shows", recording)
        run_sweep(folder, listed, data, processes=0, save_every=0)
    return epochs


def train_twice(folder, build, at, **options):
    """Trains as a whole, and from the files that a kill in epoch `at` would leave."""
    whole, killed = folder / "whole", folder / "killed"
    epochs = train(whole, build, at, lambda: shutil.copytree(whole, killed), **options)
    assert epochs[: at + 1] == [*range(at + 1)]
    assert len(checkpoints(killed)) == 1
    assert train(killed, build, **options) == epochs[at:]
    assert not checkpoints(killed) and not checkpoints(whole)
    rows, expected = (load_results(one / "results.json") for one in (killed, whole))
    assert len(stacked(rows)) == 4
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in expected], rel=1e-5)
    return killed / "networks", whole / "networks"


def checkpoints(folder):
    return list((folder / "networks").glob(".stack-*"))


@pytest.mark.slow
def test_it_goes_on_after_the_last_epoch(tmp_path):
    """With slots, statistics, dropout, two orders of the data, early stopping and plateaus."""
    folders = train_twice(tmp_path, build_large, 4, callbacks=callbacks())
    steps = []
    for network in FOUR:
        one, other = (load_network(folder / network.file) for folder in folders)
        steps.append(other.optimizer.iterations.numpy())
        assert one.optimizer.iterations.numpy() == steps[-1]
        for value, wanted in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(value, wanted, atol=1e-5)
    # Some have stopped before, and some go on.
    assert min(steps) <= 4 * 2 < max(steps)


@pytest.mark.slow
def test_affinities_and_the_order_of_a_dataset_go_on(tmp_path):
    """A dataset is shuffled anew: the order of an epoch follows from those before.

    Of three steps in an epoch, every other one measures; the next would have been none.
    """

    def shuffled():
        dataset = tf.data.Dataset.from_tensor_slices(examples(18))
        return dataset.shuffle(18, seed=1, reshuffle_each_iteration=True).batch(6)

    networks = [Network("joint", ("a", "b"), seed) for seed in range(4)]
    options = {"networks": networks, "train": shuffled, "epochs": 5}
    folders = train_twice(tmp_path, build_measuring, 3, **options)
    for seed in range(4):
        name = f"joint_seed{seed}.affinity.json"
        one, other = (Affinity.load(folder / name) for folder in folders)
        np.testing.assert_array_equal(one.count, other.count)
        np.testing.assert_allclose(one.history, other.history, atol=1e-5)
        np.testing.assert_allclose(one.standard_error, other.standard_error, atol=1e-5)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_damaged_checkpoint_or_one_of_another_model_does_not_count(tmp_path, monkeypatch, capsys):
    # Only the epochs count.
    monkeypatch.setattr(NetworkStack, "train_on", lambda *_: None)
    train(tmp_path, build_model, 1, interrupt)
    (path,) = checkpoints(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    assert train(tmp_path, build_model, 2, interrupt) == [0, 1, 2]
    assert f"{path} is damaged" in capsys.readouterr().out

    def faster(tasks):
        return build_model(tasks, rate=0.02)

    assert train(tmp_path, faster)[0] == 0
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
