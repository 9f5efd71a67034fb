"""What encoders of several equal layers side by side have in common, whatever the layers are."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tag_keras.utils.checks import check

Build = Callable[[], keras.layers.Layer]


def start(inputs: Any) -> tuple[Any, keras.KerasTensor, list[keras.layers.Layer]]:
    """The inputs of an encoder, the features that its first layers see, and the layers before them.

    Raises:
        ValueError: If `inputs` is neither a shape nor a Functional model with one output, or if
            the features are no vectors, sequences or images of floating-point numbers.
    """
    first: Any = None
    x: Any = None
    if isinstance(inputs, keras.Model):
        if getattr(inputs, "inputs", None):
            # A Sequential model has no `input` and `output` before it is called.
            is_sequential = isinstance(inputs, keras.Sequential)
            first = inputs.inputs[0] if is_sequential else inputs.input
            x = inputs.outputs[0] if is_sequential else inputs.output
        check(
            isinstance(x, keras.KerasTensor),
            "`inputs` should be a shape, or a Functional model with one output",
            inputs=inputs,
        )
        known = first, x, list(inputs.layers)
    else:
        valid = isinstance(inputs, list | tuple) and len(inputs) > 0
        check(valid, "`inputs` should be the shape of an example, or a model", inputs=inputs)
        x = keras.Input(tuple(inputs))
        known = x, x, []
    check(
        len(x.shape) > 1 and "float" in x.dtype,
        "`inputs` should end in floating-point numbers (B, ..., channels). Give a model that makes "
        "them, such as an embedding",
        shape=x.shape,
        dtype=x.dtype,
    )
    return known


def side_by_side(
    name: str,
    build: Build,
    inputs: Sequence[keras.KerasTensor],
    made: list[keras.layers.Layer],
) -> list[keras.KerasTensor]:
    """Applies a new layer to each input.

    Args:
        name: Name of the argument that `build` is.
        build: Builds a layer or model from one tensor to one tensor.
        inputs: Tensors (B, ...).
        made: Layers of the encoder so far. It gets the new ones.

    Returns:
        A tensor for each input, all of the same shape.

    Raises:
        ValueError: If `build` needs arguments, gives no new layer at each call, or layers of
            different shapes.
    """
    wanted = f"`{name}` should be a function that builds a new layer or model at each call"
    # A layer itself is callable, too.
    valid = callable(build) and not isinstance(build, keras.layers.Layer)
    check(valid, wanted, **{name: build})
    _check_no_arguments(name, build)
    outputs = []
    for x in inputs:
        layer: Any = build()
        is_new = isinstance(layer, keras.layers.Layer) and all(layer is not one for one in made)
        check(is_new, wanted, **{f"{name}()": layer})
        # Layers of the same name cannot be in one model.
        if any(layer.name == one.name for one in made):
            layer.name = f"{layer.name}_{len(made)}"
        made.append(layer)
        outputs.append(layer(x))
    shapes = [getattr(output, "shape", None) for output in outputs]
    check(
        None not in shapes and len(set(shapes)) == 1,
        f"`{name}` should build layers that all give one tensor of the same shape",
        shapes=shapes,
    )
    return outputs


def _check_no_arguments(name: str, build: Build) -> None:
    try:
        signature = inspect.signature(build)
    except (TypeError, ValueError):  # Not every callable has one.
        return
    try:
        signature.bind()
    except TypeError as error:
        raise ValueError(
            f"`{name}` should be a function without arguments, such as `lambda: "
            f"keras.layers.Dense(16)`. Received: one of {signature} ({error})."
        ) from None
