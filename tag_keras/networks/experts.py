"""Mixtures of experts: gates weigh the outputs of equal layers, for each task in its own way."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.networks.parallel_layers import Build, side_by_side, start
from tag_keras.utils.checks import check, check_count
from tag_keras.utils.tasks import check_task_names


@keras.saving.register_keras_serializable(package="tag_keras")
class ExpertGate(keras.layers.Layer):  # type: ignore[misc]
    """A gate of MMoE: the mean of n experts, weighted for each example (Ma et al. 2018, KDD).

    Eq. 6 and 7:

        output = sum_i softmax(W x)_i e_i

    Of a sequence or an image x, it sees the mean over the steps or pixels; padded steps, which a
    mask of Keras leaves out, do not count. Its output has the mask of the experts.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[x, e_1, ..., e_n]`: what the gate sees (B, ..., channels), and the outputs of the
            experts (B, ...), all of the same shape.

    Returns:
        Tensor with the shape of an expert's output.

    Raises:
        ValueError: If there is no expert, or if the experts have different shapes.

    Example:

    ```python
    x, experts = keras.random.normal((8, 5)), [keras.random.normal((8, 16)) for _ in range(3)]
    for_one_task = tag_keras.ExpertGate()([x, *experts])  # (8, 16)
    ```
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        x, *experts = input_shape
        check(
            len({tuple(shape) for shape in experts}) == 1,
            "The inputs of `ExpertGate` should be what it sees, and experts of the same shape",
            shapes=input_shape,
        )
        self.kernel = self.add_weight(shape=(x[-1], len(experts)), name="kernel")

    def call(
        self, inputs: Sequence[tf.Tensor], mask: Sequence[tf.Tensor | None] | None = None
    ) -> tf.Tensor:
        x, *experts = inputs
        seen = _mean(x, mask[0] if mask else None)
        weights = tf.nn.softmax(tf.matmul(seen, tf.cast(self.kernel, tf.float32)))
        shape = [-1, *[1] * (len(experts[0].shape) - 1)]
        parts = [tf.reshape(one, shape) for one in tf.unstack(weights, axis=1)]
        # An einsum would transpose the experts, which takes many times as long.
        return tf.add_n(
            [tf.cast(part, one.dtype) * one for part, one in zip(parts, experts, strict=True)]
        )

    def compute_output_shape(
        self, input_shape: Sequence[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        return input_shape[1]

    def compute_mask(
        self, inputs: Sequence[tf.Tensor], mask: Sequence[tf.Tensor | None] | None
    ) -> tf.Tensor | None:
        return mask[1] if mask else None


def _mean(x: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Mean (B, channels) of x (B, ..., channels) over the steps in a mask (B, steps), or over all.

    Without any step it is 0.
    """
    # In float16 the sum may overflow.
    x, axes = tf.cast(x, tf.float32), list(range(1, len(x.shape) - 1))
    if mask is None:
        return tf.reduce_mean(x, axes)
    shape = tf.concat([tf.shape(mask), [1] * (len(x.shape) - len(mask.shape))], axis=0)
    counted = tf.reshape(tf.cast(mask, tf.float32), shape) * tf.ones_like(x)
    return tf.math.divide_no_nan(tf.reduce_sum(counted * x, axes), tf.reduce_sum(counted, axes))


def mmoe_encoder(
    tasks: Sequence[str],
    inputs: Sequence[int | None] | keras.Model,
    build_expert: Build,
    num_experts: int = 8,
) -> keras.Model:
    """MMoE: all tasks share experts, and each weighs them by a gate (Ma et al. 2018, KDD).

    "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
    eq. 5 to 7, with the head of task k after the features f_k and experts e_1 to e_n:

        f_k(x) = sum_i g_k(x)_i e_i(x),    g_k(x) = softmax(W_k x)

    A gate sees the mean of x over the steps of a sequence, but for padded ones, or the pixels of an
    image.

    The tasks share all experts; the gates belong to one task each. Take it for tasks of which it is
    not known how much they have in common, and where one pass through all experts is cheap: many
    recommenders have dense experts after shared embeddings.

    Args:
        tasks: Task names.
        inputs: Shape of an example, without the batch; or a Functional model whose output the
            experts and gates see, such as embeddings of one or several inputs.
        build_expert: Builds an expert: a layer or model from x (B, ...) to one tensor (B, ...), a
            new one at each call.
        num_experts: Number of experts.

    Returns:
        Functional model to a dict of features by task, with the shape of an expert's output.

    Raises:
        ValueError: If the inputs are no numbers, if `build_expert` builds no new layer or layers
            of different shapes, or if a number is too small.

    Example:

    ```python
    encoder = tag_keras.mmoe_encoder(
        ["click", "buy"], (20,), lambda: keras.layers.Dense(16, "relu"), num_experts=4
    )
    heads = {"click": keras.layers.Dense(1), "buy": keras.layers.Dense(1)}
    model = tag_keras.MultiTaskModel(encoder, heads)
    ```
    """
    names = check_task_names(tasks)
    number = check_count("num_experts", num_experts)
    first, x, made = start(inputs)
    experts = side_by_side("build_expert", build_expert, [x] * number, made)
    return keras.Model(
        first, {task: ExpertGate()([x, *experts]) for task in names}, name="mmoe_encoder"
    )


def cgc_encoder(
    tasks: Sequence[str],
    inputs: Sequence[int | None] | keras.Model,
    build_expert: Build,
    num_shared: int = 1,
    num_specific: int = 1,
) -> keras.Model:
    """CGC: each task weighs experts of its own and experts of all (Tang et al. 2020, RecSys).

    "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
    Recommendations", customized gate control. With the experts e_k1 to e_km of task k, and e_1 to
    e_s of all tasks:

        f_k(x) = sum_i g_k(x)_i S_ki(x),    g_k(x) = softmax(W_k x)
        S_k = (e_k1, ..., e_km, e_1, ..., e_s)

    It is `ple_encoder` with one level. The tasks share the experts of all; all else belongs to one
    task. Take it for tasks that conflict: one task cannot spoil the experts of another.

    Args:
        tasks: Task names.
        inputs: Shape of an example, without the batch; or a Functional model whose output the
            experts and gates see.
        build_expert: Builds an expert: a layer or model from x (B, ...) to one tensor (B, ...), a
            new one at each call.
        num_shared: Number of experts of all tasks.
        num_specific: Number of experts of each task.

    Returns:
        Functional model to a dict of features by task, with the shape of an expert's output.

    Raises:
        ValueError: If the inputs are no numbers, if `build_expert` builds no new layer or layers
            of different shapes, or if a number is too small.

    Example:

    ```python
    encoder = tag_keras.cgc_encoder(
        ["click", "buy"], (20,), lambda: keras.layers.Dense(16, "relu"), num_shared=2
    )
    heads = {"click": keras.layers.Dense(1), "buy": keras.layers.Dense(1)}
    model = tag_keras.MultiTaskModel(encoder, heads)
    ```
    """
    outputs = _levels(tasks, inputs, "build_expert", [build_expert], num_shared, num_specific)
    return keras.Model(*outputs, name="cgc_encoder")


def ple_encoder(
    tasks: Sequence[str],
    inputs: Sequence[int | None] | keras.Model,
    build_experts: Sequence[Build],
    num_shared: int = 1,
    num_specific: int = 1,
) -> keras.Model:
    """PLE: levels of experts of each task and of all, which part step by step (Tang et al. 2020).

    "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
    Recommendations", RecSys. Each level is one of `cgc_encoder`. In place of x, the experts and the
    gate of task k see its features of the level before; the experts of all see what a further gate
    makes of all experts of that level, also of those of single tasks:

        f_kj = sum_i g_kj(f_k(j-1))_i S_kji,    g_kj(x) = softmax(W_kj x)

    Through that gate, the tasks share the experts of all levels but the last. Of the last level,
    they share the experts of all. The gates of single tasks belong to these.

    Take it where one level does too little: it costs as much for each further one.

    Args:
        tasks: Task names.
        inputs: Shape of an example, without the batch; or a Functional model whose output the
            first experts and gates see.
        build_experts: By level, a function that builds an expert: a layer or model from one tensor
            (B, ...) to one tensor (B, ...), a new one at each call.
        num_shared: Number of experts of all tasks, at each level.
        num_specific: Number of experts of each task, at each level.

    Returns:
        Functional model to a dict of features by task, with the shape of a last expert's output.

    Raises:
        ValueError: If the inputs are no numbers, if there is no level, if a function builds no new
            layer or layers of different shapes, or if a number is too small.

    Example:

    ```python
    levels = [lambda: keras.layers.Dense(32, "relu"), lambda: keras.layers.Dense(16, "relu")]
    encoder = tag_keras.ple_encoder(["click", "buy"], (20,), levels)
    heads = {"click": keras.layers.Dense(1), "buy": keras.layers.Dense(1)}
    model = tag_keras.MultiTaskModel(encoder, heads)
    ```
    """
    outputs = _levels(tasks, inputs, "build_experts", build_experts, num_shared, num_specific)
    return keras.Model(*outputs, name="ple_encoder")


def _levels(
    tasks: Sequence[str],
    inputs: Sequence[int | None] | keras.Model,
    name: str,
    builds: Sequence[Build],
    num_shared: int,
    num_specific: int,
) -> tuple[object, dict[str, keras.KerasTensor]]:
    """The inputs and the features by task of PLE, with a level for each of `builds`."""
    names = check_task_names(tasks)
    check_count("num_shared", num_shared)
    check_count("num_specific", num_specific)
    valid = isinstance(builds, list | tuple) and len(builds) > 0
    wanted = f"`{name}` should be a list with a function for each level"
    check(valid, wanted, **{name: builds})
    first, shared, made = start(inputs)
    features = dict.fromkeys(names, shared)
    for level, build in enumerate(builds, start=1):
        seen = [features[task] for task in names for _ in range(num_specific)]
        outputs = side_by_side(name, build, [*seen, *[shared] * num_shared], made)
        parts = [outputs[i * num_specific : (i + 1) * num_specific] for i in range(len(names))]
        common = outputs[len(seen) :]
        if level < len(builds):
            shared = ExpertGate()([shared, *outputs])
        features = {
            task: ExpertGate()([features[task], *own, *common])
            for task, own in zip(names, parts, strict=True)
        }
    return first, features
