import copy
import pickle

import keras
import numpy as np
import pytest

import tag_keras
from celeba import recipe

TASKS = ["a", "b"]


def make_model(**options):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in TASKS})
    model.compile(keras.optimizers.SGD(0.05), "mse", **options)
    return model


def make_data(size=16, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(size, 3)), {task: random.normal(size=(size, 1)) for task in TASKS}


def test_the_learning_rate_is_halved_at_the_start_of_the_epochs_14_and_29():
    schedule, _ = recipe.callbacks(0.08)
    model = make_model()
    seen = []
    probe = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(float(model.optimizer.learning_rate))
    )
    history = model.fit(
        *make_data(), batch_size=16, epochs=31, verbose=0, callbacks=[schedule, probe]
    ).history
    # The notebook's: at the start of epoch e from 0 on, halved if (e + 1) % 15 == 0.
    wanted, rate = [], 0.08
    for epoch in range(31):
        rate = rate / 2 if (epoch + 1) % 15 == 0 else rate
        wanted.append(rate)
    assert seen == pytest.approx(wanted)
    assert history["learning_rate"] == pytest.approx(wanted)
    assert [wanted[epoch] for epoch in (13, 14, 28, 29)] == [0.08, 0.04, 0.04, 0.02]


def test_callbacks_can_be_copied_and_sent_to_another_process():
    ours = recipe.callbacks()
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert copied[0].schedule(14, 1.0) == 2.5e-4
        assert (copied[1].patience, copied[1].restore_best_weights) == (10, True)
