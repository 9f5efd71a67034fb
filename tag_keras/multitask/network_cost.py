"""Cost of a network: its parameters, and the floating point operations of a forward pass."""

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from tag_keras.multitask.task_model import input_signature

# Operations that run others, and the graph does not tell how often.
_HIDING = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase", "Scan"}
_HIDING |= {"PartitionedCall", "StatefulPartitionedCall", "XlaLaunch", "PyFunc", "EagerPyFunc"}


@dataclasses.dataclass(frozen=True)
class NetworkCost:
    """Cost of a network.

    Args:
        parameters: Number of parameters that a forward pass reads, trained or not, each once.
        flops: Floating point operations of a forward pass for one example.
    """

    parameters: int
    flops: int


def measure_cost(model: keras.Model) -> NetworkCost:
    """Counts the parameters of a model, and the operations of a forward pass for one example.

    TensorFlow's profiler counts the operations in the graph of the model at inference; nothing is
    run. A multiplication and an addition are two operations, so a dense layer from n to m features
    has 2 n m + m with its bias. Matrix products, convolutions, pooling and elementwise sums and
    products count; most activations, and moving data, do not.

    To select networks under a budget, take a cost such as
    `lambda group: measure_cost(build_model(group)).flops / measure_cost(joint).flops`.

    Args:
        model: Keras model that is built or begins with `keras.Input`, or a `MultiTaskModel` whose
            encoder does.

    Raises:
        ValueError: If `model` is no Keras model or is not built, if a size of its inputs besides
            the batch is unknown, or if it has loops or branches.

    Example:

    ```python
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(4)])
    tag_keras.measure_cost(model)  # NetworkCost(parameters=44, flops=84)
    ```
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` should be a Keras model. Received: type={type(model)}.")
    inputs = _one_example(model)
    function = _trace(model, inputs)
    hidden = sorted({op.type for op in function.graph.get_operations() if op.type in _HIDING})
    if hidden:
        raise ValueError(
            "`model` should have no loops or branches, because nothing tells how often they run; "
            f"make recurrent layers with unroll=True. Received: {model.name!r}, with {hidden}."
        )
    parameters = sum(math.prod(variable.shape) for variable in function.variables)
    return NetworkCost(parameters, _count_operations(function.graph))


def _one_example(model: keras.Model) -> Any:
    """Specs of the inputs of `model` with a batch of 1: a structure of `tf.TensorSpec`."""
    # A `GroupedModel` takes the inputs of its first model, a `MultiTaskModel` those of its encoder.
    networks = [model, *getattr(model, "models", [])[:1]]
    layers = [layer for n in networks for layer in (n, getattr(n, "encoder", None))]
    declared = next(filter(None, map(input_signature, layers)), None)
    shapes = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if declared is not None:
        (specs,) = declared
        if not model.built:
            # A symbolic call creates all variables.
            model(keras.tree.map_structure(lambda s: keras.KerasTensor(s.shape, s.dtype), specs))
        inputs = keras.tree.map_structure(
            lambda s: tf.TensorSpec((1, *s.shape[1:]), s.dtype), specs
        )
    elif shapes is not None:
        dtype = model.input_dtype
        inputs = keras.tree.map_shape_structure(lambda s: tf.TensorSpec((1, *s[1:]), dtype), shapes)
    else:
        raise ValueError(
            "`model` should be built, so that the size of its inputs is known; call it on one "
            f"batch first, or begin it with a keras.Input. Received: {model.name!r}, not built."
        )
    if not all(spec.shape.is_fully_defined() for spec in keras.tree.flatten(inputs)):
        raise ValueError(
            "`model` should have inputs whose size is known but for the batch; build it for inputs "
            f"of one size. Received: {model.name!r}, with the inputs {inputs}."
        )
    return inputs


def _trace(model: keras.Model, inputs: Any) -> Any:
    function = tf.function(lambda x: model(x, training=False), autograph=False)
    # Otherwise a function inside a layer, such as Keras' convolution in groups, would be one
    # operation of the graph. `get_concrete_function` traces all the same.
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        return function.get_concrete_function(inputs)
    finally:
        tf.config.run_functions_eagerly(eagerly)


def _count_operations(graph: tf.Graph) -> int:
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    options = options.with_empty_output().build()
    # The profiler warns that its own functions are deprecated.
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        counted = profiler.profile(graph=graph, cmd="op", options=options).total_float_ops
    finally:
        logger.setLevel(level)
    sums = [_count_einsum(op) for op in graph.get_operations() if op.type == "Einsum"]
    return int(counted) + sum(sums)


def _count_einsum(operation: tf.Operation) -> int:
    """Counts the operations of an einsum, as in attention, which the profiler leaves out."""
    terms = operation.get_attr("equation").decode().partition("->")[0].split(",")
    sizes: dict[str | int, int] = {}
    for term, tensor in zip(terms, operation.inputs, strict=True):
        before, dots, after = term.partition("...")
        broadcast = range(len(before) + len(after) - tensor.shape.rank, 0) if dots else ()
        for label, size in zip([*before, *broadcast, *after], tensor.shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return 2 * math.prod(sizes.values())
