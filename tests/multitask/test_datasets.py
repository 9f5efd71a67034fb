"""Merged data sets against plain Python over the same examples."""

import itertools
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras

from_slices = tf.data.Dataset.from_tensor_slices
SIZES = {"b": 7, "a": 30, "c": 12}


def make_arrays():
    """Inputs that say which example it is: [number of the set, number in the set]."""
    rng = np.random.default_rng(0)
    arrays = {}
    for number, (task, size) in enumerate(SIZES.items()):
        x = np.stack([np.full(size, number), np.arange(size)], axis=1).astype("float32")
        arrays[task] = [x, rng.normal(size=(size, 1)).astype("float32")]
    arrays["c"][1] = rng.integers(1, 9, size=12)  # Classes, without an axis.
    arrays["a"].append(rng.uniform(size=30))  # Weights, in float64.
    return arrays


def make_datasets():
    return {task: from_slices(tuple(arrays)) for task, arrays in make_arrays().items()}


def owners(merged):
    """The set of each example, in order."""
    batches = [x[:, 0] for x, _, _ in merged.batch(4096).as_numpy_iterator()]
    return np.concatenate(batches).astype(int).tolist()


def test_elements_equal_plain_python():
    arrays, merged = make_arrays(), tag_keras.merge_datasets(make_datasets(), seed=0)
    assert merged.cardinality() == 49
    x_spec, label_specs, weight_specs = merged.element_spec
    assert x_spec == tf.TensorSpec((2,), "float32")
    assert label_specs["c"] == tf.TensorSpec((), "int64")
    assert label_specs["a"] == tf.TensorSpec((1,), "float32")
    assert set(weight_specs.values()) == {tf.TensorSpec((), "float32")}
    zeros = {"b": np.zeros(1, "float32"), "a": np.zeros(1, "float32"), "c": np.int64(0)}
    positions = dict.fromkeys(SIZES, 0)
    for x, labels, weights in merged.as_numpy_iterator():
        owner = list(SIZES)[int(x[0])]
        position = positions[owner]
        positions[owner] += 1
        example = [array[position] for array in arrays[owner]]
        np.testing.assert_array_equal(x, example[0])
        assert list(labels) == list(weights) == list(SIZES)
        for task in SIZES:
            own = task == owner
            np.testing.assert_array_equal(labels[task], example[1] if own else zeros[task])
            weight = example[2] if owner == "a" else 1.0
            np.testing.assert_allclose(weights[task], weight if own else 0.0, rtol=1e-6)
    # Each example once, in the order of its set.
    assert positions == SIZES


def test_the_seed_gives_the_order():
    def order(**kwargs):
        return owners(tag_keras.merge_datasets(make_datasets(), **kwargs))

    assert order(seed=1) == order(seed=1) != order(seed=2)
    assert Counter(order(seed=1)) == {0: 7, 1: 30, 2: 12}


@pytest.mark.parametrize("anew", [False, True])
def test_passes_are_mixed_alike_or_anew(anew):
    runs = []
    for _ in range(2):
        merged = tag_keras.merge_datasets(make_datasets(), seed=1, rerandomize_each_iteration=anew)
        runs.append([[int(x[0]) for x, _, _ in merged.as_numpy_iterator()] for _ in range(2)])
    assert runs[0] == runs[1]
    assert (runs[0][0] == runs[0][1]) != anew
    # A pass of many, as in several epochs.
    first = owners(tag_keras.merge_datasets(make_datasets(), seed=1).repeat(2))
    assert first == runs[0][0] * 2 or anew


@pytest.mark.slow
def test_every_order_is_equally_likely():
    arrays = {"a": np.zeros((2, 1)), "b": np.ones((2, 1))}
    datasets = {task: from_slices((x, x)) for task, x in arrays.items()}
    merged = tag_keras.merge_datasets(datasets, seed=0, rerandomize_each_iteration=True)
    passes = np.reshape(owners(merged.repeat(3000)), (3000, 4))
    counts = Counter(tuple(one) for one in passes.tolist())
    assert set(counts) == set(itertools.permutations([0, 0, 1, 1]))
    # Each of the 6 orders 500 times, with a standard deviation of 20.
    assert all(abs(count - 500) < 80 for count in counts.values())


@pytest.mark.slow
def test_the_mixture_stays_even_to_the_end():
    # Drawn with constant probabilities, a set would be used up some hundreds before the end.
    datasets = {
        task: from_slices((np.full((size, 1), number), np.zeros(size)))
        for number, (task, size) in enumerate({"a": 1800, "b": 200}.items())
    }
    for seed in range(3):
        order = np.array(owners(tag_keras.merge_datasets(datasets, seed=seed)))
        # Hypergeometric: 20 of "b" in 200, with a standard deviation of 4.
        assert (np.abs(order.reshape(10, 200).sum(axis=1) - 20) < 16).all()


