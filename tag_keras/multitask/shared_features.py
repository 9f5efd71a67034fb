"""The feature tensor that all tasks are computed from, and gradients with respect to it."""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.gradients import task_gradients
from tag_keras.backend.layers import Call, call_of, outputs_of_call


class FeatureTape:
    """Records what is computed out of the shared features, and nothing before them.

    A pass back to the features on the tape of the whole model would not end at the features.
    """

    def __init__(self) -> None:
        self._tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
        self._features: Any = None

    @contextlib.contextmanager
    def recording(self) -> Iterator["FeatureTape"]:
        """Context of a forward pass of a multi-task model, up to the losses."""
        token = _TAPE.set(self)
        try:
            with self._tape:
                yield self
        finally:
            _TAPE.reset(token)

    def watch(self, features: tf.Tensor) -> None:
        """Says what the features are."""
        self._features = features
        self._tape.watch(features)

    def gradients(self, losses: Sequence[tf.Tensor], scale: tf.Tensor | None = None) -> tf.Tensor:
        """Gradients of T losses with respect to the N entries of the features of this replica.

        Args:
            losses: T scalars, which may be multiplied by a loss scale.
            scale: The loss scale, by which the gradients are divided.

        Returns:
            Float32 tensor (T, N).
        """
        rows = [
            tf.zeros_like(self._features) if gradient is None else gradient
            for (gradient,) in task_gradients(self._tape, losses, [self._features])
        ]
        flat = tf.cast(tf.reshape(tf.stack(rows), [len(rows), -1]), "float32")
        return flat if scale is None else flat / scale


# Of the forward pass that runs. Replicas are traced in threads, each with its own.
_TAPE: contextvars.ContextVar[FeatureTape | None] = contextvars.ContextVar("tape", default=None)


class SharedFeatures:
    """Calls an encoder, and shows a `FeatureTape` the one tensor that all tasks are computed from.

    If the encoder gives a tensor, it is this one. If it is a Functional model that gives a dict by
    task, as in `from_functional`, it is the last tensor through which all tasks depend on the
    shared variables.
    """

    def __init__(self) -> None:
        # `None` if the encoder gives a tensor.
        self._parts: _Parts | None = None

    def find(self, encoder: keras.layers.Layer, shared: Sequence[keras.Variable] | None) -> None:
        """Finds the tensor.

        Args:
            encoder: A built encoder.
            shared: The shared variables, if it gives a dict by task; otherwise `None`.

        Raises:
            ValueError: If there is more than one.
        """
        self._parts = None
        if shared is None:
            return
        output = getattr(encoder, "output", None) if isinstance(encoder, keras.Model) else None
        tensor = None if output is None else common_tensor([*output.values()], shared)
        parts = None if tensor is None else _Parts(encoder, tensor)
        if parts is None or not parts.are_all:
            raise ValueError(
                "`FeatureAffinity` needs one feature tensor that the predictions of all tasks are "
                f"computed from. The encoder {encoder.name!r} gives each task features of its own, "
                "and there is no one tensor before them. Measure with `LookaheadAffinity` or "
                "`FirstOrderAffinity`, or build an encoder that gives one tensor."
            )
        self._parts = parts

    def call(self, encoder: keras.layers.Layer, inputs: Any, training: bool | None) -> Any:
        """What the encoder gives for the inputs."""
        tape = _TAPE.get()
        if tape is None:
            return encoder(inputs, training=training)
        if self._parts is not None:
            return self._parts(inputs, training, tape)
        features = encoder(inputs, training=training)
        tape.watch(features)
        return features


class _Parts:
    """A Functional model that gives a dict, in two parts: up to a tensor, and after it."""

    def __init__(self, model: keras.Model, tensor: keras.KerasTensor) -> None:
        self._outputs, self._tensor = model.output, tensor
        tensors, calls = _from_inputs_on([*model.output.values()])
        self._after: list[keras.KerasTensor] = []
        behind = {id(tensor)}
        for one in tensors:
            if one is not tensor and any(id(given) in behind for given in calls[id(one)].inputs):
                behind.add(id(one))
                self._after.append(one)
        needed = [tensor, *model.output.values()]
        needed += [given for one in self._after for given in calls[id(one)].inputs]
        # The others do not depend on the tensor.
        self._before = [one for one in needed if id(one) not in behind] + [tensor]
        self._first = keras.Model(model.input, self._before, name=model.name)
        # A subclass with its own `call` may compute something else than its graph.
        self.are_all = type(model).call is type(self._first).call

    def __call__(self, inputs: Any, training: bool | None, tape: FeatureTape) -> dict[str, Any]:
        before = keras.tree.flatten(self._first(inputs, training=training))
        values = {id(one): value for one, value in zip(self._before, before, strict=True)}
        tape.watch(values[id(self._tensor)])
        for one in self._after:
            if id(one) not in values:
                values |= outputs_of_call(one, values)
        return {task: values[id(one)] for task, one in self._outputs.items()}


def common_tensor(
    outputs: Sequence[keras.KerasTensor], shared: Sequence[keras.Variable]
) -> keras.KerasTensor | None:
    """The last tensor of a Functional model through which the outputs depend on variables.

    Args:
        outputs: Outputs of the model, at least two.
        shared: Variables of the model, at least one.

    Returns:
        A tensor without which no output would depend on the variables; `None` without one.
    """
    ids = {id(variable) for variable in shared}
    tensors, calls = _from_inputs_on(outputs)
    users = {
        key
        for key, call in calls.items()
        if any(id(one) in ids for one in getattr(call.operation, "variables", []))
    }

    def depends_without(left_out: keras.KerasTensor) -> bool:
        depends = set()
        for tensor in tensors:
            inputs = calls[id(tensor)].inputs
            if id(tensor) in users or any(id(one) in depends for one in inputs):
                depends.add(id(tensor))
            if tensor is left_out:
                depends.discard(id(tensor))
        return any(id(one) in depends for one in outputs)

    return next((one for one in reversed(tensors) if not depends_without(one)), None)


def _from_inputs_on(
    outputs: Sequence[keras.KerasTensor],
) -> tuple[list[keras.KerasTensor], dict[int, Call]]:
    """The tensors behind the outputs, each after those it is computed from, and their calls."""
    calls: dict[int, Call] = {}
    order: dict[int, keras.KerasTensor] = {}
    left = list(outputs)
    while left:
        tensor = left[-1]
        if id(tensor) in order:
            left.pop()
        elif id(tensor) in calls:
            order[id(tensor)] = left.pop()
        else:
            calls[id(tensor)] = call_of(tensor)
            left += calls[id(tensor)].inputs
    return [*order.values()], calls
