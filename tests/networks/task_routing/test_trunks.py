import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.networks.resnet import ConvNorm, ResidualBlock
from tag_keras.networks.task_routing.layer import routing_mask
from tag_keras.networks.task_routing.trunks import RoutedBlock

SMALL = {"input_shape": (4, 4, 2), "depth": (1, 1), "widths": (6, 8)}


def images(size=4, shape=(4, 4, 2), seed=0):
    return np.random.default_rng(seed).normal(size=(size, *shape)).astype("float32")


def masks(model):
    """The masks of all `TaskRouting` of a model, by their order in it."""
    return [v.numpy() for v in model.variables if v.name == "mask"]


def without_masks(model):
    return [v.numpy() for v in model.variables if v.name != "mask"]


def test_vgg11_has_2752_channels_to_mask():
    # 64 + 128 + 2 * 256 + 4 * 512. For 40 tasks, 110,080 numbers, none of which is trained.
    model = tag_keras.routed_vgg11(40, (32, 32, 3))
    assert sum(mask.size for mask in masks(model)) == 2752 * 40 == 110_080
    assert not any(variable.name == "mask" for variable in model.trainable_variables)
    assert model.output.shape == (None, 512)
    # torchvision's vgg11_bn has 132,868,840 parameters, of which the three hidden layers behind
    # the convolutions have 123,642,856, and the biases of the convolutions, left out here, 2752.
    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert parameters == 132_868_840 - 123_642_856 - 2752


def test_routed_blocks_equal_their_formula():
    # conv -> BN -> mask -> ReLU -> conv -> BN -> mask, and a shortcut with a mask, if it projects.
    x = images(2, (4, 4, 6))
    for filters in (6, 8):
        block = RoutedBlock(filters, num_tasks=3, sigma=0.0, seed=1)
        output = block(x, task_ids=np.array([2, 0]))
        inner, outer, *past = (route.mask.numpy()[[2, 0]][:, None, None] for route in block.routes)
        assert len(past) == (filters == 8)
        hidden = np.maximum(block.block.first(x) * inner, 0)
        shortcut = block.block.shortcut(x) * past[0] if past else x
        expected = np.maximum(shortcut + block.block.second(hidden) * outer, 0)
        np.testing.assert_allclose(output, expected, rtol=1e-5)
        assert block.compute_output_shape(x.shape) == output.shape


@pytest.mark.parametrize(("mode", "sigma"), [("partition", 1.0), ("reference", 0.0)])
def test_channels_that_all_share_are_hard_sharing(mode, sigma):
    trunk = tag_keras.routed_resnet(3, **SMALL, sigma=sigma, mode=mode)
    plain = tag_keras.resnet_encoder(["a"], **SMALL)
    plain.set_weights(without_masks(trunk))
    x = images()
    for training in (False, True):
        expected = plain(x, training=training)
        for task in range(3):
            features = trunk([x, np.full(4, task)], training=training)
            np.testing.assert_allclose(features, expected, rtol=1e-5)


def test_a_task_for_each_example_equals_a_loop_over_the_tasks():
    trunk = tag_keras.routed_resnet(3, **SMALL)
    x, ids = images(), np.array([2, 0, 1, 2])
    expected = [trunk([x[i : i + 1], ids[i : i + 1]])[0] for i in range(4)]
    np.testing.assert_allclose(trunk([x, ids]), expected, rtol=1e-4, atol=1e-6)
    features = [trunk([x, np.full(4, task)]) for task in range(3)]
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_convolutions_get_gradients_from_the_owners_of_their_channels_alone():
    # At sigma = 0 of a partition, each channel of each convolution belongs to one task.
    trunk = tag_keras.routed_resnet(2, **SMALL, sigma=0.0)
    kernels = [v for v in trunk.trainable_variables if v.name == "kernel"]
    nonzero = []
    for task in range(2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(trunk([images(), np.full(4, task)], training=True)))
        gradients = tape.gradient(loss, [kernel.value for kernel in kernels])
        nonzero.append([np.abs(one).max(axis=(0, 1, 2)) > 0 for one in gradients])
    for first, second, mask in zip(*nonzero, _by_convolution(trunk), strict=True):
        assert not (first & second).any()
        assert not (first & (mask[0] == 0)).any()
        assert not (second & (mask[1] == 0)).any()
        assert (first | second).any()


