"""The network of TAG's CelebA experiments (Fifty et al. 2021, arXiv 2109.04617)."""

import keras

layers = keras.layers


def build_encoder(image_size: int = 64) -> keras.Model:
    """The shared encoder: one residual block between two poolings.

    Args:
        image_size: Height and width of the images, in pixels.

    Returns:
        Model from images (B, 64, 64, 3) in [0, 1] to features (B, 14400), with 75,840 trainable
        parameters.
    """
    images = keras.Input((image_size, image_size, 3))
    x = layers.ReLU()(_convolution(images))
    x = layers.MaxPooling2D(3, strides=2, padding="valid")(x)
    y = _convolution(layers.ReLU()(_convolution(x)))
    x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(images, layers.Flatten()(layers.AveragePooling2D(2)(x)), name="encoder")


def build_head(name: str) -> keras.layers.Layer:
    """The head of one attribute: two logits, 28,802 parameters behind the encoder."""
    return layers.Dense(2, kernel_initializer="glorot_uniform", name=f"{name}_head")


def _convolution(x: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Conv2D(64, 3, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(epsilon=1e-3)(x)
