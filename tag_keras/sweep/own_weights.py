"""What networks have in common, because `build_model` holds layers that it has made once."""

import contextlib
import gc
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tag_keras.backend.layers import build_from_seed, layers_in, names_kept
from tag_keras.model import MultiTaskModel


def build_alone(
    build: Callable[[], MultiTaskModel], seed: int, data: Any
) -> tuple[MultiTaskModel, list[keras.Variable]]:
    """Builds a model from its seed. A second one shows what it would have in common with others.

    Args:
        build: Returns a compiled model. Names of layers and random numbers stay as if it had been
            called once.
        seed: Seed.
        data: Training data. By their shape, layers in common get the variables that they lack.

    Returns:
        The model, and those of its variables that others have, too, and no training may change.

    Raises:
        ValueError: If models have something in common that a training changes.
    """
    with names_kept():
        other = build_from_seed(build, seed)
    model = build_from_seed(build, seed)
    there = {id(layer) for layer in layers_in(other)}
    if any(id(layer) in there and _may_grow(layer) for layer in layers_in(model)):
        # Only a reading would tell the shapes of what a function gives, for instance.
        with contextlib.suppress(Exception):
            other(symbolic_inputs(data))
    check_apart(changed_by_training(model), changed_by_training(other))
    known = {id(one) for one in (*other.weights, *_variables_of_losses(other))}
    both = (*model.weights, *_variables_of_losses(model))
    common = [one for one in both if id(one) in known]
    is_large = sum(math.prod(one.shape) for one in other.weights) > 10**6
    del other
    if is_large:
        # Otherwise Python frees it at some time during the training.
        gc.collect()
    return model, common


@contextlib.contextmanager
def unchanged(variables: Sequence[keras.Variable]) -> Iterator[None]:
    """Raises a `ValueError` if the block changes variables that networks have in common."""
    before = [_checksum(one) for one in variables]
    yield
    changed = [
        _name(one) for one, known in zip(variables, before, strict=True) if _checksum(one) != known
    ]
    if changed:
        raise ValueError(
            f"The training has changed {', '.join(changed[:5])}, which all networks have in "
            "common: each would go on where another one ended. Make them inside `build_model`."
        )


def _checksum(variable: keras.Variable) -> int:
    values = keras.ops.convert_to_numpy(variable)
    return zlib.crc32(np.ascontiguousarray(values).tobytes())


def _name(variable: Any) -> str:
    return str(getattr(variable, "path", variable.name))


def _may_grow(layer: keras.layers.Layer) -> bool:
    """Whether a layer may get variables of its own that can be trained, at its first call."""
    is_group = len(layers_in(layer)) > 1
    has_build = type(layer).build is not keras.layers.Layer.build
    return layer.trainable and not layer.built and has_build and not is_group


def symbolic_inputs(data: Any) -> Any:
    """Symbolic inputs of a model for arrays or a dataset."""
    if isinstance(data, tf.data.Dataset):
        return keras.tree.map_structure(
            lambda one: keras.KerasTensor(tuple(one.shape), one.dtype.name), data.element_spec[0]
        )
    return keras.tree.map_structure(
        lambda one: keras.KerasTensor(
            (None, *one.shape[1:]), keras.backend.standardize_dtype(one.dtype)
        ),
        data[0],
    )


def check_apart(changed: dict[int, str], known: dict[int, str]) -> None:
    """Raises a `ValueError` if what one training changes is among what another one changes."""
    names = list(dict.fromkeys(name for one, name in changed.items() if one in known))
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(
            "`build_model` should make all that a training changes anew at each call. Otherwise "
            "each network goes on where another one ended. These are the same for all networks: "
            f"{', '.join(names[:5])}{more}. Make them inside `build_model`, or set `trainable = "
            "False` on a layer that should stay as it is."
        )


def _variables_of_losses(model: MultiTaskModel) -> list[keras.Variable]:
    """Variables in the losses: constants, such as weights of classes, or a state such as a mean."""
    losses = keras.tree.flatten(model.loss)
    values = [one for loss in losses for one in getattr(loss, "__dict__", {}).values()]
    return [one for one in values if isinstance(one, keras.Variable | tf.Variable)]


def changed_by_training(model: MultiTaskModel) -> dict[int, str]:
    """Names of what a training of the model changes, by identity."""
    changed = {id(one): one.path for one in model.trainable_weights}
    for layer in layers_in(model):
        if _may_grow(layer):
            changed[id(layer)] = f"the layer {layer.name!r}"
        elif isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            changed |= {id(one): one.path for one in layer.weights}
    optimizer = model.optimizer
    changed |= {id(one): f"the optimizer {optimizer.name!r}" for one in optimizer.variables}
    weights = getattr(model.task_losses, "weights", [])
    for weight in weights:
        if isinstance(weight, keras.Variable):
            changed[id(weight)] = f"the loss weight {weight.path}"
    return changed
