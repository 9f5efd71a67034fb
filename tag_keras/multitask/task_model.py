"""A Keras model made of an encoder and one head per task: how it is built, called and saved."""

from collections.abc import Mapping
from typing import Any, Self

import keras
import tensorflow as tf

from tag_keras.backend.pass_state import PassState
from tag_keras.multitask.shared_features import SharedFeatures
from tag_keras.multitask.shared_variables import SharedVariables, check_functional
from tag_keras.multitask.task_trainer import CompiledMethods, TaskTrainer
from tag_keras.utils.checks import check
from tag_keras.utils.tasks import check_task_names


def input_signature(encoder: keras.layers.Layer) -> list[Any] | None:
    """Specs of the inputs that an encoder declares; `None` if it declares none."""
    if not getattr(encoder, "inputs", None):
        return None

    def spec(tensor: keras.KerasTensor) -> keras.InputSpec:
        return keras.InputSpec(shape=(None, *tensor.shape[1:]), dtype=tensor.dtype)

    # A Sequential has one input, and no `input` before its first call.
    if len(encoder.inputs) == 1 and not isinstance(getattr(encoder, "input", None), Mapping):
        return [spec(encoder.inputs[0])]
    return [keras.tree.map_structure(spec, encoder.input)]


def _symbolic_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    # A new tensor: the old one would make the multi-task model a part of the Functional model.
    return keras.KerasTensor(tensor.shape, tensor.dtype, sparse=tensor.sparse)


def _described(value: Any) -> str:
    """What a layer gave in place of a tensor, in words."""
    if value is None:
        return "None; does its `call` lack a `return`?"
    return f"a {type(value).__name__} of {len(value)}."


