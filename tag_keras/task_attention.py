"""Attention masks of one task on features that all tasks share."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.checks import check, check_count
from tag_keras.resnet import ConvNorm


@keras.saving.register_keras_serializable(package="tag_keras")
class TaskAttention(keras.layers.Layer):  # type: ignore[misc]
    """Attention module of MTAN (Liu, Johns and Davison 2019, arXiv 1803.10704, eq. 1 and 2).

        mask = sigmoid(BN(conv1x1(relu(BN(conv1x1(concat[u, previous]))))))
        output = mask * p

    Here u are the features of a shared block after its first convolution, p those after its last,
    and `previous` is what this task made of the block before. Each task has a module of its own
    for each block. The mask is between 0 and 1 for each channel and each pixel.

    Args:
        width: Number of channels between the two convolutions; by default those of p.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[u, p]`, or `[u, p, previous]`: tensors (B, H, W, ...), whose numbers of channels
            may differ.
        training: As in Keras.

    Returns:
        Tensor with the shape of p.

    Raises:
        ValueError: If there are not two or three inputs, or if their heights or widths differ.

    Example:

    ```python
    u, p = keras.random.normal((8, 16, 16, 64)), keras.random.normal((8, 16, 16, 128))
    seen_by_this_task = TaskAttention()([u, p])  # (8, 16, 16, 128)
    ```
    """

    def __init__(self, width: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = None if width is None else check_count("width", width)

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        check(
            len(input_shape) in (2, 3),
            "The inputs of `TaskAttention` should be [u, p] or [u, p, previous]",
            shapes=input_shape,
        )
        check(
            len({tuple(shape[1:3]) for shape in input_shape}) == 1,
            "The inputs of `TaskAttention` should have the same height and width",
            shapes=input_shape,
        )
        channels = input_shape[1][-1] or 0
        self.first = ConvNorm(
            self.width or channels, 1, use_bias=True, dtype=self.dtype_policy, name="first"
        )
        self.second = ConvNorm(channels, 1, use_bias=True, dtype=self.dtype_policy, name="second")
        seen = sum(shape[-1] or 0 for i, shape in enumerate(input_shape) if i != 1)
        shape = (*input_shape[1][:-1], seen)
        self.first.build(shape)
        self.second.build(self.first.compute_output_shape(shape))

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        u, p, *previous = inputs
        x = tf.nn.relu(self.first(tf.concat([u, *previous], axis=-1), training=training))
        return tf.sigmoid(self.second(x, training=training)) * p

    def compute_output_shape(
        self, input_shape: Sequence[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        return input_shape[1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}
