import itertools
import math
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.networks.task_routing.layer import routing_mask


def features(shape=(3, 2, 2, 8), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# Task Routing as its authors explain it: of 64 channels and 3 tasks at 0.5, 32 for all, and 32 in
# parts of 11, 11 and 10. With 1 all are shared, with 0 none.
@pytest.mark.parametrize(
    ("sigma", "shared", "used"),
    [(0.5, 32, [43, 43, 42]), (1, 64, [64, 64, 64]), (0.0, 0, [22, 21, 21]), (0.25, 16, [32] * 3)],
)
def test_numbers_of_channels_of_a_partition(sigma, shared, used):
    mask = routing_mask(3, 64, sigma, seed=5)
    assert set(np.unique(mask)) <= {0.0, 1.0}
    assert mask.sum(axis=1).tolist() == used
    # A channel is for all tasks, or for one.
    assert sorted(mask.sum(axis=0)) == [1] * (64 - shared) + [3] * shared


# Task Routing as its authors compute it: int(C * sigma) channels less, for each task.
@pytest.mark.parametrize(
    ("channels", "sigma", "used"), [(64, 0.5, 32), (10, 0.33, 7), (64, 0, 64), (64, 0.99, 1)]
)
def test_numbers_of_channels_of_the_reference(channels, sigma, used):
    mask = routing_mask(4, channels, sigma, "reference", seed=5)
    assert mask.sum(axis=1).tolist() == [used] * 4


def test_what_tasks_of_the_reference_have_in_common_on_average():
    # Each task uses a channel with p = 1/2, whatever the others do: of 64 channels and 3 tasks,
    # 64 * binom(3, k) / 8 are used by k tasks, and two tasks have 64 p^2 = 16 in common.
    masks = np.array([routing_mask(3, 64, 0.5, "reference", seed) for seed in range(400)])
    by_number = np.array([(masks.sum(axis=1) == k).sum(axis=1).mean() for k in range(4)])
    expected = [64 * math.comb(3, k) / 8 for k in range(4)]
    assert expected == [8, 24, 24, 8]
    # The number of channels that k tasks use has a deviation below sqrt(64 / 4) = 4, its mean over
    # 400 seeds one below 0.2.
    np.testing.assert_allclose(by_number, expected, atol=0.6)
    for one, other in itertools.combinations(range(3), 2):
        np.testing.assert_allclose((masks[:, one] * masks[:, other]).sum(1).mean(), 16, atol=0.6)


@pytest.mark.parametrize("mode", ["partition", "reference"])
def test_the_seed_determines_the_mask(mode):
    masks = [routing_mask(3, 64, 0.5, mode, seed) for seed in (7, 7, 8)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()


def test_every_channel_is_as_likely_to_be_shared():
    shared = np.mean([routing_mask(2, 8, 0.5, seed=seed).min(0) for seed in range(400)], axis=0)
    # A deviation of sqrt(1 / 4 / 400) = 0.025.
    np.testing.assert_allclose(shared, 0.5, atol=0.1)


def test_outputs_are_the_inputs_times_the_mask():
    layer, x = tag_keras.TaskRouting(3, 0.25, seed=1), features()
    for task in range(3):
        output = np.array(layer(x, task_ids=task))
        mask = routing_mask(3, 8, 0.25, seed=1)[task]
        np.testing.assert_array_equal(output, x * mask)
        np.testing.assert_array_equal(layer(2 * x + 1, task_ids=task), 2 * output + mask)
        assert not np.maximum(output, 0)[..., mask == 0].any()


def test_a_task_for_each_example_equals_a_loop_over_the_tasks():
    layer, x, ids = tag_keras.TaskRouting(3, 0.25, seed=1), features(), np.array([2, 0, 2])
    expected = np.concatenate(
        [layer(x[i : i + 1], task_ids=int(task)) for i, task in enumerate(ids)]
    )
    np.testing.assert_array_equal(layer(x, ids), expected)
    np.testing.assert_array_equal(layer(x, tf.constant(1)), layer(x, task_ids=1))
    compiled = tf.function(layer, jit_compile=True)
    np.testing.assert_array_equal(compiled(x, tf.constant(ids)), expected)


@pytest.mark.parametrize("shape", [(3, 8), (3, 4, 8), (3, 2, 2, 2, 8)])
@pytest.mark.parametrize("task_ids", [1, np.array([2, 0, 1])])
def test_channels_may_be_first_and_of_any_number_of_axes(shape, task_ids):
    x = features(shape)
    last = tag_keras.TaskRouting(3, 0.25, seed=1, data_format="channels_last")
    first = tag_keras.TaskRouting(3, 0.25, seed=1, data_format="channels_first")
    np.testing.assert_array_equal(
        np.moveaxis(np.array(first(np.moveaxis(x, -1, 1), task_ids=task_ids)), 1, -1),
        last(x, task_ids=task_ids),
    )


def test_the_data_format_is_that_of_keras():
    assert tag_keras.TaskRouting(2).data_format == keras.backend.image_data_format()


def test_gradients_are_masked():
    layer, x = tag_keras.TaskRouting(3, 0.0, seed=1), tf.constant(features())
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = layer(x, np.array([0, 1, 2]))
    gradient = tape.gradient(output, x)
    np.testing.assert_array_equal(
        gradient, np.broadcast_to(layer.mask[:, None, None], gradient.shape)
    )


def test_kernels_get_gradients_from_the_owners_of_their_channels_alone():
    # At sigma = 0 of a partition, each channel belongs to one task.
    convolution = keras.layers.Conv2D(8, 2)
    normalization, layer = keras.layers.BatchNormalization(), tag_keras.TaskRouting(3, 0.0, seed=1)
    x = features((4, 5, 5, 2))
    for task in range(3):
        with tf.GradientTape() as tape:
            y = tf.nn.relu(layer(normalization(convolution(x), training=True), task_ids=task))
            loss = tf.reduce_sum(tf.square(y))
        size = np.abs(tape.gradient(loss, convolution.kernel.value)).max(axis=(0, 1, 2))
        np.testing.assert_array_equal(size > 0, layer.mask[task] == 1)


def test_the_mask_is_not_trained():
    layer = tag_keras.TaskRouting(3)
    layer.build((None, 4, 4, 8))
    layer.trainable = True
    assert layer.trainable_variables == []
    assert [variable.shape for variable in layer.variables] == [(3, 8)]


def test_masks_are_saved_and_loaded(tmp_path):
    images, task_ids = keras.Input((2, 2, 8)), keras.Input((), dtype="int32")
    model = keras.Model([images, task_ids], tag_keras.TaskRouting(3)(images, task_ids))
    mask = model.layers[-1].mask.numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.layers[-1].mask, mask)
    # Another mask in its place comes from the weights, and not from the seed.
    model.layers[-1].mask.assign(1 - mask)
    model.save_weights(tmp_path / "model.weights.h5")
    loaded.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(loaded.layers[-1].mask, 1 - mask)


def test_seeds_are_drawn_as_keras_draws_them():
    seeds = []
    for start in (3, 3, 4):
        random.seed(start)
        seeds.append((tag_keras.TaskRouting(2).seed, tag_keras.TaskRouting(2).seed))
    assert seeds[0] == seeds[1] != seeds[2]
    assert seeds[0][0] != seeds[0][1]


def test_half_precision_is_kept():
    layer = tag_keras.TaskRouting(2, dtype="mixed_float16")
    assert layer(features(), np.array([0, 1, 0])).dtype == "float16"


@pytest.mark.parametrize(
    "make", [tag_keras.TaskRouting, lambda *args: routing_mask(args[0], 8, *args[1:])]
)
def test_arguments_out_of_range_are_errors(make):
    with pytest.raises(
        ValueError, match=r"`num_tasks` should be at least 1\. Received: num_tasks=0"
    ):
        make(0)
    for sigma in (-0.1, 1.1, "much", None, True, float("nan")):
        with pytest.raises(ValueError, match=r"`sigma` should be from 0 to 1\. Received: sigma="):
            make(2, sigma)
    with pytest.raises(ValueError, match='`mode` should be "partition" or "reference"'):
        make(2, 0.5, "paper")
    message = 'should be below 1 in the mode "reference", where it is the part of the channels that'
    with pytest.raises(ValueError, match=message):
        make(2, 1.0, "reference")


def test_other_arguments_of_the_layer_are_checked():
    with pytest.raises(
        ValueError, match=r"`seed` should be an integer from 0 on. Received: seed=-1"
    ):
        tag_keras.TaskRouting(2, seed=-1)
    with pytest.raises(ValueError, match='`data_format` should be "channels_last" or "channels_f'):
        tag_keras.TaskRouting(2, data_format="NHWC")
    for task in (-1, 2):
        with pytest.raises(
            ValueError, match=r"`task_ids` should be from 0 to 1\. Received: task_ids="
        ):
            tag_keras.TaskRouting(2)(features(), task_ids=task)


def test_a_task_without_a_channel_is_an_error():
    message = (
        r"Some of the 3 tasks would have none of 2 channels\. Use more channels, or a `sigma` "
        r"nearer to 1\. Received: sigma=0\.0, mode='partition'"
    )
    with pytest.raises(ValueError, match=message):
        tag_keras.TaskRouting(3, 0.0)(features((1, 2)), task_ids=0)
    # Two channels of four are shared, so that nobody is without.
    assert routing_mask(9, 4, 0.5).any(axis=1).all()