def test_unknown_sizes_are_given():
    datasets = {task: one.filter(lambda *_: True) for task, one in make_datasets().items()}
    merged = tag_keras.merge_datasets(datasets, sizes=SIZES, seed=1)
    assert merged.cardinality() == 49
    assert owners(merged) == owners(tag_keras.merge_datasets(make_datasets(), seed=1))


@pytest.mark.parametrize("wrong", [6, 8])
def test_a_pass_over_a_set_of_another_size_is_an_error(wrong):
    datasets = make_datasets()
    datasets["b"] = datasets["b"].filter(lambda *_: True)
    merged = tag_keras.merge_datasets(datasets, sizes={"b": wrong}, seed=1)
    with pytest.raises(tf.errors.FailedPreconditionError, match=f"expected to contain {wrong}"):
        owners(merged)


def test_structured_inputs_and_parallel_maps():
    def make(start):
        x = {"words": np.arange(start, start + 9).astype("int32"), "pixels": np.ones((9, 2))}
        return from_slices((x, np.zeros(9)))

    def same(x, y):
        return x, y

    datasets = {
        "a": make(0).map(same, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE),
        "b": make(9).shuffle(9, seed=0),
    }
    merged = tag_keras.merge_datasets(datasets, seed=0).batch(4).prefetch(tf.data.AUTOTUNE)
    words = [x["words"] for x, _, _ in merged.as_numpy_iterator()]
    assert sorted(np.concatenate(words)) == list(range(18))


def test_one_set():
    merged = tag_keras.merge_datasets({"a": make_datasets()["a"]})
    assert owners(merged) == [1] * 30


def test_training_on_one_device_and_two(two_replicas):
    rng = np.random.default_rng(0)
    arrays = {
        task: (rng.normal(size=(size, 3)).astype("float32"), rng.normal(size=size))
        for task, size in (("a", 10), ("b", 14))
    }
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            heads = {task: keras.layers.Dense(1) for task in arrays}
            model = tag_keras.MultiTaskModel(keras.layers.Dense(4), heads)
            model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
        datasets = {task: from_slices(pair) for task, pair in arrays.items()}
        merged = tag_keras.merge_datasets(datasets, seed=0).batch(8)
        history = model.fit(merged, epochs=2, verbose=0, shuffle=False).history
        results.append((model.get_weights(), history["loss"]))
    for one, two in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(two, one, atol=1e-6)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-5)


def merge(elements=None, **changes):
    """Merges the three sets, some of which are changed."""
    kwargs = {name: changes.pop(name) for name in ("sizes",) if name in changes}
    datasets = {**make_datasets(), **{task: from_slices(v) for task, v in changes.items()}}
    return lambda: tag_keras.merge_datasets({**datasets, **(elements or {})}, **kwargs)


X = np.zeros((5, 2), "float32")
PAIRS = from_slices((X, X))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: tag_keras.merge_datasets({}), r"dict of at least one .* datasets=\{\}"),
        (lambda: tag_keras.merge_datasets([PAIRS]), "`datasets` should be a dict"),
        (lambda: tag_keras.merge_datasets({1: PAIRS}), "list of names"),
        (merge({"b": (X, X)}), r"tf.data.Dataset for every task\. Received for 'b'"),
        (merge(b=X), r"The data set of the task 'b' should have elements \(x, y\)"),
        (merge(b={"x": X, "y": X}), "with `map`. Received: element_spec=.*'x'"),
        (merge(b=(X, X, X, X)), "task 'b' should have elements"),
        (merge(b=(X, {"y": X})), "task 'b' should have elements .* one tensor each"),
        (
            merge({"b": PAIRS.batch(2)}),
            r"The labels of the task 'b' should have a known shape, .*shape \(None, 2\)\. Unbatch",
        ),
        (
            merge({"b": from_slices((X, X[:, 0], X)).batch(2).map(lambda x, y, w: (x, y[0], w))}),
            r"The sample weights of the task 'b' should have a known shape",
        ),
        (
            merge(c=(X[:, :1], X)),
            r"inputs of the tasks 'b' and 'c' should have the same structure, .*"
            r"shape=\(2,\).* and .*shape=\(1,\)",
        ),
        (merge(a=(X.astype("float64"), X)), "inputs of the tasks 'b' and 'a'"),
        (merge(a=({"x": X}, X)), "inputs of the tasks 'b' and 'a'"),
        (merge(sizes={"d": 3}), r"tasks out of \['b', 'a', 'c'\]\. Received: sizes=\{'d': 3\}"),
        (merge(sizes=[7, 30, 12]), "`sizes` should be a dict"),
        (merge(sizes={"a": 0}), "should have examples.* Received: 0 examples of the task 'a'"),
        (merge({"a": PAIRS.take(0)}), "should have examples"),
        (merge({"a": PAIRS.repeat()}), "'a' never ends.* repeat the merged data set instead"),
        (
            merge({"a": PAIRS.filter(lambda x, y: True)}),
            r"number of examples of the task 'a' is not known\. Give it: sizes=\{'a': \.\.\.\}",
        ),
    ],
)
def test_bad_input(action, message):
    with pytest.raises(ValueError, match=message):
        action()
