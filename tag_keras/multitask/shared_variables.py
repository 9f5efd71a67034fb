"""Variables that several tasks share: found in the graph of an encoder, or chosen by the user."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf


def check_functional(model: Any) -> None:
    """Raises a `ValueError` unless a model has declared inputs, and one output tensor per task."""
    # A subclassed model, and a model that is not built, lack these attributes.
    output = getattr(model, "output", None) if isinstance(model, keras.Model) else None
    if output is None or getattr(model, "inputs", None) is None:
        raise ValueError(
            "`model` should be a Functional model: keras.Model(inputs, outputs). For another one, "
            f"give MultiTaskModel its encoder and heads. Received: model={model!r}."
        )
    tensors = output.values() if isinstance(output, Mapping) else [None]
    if not all(isinstance(tensor, keras.KerasTensor) for tensor in tensors):
        raise ValueError(
            f"The outputs of the model {model.name!r} should be a dict of one tensor by task: "
            "keras.Model(inputs, {task: tensor, ...}). "
            f"Received: {keras.tree.map_structure(lambda tensor: tensor.name, output)}."
        )


class SharedVariables:
    """Finds the variables of an encoder that several tasks share.

    If the encoder gives one feature tensor, the tasks share all variables. If it gives a dict by
    task, they share the variables that the features of more than one task depend on. `choose`
    overrides both.

    It stores `id`s, because Keras would take a list of variables for weights of its owner.
    """

    def __init__(self, tasks: tuple[str, ...]) -> None:
        self._tasks = tasks
        # Specs of the encoder's inputs; `None` until it has given a dict by task.
        self._inputs: Any = None
        self._chosen: frozenset[int] | None = None
        # Indices of the tasks that depend on a variable, by the variable's `id`.
        self._found: dict[int, frozenset[int]] = {}

    def of(self, encoder: keras.layers.Layer) -> list[keras.Variable]:
        """Shared variables that are trainable now, in the encoder's order."""
        trainable = encoder.trainable_variables
        if self._chosen is None and self._inputs is None:
            return list(trainable)
        if self._chosen is not None:
            return [variable for variable in trainable if id(variable) in self._chosen]
        tasks = self._find(encoder)
        return [variable for variable in trainable if len(tasks[id(variable)]) > 1]

    def tasks_of(self, encoder: keras.layers.Layer) -> dict[int, frozenset[int]]:
        """Indices of the tasks that depend on each variable of the encoder, by its `id`."""
        if self._inputs is None:
            everyone = frozenset(range(len(self._tasks)))
            return {id(variable): everyone for variable in encoder.variables}
        return self._find(encoder)

    def see_inputs(self, inputs: Any) -> None:
        """Remembers the inputs of an encoder that gives a dict by task."""
        if self._inputs is None:
            self._inputs = keras.tree.map_structure(_spec, inputs)

    def choose(self, encoder: keras.layers.Layer, shared: Any) -> None:
        """Sets the shared variables: a layer, its name, a variable, or a list of these.

        Raises:
            ValueError: If the encoder lacks one of them, or it is not trainable.
        """
        named = list(shared) if isinstance(shared, list | tuple | set) else [shared]
        if not named:
            raise ValueError(
                "`shared` should name at least one layer or variable. Leave it out to have the "
                "shared variables found. Received: shared=[]."
            )
        own = {id(variable) for variable in encoder.variables}
        chosen: list[keras.Variable] = []
        for one in named:
            variables = _variables(encoder, one)
            if variables is None or any(id(variable) not in own for variable in variables):
                raise ValueError(
                    f"`shared` should hold layers, names of layers or variables of the model "
                    f"{encoder.name!r}. It has the layers {sorted(_layers_by_name(encoder))}. "
                    f"Received: {one!r}."
                )
            if not any(variable.trainable for variable in variables):
                raise ValueError(
                    "`shared` should hold what can be trained. Set `trainable = True` on it, or "
                    f"leave it out. Received: {one!r}, which has no trainable variable."
                )
            chosen += variables
        self._chosen = frozenset(id(variable) for variable in chosen)

    def get_config(self, encoder: keras.layers.Layer) -> list[int] | None:
        """The user's choice as indices into `encoder.variables`; `None` without a choice.

        Names of variables may differ between Python processes; their order does not.
        """
        if self._chosen is None:
            return None
        variables = enumerate(encoder.variables)
        return [index for index, variable in variables if id(variable) in self._chosen]

    def set_config(self, encoder: keras.layers.Layer, config: Sequence[int] | None) -> None:
        """Restores a choice that `get_config` gave."""
        if config is not None:
            variables = encoder.variables
            self._chosen = frozenset(id(variables[index]) for index in config)

    def _find(self, encoder: keras.layers.Layer) -> dict[int, frozenset[int]]:
        variables = encoder.variables
        # With the frozen variables, which may be trained later.
        if list(self._found) != [id(variable) for variable in variables]:
            sets = variables_by_output(encoder, self._inputs)
            self._found = {
                id(variable): frozenset(
                    number for number, task in enumerate(self._tasks) if index in sets[task]
                )
                for index, variable in enumerate(variables)
            }
        return self._found


