"""Layers, variables and functions that objects of Keras do not show in public."""

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras.src.backend.common import global_state


def layers_in(
    layer: keras.layers.Layer, include_self: bool = True, recursive: bool = True
) -> list[keras.layers.Layer]:
    """All layers in a layer or model: itself first, if asked; with `recursive`, all levels.

    A layer that is used twice may be listed twice.
    """
    return list(layer._flatten_layers(include_self=include_self, recursive=recursive))


def own_trainable_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Trainable variables of the layer itself, without the layers in it."""
    return list(layer._trainable_variables)


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Variables of the layer itself, with the seeds of its random numbers."""
    seeds = [one.state for one in layer._seed_generators]
    return [*layer._trainable_variables, *layer._non_trainable_variables, *seeds]


class Call(NamedTuple):
    """How a tensor of a Functional model is computed.

    Args:
        operation: Layer or other operation.
        place: Which of the operation's calls, and which of its outputs.
        arguments: Arguments of the call, with `None` in the place of tensors.
        inputs: The tensors among the arguments.
    """

    operation: Any
    place: tuple[int, int]
    arguments: Any
    inputs: list[keras.KerasTensor]


def call_of(tensor: keras.KerasTensor) -> Call:
    """How a tensor of a Functional model is computed."""
    operation, *place = tensor._keras_history
    node = operation._inbound_nodes[place[0]]
    given = (node.arguments.args, node.arguments.kwargs)
    arguments = keras.tree.map_structure(
        lambda one: None if isinstance(one, keras.KerasTensor) else one, given
    )
    return Call(operation, (place[0], place[1]), arguments, list(node.input_tensors))


def outputs_of_call(tensor: keras.KerasTensor, values: Mapping[int, Any]) -> dict[int, Any]:
    """Makes the call that computes a tensor of a Functional model.

    Args:
        tensor: An output of the call.
        values: Values of the tensors among its arguments, by the `id` of the tensor.

    Returns:
        Values of all outputs of the call, by the `id` of the tensor.
    """
    operation, index, _ = tensor._keras_history
    node = operation._inbound_nodes[index]
    args, kwargs = keras.tree.map_structure(
        lambda one: values[id(one)] if isinstance(one, keras.KerasTensor) else one,
        (node.arguments.args, node.arguments.kwargs),
    )
    found = keras.tree.flatten(operation(*args, **kwargs))
    return {id(one): value for one, value in zip(node.output_tensors, found, strict=True)}


def forget_layer(owner: keras.layers.Layer, layer: keras.layers.Layer) -> None:
    """Removes a layer from its owner's list of layers; `delattr` alone leaves it there."""
    owner._tracker.untrack(layer)


def track_loss(model: keras.Model, loss: Any, size: Any) -> None:
    """Adds the loss of `size` examples to the mean that `fit` logs as `loss`."""
    model._loss_tracker.update_state(loss, sample_weight=size)


def examples_seen(model: keras.Model) -> float:
    """Number of examples that `track_loss` has counted since the metrics were last reset."""
    return float(tf.convert_to_tensor(model._loss_tracker.count))


def averaged_function(
    metric: keras.metrics.Metric,
) -> tuple[Callable[..., Any], dict[str, Any]] | None:
    """The function whose values a metric averages, and its options; `None` for other metrics."""
    wrapper = keras.metrics.MeanMetricWrapper
    if not isinstance(metric, wrapper) or type(metric).update_state is not wrapper.update_state:
        return None
    return metric._fn, metric._fn_kwargs


def options_of(loss: keras.losses.Loss) -> dict[str, Any]:
    """The options of the function that a loss of Keras wraps; a subclass may keep some itself."""
    return {"axis": getattr(loss, "axis", -1), **loss._fn_kwargs}


@contextlib.contextmanager
def names_kept() -> Iterator[None]:
    """Names layers after the block as if none had been made in it."""
    counts = global_state.get_global_attribute("object_name_uids", collections.defaultdict(int))
    kept = counts.copy()
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", kept)


def build_from_seed(build: Callable[[], Any], seed: int) -> Any:
    """Calls `build` after setting the seed, again where Keras gives a layer a name that is taken.

    A layer made before `clear_session`, or in another process, may have the name "dropout", which
    Keras gives to the first one made in `build`. At the next call Keras goes on counting.
    """
    told = ""
    for left in reversed(range(100)):
        keras.utils.set_random_seed(seed)
        try:
            return build()
        except ValueError as error:
            # A name that the user gives twice stays the same.
            if not left or "unique" not in str(error) or str(error) == told:
                raise
            told = str(error)
    return None
