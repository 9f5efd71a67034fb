"""Batches in the order in which Keras' `fit` and `evaluate` take them."""

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from keras.src.backend.tensorflow.trainer import TFEpochIterator


class Epochs:
    """Epochs of batches, as `keras.Model.fit` takes them, shuffled by the seed that is set now.

    Args:
        data: `x`, and perhaps `y` and `sample_weight`, as `fit` takes them.
        batch_size: Batch size for arrays; by default Keras'.
        steps: Number of batches of an epoch; by default all.
        shuffle: Whether to shuffle arrays.
        is_one_of_several: Whether other epochs are taken at the same time. Then TensorFlow does not
            tune its pipelines: several that are tuned at once wait for each other, up to minutes.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        batch_size: int | None = None,
        steps: int | None = None,
        shuffle: Any = False,
        is_one_of_several: bool = False,
    ) -> None:
        self._iterator = TFEpochIterator(
            **data,
            batch_size=batch_size,
            steps_per_epoch=steps,
            shuffle=shuffle,
            distribute_strategy=tf.distribute.get_strategy(),
            steps_per_execution=1,
        )
        if is_one_of_several:
            options = tf.data.Options()
            options.autotune.enabled = False
            dataset = self._iterator._distributed_dataset
            self._iterator._distributed_dataset = dataset.with_options(options)
        self.reset()

    def reset(self) -> None:
        """Begins again with the first batch."""
        self._iterator.reset()

    @property
    def num_batches(self) -> int | None:
        """Number of batches of an epoch; `None` until a dataset of unknown size has shown it."""
        number: int | None = self._iterator.num_batches
        return number

    @property
    def spec(self) -> Any:
        """What is known of every batch: a batch with a `tf.TensorSpec` for each tensor."""
        return self._iterator._distributed_dataset.element_spec

    def batches(self) -> Iterator[Any]:
        """The batches of the next epoch."""
        with self._iterator.catch_stop_iteration():
            for _, _, iterator in self._iterator:
                yield next(iterator)
