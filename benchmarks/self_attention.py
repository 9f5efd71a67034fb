"""A layer of the benchmark of stacks."""

import keras

layers = keras.layers


class SelfAttention(layers.Layer):
    """Attention of a sequence to itself."""

    def __init__(self, heads: int, size: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(heads, size)

    def build(self, shape: tuple) -> None:
        self.attention.build(shape, shape)

    def call(self, x):
        return self.attention(x, x)
