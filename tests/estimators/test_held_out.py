"""What held-out data may be, how they are cut into batches, and what is refused."""

import collections
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from held_out_cases import NAN, TASKS, dataset_of, make_data, make_model
from small_models import in_batches

import tag_keras
from tag_keras import LookaheadAffinity
from tag_keras.estimators.held_out import open_data


def take(batches, number):
    return [batch[0].numpy() for batch in batches.take(number)]


def test_arrays_are_shuffled_anew_in_each_pass_in_the_same_order_every_time():
    x, y = make_data(10)
    batches = open_data((x, y), TASKS).batches
    found = take(batches(4, 0), 60)
    assert {one.shape for one in found} == {(4, 5)}
    numbers = np.array(
        [[np.flatnonzero((x == row).all(axis=1))[0] for row in one] for one in found]
    )
    passes = numbers.reshape(30, 8)
    # 8 of 10 in each pass, none twice; of 30 passes no two are alike, and all have their turns.
    assert all(len(set(one)) == 8 for one in passes)
    assert len(set(map(tuple, passes))) == 30
    assert set(passes.ravel()) == set(range(10))
    tf.random.set_seed(5)
    for passed in (0, 1, 2, 7):
        np.testing.assert_array_equal(take(batches(4, passed), 3), found[passed : passed + 3])
    # Fewer than a batch are one batch.
    assert [sorted(one.ravel()) for one in take(batches(16, 3), 2)] == [sorted(x.ravel())] * 2


def test_labels_and_weights_stay_with_their_inputs_and_floats_are_those_of_keras():
    x = {"p": np.arange(6.0), "q": [np.arange(6), np.arange(6, dtype="float32")[:, None]]}
    y = {task: 10.0 * np.arange(6) + i for i, task in enumerate((*TASKS, "of no head"))}
    weights = {"a": np.arange(6) + 0.5, "of no head": np.ones(6)}
    for batch in open_data((x, y, weights), TASKS).batches(2, 0).take(4):
        inputs, labels, kept = batch
        rows = inputs["p"].numpy()
        assert (inputs["p"].dtype, inputs["q"][0].dtype) == ("float32", "int64")
        np.testing.assert_array_equal(inputs["q"][0], rows)
        np.testing.assert_array_equal(inputs["q"][1][:, 0], rows)
        assert list(kept) == ["a"] and set(labels) == set(TASKS)
        np.testing.assert_array_equal(labels["c"], 10 * rows + 2)
        np.testing.assert_array_equal(kept["a"], rows + 0.5)


@pytest.mark.parametrize("order", ["the remainder last", "the remainder first"])
def test_a_dataset_is_repeated_without_its_remainder(order):
    x, y = make_data(10)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    if order.endswith("first"):
        dataset = dataset.skip(2).concatenate(dataset.take(2))
    batches = open_data(dataset, TASKS).batches
    np.testing.assert_array_equal(take(batches(16, 0), 4), [x[:4], x[4:8]] * 2)
    np.testing.assert_array_equal(take(batches(16, 3), 2), [x[4:8], x[:4]])
    # A single batch is none that is left out.
    alone = open_data(tf.data.Dataset.from_tensors((x, y)), TASKS).batches
    np.testing.assert_array_equal(take(alone(16, 0), 2), [x, x])


def test_one_task_may_have_labels_that_are_no_dict():
    x, y = make_data(6)
    for on in ((x, y["a"]), tf.data.Dataset.from_tensors((x, y["a"]))):
        (batch,) = open_data(on, ("a",)).batches(6, 0).take(1)
        assert sorted(batch[1]["a"].numpy()) == sorted(y["a"])


X, Y = make_data(8)
WITHOUT = {**Y, "a": np.full(8, NAN)}


@pytest.mark.parametrize("on", [3, "validation", (X,), [X, Y, None, None], {"x": X}])
def test_data_that_are_none(on):
    message = r"`on` should be held-out data: `\(x, y\)` or .* that gives one of these\. Received: "
    with pytest.raises(ValueError, match=message):
        LookaheadAffinity(on=on)
    with pytest.raises(ValueError, match=message):
        open_data(lambda: on, TASKS)


@pytest.mark.parametrize("given", [None, "held-out data", lambda: (X, Y)])
def test_a_function_that_gives_no_data(given):
    with pytest.raises(ValueError, match=r"Received: a function that gave "):
        open_data(lambda: given, TASKS)


