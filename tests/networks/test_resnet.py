import keras
import numpy as np
import pytest

import tag_keras
from tag_keras.networks.resnet import ConvNorm, ResidualBlock, pooled, resnet_layers, resnet_parts


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def features(shape=(2, 4, 4, 6), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def shake(layer, seed=0):
    """Weights that are nowhere 0 or 1, so that each of them matters."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.uniform(0.5, 1.5, w.shape).astype("float32") for w in layer.weights])


# torchvision's resnet18 and resnet34 have 11,689,512 and 21,797,672 parameters, of which the last
# layer has 512 * 1000 + 1000 = 513,000. Their stem has 7 * 7 * 3 * 64 = 9408 weights; this one has
# 3 * 3 * 3 * 64 = 1728.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "blocks", "parameters"),
    [(18, 8, 11_689_512 - 513_000 - 7680), (34, 16, 21_797_672 - 513_000 - 7680)],
)
def test_parameters_are_those_that_torchvision_counts(depth, blocks, parameters):
    layers = resnet_layers(depth)
    assert len(layers.blocks) == blocks
    shape = (None, 32, 32, 3)
    for layer in (layers.stem, *layers.blocks):
        layer.build(shape)
        shape = layer.compute_output_shape(shape)
    assert shape == (None, 4, 4, 512)
    assert count(v for one in (layers.stem, *layers.blocks) for v in one.trainable_variables) == (
        parameters
    )


def test_blocks_of_a_resnet_of_any_depth():
    layers = resnet_layers((1, 2), (8, 16))
    assert [[block.filters for block in stage] for stage in layers.stages] == [[8], [16, 16]]
    assert [block.strides for block in layers.blocks] == [1, 2, 1]
    assert [block.name for block in layers.blocks] == [
        "stage1_block1",
        "stage2_block1",
        "stage2_block2",
    ]


@pytest.mark.parametrize(
    ("filters", "strides", "has_projection"), [(6, 1, False), (6, 2, True), (8, 1, True)]
)
def test_the_shortcut_is_projected_where_the_shape_changes(filters, strides, has_projection):
    block = ResidualBlock(filters, strides)
    x = features()
    shortcut = block.shortcut(x)
    assert (block.projection is not None) == has_projection
    assert shortcut.shape == block.residual(x).shape == block.compute_output_shape(x.shape)
    if has_projection:
        # No ReLU: a projection of normal values has negative ones.
        assert np.min(shortcut) < 0
    else:
        np.testing.assert_array_equal(shortcut, x)


def test_a_block_is_two_convolutions_and_a_shortcut():
    # The same of layers of Keras (He et al. 2016, section 3.3), with the same weights.
    x, block = features(), ResidualBlock(8, 2)
    block.build(x.shape)
    shake(block)
    assert len(block.weights) == 3 * 5

    def convolve(inputs, kernel, strides):
        return keras.ops.conv(inputs, kernel, strides, "same", "channels_last")

    def normalize(inputs, gamma, beta, mean, variance):
        return (inputs - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    first, second, past = (
        [v.numpy() for v in (one.convolution.kernel, *one.normalization.weights)]
        for one in (block.first, block.second, block.projection)
    )
    hidden = np.maximum(normalize(convolve(x, first[0], 2), *first[1:]), 0)
    residual = normalize(convolve(hidden, second[0], 1), *second[1:])
    shortcut = normalize(convolve(x, past[0], 2), *past[1:])
    np.testing.assert_allclose(block.residual(x), residual, rtol=1e-4)
    np.testing.assert_allclose(block.shortcut(x), shortcut, rtol=1e-4)
    np.testing.assert_allclose(block(x), np.maximum(residual + shortcut, 0), rtol=1e-4)


def test_a_residual_of_zero_leaves_the_input():
    x, block = features(), ResidualBlock(6)
    block.build(x.shape)
    block.second.normalization.gamma.assign(np.zeros(6))
    np.testing.assert_array_equal(block(x, training=True), np.maximum(x, 0))


def test_training_moves_the_statistics_of_all_normalizations_once():
    # With a momentum of 0.9, a tenth of the way from 1 to the variance of the batch.
    x, block = features(), ResidualBlock(8)
    block(x, training=True)
    hidden = block.projection.convolution(x)
    np.testing.assert_allclose(
        block.projection.normalization.moving_variance,
        0.9 + 0.1 * np.var(hidden, axis=(0, 1, 2)),
        rtol=1e-4,
    )


def test_blocks_are_saved_and_loaded(tmp_path):
    images = keras.Input((4, 4, 6))
    x = keras.layers.ReLU()(ConvNorm(4, 1, use_bias=True)(images))
    model = keras.Model(images, ResidualBlock(8, 2)(x))
    shake(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = features()
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_mixed_precision_adds_up_pixels_in_float32():
    block = ResidualBlock(6, 2, dtype="mixed_float16")
    assert block(features()).dtype == "float16"
    assert block.projection.convolution.kernel.dtype == "float32"
    # 64 * 64 pixels of 100 would be 409,600, and the largest number of float16 is 65,504.
    large = np.full((1, 64, 64, 1), 100.0, "float16")
    np.testing.assert_array_equal(pooled(large), [[100.0]])


def test_public_names():
    assert tag_keras.ResidualBlock is ResidualBlock


@pytest.mark.parametrize("depth", [50, ()])
def test_a_depth_that_is_not_known_is_an_error(depth):
    message = "`depth` should be 18 or 34, or the number of blocks of each stage. Received: depth="
    with pytest.raises(ValueError, match=message):
        resnet_layers(depth)


def test_numbers_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="`widths` should have a width for each of the 4 stages"):
        resnet_layers(18, (8, 16))
    with pytest.raises(ValueError, match=r"`depth` should be at least 1\. Received: depth=0"):
        resnet_layers((1, 0), (8, 16))
    with pytest.raises(ValueError, match=r"`widths` should be at least 1\. Received: widths=0"):
        resnet_layers((1, 1), (8, 0))
    with pytest.raises(ValueError, match=r"`filters` should be at least 1\. Received: filters=0"):
        ResidualBlock(0)
    with pytest.raises(ValueError, match=r"`strides` should be an integer\. Received: strides=1.5"):
        ResidualBlock(4, 1.5)
    with pytest.raises(ValueError, match=r"`kernel_size` should be at least 1"):
        ConvNorm(4, 0)


def test_the_parts_one_after_the_other_are_the_resnet():
    sizes = {"input_shape": (6, 6, 1), "depth": (1, 2), "widths": (4, 8)}
    stem, stages = resnet_parts(**sizes)
    x, whole = stem.output, tag_keras.resnet_encoder(["a"], **sizes)
    for stage in stages:
        x = stage()(x)
    together = keras.Model(stem.input, x)
    together.set_weights(whole.get_weights())
    images = features((2, 6, 6, 1))
    np.testing.assert_allclose(together(images), whole(images), rtol=1e-5)
    # Each call makes new layers.
    assert stages[0]().layers[0] is not stages[0]().layers[0]
