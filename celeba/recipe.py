"""How TAG's CelebA notebook trains, and what it prints (Fifty et al. 2021, arXiv 2109.04617)."""

import functools
import math
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from celeba.data import CelebA
from tag_keras.early_stopping import EarlyStopping

EPOCHS, BATCH_SIZE, LEARNING_RATE = 100, 256, 5e-4
_PATIENCE, _HALVED_EVERY = 10, 15


def learning_rate_at(learning_rate: float, epoch: int, current: float | None = None) -> float:
    """The learning rate of an epoch: halved at the start of the epochs 14, 29, ... from 0 on.

    Args:
        learning_rate: That of the first epoch.
        epoch: Number of the epoch, from 0 on.
        current: Not used: the rate does not depend on where a training was stopped.
    """
    return float(learning_rate * 0.5 ** ((epoch + 1) // _HALVED_EVERY))


def callbacks(learning_rate: float = LEARNING_RATE) -> list[keras.callbacks.Callback]:
    """The learning rates and the early stop of the notebook, for `fit` with `EPOCHS` epochs.

    The notebook stops when the summed validation loss of ten epochs ago is below each one since,
    the first epoch excepted, and takes the weights of that epoch. `EarlyStopping` differs from it
    in two ways. Of epochs with exactly the same loss it takes the first one, and the notebook the
    last. And where nothing stops the training, it ends with the weights of the best epoch, and the
    notebook with those of the last one, and without a test.

    Example:

    ```python
    train = celeba.batches("train", recipe.BATCH_SIZE, shuffle=True)
    validation = celeba.batches("validation", recipe.BATCH_SIZE)
    model.fit(
        train,
        validation_data=validation,
        epochs=recipe.EPOCHS,
        callbacks=recipe.callbacks(),
        shuffle=False,
    )
    ```
    """
    schedule = functools.partial(learning_rate_at, learning_rate)
    return [
        keras.callbacks.LearningRateScheduler(schedule),
        EarlyStopping(_PATIENCE, start_from_epoch=1),
    ]


def printed_by_original(
    model: keras.Model, data: CelebA, split: str = "test", batch_size: int = BATCH_SIZE
) -> dict[str, dict[str, float]]:
    """What the notebook prints of a model, whatever is wrong with it.

    Its accuracy on the test images is their number of right answers divided by the number of
    validation images, and so too large by a factor of 19,962 / 19,867. Its losses are sums of the
    means over batches, divided by the number of batches that the validation images make: the last
    batch, which is short, counts as much as the others.

    Args:
        model: A trained model.
        data: CelebA.
        split: `"test"`, or `"validation"`, whose accuracy is right.
        batch_size: Number of images in a batch.

    Returns:
        By task, `"accuracy"` in percent and `"loss"`.
    """
    means, right = [], []
    for images, labels in data.batches(split, batch_size):
        logits = model(images, training=False)
        for task in data.tasks:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels[task], logits[task])
            means.append(float(tf.reduce_mean(losses)))
            answers = tf.argmax(logits[task], axis=1, output_type="int32")
            right.append(int(tf.math.count_nonzero(answers == labels[task])))
    number = data.sizes["validation"]
    by_task = {task: slice(index, None, len(data.tasks)) for index, task in enumerate(data.tasks)}
    return {
        task: {
            "accuracy": 100 * sum(right[one]) / number,
            "loss": mean_of_batches(means[one], number, batch_size),
        }
        for task, one in by_task.items()
    }


def mean_of_batches(means: Iterable[float], number: int, batch_size: int) -> float:
    """The notebook's loss of an epoch: the sum of the means over batches, by their number.

    Args:
        means: Mean loss of each batch.
        number: Number of examples that the notebook takes their number from.
        batch_size: Number of examples in a batch.
    """
    return float(np.sum(list(means)) / math.ceil(number / batch_size))
