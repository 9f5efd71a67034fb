"""The state that forward passes change, so that more passes on a batch leave no trace."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow.python.framework.auto_control_deps_utils import (
    get_read_only_resource_input_indices_graph,
)

from tag_keras.backend.scopes import InnerScope

# Values of Keras variables.
Values = Sequence[tuple[keras.Variable, tf.Tensor]]
# Operations that change other things than variables: that cannot be undone.
_NOT_UNDONE = {
    *("LookupTableInsertV2", "LookupTableRemoveV2", "LookupTableImportV2"),
    *("QueueEnqueueV2", "QueueDequeueV2", "IteratorGetNext", "IteratorGetNextAsOptional"),
}


class PassState:
    """What a forward pass in training changes, such as moving statistics and random seeds.

    Most of it is in Keras variables. A `keras.StatelessScope` holds these, also those that no layer
    knows: the state of a loss, or of Keras' global seeds. It does not see a `tf.Variable` or a
    `tf.random.Generator`. `find` finds these in the graph of a pass, and they are set back.
    """

    def __init__(self) -> None:
        self._variables: list[keras.Variable] = []
        # Handles of `tf.Variable`s: a graph does not know all the variables themselves.
        self._handles: list[tf.Tensor] = []

    def find(self, model: keras.Model, forward: Callable[..., Any], batch: Sequence[Any]) -> Any:
        """Finds what a forward pass changes, by tracing it once. Returns the graph of the pass.

        If a pass cannot be traced, because it only runs eagerly, no `tf.Variable` is found.

        Args:
            model: Compiled model that has all its variables.
            forward: Function from the parts of a batch to what is computed in a pass.
            batch: Inputs, labels and sample weights: arrays, tensors or their specs.

        Raises:
            ValueError: If a pass changes what cannot be set back after it.
        """
        self._variables, self._handles = [], []
        weights = model.variables
        changed: dict[int, keras.Variable] = {}

        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def one_pass(values: list[tf.Tensor], *batch: Any) -> None:
            with _RecordingScope(list(zip(weights, values, strict=True)), changed):
                forward(*batch)

        specs = [tf.TensorSpec(variable.shape, variable.dtype) for variable in weights]
        try:
            function = one_pass.get_concrete_function(specs, *batch)
        except Exception:
            if model.run_eagerly:
                return None
            raise
        self._variables = list(changed.values())
        resources = _changed_resources(function)
        self._handles = [handle for handle in resources if _dtype(handle) is not None]
        if len(resources) > len(self._handles):
            _check_operations(function.graph)
        if self._handles and model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "A forward pass of the model changes variables or random generators that Keras "
                "does not know, and a probe could not set them back on several replicas. Make "
                "them with `add_weight(trainable=False)`, `keras.Variable` or "
                "`keras.random.SeedGenerator`, or train on one device."
            )
        return function.graph

    @property
    def changes_anything(self) -> bool:
        """Whether a forward pass changes a variable."""
        return bool(self._variables or self._handles)

    def unknown_to(self, model: keras.Model) -> list[str]:
        """Names of what a forward pass changes beside the variables of the model."""
        known = {id(one) for one in model.variables}
        names = [one.path for one in self._variables if id(one) not in known]
        return [*names, *("a `tf.Variable` or a `tf.random.Generator`" for _ in self._handles[:1])]

    def now(self, model: keras.Model) -> "Moment":
        """The present state, from which passes can start again."""
        variables = {id(one): one for one in (*model.non_trainable_variables, *self._variables)}
        return Moment(
            [(variable, tf.convert_to_tensor(variable)) for variable in variables.values()],
            [(handle, _read(handle)) for handle in self._handles],
        )


class Moment(NamedTuple):
    """The state that forward passes change, as it is at one moment.

    Args:
        variables: Values of Keras variables.
        others: Values of `tf.Variable`s, by their handles.
    """

    variables: Values
    others: Sequence[tuple[tf.Tensor, tf.Tensor]]

    @contextlib.contextmanager
    def again(self, values: Values, collect_losses: bool = False) -> Iterator[None]:
        """Context of a pass that starts from this moment, and leaves the present state as it is.

        Args:
            values: Values of other variables in the pass.
            collect_losses: Whether the model has the losses that layers add.
        """
        present = [(handle, _read(handle)) for handle, _ in self.others]
        _write(self.others)
        mapping = [*self.variables, *values]
        try:
            with InnerScope(state_mapping=mapping, collect_losses=collect_losses):
                yield
        finally:
            _write(present)


class _RecordingScope(keras.StatelessScope):  # type: ignore[misc]
    """A scope that adds to `changed` the variables that would have changed without it, by `id`."""

    def __init__(self, state_mapping: Values, changed: dict[int, keras.Variable]) -> None:
        super().__init__(state_mapping=state_mapping)
        self._changed = changed

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        self._changed[id(update[0])] = update[0]
        super().add_update(update)


def _changed_resources(function: Any) -> list[tf.Tensor]:
    """Handles of the resources from outside of a concrete function that it may change."""
    inputs, captured = function.graph.inputs, function.captured_inputs
    read_only = set(get_read_only_resource_input_indices_graph(function.graph))
    return [
        handle
        for index, handle in enumerate(captured, len(inputs) - len(captured))
        if inputs[index].dtype == tf.resource and index not in read_only
    ]


def operations_in(graph: Any) -> set[str]:
    """Kinds of the operations in a graph and in its functions."""
    definition = graph.as_graph_def()
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
    return {node.op for node in nodes}


def _check_operations(graph: Any) -> None:
    """Raises a `ValueError` if a graph, or a function in it, has operations of `_NOT_UNDONE`."""
    if found := sorted(operations_in(graph) & _NOT_UNDONE):
        raise ValueError(
            f"A forward pass of the model has the operations {found}, and a probe could not undo "
            "what they change. Take them out of layers and losses, or compile without `affinity`."
        )


def _dtype(handle: tf.Tensor) -> tf.DType | None:
    """Data type of the variable behind a handle; `None` if it is no variable, but a table, say."""
    data = handle._handle_data
    return tf.as_dtype(data.shape_and_type[0].dtype) if data is not None and data.is_set else None


def _read(handle: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=_dtype(handle))


def _write(values: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> None:
    for handle, value in values:
        tf.raw_ops.AssignVariableOp(resource=handle, value=value)
