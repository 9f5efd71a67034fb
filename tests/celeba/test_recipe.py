import copy
import pickle

import keras
import numpy as np
import pytest

from celeba import recipe


@pytest.mark.slow
def test_the_learning_rate_is_halved_at_the_start_of_the_epochs_14_and_29():
    schedule, _ = recipe.callbacks(0.08)
    # Of the model, only the optimizer matters.
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    seen = []
    probe = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(float(model.optimizer.learning_rate))
    )
    data, callbacks = (np.ones((16, 3)), np.ones((16, 1))), [schedule, probe]
    history = model.fit(*data, batch_size=16, epochs=31, verbose=0, callbacks=callbacks).history
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
