"""How TAG's CelebA notebook trains (Fifty et al. 2021, arXiv 2109.04617)."""

import functools

import keras

from tag_keras.estimators.early_stopping import EarlyStopping

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