def _by_convolution(trunk):
    """The mask behind each convolution, in the order of the kernels."""
    stem, *blocks = (
        one for one in trunk.layers if isinstance(one, tag_keras.TaskRouting | RoutedBlock)
    )
    return [stem.mask.numpy(), *(route.mask.numpy() for block in blocks for route in block.routes)]


def test_the_seed_determines_all_masks_and_they_differ():
    build = {"num_tasks": 2, **SMALL, "widths": (8, 8), "depth": (2, 1)}
    one, same, other = (tag_keras.routed_resnet(**build, seed=seed) for seed in (3, 3, 4))
    for mask, again in zip(masks(one), masks(same), strict=True):
        np.testing.assert_array_equal(mask, again)
    assert any((mask != again).any() for mask, again in zip(masks(one), masks(other), strict=True))
    # The stem, two convolutions in each of three blocks, and a projection; each with its own.
    assert len(masks(one)) == 1 + 3 * 2 + 1
    assert len({mask.tobytes() for mask in masks(one)}) > 4
    assert all(mask.sum(axis=1).tolist() == [6, 6] for mask in masks(one))
    assert routing_mask(2, 8).sum(axis=1).tolist() == [6, 6]


def test_networks_are_saved_and_loaded_with_their_masks(tmp_path):
    random.seed(1)
    trunk = tag_keras.routed_resnet(3, **SMALL)
    trunk.save(tmp_path / "trunk.keras")
    loaded = keras.models.load_model(tmp_path / "trunk.keras")
    for mask, again in zip(masks(trunk), masks(loaded), strict=True):
        np.testing.assert_array_equal(mask, again)
    batch = [images(), np.array([2, 0, 1, 2])]
    np.testing.assert_array_equal(trunk(batch), loaded(batch))


def test_layers_have_the_names_of_those_of_a_resnet_also_when_loaded(tmp_path):
    # GradNorm finds the layer that it looks at by its name.
    tag_keras.routed_resnet(3, **SMALL).save(tmp_path / "trunk.keras")
    trunk = keras.models.load_model(tmp_path / "trunk.keras")
    resnet = tag_keras.resnet_encoder(["a", "b", "c"], **SMALL)
    names = [
        sorted(one.name for one in model._flatten_layers() if isinstance(one, keras.layers.Conv2D))
        for model in (trunk, resnet)
    ]
    assert names[0] == names[1]


def test_blocks_are_of_the_same_parts():
    block = RoutedBlock(8, 2, num_tasks=2)
    assert isinstance(block.block, ResidualBlock)
    assert (block.block.filters, block.block.strides) == (8, 2)
    trunk = tag_keras.routed_resnet(2, **SMALL)
    assert isinstance(trunk.get_layer("stem"), ConvNorm)


def test_arguments_that_do_not_fit_are_errors():
    for build in (tag_keras.routed_resnet, tag_keras.routed_vgg11):
        with pytest.raises(ValueError, match=r"`num_tasks` should be at least 1"):
            build(0)
        with pytest.raises(ValueError, match=r"`sigma` should be from 0 to 1\. Received: sigma=2"):
            build(2, sigma=2)
        with pytest.raises(ValueError, match=r"Some of the 9 tasks would have none of 8 channels"):
            build(9, widths=[8] * 8 if build is tag_keras.routed_vgg11 else [8] * 4, sigma=0.0)
    with pytest.raises(ValueError, match=r"`widths` should have eight widths\. Received: widths="):
        tag_keras.routed_vgg11(2, widths=(64, 128))
    with pytest.raises(ValueError, match=r"`num_tasks` should be at least 1"):
        RoutedBlock(8, num_tasks=0)
