"""Counting the parameters of networks that would take long to initialise."""

import keras
import numpy as np
import tensorflow as tf


def count(layer):
    return sum(int(np.prod(variable.shape)) for variable in layer.trainable_variables)


def draw_nothing(monkeypatch):
    """Lets kernels begin as zeros, which takes no time for millions of them."""

    def zeros(self, shape, dtype=None):
        return tf.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)
