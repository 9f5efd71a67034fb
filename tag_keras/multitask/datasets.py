"""Merges data sets with the labels of one task each into one."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tag_keras.utils.checks import check_bool, check_seed
from tag_keras.utils.tasks import check_task_names


def merge_datasets(
    datasets: Mapping[str, tf.data.Dataset],
    sizes: Mapping[str, int] | None = None,
    seed: int | None = None,
    rerandomize_each_iteration: bool = False,
) -> tf.data.Dataset:
    """Merges data sets with the labels of one task each into one for a multi-task model.

    For the other tasks, an example gets zeros as labels and sample weights of 0, which exclude it
    from their losses. Each set keeps its order, and the sets are mixed at random: every order of
    the mixture is equally likely, so each part of a pass has about the same proportions. A pass has
    each example once.

    Args:
        datasets: By task, a data set of single examples `(x, y)` or `(x, y, sample_weight)`. Labels
            may differ in shape and type, inputs may not. Shuffle before merging and batch after
            it; `unbatch` a set of batches, because batches cannot always be told from examples.
        sizes: Number of examples by task, for sets whose `cardinality()` is unknown, as after
            `filter` or when read from files. A pass over a set of another size is an error.
        seed: Seed of the mixing.
        rerandomize_each_iteration: Whether each pass has a new order, which also follows from the
            seed.

    Returns:
        A data set of `(x, labels, sample_weights)`, the last two dicts by task, of known
        cardinality.

    Raises:
        ValueError: If a set has other elements, other inputs than another set, labels of unknown
            shape, or an unknown size.

    Example:

    ```python
    faces = tf.data.Dataset.from_tensor_slices((np.zeros((60, 8)), np.zeros((60, 1))))
    cars = tf.data.Dataset.from_tensor_slices((np.ones((20, 8)), np.ones((20,), "int32")))
    merged = tag_keras.merge_datasets({"age": faces, "brand": cars}, seed=0)
    merged = merged.batch(16).prefetch(tf.data.AUTOTUNE)
    for x, labels, weights in merged:
        print(x.shape, labels["age"].shape, labels["brand"].shape, weights["age"])
    ```
    """
    if not isinstance(datasets, Mapping) or not datasets:
        raise ValueError(
            "`datasets` should be a dict of at least one tf.data.Dataset by task. "
            f"Received: datasets={datasets!r}."
        )
    tasks = check_task_names(list(datasets))
    seed = None if seed is None else check_seed(seed)
    check_bool("rerandomize_each_iteration", rerandomize_each_iteration)
    for task in tasks:
        _check_elements(task, datasets[task])
        _check_inputs(tasks[0], task, datasets)
    numbers = _sizes(datasets, sizes)
    # Counts the examples, so that a wrong size is an error and drops no example silently.
    parts = [
        datasets[task]
        .apply(tf.data.experimental.assert_cardinality(number))
        .map(_labels_of_all(task, datasets))
        for task, number in zip(tasks, numbers, strict=True)
    ]
    order = _random_order(numbers, seed, rerandomize_each_iteration)
    # At the end each set is asked once more, which shows whether it has more examples than it said.
    order = order.concatenate(tf.data.Dataset.range(len(parts)))
    merged = tf.data.Dataset.choose_from_datasets(parts, order, stop_on_empty_dataset=False)
    return merged.apply(tf.data.experimental.assert_cardinality(sum(numbers)))


def _random_order(
    sizes: list[int], seed: int | None, rerandomize_each_iteration: bool
) -> tf.data.Dataset:
    """Gives each index i `sizes[i]` times, in an order drawn uniformly from all orders.

    The next index is i with the probability `remaining[i] / sum(remaining)`. With constant
    probabilities, the last hundreds of 500 and 9500 examples would often be of one task.
    """

    def draw(remaining: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ends = tf.cumsum(remaining)
        # Random numbers are below 2^32, so the remainder is uniform up to sum(sizes) / 2^32.
        index = tf.searchsorted(ends, [number % ends[-1]], side="right")[0]
        return remaining - tf.one_hot(index, len(sizes), dtype="int64"), tf.cast(index, "int64")

    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration)
    return numbers.take(sum(sizes)).scan(tf.constant(sizes, "int64"), draw)


def _labels_of_all(task: str, datasets: Mapping[str, tf.data.Dataset]) -> Callable[..., Any]:
    """A function that gives an example of one task labels and weights for all tasks."""
    specs = {name: dataset.element_spec[1:] for name, dataset in datasets.items()}
    weight_shapes = {name: spec[1].shape if spec[1:] else () for name, spec in specs.items()}

    def of_all(x: Any, label: tf.Tensor, weight: Any = 1.0) -> tuple[Any, dict[str, Any], Any]:
        labels = {name: tf.zeros(spec[0].shape, spec[0].dtype) for name, spec in specs.items()}
        weights = {name: tf.zeros(shape) for name, shape in weight_shapes.items()}
        return x, {**labels, task: label}, {**weights, task: tf.cast(weight, "float32")}

    return of_all


def _check_elements(task: str, dataset: Any) -> None:
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            f"`datasets` should have a tf.data.Dataset for every task. Received for {task!r}: "
            f"{dataset!r}. Make one with tf.data.Dataset.from_tensor_slices((x, y))."
        )
    spec = dataset.element_spec
    pair = isinstance(spec, tuple) and len(spec) in (2, 3)
    if not pair or not all(isinstance(one, tf.TensorSpec) for one in spec[1:]):
        raise ValueError(
            f"The data set of the task {task!r} should have elements (x, y) or (x, y, "
            "sample_weight), y and sample_weight being one tensor each: bring it to that with "
            f"`map`. Received: element_spec={spec}."
        )
    for name, one in zip(("labels", "sample weights"), spec[1:], strict=False):
        if not one.shape.is_fully_defined():
            raise ValueError(
                f"The {name} of the task {task!r} should have a known shape, which the zeros that "
                f"stand for them are given. Received: shape {one.shape}. Unbatch the data set, or "
                "use `tf.ensure_shape` in a `map`."
            )


def _check_inputs(first: str, task: str, datasets: Mapping[str, tf.data.Dataset]) -> None:
    one, other = datasets[first].element_spec[0], datasets[task].element_spec[0]
    try:
        matches = tf.nest.map_structure(lambda a, b: a.is_compatible_with(b), one, other)
        same = all(tf.nest.flatten(matches))
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(
            f"The inputs of the tasks {first!r} and {task!r} should have the same structure, "
            f"shapes and types: bring them to that with `map`. Received: {one} and {other}."
        )


def _sizes(datasets: Mapping[str, tf.data.Dataset], sizes: Mapping[str, int] | None) -> list[int]:
    sizes = {} if sizes is None else sizes
    if not isinstance(sizes, Mapping) or any(task not in datasets for task in sizes):
        raise ValueError(
            f"`sizes` should be a dict with tasks out of {list(datasets)}. "
            f"Received: sizes={sizes!r}."
        )
    numbers = [int(sizes.get(task, datasets[task].cardinality())) for task in datasets]
    for task, number in zip(datasets, numbers, strict=True):
        if number == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                f"The data set of the task {task!r} never ends, so there is no pass over it. Take "
                "its `repeat` away, and repeat the merged data set instead."
            )
        if number == tf.data.UNKNOWN_CARDINALITY:
            raise ValueError(
                f"The number of examples of the task {task!r} is not known. Give it: "
                f"sizes={{{task!r}: ...}}."
            )
        if number <= 0:
            raise ValueError(
                f"Every task should have examples: leave a task that has none out. Received: "
                f"{number} examples of the task {task!r}."
            )
    return numbers