@pytest.mark.parametrize(
    ("on", "message"),
    [
        (
            (X, {"a": Y["a"], "d": Y["a"]}),
            "The held-out data (`on`) lack labels. Labels should hold every task of the model. "
            "Missing: ['b', 'c']. Received: ['a', 'd']. Give them labels of these tasks, or leave",
        ),
        ((X, Y["a"]), "(`on`) lack labels. Labels should be a dict with the tasks ['b', 'a', 'c']"),
        (dataset_of(X, {"a": Y["a"]}).batch(4), "lack labels. Labels should hold every task of"),
        (
            (X, WITHOUT),
            "The held-out data (`on`) have no label of the tasks ['a']: all are NaN or have the "
            "sample weight 0. Give them labels of these tasks, or leave the tasks out of the",
        ),
        ((X, Y, {"b": np.zeros(8)}), "have no label of the tasks ['b']"),
        ((X, Y, np.zeros(8)), "have no label of the tasks ['b', 'a', 'c']"),
        ((X, WITHOUT, {"a": np.ones((8, 1)), "c": np.zeros(8)}), "of the tasks ['a', 'c']"),
        (
            (X[:7], Y),
            "should all have the same number of examples, at least 1. Received: shapes [(7, 5), (8",
        ),
        (
            (X[:0], {task: [] for task in TASKS}),
            "at least 1. Received: shapes [(0, 5), (0,), (0,), (0",
        ),
        ((1.0, dict.fromkeys(TASKS, 2.0)), "at least 1. Received: shapes [(), ()"),
        (
            tf.data.Dataset.from_tensor_slices(X).batch(4),
            "should have elements (x, y) or (x, y, sample_weight). Received: element_spec=TensorSp",
        ),
        (
            dataset_of(X, Y),
            "should give batches of examples: batch it with `batch`. Received: labels of shape ().",
        ),
        (dataset_of(X, Y).batch(4).take(0), "Received: a dataset without any batch."),
    ],
)
def test_data_that_are_not_what_they_should_be_are_found_before_any_step(on, message):
    model = make_model(LookaheadAffinity(on=on))
    before = model.get_weights()
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(X, Y, verbose=0)
    np.testing.assert_equal(model.get_weights(), before)


def test_inputs_unlike_those_of_the_training():
    columns = {task: Y[task][:, None] for task in TASKS}
    model = make_model(LookaheadAffinity(on=dataset_of(X, columns)))
    message = "which have the shapes (8, 5) in a batch. Received: (5,)."
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(X, columns, verbose=0)
    model = make_model(LookaheadAffinity(on=({"image": X}, Y)))
    message = "which have the shapes (8, 5) in a batch. Received: {'image': (8, 5)}."
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(X, Y, verbose=0)


def test_inputs_by_name_may_come_in_any_order():
    orders = [collections.OrderedDict((name, X) for name in names) for names in ("lr", "rl")]
    left, right = keras.Input((5,), name="l"), keras.Input((5,), name="r")
    features = keras.layers.Dense(2)(keras.layers.Add()([left, right]))
    encoder = keras.Model({"l": left, "r": right}, features)
    heads = {task: keras.layers.Dense(1) for task in TASKS}
    model = tag_keras.MultiTaskModel(encoder, heads)
    model.compile("sgd", "mse", affinity=LookaheadAffinity(1, on=(orders[1], Y)), run_eagerly=True)
    model.fit(orders[0], Y, verbose=0)
    assert np.isfinite(model.get_affinity().mean).all()


@pytest.mark.slow
def test_a_dataset_whose_labels_of_a_task_are_all_missing():
    x, y = make_data(12)
    model = make_model(LookaheadAffinity(on=dataset_of(X, WITHOUT).batch(4)))
    message = "The held-out data (`on`) have no label of the tasks ['a']: all are NaN or have the "
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(x, y, verbose=0)
    model = make_model(LookaheadAffinity(on=dataset_of(X, Y, np.zeros(8)).batch(4)))
    with pytest.raises(ValueError, match=re.escape("no label of the tasks ['b', 'a', 'c']")):
        model.fit(x, y, verbose=0)


@pytest.mark.slow
def test_a_rare_label_may_be_in_no_held_out_batch_that_was_probed():
    rare = {**Y, "a": np.where(np.arange(8) < 7, NAN, Y["a"])}
    for on in (dataset_of(X, rare).batch(4), (X, rare)):
        model = make_model(LookaheadAffinity(10, on=on))
        model.fit(in_batches(*make_data(12), 4), shuffle=False, verbose=0)
        assert (model.get_affinity().count[:, 0] == 1).all()


@pytest.mark.slow
def test_a_dataset_whose_later_passes_have_no_batch_of_the_same_size():
    passes = iter([4, 4, 3, 3, 3, 3])

    def batches():
        size = next(passes)
        yield X[:size], {task: Y[task][:size] for task in TASKS}

    floats = tf.TensorSpec((None,), "float32")
    signature = (tf.TensorSpec((None, 5), "float32"), dict.fromkeys(TASKS, floats))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    model = make_model(LookaheadAffinity(1, on=dataset))
    message = "The held-out dataset (`on`) has come to an end, without a batch as large as one "
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(X, Y, batch_size=2, shuffle=False, verbose=0)
