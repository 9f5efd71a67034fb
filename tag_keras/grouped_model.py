"""One model that serves every task from the network of its group."""

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.layers import layers_in
from tag_keras.multitask.task_model import input_signature
from tag_keras.multitask.task_trainer import CompiledMethods, TaskTrainer
from tag_keras.selection.grouping import Grouping


@keras.saving.register_keras_serializable(package="tag_keras")
class GroupedModel(TaskTrainer):
    """Serves every task from the network of its group (TAG; Fifty et al. 2021, arXiv 2109.04617).

    `predict` gives a dict by task, in the order of `grouping.tasks`; `save`,
    `keras.models.load_model` and `export` work as for any `keras.Model`. An exported SavedModel
    needs neither tag_keras nor Keras. `compile` and `evaluate` work as for `MultiTaskModel`, also
    with missing labels. `train_groups` gives one that is compiled to evaluate, by
    `compile_as_networks`.

    Args:
        models: One model per group, in the order of `grouping.groups`. Each gives a dict of outputs
            by task. One that has layers in common with a model before it, such as a frozen
            backbone, is copied: together they could not be loaded again.
        grouping: The groups, and the group that serves each task.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If the numbers of models and groups differ, or if a model lacks a task of its
            group.

    Example:

    ```python
    grouped = tag_keras.GroupedModel([model_of_a_and_b, model_of_c], grouping)
    grouped.predict(x)["a"]
    ```
    """

    def __init__(self, models: Sequence[keras.Model], grouping: Grouping, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if len(models) != len(grouping.groups):
            raise ValueError(
                f"`models` should hold one model for each of the {len(grouping.groups)} groups. "
                f"Received: {len(models)} models."
            )
        for model, group in zip(models, grouping.groups, strict=True):
            tasks = getattr(model, "tasks", group)
            if missing := [task for task in group if task not in tasks]:
                raise ValueError(
                    f"The model of the group {list(group)} lacks the tasks {missing}. "
                    f"It has: {list(tasks)}."
                )
        self.models, self.grouping = _apart(models), grouping
        # In the order of the outputs.
        self.tasks = grouping.tasks
        self.compiled_methods = CompiledMethods(name="compiled_methods")
        config = models[0].get_build_config() if all(model.built for model in models) else None
        if config and config.get("input_shape"):
            # After one call, without data, the model can be saved and exported like its models.
            def symbolic(shape: tuple[int | None, ...]) -> keras.KerasTensor:
                return keras.KerasTensor((None, *shape[1:]), self.input_dtype)

            self(keras.tree.map_shape_structure(symbolic, config["input_shape"]))

    @property
    def histories(self) -> list[dict[str, list[float]] | None]:
        """The history of each network's last `fit`, in the order of the groups: lists by log.

        None for a network that was loaded from a file.
        """
        found = [getattr(model, "history", None) for model in self.models]
        return [None if one is None else one.history for one in found]

    def compile_as_networks(self) -> None:
        """Compiles it to evaluate: each task has loss and metrics of the network that serves it.

        Then `evaluate` gives the losses and metrics by task that the networks give, and `loss` as
        the plain sum of the tasks' losses and of all that layers add. To train on, `compile` it
        with an optimizer: this one is plain SGD.

        Raises:
            ValueError: If a network is not compiled, or is no model of this package.

        Example:

        ```python
        grouped = tag_keras.GroupedModel(models, grouping)
        grouped.compile_as_networks()
        grouped.evaluate(x, y, return_dict=True)["a_loss"]
        ```
        """
        for model in self.models:
            if not isinstance(model, TaskTrainer) or not model.compiled:
                raise ValueError(
                    "The networks should be compiled models of tag_keras, such as MultiTaskModel. "
                    f"Received: {type(model).__name__}, {'' if model.compiled else 'not '}compiled."
                )
        of_task = {
            task: self.models[index].compiled_for(task)
            for task, index in self.grouping.serves.items()
        }
        by_name = {
            name: {task: given[name] for task, given in of_task.items()}
            for name in ("loss", "metrics", "weighted_metrics")
        }
        eagerly = any(model.run_eagerly for model in self.models)
        self.compile(
            # Without slots, which would take as much memory as all networks.
            keras.optimizers.SGD(),
            loss=by_name["loss"],
            metrics=keras.tree.map_structure(_copied, by_name["metrics"]),
            weighted_metrics=keras.tree.map_structure(_copied, by_name["weighted_metrics"]),
            run_eagerly=eagerly,
            jit_compile=not eagerly and all(model.jit_compile for model in self.models),
        )
        if self.built:
            # A model that is loaded has built it, and looks for all of it in the file.
            self.optimizer.build(self.trainable_variables)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        outputs = [model(inputs, training=training) for model in self.models]
        return {task: outputs[index][task] for task, index in self.grouping.serves.items()}

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Exports as `keras.Model.export` does, with the data type of the models' inputs.

        Args:
            filepath: Folder to write.
            *args: Further arguments of `keras.Model.export`.
            **kwargs: The same, by name.
        """
        if kwargs.get("input_signature") is None:
            encoder = getattr(self.models[0], "encoder", self.models[0])
            kwargs["input_signature"] = input_signature(encoder)
        super().export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "models": [keras.saving.serialize_keras_object(model) for model in self.models],
            "grouping": dataclasses.asdict(self.grouping),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "GroupedModel":
        load = keras.saving.deserialize_keras_object
        models = [load(model, custom_objects) for model in config["models"]]
        return cls(**{**config, "models": models, "grouping": Grouping(**config["grouping"])})


def _copied(metric: Any) -> Any:
    """A copy of a metric: the network keeps its own, with the state of its last evaluation."""
    # If its class cannot be made again, it counts in two places, and cannot be loaded anyway.
    if isinstance(metric, keras.metrics.Metric):
        with contextlib.suppress(Exception):
            return type(metric).from_config(metric.get_config())
    return metric


def _apart(models: Sequence[keras.Model]) -> list[keras.Model]:
    """The models, or copies of those that have layers in common with others.

    Keras saves the weights of a layer once, and looks for them in every model that it loads.
    """
    seen, apart = set[int](), list[keras.Model]()
    for model in models:
        if model.built and any(id(layer) in seen for layer in layers_in(model)):
            # If its classes are not registered, it predicts as it is, and cannot be loaded anyway.
            # Keras warns of optimizers without slots.
            with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
                history = getattr(model, "history", None)
                model = copy.deepcopy(model)
                model.history = history
        seen.update(id(layer) for layer in layers_in(model))
        apart.append(model)
    return apart
