"""The encoder against the plain residual network and a pass written out by hand."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from adashare_blocks import TASKS, Block, make_data, make_layers, set_policy

import tag_keras

layers = keras.layers


def make_encoder(units=(6, 8, 8), normalized=True, tasks=TASKS, **kwargs):
    random.seed(0)
    stem, blocks = make_layers(units, normalized)
    return tag_keras.AdaShareEncoder(stem, blocks, tasks, **kwargs)


def plain(encoder, x, training=False):
    features = encoder.stem(x)
    for block in encoder.blocks:
        features = block(features, training=training)
    return features


@pytest.mark.parametrize("training", [False, True])
def test_all_blocks_executed_is_the_plain_residual_network(training):
    encoder, (x, _) = make_encoder(), make_data()
    encoder.policy.set_phase(active=0, temperature=5.0)
    features = encoder(x, training=training)
    assert tuple(features) == TASKS
    expected = plain(encoder, x, training)
    for task in TASKS:
        np.testing.assert_array_equal(features[task], expected)


def test_all_blocks_skipped_leaves_the_projections():
    encoder, (x, _) = make_encoder(), make_data()
    encoder(x)
    set_policy(encoder.policy, np.zeros((3, 3)))
    expected = encoder.blocks[1].projection(encoder.stem(x))
    for features in encoder(x).values():
        np.testing.assert_array_equal(features, expected)


def test_a_soft_policy_written_out_with_numpy():
    encoder, (x, _) = make_encoder(normalized=False), make_data()
    encoder(x)
    rng = np.random.default_rng(1)
    rows = rng.dirichlet([1, 1], size=(3, 3)).astype("float32")
    encoder.policy.decisions = lambda training: tf.constant(rows)
    features = encoder(x, training=True)

    def dense(layer, inputs):
        kernel, bias = layer.get_weights()
        return inputs @ kernel + bias

    for task, row in zip(TASKS, rows, strict=True):
        expected = dense(encoder.stem, x)
        for block, (executed, skipped) in zip(encoder.blocks, row, strict=True):
            passing = dense(block.projection, expected) if block.projection else expected
            inner = np.maximum(passing + dense(block.dense, expected), 0)
            expected = executed * inner + skipped * passing
        np.testing.assert_allclose(features[task], expected, atol=1e-5)


def test_equal_policies_give_equal_features():
    encoder, (x, _) = make_encoder(), make_data()
    encoder(x)
    set_policy(encoder.policy, [[1, 0, 1], [1, 0, 1], [0, 1, 1]])
    features = encoder(x)
    np.testing.assert_array_equal(features["b"], features["a"])
    assert not np.isclose(features["b"], features["c"]).all()


def test_tasks_of_another_order_take_their_policies_along():
    encoder, (x, _) = make_encoder(), make_data()
    encoder(x)
    set_policy(encoder.policy, [[1, 0, 1], [0, 0, 1], [0, 1, 1]])
    expected = encoder(x)
    twin = make_encoder(tasks=("c", "b", "a"))
    twin(x)
    twin.set_weights(encoder.get_weights())
    set_policy(twin.policy, [[0, 1, 1], [1, 0, 1], [0, 0, 1]])
    for task, features in twin(x).items():
        np.testing.assert_array_equal(features, expected[task])


def test_moving_statistics_follow_every_pass():
    encoder, (x, _) = make_encoder(units=(6,)), make_data()
    encoder(x)
    encoder.policy.set_phase(active=0, temperature=5.0)
    norm = encoder.blocks[0].norm
    encoder(x, training=True)
    mean = encoder.blocks[0].dense(encoder.stem(x)).numpy().mean(axis=0)
    # Three passes of Keras' momentum of 0.99, from 0 on.
    np.testing.assert_allclose(norm.moving_mean, (1 - 0.99**3) * mean, rtol=1e-4)


@pytest.mark.slow
def test_a_top_and_inputs_by_name():
    encoder, (x, _) = make_encoder(units=(6,)), make_data()
    first, second = keras.Input((2,), name="first"), keras.Input((3,), name="second")
    joined = layers.Dense(6)(layers.Concatenate()([first, second]))
    stem = keras.Model({"first": first, "second": second}, joined)
    encoder = tag_keras.AdaShareEncoder(stem, [Block(6)], TASKS, top=layers.Dense(2))
    features = encoder({"first": x[:, :2], "second": x[:, 2:]})
    assert {one.shape for one in features.values()} == {(96, 2)}
    heads = {task: layers.Dense(1) for task in TASKS}
    model = tag_keras.AdaShareModel(encoder, heads)
    inputs = {"first": x[:, :2], "second": x[:, 2:]}
    expected = model.predict(inputs, verbose=0)
    pruned = model.pruned_model(np.ones((3, 1)))
    for task, values in pruned.predict(inputs, verbose=0).items():
        np.testing.assert_allclose(values, expected[task], atol=1e-6)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        encoder, (x, _) = make_encoder(), make_data()
        features = encoder(x, training=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {one.dtype.name for one in features.values()} == {"float16"}
    assert encoder.policy.logits.dtype == "float32"


def test_an_encoder_round_trips():
    encoder, (x, _) = make_encoder(top=layers.Dense(2), temperature=2.0, seed=4), make_data()
    expected = encoder(x)
    twin = tag_keras.AdaShareEncoder.from_config(encoder.get_config())
    twin(x)
    twin.set_weights(encoder.get_weights())
    assert twin.get_config() == encoder.get_config()
    for task, features in twin(x).items():
        np.testing.assert_array_equal(features, expected[task])


def test_weights_are_named_after_their_blocks():
    encoder = make_encoder()
    encoder(make_data()[0])
    paths = [variable.path for variable in encoder.trainable_variables]
    assert len(set(paths)) == len(paths)
    assert any(path.endswith(f"{encoder.blocks[0].name}/dense/kernel") for path in paths)


class OwnWeights(Block):
    def build(self, input_shape):
        super().build(input_shape)
        self.scale = self.add_weight(shape=(), name="scale")


class OfTensorFlow(Block):
    def residual(self, inputs, training=None):
        return tf.nn.tanh(super().residual(inputs, training))


def test_a_stem_and_a_top_are_layers():
    for name in ("stem", "top"):
        arguments = {"stem": layers.Dense(6), name: "dense"}
        with pytest.raises(ValueError, match=f"`{name}` should be a layer. Received: {name}='den"):
            tag_keras.AdaShareEncoder(blocks=[Block(6)], tasks=TASKS, **arguments)


def test_blocks_that_will_not_do():
    stem, message = layers.Dense(6), "`blocks` should be a list of layers with the methods"
    for block in (layers.Dense(6), "block", None):
        with pytest.raises(ValueError, match=message):
            tag_keras.AdaShareEncoder(stem, [Block(6), block], TASKS)
    with pytest.raises(ValueError, match="`blocks` should hold at least one layer, for a policy"):
        tag_keras.AdaShareEncoder(stem, [], TASKS)
    block = Block(6, name="twice")
    message = r"should hold every layer once, .* Received: \['twice', 'twice'\]\."
    with pytest.raises(ValueError, match=message):
        tag_keras.AdaShareEncoder(stem, [block, block], TASKS)
    with pytest.raises(ValueError, match="`tasks` should name at least one task"):
        tag_keras.AdaShareEncoder(stem, [Block(6)], [])
    message = r"The block 'own' should have its weights in layers.*a layer: \['scale'\]\."
    with pytest.raises(ValueError, match=message):
        tag_keras.AdaShareEncoder(stem, [OwnWeights(6, name="own")], TASKS)(make_data()[0])
    # Keras' own words, at the first batch, not after the search.
    with pytest.raises(ValueError, match="KerasTensor cannot be used as input to a TensorFlow"):
        tag_keras.AdaShareEncoder(stem, [OfTensorFlow(6)], TASKS)(make_data()[0])
