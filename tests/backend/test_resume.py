"""A `fit` that was killed in the midst of an epoch and started again, against one that was not."""

import keras
import numpy as np
import pytest
from small_models import TASKS, Kill, make_data

import tag_keras


def make_model(steps_per_execution, seed):
    keras.utils.set_random_seed(seed)
    # No Dropout, whose seeds Keras does not save, and no bias before BatchNorm: its gradient is
    # 0 but for rounding, which Adam amplifies.
    stack = [
        keras.layers.Dense(8, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
    ]
    encoder = keras.Sequential([keras.Input((5,)), *stack])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in TASKS})
    options = tag_keras.LookaheadAffinity(every=3)
    model.compile("adam", "mse", affinity=options, steps_per_execution=steps_per_execution)
    model(make_data()[0])
    return model


def fit(model, folder, *callbacks):
    x, y = make_data()
    backup = keras.callbacks.BackupAndRestore(folder, save_freq=4)
    # 6 steps an epoch.
    model.fit(
        x, y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[backup, *callbacks]
    )


@pytest.mark.parametrize(
    # Single steps, saved after the 4th and the 8th; or pairs, of which the second one is saved.
    ("steps_per_execution", "kills"),
    [
        pytest.param(1, [9], marks=pytest.mark.slow),
        pytest.param(1, [6, 1], marks=pytest.mark.slow),
        (2, [5]),
    ],
)
def test_a_killed_training_measures_what_an_uninterrupted_one_measures(
    tmp_path, steps_per_execution, kills
):
    expected = make_model(steps_per_execution, seed=0)
    fit(expected, tmp_path / "expected")
    for seed, batches in enumerate(kills):
        with pytest.raises(KeyboardInterrupt):
            fit(make_model(steps_per_execution, seed), tmp_path / "killed", Kill(batches))
    resumed = make_model(steps_per_execution, seed=9)
    fit(resumed, tmp_path / "killed")
    for value, wanted in zip(resumed.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-6)
    affinity, wanted = resumed.get_affinity(), expected.get_affinity()
    np.testing.assert_array_equal(affinity.count, wanted.count)
    for name in ("mean", "standard_error", "history"):
        np.testing.assert_allclose(
            getattr(affinity, name), getattr(wanted, name), atol=1e-6, err_msg=name
        )
