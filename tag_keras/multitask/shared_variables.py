"""Which variables of an encoder several tasks share: found in its graph, or chosen by the user."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf


def check_functional(model: Any) -> None:
    """Checks that a model has declared inputs, and one tensor per task as its outputs.

    Raises:
        ValueError: If it has not.
    """
    # A subclassed model, and one that is not built, have no such attribute.
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


def has_declared_outputs(encoder: keras.layers.Layer) -> bool:
    """Whether an encoder is a Functional model that gives a dict."""
    # A subclassed model has an `output` after a call, and declares no inputs.
    output = getattr(encoder, "output", None) if isinstance(encoder, keras.Model) else None
    return isinstance(output, Mapping) and bool(getattr(encoder, "inputs", None))


def check_shared(model: keras.Model, shared: Sequence[keras.Variable]) -> None:
    """Checks that the tasks of a Functional model share something.

    Raises:
        ValueError: If they do not.
    """
    if len(model.output) > 1 and not shared:
        raise ValueError(
            f"The outputs {list(model.output)} of the model {model.name!r} share nothing: there is "
            "no trainable variable that two of them depend on. Build two of them on a common "
            "layer, or set `trainable = True` on the one that they have."
        )


class SharedVariables:
    """The variables of an encoder that several tasks share.

    Of an encoder that gives one feature tensor for all tasks, these are all. Of one that gives a
    dict by task, those that the features of more than one task depend on; `choose` overrides it.

    It holds `id`s, because Keras would take a list of variables for weights of its owner.

    Args:
        tasks: Task names.
    """

    def __init__(self, tasks: tuple[str, ...]) -> None:
        self._tasks = tasks
        # What the encoder is called with; `None` as long as it has not given a dict by task.
        self._inputs: Any = None
        self._chosen: frozenset[int] | None = None
        # The `id`s of all variables, and for each of these the indices of its tasks.
        self._found: dict[int, frozenset[int]] = {}

    def of(self, encoder: keras.layers.Layer) -> list[keras.Variable]:
        """Those that are trainable now, in the encoder's order."""
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
        """Keeps in mind what an encoder takes that gave a dict by task."""
        if self._inputs is None:
            self._inputs = keras.tree.map_structure(_spec, inputs)

    def choose(self, encoder: keras.layers.Layer, shared: Any) -> None:
        """Takes the user's choice instead of what the graph says.

        Args:
            encoder: A built layer or model.
            shared: Layers, names of layers, or variables; one, or a list of them.

        Raises:
            ValueError: If one of them is not there, or is not trainable.
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
        """The user's choice, as indices into `encoder.variables`.

        Names of variables differ from one Python process to the next; their order does not.
        """
        if self._chosen is None:
            return None
        variables = enumerate(encoder.variables)
        return [index for index, variable in variables if id(variable) in self._chosen]

    def set_config(self, encoder: keras.layers.Layer, config: Sequence[int] | None) -> None:
        """Takes a choice that was saved."""
        if config is not None:
            variables = encoder.variables
            self._chosen = frozenset(id(variables[index]) for index in config)

    def _find(self, encoder: keras.layers.Layer) -> dict[int, frozenset[int]]:
        variables = encoder.variables
        # Of those that are frozen now, too: they may be trained later.
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
    """Variables that each output of a layer depends on.

    The layer is traced once, with a placeholder in the place of each variable, as a lookahead puts
    its values there. Then every operation of the graph depends on what its inputs depend on, which
    holds for nested models, for layers that are called twice, and for layers of any code. An
    operation with a body of its own, such as the loop of an RNN, counts as one: each of its
    outputs depends on all of its inputs.

    This is about values: what a task reads behind a `stop_gradient` counts. Its own step does not
    move it, but the steps of others do, and so change the loss of the task.

    Args:
        layer: Gives a dict of tensors.
        inputs: Structure of `tf.TypeSpec`s.

    Returns:
        By output, indices into `layer.variables`.
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
    # An operation is made after those that it takes its inputs from.
    for operation in function.graph.get_operations():
        own = reached.get(operation.name, frozenset())
        reached[operation.name] = own.union(*(reached[t.op.name] for t in operation.inputs))
    return {
        task: frozenset().union(*(reached[t.op.name] for t in tf.nest.flatten(one, True)))
        for task, one in function.structured_outputs.items()
    }


def _variables(model: keras.Model, one: Any) -> list[keras.Variable] | None:
    """Variables of a layer, of the layer of that name, or the one variable; `None` if unknown.

    Raises:
        ValueError: If several layers have the name.
    """
    if isinstance(one, keras.Variable):
        return [one]
    name = one.name if isinstance(one, keras.layers.Layer) else one
    layers = _layers_by_name(model).get(name, []) if isinstance(name, str) else []
    if isinstance(one, keras.layers.Layer):
        # One without variables is of the model only if it is listed there.
        known = one.variables or any(one is layer for layer in layers)
        return list(one.variables) if known else None
    if len(layers) > 1:
        raise ValueError(
            f"`shared` names {len(layers)} layers of the model {model.name!r} at once. Give the "
            f"layer itself. Received: {one!r}."
        )
    return list(layers[0].variables) if layers else None


def _layers_by_name(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """The layers of a model and of the models in it."""
    found: dict[str, list[keras.layers.Layer]] = {}
    stack = list(model.layers)
    while stack:
        layer = stack.pop()
        same = found.setdefault(layer.name, [])
        # A layer of a nested model may be used outside of it, too.
        if all(layer is not other for other in same):
            same.append(layer)
            stack += layer.layers if isinstance(layer, keras.Model) else []
    return found


def _spec(tensor: Any) -> Any:
    if isinstance(tensor, keras.KerasTensor):
        kind = tf.SparseTensorSpec if tensor.sparse else tf.TensorSpec
        # Keras 3.10 knows no ragged ones.
        kind = tf.RaggedTensorSpec if getattr(tensor, "ragged", False) else kind
        return kind(tensor.shape, tensor.dtype)
    # Sparse and ragged inputs have their own; an optional input may be None.
    if not isinstance(tensor, tf.Tensor):
        return None if tensor is None else tf.type_spec_from_value(tensor)
    return tf.TensorSpec(tensor.shape, tensor.dtype)
