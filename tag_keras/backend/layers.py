"""Layers of a Keras model, as far as Keras keeps them to itself."""

from typing import Any

import keras


def layers_in(
    layer: keras.layers.Layer, include_self: bool = True, recursive: bool = True
) -> list[keras.layers.Layer]:
    """All layers in a layer or model; a layer that is used twice may be there twice.

    Args:
        layer: Layer or model.
        include_self: Whether the layer itself is the first of them.
        recursive: Whether to look into the layers that it has.
    """
    return list(layer._flatten_layers(include_self=include_self, recursive=recursive))


def own_trainable_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables of a layer that belong to none of the layers in it."""
    return list(layer._trainable_variables)


def forget_layer(owner: keras.layers.Layer, layer: keras.layers.Layer) -> None:
    """Takes a layer out of the list of its owner, where Keras leaves it once it is deleted."""
    owner._tracker.untrack(layer)


def track_loss(model: keras.Model, loss: Any, size: Any) -> None:
    """Adds the loss of `size` examples to the mean that `fit` logs as `loss`."""
    model._loss_tracker.update_state(loss, sample_weight=size)
