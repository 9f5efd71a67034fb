"""Residual blocks for the tests of AdaShare, small enough to be traced in no time."""

import keras
import numpy as np

layers = keras.layers
TASKS = ("b", "a", "c")


@keras.saving.register_keras_serializable(package="tests")
class Block(layers.Layer):
    """Two layers with the same names in every block; a projection where the width changes."""

    def __init__(self, units, normalized=True, **kwargs):
        super().__init__(**kwargs)
        self.units, self.normalized = units, normalized
        # No bias: before BatchNorm its gradient is 0 but for rounding, which Adam amplifies.
        self.dense = layers.Dense(units, use_bias=not normalized, name="dense")
        self.norm = layers.BatchNormalization(name="norm") if normalized else None
        self.projection = None

    def build(self, input_shape):
        if input_shape[-1] != self.units:
            self.projection = layers.Dense(self.units, name="projection")

    def shortcut(self, inputs, training=None):
        return inputs if self.projection is None else self.projection(inputs)

    def residual(self, inputs, training=None):
        features = self.dense(inputs)
        return self.norm(features, training=training) if self.normalized else features

    def call(self, inputs, training=None):
        return keras.ops.relu(self.shortcut(inputs, training) + self.residual(inputs, training))

    def get_config(self):
        return {**super().get_config(), "units": self.units, "normalized": self.normalized}


def make_data(size=96, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 5)).astype("float32")
    noise = rng.normal(size=(3, size)).astype("float32")
    return x, {task: x[:, i] ** 2 + noise[i] for i, task in enumerate(TASKS)}


def make_layers(units=(6, 8, 8), normalized=True):
    """A stem and blocks; the second block has a projection."""
    return layers.Dense(6, name="stem"), [Block(one, normalized) for one in units]


def set_policy(policy, hard):
    """Lets the more probable decisions be those of a hard policy."""
    sign = np.where(np.asarray(hard), 1.0, -1.0)
    policy.logits.assign(np.stack([sign, -sign], axis=-1))
