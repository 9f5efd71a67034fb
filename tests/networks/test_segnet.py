import keras
import numpy as np
import pytest

import tag_keras

SMALL = {"input_shape": (8, 8, 3), "widths": (4, 6)}


def count(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


# The numbers that the authors of MTAN print for one task each (methods with 13 classes, depth, and
# normals). By hand, with c(i, o) = 9io + o + 2o for a convolution with its bias and normalization:
# the encoder of VGG-16 has 14,723,136, the decoder 10,220,160, and the output layers
# 9 * 64 * 64 + 64 + 64n + n.
@pytest.mark.parametrize(
    ("channels", "parameters"), [(13, 24_981_069), (1, 24_980_289), (3, 24_980_419)]
)
def test_parameters_for_one_task(channels, parameters):
    model = tag_keras.segnet({"task": channels}, (32, 32, 3))
    assert count(model) == parameters
    assert 14_723_136 + 10_220_160 + 36_928 + 65 * channels == parameters


def test_tasks_share_all_but_the_output_layers():
    model = tag_keras.segnet({"a": 2, "b": 3}, **SMALL)
    assert {task: one.shape for task, one in model.output.items()} == {
        "a": (None, 8, 8, 2),
        "b": (None, 8, 8, 3),
    }
    alone = tag_keras.segnet({"a": 2}, **SMALL)
    # For b: 3x3 from 4 to 4 channels, and 1x1 from 4 to 3.
    assert count(model) - count(alone) == 9 * 4 * 4 + 4 + 4 * 3 + 3


def test_the_decoder_puts_values_where_the_encoder_found_them():
    # Behind an unpooling, one of four values of each channel differs from 0.
    model = tag_keras.segnet({"a": 1}, **SMALL)
    unpoolings = [one for one in model.layers if type(one).__name__ == "MaxUnpooling"]
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    for layer in unpoolings:
        values = keras.Model(model.input, layer.output)(x).numpy()
        _, height, width, channels = values.shape
        windows = values.reshape(2, height // 2, 2, width // 2, 2, channels)
        assert (np.count_nonzero(windows, axis=(2, 4)) <= 1).all()
        assert np.count_nonzero(values) > 0
    assert sorted(layer.output.shape[1:] for layer in unpoolings) == [(4, 4, 6), (8, 8, 4)]


def test_outputs_are_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = tag_keras.segnet({"a": 1}, **SMALL)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output["a"].dtype == "float32"
    assert {one.compute_dtype for one in model.layers if one.weights} == {"float16", "float32"}


@pytest.mark.parametrize("build", [tag_keras.segnet, tag_keras.mtan_segnet])
def test_arguments_that_do_not_fit_are_errors(build):
    message = r"`tasks` should be a dict with the number of channels by task\. Received: tasks="
    with pytest.raises(ValueError, match=message):
        build(["a", "b"])
    with pytest.raises(ValueError, match=r"`tasks` should name at least one task"):
        build({})
    with pytest.raises(ValueError, match=r"`tasks` should be at least 1\. Received: tasks=0"):
        build({"a": 0})
    with pytest.raises(ValueError, match=r"`widths` should be at least 1\. Received: widths=0"):
        build({"a": 1}, widths=(0, 1))
    with pytest.raises(ValueError, match="`widths` should be a list of at least one integer"):
        build({"a": 1}, widths=())
    message = (
        r"The height and width in `input_shape` should be divisible by 32, because the 5 blocks of "
        r"the encoder halve them\. Received: input_shape=\(64, 48, 3\)"
    )
    with pytest.raises(ValueError, match=message):
        build({"a": 1}, (64, 48, 3))
