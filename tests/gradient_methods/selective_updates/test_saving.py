"""What is saved of selective updates, and how training goes on, or starts anew."""

import keras
import numpy as np
import pytest
from selective_training import (
    DECAY,
    assert_same,
    assert_same_weights,
    compiled,
    falling_rate,
    fit,
    method_state,
    state,
)
from small_models import make_data, make_model

import tag_keras


@pytest.mark.slow
def test_a_model_that_is_saved_and_loaded_goes_on_as_if_it_were_not(tmp_path):
    options = {"warmup": 3, "decay": 0.1, "preference": 0.5, "regroup_every": 2, "seed": None}
    model = compiled(make_model(("b", "a")), **options)
    fit(model, 4, make_data(64), epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    method, other = model.gradient_method, loaded.gradient_method
    assert other.get_config() == method.get_config() and other.groups == method.groups
    assert method.get_config()["preference"] == 0.5 and method.get_config()["seed"] is not None
    for one in (model, loaded):
        fit(one, 2)
    assert_same(state(model), state(loaded))
    assert_same(method_state(loaded), method_state(model))


@pytest.mark.slow
def test_training_goes_on_from_weights_of_joint_training_and_back(tmp_path, traced):
    joint, model = make_model(), traced.restart()
    joint.compile(keras.optimizers.Adam(falling_rate()), "mse", run_eagerly=True)
    for one in (joint, model):
        fit(one, 2)
        one.save_weights(tmp_path / f"{one is model}.weights.h5")
    start = compiled(make_model(), keras.optimizers.Adam(falling_rate()))
    start(make_data()[0])
    start.optimizer.build(start.trainable_variables)
    start.load_weights(tmp_path / "False.weights.h5")
    assert start.gradient_method.groups == (("b",), ("a",), ("c",))
    assert_same_weights(start, joint)
    joint.load_weights(tmp_path / "True.weights.h5")
    assert_same_weights(joint, model)


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path, traced):
    def run(folder, model, *callbacks):
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder)
        fit(model, callbacks=[backup, *callbacks])
        return model

    # Another seed and other groups at the restart: it goes on with those of the start.
    resumed = compiled(
        make_model(regularizer="l2"),
        keras.optimizers.Adam(falling_rate()),
        warmup=2,
        decay=DECAY,
        seed=7,
    )
    resumed(make_data()[0])
    with pytest.raises(KeyboardInterrupt):
        run("killed", traced.restart(warmup=2, seed=3), Kill())
    run("killed", resumed)
    expected = run("expected", traced.restart(warmup=2, seed=3))
    assert int(expected.gradient_method.batches) == 6
    assert_same(state(resumed), state(expected))
    assert_same(method_state(resumed), method_state(expected))


def test_compiling_again_starts_anew():
    model = compiled(make_model(("b", "a")), warmup=1)
    fit(model, 2)
    assert model.gradient_method.affinity.numpy().any()
    number = len(model.weights)
    compiled(model, warmup=1)
    assert len(model.weights) == number
    assert model.gradient_method.groups == (("b",), ("a",))
    assert not model.gradient_method.affinity.numpy().any()
    model.compile("adam", "mse", run_eagerly=True)
    fit(model, 1)
    assert model.gradient_method is None and len(model.weights) == number - 7


@pytest.mark.slow
def test_counters_go_on_where_float32_would_stand_still(traced):
    assert int(compiled(make_model(), seed=2**62).gradient_method.seed_used) == 2**62
    model = traced.restart(seed=2**62, warmup=1)
    fit(model, 3)
    method, most = model.gradient_method, 2**24
    assert int(method.seed_used) == 2**62
    before = int(method.more_updates)
    for counter in (method.batches, method.more_updates, method.grouped_at):
        counter.assign(np.int64(most))
    method.count.assign(np.full((3, 3), most))
    fit(model, 3)
    assert int(method.batches) == int(method.grouped_at) == most + 3
    assert most < int(method.more_updates) <= most + before
    assert (model.get_affinity().count[~np.eye(3, dtype=bool)] > most).all()


def test_the_seed_that_is_drawn_follows_that_of_keras():
    seeds = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        seeds.append(tag_keras.SelectiveTaskGroupUpdates().seed)
    assert seeds[0] == seeds[1] != seeds[2]


def test_one_object_serves_models_of_other_tasks():
    given = tag_keras.SelectiveTaskGroupUpdates(seed=3)
    models = [make_model(), make_model(("a", "b"))]
    for model in models:
        model.compile("adam", "mse", gradient_method=given)
    methods = [model.gradient_method for model in models]
    assert [len(method.groups) for method in methods] == [3, 2]
    for ask in (lambda: given.groups, given.get_affinity):
        with pytest.raises(ValueError, match=r"copy of its own: ask `model\.gradient_method`"):
            ask()
    assert not given.weights and all(int(method.seed_used) == 3 for method in methods)