def variables_by_output(layer: keras.layers.Layer, inputs: Any) -> dict[str, frozenset[int]]:
    """Finds the variables that each output of a layer depends on.

    The layer is traced once, with a placeholder for each variable. An operation of the graph
    depends on all that its inputs depend on, also in nested models and layers that are called
    twice. An operation with a body, such as the loop of an RNN, counts as one: each of its outputs
    depends on all of its inputs.

    A variable behind a `stop_gradient` counts: the steps of other tasks move it, and so change the
    loss of this task.

    Args:
        layer: Layer that gives a dict of tensors.
        inputs: Inputs of the layer: a structure of `tf.TypeSpec`.

    Returns:
        Set of indices into `layer.variables`, by output.
    """
    variables = layer.variables

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def outputs(values: list[tf.Tensor], inputs: Any) -> dict[str, tf.Tensor]:
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            features = layer(inputs, training=True)
        return dict(features)

    specs = [tf.TensorSpec(variable.shape, variable.dtype) for variable in variables]
    function = outputs.get_concrete_function(specs, inputs)
    placeholders = [tensor.op.name for tensor in function.inputs[: len(specs)]]
    reached: dict[str, frozenset[int]] = {
        name: frozenset([index]) for index, name in enumerate(placeholders)
    }
    # The graph lists an operation after the operations that give its inputs.
    for operation in function.graph.get_operations():
        own = reached.get(operation.name, frozenset())
        reached[operation.name] = own.union(*(reached[t.op.name] for t in operation.inputs))
    return {
        task: frozenset().union(*(reached[t.op.name] for t in tf.nest.flatten(one, True)))
        for task, one in function.structured_outputs.items()
    }


def _variables(model: keras.Model, one: Any) -> list[keras.Variable] | None:
    """Variables that a layer, the name of a layer or a variable stands for; `None` if unknown."""
    if isinstance(one, keras.Variable):
        return [one]
    name = one.name if isinstance(one, keras.layers.Layer) else one
    layers = _layers_by_name(model).get(name, []) if isinstance(name, str) else []
    if isinstance(one, keras.layers.Layer):
        # A layer without variables belongs to the model only if it is one of its layers.
        known = one.variables or any(one is layer for layer in layers)
        return list(one.variables) if known else None
    if len(layers) > 1:
        raise ValueError(
            f"`shared` names {len(layers)} layers of the model {model.name!r} at once. Give the "
            f"layer itself. Received: {one!r}."
        )
    return list(layers[0].variables) if layers else None


def _layers_by_name(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """Layers of a model and of its nested models."""
    found: dict[str, list[keras.layers.Layer]] = {}
    stack = list(model.layers)
    while stack:
        layer = stack.pop()
        same = found.setdefault(layer.name, [])
        # A layer of a nested model may also be used outside of it.
        if all(layer is not other for other in same):
            same.append(layer)
            stack += layer.layers if isinstance(layer, keras.Model) else []
    return found


def _spec(tensor: Any) -> Any:
    if isinstance(tensor, keras.KerasTensor):
        kind = tf.SparseTensorSpec if tensor.sparse else tf.TensorSpec
        # In Keras 3.10 tensors have no `ragged`.
        kind = tf.RaggedTensorSpec if getattr(tensor, "ragged", False) else kind
        return kind(tensor.shape, tensor.dtype)
    # Sparse and ragged tensors have specs of their own; an optional input may be `None`.
    if not isinstance(tensor, tf.Tensor):
        return None if tensor is None else tf.type_spec_from_value(tensor)
    return tf.TensorSpec(tensor.shape, tensor.dtype)
