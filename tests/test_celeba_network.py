import keras
import numpy as np

import tag_keras
from celeba import network

# The attributes of the paper's CelebA experiments.
ATTRIBUTES = [
    "5_o_Clock_Shadow",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Goatee",
    "Mustache",
    "No_Beard",
    "Rosy_Cheeks",
    "Wearing_Hat",
]


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def test_parameters_are_those_of_the_original():
    encoder = network.build_encoder()
    heads = {name: network.build_head(name) for name in ATTRIBUTES}
    model = tag_keras.MultiTaskModel(encoder, heads)
    outputs = model(keras.Input((64, 64, 3)))
    assert encoder.output_shape == (None, 15 * 15 * 64)
    # Three kernels 3x3, of 3 -> 64 and twice 64 -> 64, and three pairs of 64 for BatchNorm.
    assert count(encoder.trainable_variables) == 27 * 64 + 2 * 576 * 64 + 3 * 128 == 75_840
    assert count(heads["Goatee"].trainable_variables) == 14_400 * 2 + 2 == 28_802
    assert count(model.trainable_variables) == 335_058
    assert list(outputs) == ATTRIBUTES
    assert len(encoder.trainable_variables) == 9
