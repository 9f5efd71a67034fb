"""Early stopping: the rule of TAG's notebook, and the affinities of the best epoch."""

import keras
import numpy as np
import pytest

import tag_keras

TASKS = ["a", "b"]


def original_rule(losses, patience=10):
    """The notebook's rule, letter by letter: the epoch that stops and the one that comes back.

    At the end of the epoch `step`, it keeps the weights of the last eleven epochs, and stops if
    `step` is above 10 and the loss of eleven entries ago is below each of the ten since.
    """
    early_stop = patience + 1
    seen, kept = [], []
    for step, loss in enumerate(losses):
        seen.append(loss)
        kept.append(step)
        if step > early_stop - 1 and all(
            seen[-early_stop] < seen[-i] for i in range(1, early_stop)
        ):
            return step, kept[-early_stop]
        if len(kept) == early_stop:
            kept.pop(0)
    return None


class Scripted(keras.Model):
    """Stands for a model: its only weight is the number of the epoch."""

    def __init__(self):
        super().__init__()
        self.tasks = TASKS
        self.epoch = self.add_weight(name="epoch")
        self.stop_training = False


def our_rule(losses, patience=10):
    model = Scripted()
    callback = tag_keras.EarlyStopping(patience, start_from_epoch=1)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        model.epoch.assign(epoch)
        # Weighted losses do not count, the sum of plain ones does.
        logs = {"val_loss": -loss, "val_a_loss": 0.25 * loss, "val_b_loss": 0.75 * loss}
        callback.on_epoch_end(epoch, logs)
        if model.stop_training:
            callback.on_train_end()
            return epoch, int(model.epoch.numpy())
    return None


def curve(seed, kind):
    random = np.random.default_rng(seed)
    noise = random.normal(size=100)
    if kind == "noise":
        return noise
    if kind == "walk":
        return np.cumsum(noise)
    # Falls and rises again, as validation losses do.
    return (np.arange(100) / random.uniform(5, 60) - 1) ** 2 + random.uniform(0, 0.5) * noise


@pytest.mark.slow_cases
@pytest.mark.parametrize("kind", ["noise", "walk", "valley"])
@pytest.mark.parametrize("patience", [10, 3])
def test_stops_where_the_original_stops_and_brings_back_the_same_epoch(kind, patience):
    curves = [curve(seed, kind) for seed in range(60)]
    found = [our_rule(losses, patience) for losses in curves]
    assert found == [original_rule(losses, patience) for losses in curves]
    assert len(set(found)) > 5


def test_the_first_epoch_is_never_the_best_as_in_the_original():
    losses = [0.0, *(5.0 - 0.1 * epoch for epoch in range(1, 15)), *[9.0] * 30]
    assert our_rule(losses) == original_rule(losses) == (24, 14)
    # Keras' own rule would have stopped at the epoch 10.
    assert our_rule([0.0, *[1.0] * 11]) == (11, 1)


def test_losses_that_keep_falling_stop_nothing():
    losses = [1 / (1 + epoch) for epoch in range(100)]
    assert our_rule(losses) is original_rule(losses) is None


def test_of_equal_losses_ours_takes_the_first():
    losses = [3.0, 1.0, 1.0, *[2.0] * 20]
    assert original_rule(losses) == (12, 2)
    assert our_rule(losses) == (11, 1)


def test_early_stopping_needs_validation_losses():
    callback = tag_keras.EarlyStopping()
    callback.set_model(Scripted())
    callback.on_train_begin()
    with pytest.raises(
        ValueError, match=r"give `fit` `validation_data`. Missing: \['val_b_loss'\]"
    ):
        callback.on_epoch_end(0, {"val_a_loss": 1.0})


def make_model(**options):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in TASKS})
    model.compile(keras.optimizers.SGD(0.05), "mse", **options)
    return model


def make_data(size=16, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(size, 3)), {task: random.normal(size=(size, 1)) for task in TASKS}


class Losses(keras.callbacks.Callback):
    """Puts scripted validation losses in the place of the real ones."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def on_epoch_end(self, epoch, logs=None):
        logs.update({f"val_{task}_loss": self.losses[epoch] for task in TASKS})


@pytest.mark.slow
def test_affinities_after_the_best_epoch_are_dropped():
    # The best epoch is 3, and 10 more show that it is.
    losses = [5.0, 4.0, 3.0, 1.0, *[2.0] * 20]
    options = {"affinity": tag_keras.LookaheadAffinity(every=1)}
    stopped, expected = make_model(**options), make_model(**options)
    data = {"batch_size": 8, "verbose": 0, "shuffle": False}
    history = stopped.fit(
        *make_data(),
        epochs=30,
        callbacks=[Losses(losses), tag_keras.EarlyStopping(10, start_from_epoch=1)],
        **data,
    ).history
    assert len(history["loss"]) == 14
    # As if the training had ended with the epoch 3.
    expected.fit(*make_data(), epochs=4, **data)
    affinity, wanted = stopped.get_affinity(), expected.get_affinity()
    assert affinity.count.tolist() == [[8, 8], [8, 8]]
    assert len(affinity.history) == 4
    for name in ("mean", "standard_error", "history", "count"):
        np.testing.assert_allclose(
            getattr(affinity, name), getattr(wanted, name), atol=1e-6, err_msg=name
        )
    for value, other in zip(stopped.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-6)
