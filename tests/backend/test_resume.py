"""A `fit` that was killed and started again, against one that was not."""

import functools

import keras
import numpy as np
import pytest
from small_models import Kill, make_data

import tag_keras

TASKS = ("b", "a")


def make_model(steps_per_execution, seed, on):
    keras.utils.set_random_seed(seed)
    # No Dropout, whose seeds Keras does not save, and no bias before BatchNorm: its gradient is
    # 0 but for rounding.
    stack = [
        keras.layers.Dense(6, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
    ]
    encoder = keras.Sequential([keras.Input((5,)), *stack])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in TASKS})
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        "mse",
        affinity=tag_keras.LookaheadAffinity(every=3, on=on),
        steps_per_execution=steps_per_execution,
        run_eagerly=True,
    )
    model(make_data()[0])
    return model


class KillBetweenEpochs(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def held_out():
    # Two batches in each pass, which are in another order in the next pass.
    return make_data(40, seed=1)


def fit(model, folder, save_freq, *callbacks):
    x, y = make_data()
    backup = keras.callbacks.BackupAndRestore(folder, save_freq=save_freq)
    # 6 steps an epoch: probes at 0, 3 | 6, 9.
    model.fit(
        x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=[backup, *callbacks]
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Trains once for each kind of data that is measured on."""

    @functools.cache
    def train(on):
        model = make_model(1, seed=0, on=on and on())
        fit(model, tmp_path_factory.mktemp("uninterrupted"), "epoch")
        return model

    return train


@pytest.mark.slow_cases
@pytest.mark.parametrize(
    # Single steps, saved after the 4th and the 8th, killed after the 6th, the 5th and the 9th; or
    # pairs, of which the second one is saved; or once an epoch.
    ("steps_per_execution", "save_freq", "kills", "on"),
    [
        (1, 4, [6, 1, 5], held_out),
        (2, 4, [5], None),
        (1, "epoch", [None], None),
    ],
)
def test_a_killed_training_measures_what_an_uninterrupted_one_measures(
    tmp_path, uninterrupted, steps_per_execution, save_freq, kills, on
):
    expected = uninterrupted(on)
    for seed, batches in enumerate(kills):
        kill = KillBetweenEpochs() if batches is None else Kill(batches)
        model = make_model(steps_per_execution, seed, on and on())
        with pytest.raises(KeyboardInterrupt):
            fit(model, tmp_path, save_freq, kill)
    resumed = make_model(steps_per_execution, seed=9, on=on and on())
    fit(resumed, tmp_path, save_freq)
    for value, wanted in zip(resumed.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-6)
    affinity, wanted = resumed.get_affinity(), expected.get_affinity()
    np.testing.assert_array_equal(affinity.count, wanted.count)
    for name in ("mean", "standard_error", "history"):
        np.testing.assert_allclose(
            getattr(affinity, name), getattr(wanted, name), atol=1e-6, err_msg=name
        )
