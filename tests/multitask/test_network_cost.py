"""What a network costs, against the formulas for its layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.multitask.network_cost import NetworkCost, measure_cost

layers = keras.layers


def make_model(shape, *parts, **options):
    return keras.Sequential([keras.Input(shape, **options), *parts])


def test_dense_layers():
    model = make_model((10,), layers.Dense(7, "relu"), layers.Dense(3, use_bias=False))
    # 10 * 7 products and sums, 7 biases; 7 * 3 products and sums. The activation is not counted.
    assert measure_cost(model) == NetworkCost(70 + 7 + 21, 2 * 70 + 7 + 2 * 21)


def test_a_dense_layer_counts_for_each_position():
    model = make_model((6, 10), layers.Dense(7))
    assert measure_cost(model) == NetworkCost(77, 6 * (2 * 70 + 7))


@pytest.mark.parametrize(("padding", "strides", "places"), [("valid", 1, 36), ("same", 2, 16)])
def test_convolution(padding, strides, places):
    model = make_model((8, 8, 3), layers.Conv2D(5, 3, strides, padding))
    # At each place 3 * 3 * 3 products and sums for each of 5 channels, and 5 biases.
    assert measure_cost(model) == NetworkCost(27 * 5 + 5, places * (2 * 27 * 5 + 5))


def test_convolutions_in_groups_and_by_channel():
    # Each of the 6 channels sees 2 of 4.
    grouped = make_model((8, 8, 4), layers.Conv2D(6, 3, groups=2, use_bias=False))
    assert measure_cost(grouped) == NetworkCost(9 * 2 * 6, 36 * 2 * 9 * 2 * 6)
    assert not tf.config.functions_run_eagerly()
    by_channel = make_model((8, 8, 4), layers.DepthwiseConv2D(3, use_bias=False))
    assert measure_cost(by_channel) == NetworkCost(9 * 4, 36 * 2 * 9 * 4)


def test_attention():
    inputs = keras.Input((6, 8))
    attention = layers.MultiHeadAttention(num_heads=2, key_dim=4, use_bias=False)
    cost = measure_cost(keras.Model(inputs, attention(inputs, inputs)))
    assert cost.parameters == 4 * 8 * 8
    # Query, key, value and output; products of queries and keys, and of weights and values.
    products = 2 * 4 * 6 * 8 * 8 + 2 * 2 * (2 * 6 * 6 * 4)
    # The queries are scaled and the weights normalised, at a few operations for each.
    assert products <= cost.flops <= products + 48 + 6 * 72


@pytest.mark.parametrize("equation", ["bij,jk->bik", "...j,jk->...k", "...ij,jk->...ik"])
def test_sums_of_products(equation):
    class Product(keras.Model):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(4, 5))
            self.built = True

        def call(self, inputs):
            return tf.einsum(equation, inputs, self.kernel)

    model = Product()
    model(np.zeros((2, 3, 4), "float32"))
    assert measure_cost(model) == NetworkCost(20, 2 * 3 * 4 * 5)


def test_recurrent_layer():
    model = make_model((6, 3), layers.SimpleRNN(5, unroll=True))
    # At each of 6 steps two products, a bias, and a sum of the two.
    assert measure_cost(model) == NetworkCost(15 + 25 + 5, 6 * (2 * 15 + 2 * 25 + 5 + 5))


def test_weights_do_not_matter_and_statistics_of_a_layer_are_parameters():
    model = make_model((4, 4, 2), layers.Conv2D(3, 1), layers.BatchNormalization())
    cost = measure_cost(model)
    assert cost.parameters == model.count_params() == 2 * 3 + 3 + 4 * 3
    model.set_weights([np.full(w.shape, np.nan) for w in model.get_weights()])
    model.trainable = False
    assert measure_cost(model) == cost


def test_a_layer_used_twice_has_its_parameters_once():
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    dense = layers.Dense(4)
    outputs = layers.Concatenate()([dense(dense(first)), dense(second)])
    model = keras.Model({"first": first, "second": second}, outputs)
    assert measure_cost(model) == NetworkCost(20, 3 * (2 * 16 + 4))


def make_multi_task_model(inputs=True, tasks=("a", "b")):
    encoder = keras.Sequential([*([keras.Input((5,))] if inputs else []), layers.Dense(4)])
    heads = {task: layers.Dense(1 + place) for place, task in enumerate(tasks)}
    return tag_keras.MultiTaskModel(encoder, heads)


# An encoder from 5 to 4 features, and heads of 1 and 2.
MULTI_TASK = NetworkCost(24 + 5 + 10, 44 + 9 + 18)


@pytest.mark.parametrize("inputs", [True, False])
def test_multi_task_model(inputs):
    model = make_multi_task_model(inputs)
    # What measuring affinities keeps is not a part of the network.
    affinity = tag_keras.LookaheadAffinity(every=1)
    model.compile("adam", "mse", affinity=affinity, run_eagerly=True)
    if not inputs:
        model(np.zeros((3, 5), "float32"))
    assert measure_cost(model) == MULTI_TASK
    assert model.built
    x, y = np.ones((8, 5)), {"a": np.ones((8, 1)), "b": np.ones((8, 2))}
    model.fit(x, y, verbose=0)
    assert measure_cost(model) == MULTI_TASK


def test_functional_and_grouped_models():
    inputs = keras.Input((5,))
    features = layers.Dense(4)(inputs)
    outputs = {"a": layers.Dense(1)(features), "b": layers.Dense(2)(features)}
    model = tag_keras.MultiTaskModel.from_functional(keras.Model(inputs, outputs))
    assert measure_cost(model) == MULTI_TASK
    other = make_multi_task_model(tasks=("c",))
    groups, serves = (("a", "b"), ("c",)), {"a": 0, "b": 0, "c": 1}
    grouping = tag_keras.Grouping(("a", "b", "c"), groups, serves, 0.0, 0.0, True)
    grouped = tag_keras.GroupedModel([model, other], grouping)
    alone = measure_cost(other)
    assert alone == NetworkCost(24 + 5, 44 + 9)
    parameters = MULTI_TASK.parameters + alone.parameters
    assert measure_cost(grouped) == NetworkCost(parameters, MULTI_TASK.flops + alone.flops)


def test_inputs_of_another_type():
    model = make_model(
        (6,), layers.Embedding(10, 4), layers.Flatten(), layers.Dense(2), dtype="int32"
    )
    cost = measure_cost(model)
    assert cost.parameters == 40 + 48 + 2
    # A look-up is hardly an operation: two at most for each index.
    assert 2 * 48 + 2 <= cost.flops <= 2 * 48 + 2 + 2 * 6


def test_errors():
    with pytest.raises(ValueError, match=r"`model` should be a Keras model\. Received: type="):
        measure_cost(layers.Dense(3))
    match = r"should be built, .*; call it on one batch first, or begin it with a keras.Input"
    with pytest.raises(ValueError, match=match):
        measure_cost(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match=r"Received: 'multi_task_model.*', not built"):
        measure_cost(make_multi_task_model(inputs=False))
    match = r"inputs whose size is known but for the batch; .*\(1, None, 3\)"
    with pytest.raises(ValueError, match=match):
        measure_cost(make_model((None, 3), layers.Dense(4)))
    match = r"no loops or branches, .* with unroll=True. Received: 'sequential.*', with \['While'\]"
    with pytest.raises(ValueError, match=match):
        measure_cost(make_model((6, 3), layers.LSTM(5)))


def test_counting_prints_nothing_and_leaves_settings_as_they_were(capfd):
    level = tf.get_logger().level
    measure_cost(make_model((10,), layers.Dense(7)))
    assert capfd.readouterr() == ("", "")
    assert tf.get_logger().level == level
    assert not tf.config.functions_run_eagerly()
