"""How TAG's CelebA notebook trains (Fifty et al. 2021, arXiv 2109.04617)."""

import functools

import keras

from celeba.published import BATCH_SIZE, EPOCHS, LEARNING_RATE
from tag_keras.estimators.early_stopping import EarlyStopping

__all__ = ["BATCH_SIZE", "EPOCHS", "LEARNING_RATE", "callbacks", "learning_rate_at"]

_PATIENCE, _HALVED_EVERY = 10, 15


def learning_rate_at(learning_rate: float, epoch: int, current: float | None = None) -> float:
    """The learning rate of an epoch: halved at the start of the epochs 14, 29, ... from 0 on.

    Args:
        learning_rate: Learning rate of the first epoch.
        epoch: Number of the epoch, from 0 on.
        current: Current learning rate, which Keras passes. It is not used, so that a training that
            was stopped goes on with the right rate.
    """
    return float(learning_rate * 0.5 ** ((epoch + 1) // _HALVED_EVERY))


def callbacks(learning_rate: float = LEARNING_RATE) -> list[keras.callbacks.Callback]:
    """The learning rates and the early stop of the notebook, for `fit` with `EPOCHS` epochs.

    The notebook stops when the summed validation loss of ten epochs ago is below all later ones,
    and takes the weights of that epoch; the first epoch does not count. `EarlyStopping` differs in
    two ways. Of epochs with exactly the same loss it takes the first, the notebook the last. If
    nothing stops the training, it ends with the weights of the best epoch; the notebook ends with
    the weights of the last epoch, and without a test.

    Args:
        learning_rate: Learning rate of the first epoch.

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
