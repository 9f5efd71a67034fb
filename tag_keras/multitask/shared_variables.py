"""Variables that several tasks share: found in the graph of an encoder, or chosen by the user."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.layers import layers_in


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
    overrides both. A layer that was chosen stands for the variables that it has at the time, also
    those that it replaces or adds later, as `enable_lora` does.
    """

    def __init__(self, tasks: tuple[str, ...]) -> None:
        self._tasks = tasks
        # Specs of the encoder's inputs; `None` until it has given a dict by task.
        self._inputs: Any = None
        # Layers and variables; `None` without a choice.
        self._chosen: list[keras.layers.Layer | keras.Variable] | None = None
        # Paths of what was chosen and gone before the model was saved.
        self._lost_before: list[str] = []
        # All variables of the encoder when it was last traced.
        self._traced: list[keras.Variable] = []
        # Indices of the tasks that depend on each of them, by the variable's `id`.
        self._found: dict[int, frozenset[int]] = {}

    @property
    def is_by_task(self) -> bool:
        """Whether the encoder is known to give a dict by task."""
        return self._inputs is not None

    def of(self, encoder: keras.layers.Layer) -> list[keras.Variable]:
        """Shared variables that are trainable now, in the encoder's order.

        Raises:
            ValueError: If the encoder has lost a layer or a variable that was chosen.
        """
        trainable = encoder.trainable_variables
        if self._chosen is None and self._inputs is None:
            return list(trainable)
        if self._chosen is not None:
            if lost := self._lost(encoder):
                raise ValueError(
                    f"`shared` named {lost}, which the model {encoder.name!r} no longer has. Name "
                    "the layer, which stands for whatever variables it has, and make the "
                    "multi-task model anew."
                )
            chosen = self._chosen_ids()
            return [variable for variable in trainable if id(variable) in chosen]
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
        chosen: list[keras.layers.Layer | keras.Variable] = []
        for one in named:
            found = _layer_or_variable(encoder, one)
            variables = _variables(found)
            if found is None or any(id(variable) not in own for variable in variables):
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
            chosen.append(found)
        self._chosen = chosen

    def get_config(self, encoder: keras.layers.Layer) -> dict[str, list[Any]] | None:
        """The user's choice as indices of the encoder's layers and variables; `None` without one.

        Names may differ between Python processes; the order does not.
        """
        if self._chosen is None:
            return None
        layers = [one for one in self._chosen if isinstance(one, keras.layers.Layer)]
        # A model that was chosen may consist of layers of the encoder without being one itself.
        parts = {id(part) for layer in layers for part in layers_in(layer)}
        inside = [(index, one) for index, one in enumerate(layers_in(encoder)) if id(one) in parts]
        covered = {id(variable) for _, layer in inside for variable in layer.variables}
        single = self._chosen_ids() - covered
        return {
            "layers": [index for index, _ in inside],
            "variables": [i for i, one in enumerate(encoder.variables) if id(one) in single],
            "lost": self._lost(encoder),
        }

    def set_config(self, encoder: keras.layers.Layer, config: Any) -> None:
        """Restores a choice that `get_config` gave."""
        if config is None:
            return
        # Files of version 0.1 have the indices of variables alone.
        config = config if isinstance(config, Mapping) else {"layers": [], "variables": config}
        layers, variables = layers_in(encoder), encoder.variables
        self._chosen = [layers[index] for index in config["layers"]]
        self._chosen += [variables[index] for index in config["variables"]]
        self._lost_before = list(config.get("lost", []))

    def _chosen_ids(self) -> set[int]:
        """The `id`s of the variables that the choice stands for now."""
        return {id(variable) for one in self._chosen or [] for variable in _variables(one)}

    def _lost(self, encoder: keras.layers.Layer) -> list[str]:
        """Paths of the layers and variables that were chosen, and that the encoder has lost."""
        own = {id(variable) for variable in encoder.variables}
        chosen = [
            (one, {id(variable) for variable in _variables(one)}) for one in self._chosen or []
        ]
        lost = [one for one, ids in chosen if ids and own.isdisjoint(ids)]
        return [*self._lost_before, *(one.path or one.name for one in lost)]

    def _find(self, encoder: keras.layers.Layer) -> dict[int, frozenset[int]]:
        variables = encoder.variables
        # With the frozen variables, which may be trained later.
        if not _are_same(self._traced, variables):
            sets = variables_by_output(encoder, self._inputs)
            self._found = {
                id(variable): frozenset(
                    number for number, task in enumerate(self._tasks) if index in sets[task]
                )
                for index, variable in enumerate(variables)
            }
            # An `id` alone could be that of a variable made in the place of one that is gone.
            self._traced = list(variables)
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


def _layer_or_variable(model: keras.Model, one: Any) -> keras.layers.Layer | keras.Variable | None:
    """What a layer, the name of a layer or a variable stands for; `None` if unknown."""
    if isinstance(one, keras.Variable):
        return one
    name = one.name if isinstance(one, keras.layers.Layer) else one
    layers = _layers_by_name(model).get(name, []) if isinstance(name, str) else []
    if isinstance(one, keras.layers.Layer):
        # A layer without variables belongs to the model only if it is one of its layers.
        known = one.variables or any(one is layer for layer in layers)
        return one if known else None
    if len(layers) > 1:
        raise ValueError(
            f"`shared` names {len(layers)} layers of the model {model.name!r} at once. Give the "
            f"layer itself. Received: {one!r}."
        )
    return layers[0] if layers else None


def _variables(one: keras.layers.Layer | keras.Variable | None) -> list[keras.Variable]:
    """The variables of a layer; a variable by itself."""
    if isinstance(one, keras.layers.Layer):
        return list(one.variables)
    return [] if one is None else [one]


def _are_same(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(ones) == len(others) and all(a is b for a, b in zip(ones, others, strict=True))


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
