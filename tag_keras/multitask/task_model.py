"""A Keras model over an encoder and a head per task: its parts, and how it is saved."""

from collections.abc import Mapping
from typing import Any, Self

import keras
import tensorflow as tf

from tag_keras.multitask.shared_variables import (
    SharedVariables,
    check_functional,
    check_shared,
    has_declared_outputs,
)
from tag_keras.multitask.task_trainer import CompiledMethods, TaskTrainer
from tag_keras.utils.tasks import check_task_names


def input_signature(encoder: keras.layers.Layer) -> list[Any] | None:
    """What an encoder with declared inputs takes; `None` where Keras has to find out."""
    if not getattr(encoder, "inputs", None):
        return None

    def spec(tensor: keras.KerasTensor) -> keras.InputSpec:
        return keras.InputSpec(shape=(None, *tensor.shape[1:]), dtype=tensor.dtype)

    # A Sequential has one input, and no `input` before it is called.
    if len(encoder.inputs) == 1 and not isinstance(getattr(encoder, "input", None), Mapping):
        return [spec(encoder.inputs[0])]
    return [keras.tree.map_structure(spec, encoder.input)]


def _symbolic_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    # Not the tensor itself, which would make the multi-task model a part of the model's graph.
    return keras.KerasTensor(tensor.shape, tensor.dtype, sparse=tensor.sparse)


class TaskModel(TaskTrainer):
    """What of `MultiTaskModel` has nothing to do with measuring affinities.

    Args:
        encoder: Layer or model, from the inputs to one feature tensor, or to a dict of one
            feature tensor per task.
        heads: Layer or model by task, from the features to the prediction of the task.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If `heads` is not a dict of layers with at least one task.
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        heads: Mapping[str, keras.layers.Layer],
        **kwargs: Any,
    ) -> None:
        # The encoder and the heads cast what they get as their own types say. A cast before, to
        # float16 under mixed precision, would lose digits that a float32 encoder takes.
        super().__init__(**{"autocast": False, **kwargs})
        layers = [encoder, *heads.values()] if isinstance(heads, Mapping) else [heads]
        if not all(isinstance(layer, keras.layers.Layer) for layer in layers):
            raise ValueError(
                "`encoder` should be a layer and `heads` a dict of layers by task. "
                f"Received: encoder={encoder!r}, heads={heads!r}."
            )
        self.tasks = check_task_names(list(heads))
        self.encoder = encoder
        self.heads = dict(heads)
        self._sharing = SharedVariables(self.tasks)
        if has_declared_outputs(encoder):
            # What the tasks share is known before the first call.
            self._see_features(encoder.output, encoder.input)
        self.compiled_methods = CompiledMethods(name="compiled_methods")

    @classmethod
    def from_functional(cls, model: keras.Model, shared: Any = None) -> Self:
        """Makes a multi-task model of any Functional model whose outputs are a dict by task.

        The layers and weights are those of `model`, not copies of them. It becomes the encoder,
        and gives every task its prediction; the heads do nothing. An affinity is measured on the
        shared variables: those that the outputs of more than one task depend on, wherever in the
        model they are.

        This is also the way for layers that the encoder has in common with a head, or two heads
        with each other: as parts of one Functional model they can be saved and loaded.

        Args:
            model: A Functional model, with a dict of one tensor by task as outputs.
            shared: What to measure affinities on instead: layers, names of layers, or variables;
                one, or a list of them. `shared_variables` tells what was found.

        Returns:
            A multi-task model, to be compiled.

        Raises:
            ValueError: If the model is not a Functional model with a dict of outputs, if no
                trainable variable is shared by two of them, or if `shared` holds something that
                is not in the model or cannot be trained.

        Example:

        ```python
        image = keras.Input((28, 28, 1))
        trunk = keras.layers.Flatten()(image)
        trunk = keras.layers.Dense(32, "relu", name="trunk")(trunk)
        branch = keras.layers.Dense(16, "relu", name="branch")(trunk)
        outputs = {
            "digit": keras.layers.Dense(10)(branch),
            "parity": keras.layers.Dense(1)(branch),
            "brightness": keras.layers.Dense(1)(trunk),
        }
        model = tag_keras.MultiTaskModel.from_functional(keras.Model(image, outputs))
        [variable.path for variable in model.shared_variables]  # of trunk, and of branch
        ```
        """
        check_functional(model)
        # The type of the output, because a head would cast a float32 output to float16 where
        # mixed precision is the default.
        heads = {
            task: keras.layers.Identity(dtype=tensor.dtype) for task, tensor in model.output.items()
        }
        instance = cls(model, heads)
        if shared is not None:
            instance._sharing.choose(model, shared)
        # Called once, on no data, it knows its shared variables, and can be saved and exported.
        instance(keras.tree.map_structure(_symbolic_input, model.input))
        check_shared(model, instance.shared_variables)
        return instance

    @property
    def shared_variables(self) -> list[keras.Variable]:
        """The trainable variables of the encoder, those that more than one task depends on.

        All of them, if it gives one feature tensor for all tasks. Those of `from_functional`'s
        `shared`, if that was given.
        """
        return self._sharing.of(self.encoder)

    def check_shares(self, purpose: str) -> None:
        """Checks that there are shared variables.

        Args:
            purpose: What could be done with them.

        Raises:
            ValueError: If there are none.
        """
        if not self.shared_variables:
            raise ValueError(
                "The encoder has no trainable variable that several tasks share, so there is "
                f"nothing that {purpose}. Give several tasks a common layer with weights, or set "
                "`trainable = True` on it, and compile again."
            )

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        if isinstance(inputs, Mapping):
            # An export gives it as a wrapper of a dict, which Keras would warn of.
            inputs = dict(inputs)
        features = self.encoder(inputs, training=training)
        if isinstance(features, Mapping):
            self._see_features(features, inputs)
        else:
            features = dict.fromkeys(self.tasks, features)
        return {task: self.heads[task](features[task], training=training) for task in self.tasks}

    def _see_features(self, features: Mapping[str, Any], inputs: Any) -> None:
        """Keeps in mind what the encoder made features by task of."""
        if missing := [task for task in self.tasks if task not in features]:
            raise ValueError(
                f"The encoder should give features for every task. Missing: {missing}. "
                f"Received: {sorted(features)}."
            )
        self._sharing.see_inputs(inputs)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Exports as `keras.Model.export` does, with the data type of the encoder's inputs."""
        if kwargs.get("input_signature") is None:
            kwargs["input_signature"] = input_signature(self.encoder)
        super().export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            # Pairs, because the order of the tasks is to be kept.
            "heads": [[task, serialize(self.heads[task])] for task in self.tasks],
            "shared": self._sharing.get_config(self.encoder),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "TaskModel":
        def deserialize(layer: Any) -> Any:
            return keras.saving.deserialize_keras_object(layer, custom_objects)

        config = {**config, "encoder": deserialize(config["encoder"])}
        config["heads"] = {task: deserialize(head) for task, head in config["heads"]}
        shared = config.pop("shared", None)
        model = cls(**config)
        model._sharing.set_config(model.encoder, shared)
        return model