class TaskModel(TaskTrainer):
    """Model made of an encoder and one head per task, which trains on labels by task.

    It knows which variables several tasks share, and it can be saved, loaded and exported.
    """

    def __init__(
        self, encoder: keras.layers.Layer, heads: Mapping[str, keras.layers.Layer], **kwargs: Any
    ) -> None:
        # The encoder and the heads cast their inputs. A cast before, to float16 under mixed
        # precision, would lose digits that a float32 encoder needs.
        super().__init__(**{"autocast": False, **kwargs})
        layers = [encoder, *heads.values()] if isinstance(heads, Mapping) else [heads]
        if not all(isinstance(layer, keras.layers.Layer) for layer in layers):
            raise ValueError(
                "`encoder` should be a layer and `heads` a dict of layers by task. "
                f"Received: encoder={encoder!r}, heads={heads!r}."
            )
        check(len(heads) > 0, "`heads` should have a layer for at least one task", heads=heads)
        self.tasks = check_task_names(list(heads))
        self.encoder = encoder
        self.heads = dict(heads)
        self._sharing = SharedVariables(self.tasks)
        self._shared_features = SharedFeatures()
        # Before a call a Sequential has no `output`. A subclassed model never has `inputs`.
        is_functional = isinstance(encoder, keras.Model) and getattr(encoder, "inputs", None)
        if is_functional and (output := getattr(encoder, "output", None)) is not None:
            # Then the shared variables are known before the first call.
            self._see_features(output, getattr(encoder, "input", None))
        # What a probe starts from and leaves as it is; found before the first step.
        self.pass_state = PassState()
        self.compiled_methods = CompiledMethods(name="compiled_methods")
        self._check_apart()

    @classmethod
    def from_functional(cls, model: keras.Model, shared: Any = None) -> Self:
        """Makes a multi-task model from any Functional model whose outputs are a dict by task.

        `model` becomes the encoder and gives the predictions; the heads do nothing. The shared
        variables, on which affinities are measured, are all that more than one output depends on.

        Use it, too, if a layer belongs to the encoder and a head, or to two heads.

        Args:
            model: Functional model whose outputs are a dict of one tensor per task.
            shared: The shared variables to take instead: a layer, the name of a layer, a variable,
                or a list of these. A layer stands for all variables that it has at the time, also
                for those that `enable_lora` or `quantize` put in later.

        Returns:
            A multi-task model, not compiled yet.

        Raises:
            ValueError: If the model is no Functional model with a dict of outputs, if no two
                outputs share a variable, frozen or not, or if something in `shared` is not in the
                model or cannot be trained.

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
        # With the type of the output: under mixed precision a head would cast float32 to float16.
        heads = {
            task: keras.layers.Identity(dtype=tensor.dtype) for task, tensor in model.output.items()
        }
        instance = cls(model, heads)
        if shared is not None:
            instance._sharing.choose(model, shared)
        # After one symbolic call it knows its shared variables, and can be saved and exported.
        instance(keras.tree.map_structure(_symbolic_input, model.input))
        # A frozen backbone is shared, too; `compile` asks for more where an option needs it.
        tasks_of = instance._sharing.tasks_of(model)
        if len(instance.tasks) > 1 and all(len(tasks) < 2 for tasks in tasks_of.values()):
            raise ValueError(
                f"The outputs {list(model.output)} of the model {model.name!r} share nothing: "
                "there is no variable that two of them depend on. Build two of them on a common "
                "layer."
            )
        return instance

    @property
    def shared_variables(self) -> list[keras.Variable]:
        """Trainable variables of the encoder that more than one task depends on.

        If the encoder gives one feature tensor for all tasks, these are all its trainable
        variables; if `from_functional` got `shared`, these.
        """
        return self._sharing.of(self.encoder)

    def check_shares(self, purpose: str) -> None:
        """Raises a `ValueError` without shared variables: "there is nothing that {purpose}"."""
        if not self.shared_variables:
            raise ValueError(
                "The encoder has no trainable variable that several tasks share, so there is "
                f"nothing that {purpose}. Give several tasks a common layer with weights, or set "
                "`trainable = True` on it, and compile again."
            )

    def find_shared_features(self) -> None:
        """Finds the one feature tensor that all tasks are computed from, for a `FeatureTape`.

        Raises:
            ValueError: If there is more than one.
        """
        by_task = self._sharing.is_by_task
        self._shared_features.find(self.encoder, self.shared_variables if by_task else None)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        if isinstance(inputs, Mapping):
            # In an export it is a wrapper of a dict, and Keras would warn.
            inputs = dict(inputs)
        features = self._shared_features.call(self.encoder, inputs, training)
        self._see_features(features, inputs)
        if not isinstance(features, Mapping):
            features = dict.fromkeys(self.tasks, features)
        one_by_task = {
            task: self.heads[task](features[task], training=training) for task in self.tasks
        }
        for task, prediction in one_by_task.items():
            if prediction is None or isinstance(prediction, list | tuple | Mapping):
                raise ValueError(
                    f"The head {task!r} should give one tensor. Received: {_described(prediction)}"
                )
        if not self.built:
            # Layers may have got their variables just now.
            self._check_apart()
        return one_by_task

    def _check_apart(self) -> None:
        """Raises a `ValueError` if the encoder and the heads have variables in common."""
        owners: dict[int, str] = {}
        parts = {"the encoder": self.encoder}
        parts |= {f"the head {task!r}": head for task, head in self.heads.items()}
        for part, layer in parts.items():
            for variable in layer.variables:
                if (other := owners.setdefault(id(variable), part)) != part:
                    raise ValueError(
                        f"The encoder and the heads should have no layer in common, but {other} "
                        f"and {part} have the variable {variable.path!r}. Make a layer for each; "
                        "or, to share it, build one Functional model for `from_functional`."
                    )

    def _see_features(self, features: Any, inputs: Any) -> None:
        """Checks features; if they are by task, remembers the specs of their inputs."""
        if features is None or isinstance(features, list | tuple):
            raise ValueError(
                "The encoder should give one tensor for all tasks, or a dict of one for each of "
                f"{list(self.tasks)}. Received: {_described(features)}"
            )
        if not isinstance(features, Mapping):
            return
        if missing := [task for task in self.tasks if features.get(task) is None]:
            raise ValueError(
                f"The encoder should give features for every task. Missing: {missing}. "
                f"Received: {sorted(features)}."
            )
        self._sharing.see_inputs(inputs)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Exports as `keras.Model.export` does; inputs have the data types the encoder declares.

        Args:
            filepath: Folder to write.
            *args: Further arguments of `keras.Model.export`.
            **kwargs: The same, by name.
        """
        if kwargs.get("input_signature") is None:
            kwargs["input_signature"] = input_signature(self.encoder)
        super().export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            # Pairs keep the order of the tasks.
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
