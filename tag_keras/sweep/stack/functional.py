"""Which layers of two Functional models that give tensors by task are the same."""

from collections.abc import Sequence
from typing import Any

import keras

from tag_keras.backend.layers import Call, call_of
from tag_keras.sweep.descriptions import Names, describe, describe_object
from tag_keras.sweep.fingerprint import of_part
from tag_keras.sweep.stack.refusals import NotStackedError

Layers = list[tuple[keras.layers.Layer, keras.layers.Layer]]


def matched_layers(whole: keras.Model, part: keras.Model, tasks: Sequence[str]) -> Layers:
    """Pairs of layers, of a model for all tasks and of a model for some of them.

    It goes back from the outputs to the inputs of both models. Names do not matter.

    Raises:
        NotStackedError: If the output of a task is computed in another way.
    """
    _check_states(whole)
    left = [(whole.output[task], part.output[task]) for task in tasks]
    calls: dict[tuple[int, Any], tuple[int, Any]] = {}
    found: dict[int, tuple[Any, Any]] = {}
    while left:
        one, other = (call_of(tensor) for tensor in left.pop())
        here, there = (id(other.operation), other.place), (id(one.operation), one.place)
        if here in calls and calls[here] == there:
            continue
        known = found.setdefault(id(other.operation), (one.operation, other.operation))
        # What is one layer in a model is one layer in the other.
        if here in calls or known[0] is not one.operation or _of_call(one) != _of_call(other):
            raise NotStackedError(
                f"the layer {one.operation.name!r} is another one in the network for "
                f"{', '.join(tasks)}"
            )
        calls[here] = there
        left += zip(one.inputs, other.inputs, strict=True)
    if len({id(one) for one, _ in found.values()}) < len(found):
        raise NotStackedError(f"tasks of the network for {', '.join(tasks)} share other layers")
    return [pair for pair in found.values() if isinstance(pair[0], keras.layers.Layer)]


def _check_states(model: keras.Model) -> None:
    """Raises a `NotStackedError` if a layer with a state is called more than once."""
    left = list(model.output.values())
    calls: dict[int, set[int]] = {}
    while left:
        call = call_of(left.pop())
        places = calls.setdefault(id(call.operation), set())
        if call.place[0] in places:
            continue
        places.add(call.place[0])
        if len(places) > 1 and getattr(call.operation, "non_trainable_variables", None):
            # Networks of some tasks may call it less often.
            raise NotStackedError(
                f"the layer {call.operation.name!r}, which has a state, is called more than once"
            )
        left += call.inputs


def _of_call(call: Call) -> Any:
    operation = call.operation
    is_layer = isinstance(operation, keras.layers.Layer)
    described = of_part(operation) if is_layer else describe_object(operation, Names([operation]))
    return described, describe(call.arguments), len(call.inputs), call.place[1]
