"""Networks of a fixed policy: they hold only what the tasks execute."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tag_keras.backend.layers import layers_in
from tag_keras.model import MultiTaskModel
from tag_keras.networks.adashare.encoder import AdaShareEncoder, symbolic_input
from tag_keras.networks.adashare.policy import check_policy


def fixed_model(
    encoder: AdaShareEncoder,
    heads: Mapping[str, keras.layers.Layer],
    policy: Any,
    copy_weights: bool,
) -> MultiTaskModel:
    """A new model in which each task executes the blocks that a hard policy gives it.

    It holds only what some task executes. Tasks whose decisions agree up to a block share the
    computation up to this block. Its encoder is a Functional model to a dict of features by task.

    Args:
        encoder: A built encoder.
        heads: Layer or model by task.
        policy: Boolean array (K, L), whether task k executes block l.
        copy_weights: Whether the layers get copies of the weights, or fresh weights.
    """
    policy = check_policy(policy, len(encoder.tasks), len(encoder.blocks))
    shape = encoder.get_build_config()["input_shape"] if encoder.built else None
    if shape is None:
        raise ValueError(
            "The encoder has not seen any data, so that its shapes are unknown. Call `fit`, or the "
            "model on a batch of data, first."
        )
    twin = _twin(encoder, shape, copy_weights)
    inputs = _inputs(shape)
    network = keras.Model(inputs, _features(twin, policy, inputs), name=encoder.name)
    model = MultiTaskModel(network, {task: _copied(head) for task, head in heads.items()})
    # A call without data makes the weights, so that the model can be saved at once.
    model(keras.tree.map_shape_structure(symbolic_input, shape))
    if copy_weights:
        for task, head in model.heads.items():
            head.set_weights(heads[task].get_weights())
    return model


def _twin(encoder: AdaShareEncoder, shape: Any, copy_weights: bool) -> AdaShareEncoder:
    """A built copy of an encoder, in whose blocks no two layers have the same name."""
    blocks = [_copied(block) for block in encoder.blocks]
    top = None if encoder.top is None else _copied(encoder.top)
    twin = AdaShareEncoder(_copied(encoder.stem), blocks, encoder.tasks, top)
    twin.build(shape)
    if copy_weights:
        twin.set_weights(encoder.get_weights())
    for index, block in enumerate(twin.blocks):
        # A Functional model refuses two layers of the same name.
        for layer in layers_in(block, include_self=False, recursive=False):
            layer.name = f"block_{index}_{layer.name}"
    return twin


def _inputs(shape: Any) -> Any:
    """Symbolic inputs of a shape, or of a structure of shapes."""
    if isinstance(shape, Mapping):
        # Keras wants tensors with the names in the dict.
        return {name: keras.Input(one[1:], name=name) for name, one in shape.items()}
    return keras.tree.map_shape_structure(lambda one: keras.Input(one[1:]), shape)


def _features(encoder: AdaShareEncoder, policy: npt.NDArray[np.bool_], inputs: Any) -> Any:
    """Features by task; what several tasks have in common is computed once."""
    rows = [tuple(row) for row in policy.tolist()]
    # Features by the decisions at the blocks so far.
    known: dict[tuple[bool, ...], Any] = {(): encoder.stem(inputs)}
    for row in rows:
        for index, block in enumerate(encoder.blocks):
            before, way = row[:index], row[: index + 1]
            if way not in known:
                known[way] = block.shortcut(known[before])
                if row[index]:
                    known[way] = keras.ops.relu(known[way] + block.residual(known[before]))
    if encoder.top is not None:
        known = {row: encoder.top(known[row]) for row in dict.fromkeys(rows)}
    return {task: known[row] for task, row in zip(encoder.tasks, rows, strict=True)}


def task_network(model: MultiTaskModel, task: str) -> keras.Model:
    """The network of one task, as an ordinary Keras model.

    It holds only the layers that the task depends on, and shares their weights with `model`. A task
    that skips blocks by its AdaShare policy has a smaller network.

    Args:
        model: A `MultiTaskModel` whose encoder is a Functional model, such as from
            `AdaShareModel.pruned_model`, `AdaShareModel.retrain_model` or
            `MultiTaskModel.from_functional`.
        task: Name of the task.

    Returns:
        A Functional model from the inputs to the predictions of the task.

    Raises:
        ValueError: If the model has no such task, or if its encoder is no Functional model.
    """
    if task not in model.tasks:
        raise ValueError(
            f"`task` should be one of the tasks {list(model.tasks)}. Received: task={task!r}."
        )
    # A layer, a subclassed model, and a Sequential that is not built have no such attribute.
    features = getattr(model.encoder, "output", None)
    if features is None:
        raise ValueError(
            "The encoder of `model` should be a Functional model, in which the layers of a task "
            "can be found. For an AdaShareModel, give `model.pruned_model(policy)`. "
            f"Received: encoder={model.encoder!r}."
        )
    features = features[task] if isinstance(features, Mapping) else features
    return keras.Model(model.encoder.input, model.heads[task](features), name=task)


def _copied(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A layer with the same options and fresh weights."""
    return type(layer).from_config(layer.get_config())
