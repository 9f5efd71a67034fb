import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

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


class FewImages:
    """Stands for CelebA: five test images in batches of two, and four validation images."""

    tasks = ("a", "b")

    def __init__(self):
        self.sizes = {"train": 1, "validation": 4, "test": 5}

    def batches(self, split, batch_size):
        # The images are the logits.
        logits = tf.constant([[0, 1], [0, 1], [0, 1], [0, 1], [0, 3]], tf.float32)
        labels = {"a": tf.constant([1, 1, 0, 1, 0]), "b": tf.constant([0, 0, 0, 0, 1])}
        number = self.sizes[split]
        dataset = tf.data.Dataset.from_tensor_slices((logits, labels)).take(number)
        return dataset.batch(batch_size)


def test_what_the_notebook_prints_of_five_test_and_four_validation_images():
    def model(images, training):
        assert not training
        return {"a": images, "b": images}

    printed = recipe.printed_by_original(model, FewImages(), batch_size=2)
    # Task a: three of five answers are right, and 3 / 4 is printed. Task b: one.
    assert printed["a"]["accuracy"] == pytest.approx(75.0)
    assert printed["b"]["accuracy"] == pytest.approx(25.0)
    # Cross-entropy of a margin m: log(1 + exp(-m)) if right, log(1 + exp(m)) if wrong. Batches of
    # two, two and one image are added up with the same weight, and divided by 4 / 2 = 2.
    right, wrong, far = np.log(1 + np.exp(-1)), np.log(1 + np.exp(1)), np.log(1 + np.exp(3))
    assert printed["a"]["loss"] == pytest.approx((right + (wrong + right) / 2 + far) / 2)
    near = np.log(1 + np.exp(-3))
    assert printed["b"]["loss"] == pytest.approx((wrong + wrong + near) / 2)
    # On validation images, the accuracy is what it should be.
    assert recipe.printed_by_original(model, FewImages(), "validation", 2)["a"][
        "accuracy"
    ] == pytest.approx(75.0)


def test_epoch_losses_are_means_of_batch_means():
    # 162,770 images make 636 batches of 256, of which the last has 210.
    assert recipe.mean_of_batches([1.0] * 636, 162_770, 256) == pytest.approx(1)
    assert recipe.mean_of_batches([0.0] * 635 + [636.0], 162_770, 256) == pytest.approx(1)
