"""Layers of models whose gradients a test gives: a loss that is a product has its input."""

import keras
import tensorflow as tf


class Products(keras.layers.Layer):
    """Products (B, T) of T inputs each (B, T, P) with one vector, whose gradients are these."""

    def build(self, shape):
        self.vector = self.add_weight(shape=shape[-1:], initializer="zeros")

    def call(self, inputs):
        return tf.linalg.matvec(inputs, self.vector)


class Pick(keras.layers.Layer):
    """The column of one task."""

    def __init__(self, index, **kwargs):
        super().__init__(**kwargs)
        self.index = index

    def call(self, inputs):
        return inputs[:, self.index]
