"""What TensorFlow keeps of traced functions, in a registry of the whole process."""

import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

_OF_A_TRACE = "_graph_mode_decorator.<locals>.internal_grad_fn"


def release_graphs() -> None:
    """Lets the registry of custom gradients keep no graph alive.

    For each trace of a `tf.custom_gradient`, TensorFlow registers a function for ever, which holds
    the graph and, by their handles, all variables in it. Each trace of a training step has one:
    Keras sums the gradients over replicas. From now on the graphs hold these functions, and the
    registry has them as long as there is a graph that may ask for them.
    """
    registry = ops.gradient_registry._registry
    # A copy: entries may go at any time.
    for name, entry in registry.copy().items():
        function = entry["type"]
        if getattr(function, "__qualname__", "") != _OF_A_TRACE:
            continue
        for graph in _graphs_of(function):
            graph._custom_gradients = [*getattr(graph, "_custom_gradients", []), function]
            entry["type"] = _weak(function, name, registry)


def _weak(function: Callable[..., Any], name: str, registry: dict[str, Any]) -> Callable[..., Any]:
    reference = weakref.ref(function, lambda _: registry.pop(name, None))
    return lambda *arguments: reference()(*arguments)  # type: ignore[misc]


def _graphs_of(function: Callable[..., Any]) -> Iterator[Any]:
    """The graph that the function of a custom gradient belongs to, and those around it."""
    # Another version of TensorFlow may have other names; then it keeps the graphs.
    gradient = inspect.getclosurevars(function).nonlocals.get("tape_grad_fn")
    if gradient is None:
        return
    results = tf.nest.flatten(inspect.getclosurevars(gradient).nonlocals.get("result"), True)
    # A function may also give what is no tensor of a graph.
    graphs = (getattr(one, "graph", None) for one in results)
    graph: Any = next((one for one in graphs if one is not None), None)
    # Around all of them is the default graph of TensorFlow 1, which never ends.
    while hasattr(graph, "outer_graph"):
        yield graph
        graph = graph.outer_graph
