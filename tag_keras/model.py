"""Multi-task models that measure inter-task affinity while they train."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tag_keras.affinity import Affinity
from tag_keras.cadence import Cadence, EpochEnds, on_device, one_at_a_time
from tag_keras.estimators import AffinityEstimator
from tag_keras.gradient_methods import GradientMethod
from tag_keras.grouped_model import GroupedModel
from tag_keras.probe_statistics import ProbeStatistics
from tag_keras.probe_step import ProbeStep
from tag_keras.replicas import check_strategy
from tag_keras.selective_updates import SelectiveTaskGroupUpdates
from tag_keras.task_model import TaskModel

# All that Keras may find in the file of a model has to be there when it is loaded.
__all__ = ["GroupedModel", "MultiTaskModel", "SelectiveTaskGroupUpdates"]


@keras.saving.register_keras_serializable(package="tag_keras")
class MultiTaskModel(TaskModel):
    """A Keras model with one shared encoder and one head per task.

    It compiles, trains, evaluates, predicts, saves and loads as any `keras.Model` whose output is
    a dict by task. With `compile(affinity=...)` it measures while it trains how a step for one
    task changes the loss of every other (TAG; Fifty et al. 2021, arXiv 2109.04617).

    `MultiTaskModel.from_functional(model)` makes one of any Functional model with a dict of
    outputs.

    The logs hold `loss`, `<task>_loss` and `<task>_<metric>` whatever the number of tasks. Labels
    are a dict by task and may hold more tasks than the model has.

    Args:
        encoder: Layer or model, from the inputs to one feature tensor, or to a dict of one
            feature tensor per task. Its trainable variables are the shared variables; of those of
            one that gives a dict, the ones that more than one task depends on.
        heads: Layer or model by task, from the features to the prediction of the task.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If `heads` is not a dict of layers with at least one task.

    Example:

    ```python
    encoder = keras.Sequential([keras.layers.Dense(32, "relu"), keras.layers.Dense(32, "relu")])
    heads = {"age": keras.layers.Dense(1), "smiling": keras.layers.Dense(1)}
    losses = {"age": "mse", "smiling": keras.losses.BinaryCrossentropy(from_logits=True)}
    model = tag_keras.MultiTaskModel(encoder, heads)
    model.compile("adam", losses, affinity=tag_keras.LookaheadAffinity(every=10))
    model.fit(x, {"age": age, "smiling": smiling}, epochs=10)
    affinity = model.get_affinity()
    ```
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        heads: Mapping[str, keras.layers.Layer],
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, heads, **kwargs)
        self._statistics = ProbeStatistics(len(self.tasks), name="probe_statistics")
        # Set by `compile`.
        self._affinity_options: Any = None
        self.gradient_method: GradientMethod | None = None

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Mapping[str, Any] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        affinity: AffinityEstimator | None = None,
        gradient_method: GradientMethod | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures training, as `keras.Model.compile` does, and the measuring of affinities.

        Args:
            optimizer: As in Keras.
            loss: Loss by task, or one for all tasks.
            loss_weights: Weight by task in the joint loss: a float, or a `keras.Variable` that may
                be assigned during training. Defaults to 1. Affinities do not depend on them.
            metrics: Metrics by task, or a list of names for all tasks.
            weighted_metrics: The same, weighted by `sample_weight`.
            affinity: What to measure during training; nothing by default. Measuring starts anew.
            gradient_method: How to train instead of by the gradient of the joint loss, such as
                `tag_keras.SelectiveTaskGroupUpdates()`. It starts anew.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: If the dicts have other tasks than the heads, if there is no loss, if
                `affinity` is no estimator, if affinities are to be measured and no variable is
                shared, or if Keras cannot train under the strategy with these arguments.
        """
        if not isinstance(affinity, AffinityEstimator | None):
            raise ValueError(
                "`affinity` should be an estimator, such as `tag_keras.LookaheadAffinity(every=10)`"
                f". Received: affinity={affinity!r}."
            )
        if not isinstance(gradient_method, GradientMethod | None):
            raise ValueError(
                "`gradient_method` should be a gradient method, such as "
                "`tag_keras.SelectiveTaskGroupUpdates()`. "
                f"Received: gradient_method={gradient_method!r}."
            )
        if affinity is not None and gradient_method is not None:
            raise ValueError(
                "`affinity` measures the steps of joint training, which `gradient_method` "
                f"replaces: leave one of them out. Received: affinity={affinity!r}, "
                f"gradient_method={gradient_method!r}."
            )
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)
        check_strategy(self)
        self._affinity_options = affinity
        if affinity is not None:
            self._check_measurable()
            self._statistics.start()
        self._keep(gradient_method)

    def _keep(self, gradient_method: GradientMethod | None) -> None:
        """Makes the method a part of the model, in the place of one that was there."""
        # A model that is built takes no further layers.
        self._tracker.unlock()
        if self.gradient_method is not None:
            self._tracker.untrack(self.gradient_method)
        self.gradient_method = gradient_method
        if gradient_method is not None:
            gradient_method.start(self.tasks)

    def make_train_function(self, force: bool = False) -> None:
        self.train_function: Any
        if self.train_function is not None and not force:
            return
        if self.gradient_method is not None:
            self._make_train_function_of(self.gradient_method)
            return
        if self._affinity_options is None:
            super().make_train_function(force)
            return
        probe_step = ProbeStep(self, self._affinity_options, self._statistics)
        if self.steps_per_execution == 1:
            plain = one_at_a_time(self._make_function(self.train_step))
            probing = one_at_a_time(self._make_function(probe_step))
        else:
            plain, probing = on_device(self, self.train_step), on_device(self, probe_step)
        every = self._affinity_options.every * (_accumulated(self.optimizer) or 1)
        cadence = Cadence(
            self._statistics,
            every,
            self.steps_per_execution,
            plain,
            probing,
            self.get_metrics_result,
        )
        built = False

        def train_function(iterator: Any) -> Any:
            nonlocal built
            if not built:
                iterator = self._build_for(iterator)
                self._check_measurable()
                built = True
            return cadence(iterator)

        self.train_function = train_function

    def _make_train_function_of(self, method: GradientMethod) -> None:
        function = self._make_function(method.make_step(self))
        built = False

        def train_function(iterator: Any) -> Any:
            nonlocal built
            iterator = iterator if built else self._build_for(iterator)
            built = True
            logs = function(iterator)
            method.after_execution()
            return logs

        self.train_function = train_function

    def _build_for(self, iterator: Any) -> Any:
        """Creates all variables before the first step, which would be traced twice otherwise.

        Returns:
            The iterator with the batches that it was given with.
        """
        if hasattr(iterator, "element_spec"):
            batch = keras.tree.map_structure(
                # What has no type stands for a sample weight that is None.
                lambda spec: spec if getattr(spec, "dtype", None) else None,
                iterator.element_spec,
            )
        else:
            batch = next(iterator)
            iterator = iter([batch])
        self._symbolic_build(data_batch=batch)
        return iterator

    def _check_measurable(self) -> None:
        if self.encoder.built and not self.shared_variables:
            raise ValueError(
                "The encoder has no trainable variable that several tasks share, so there is "
                "nothing that an affinity could be measured on. Give several tasks a common layer "
                "with weights, or set `trainable = True` on it, and compile again."
            )

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        check_strategy(self)
        if self._affinity_options is not None:
            ends = EpochEnds(self._statistics, self.tasks, self._labels_seen)
            # First, so that a checkpoint at the end of an epoch holds the epoch closed.
            if isinstance(callbacks, keras.callbacks.CallbackList):
                callbacks.callbacks.insert(0, ends)
            else:
                callbacks = [ends, *keras.tree.flatten(callbacks or [])]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs)

    def _labels_seen(self) -> list[float]:
        return [float(tf.convert_to_tensor(one.count)) for one in self.task_losses.trackers]

    def get_affinity(self) -> Affinity:
        """Inter-task affinities measured since `compile(affinity=...)`, over all calls of `fit`.

        Returns:
            `Affinity` of the T tasks, with standard errors, counts and the mean of every epoch.

        Raises:
            ValueError: If nothing was measured.
        """
        if self.gradient_method is not None and self.gradient_method.measures_affinity:
            return self.gradient_method.get_affinity()
        affinity = self._statistics.affinity(self.tasks) if self._statistics.weights else None
        if affinity is None or not (affinity.count + affinity.skipped).any():
            raise ValueError(
                "No affinities have been measured. Compile with "
                "`affinity=tag_keras.LookaheadAffinity(...)` and call `fit` first."
            )
        if not affinity.count.any():
            reason, remedy = "a loss was not positive or not finite", "Check the losses"
            if self._statistics.overflowed().any():
                reason = "the gradients overflowed in float16"
                remedy = 'Use the policy "mixed_bfloat16", or losses of smaller values'
            raise ValueError(
                f"All {affinity.skipped.max()} probes were left out, because {reason}. {remedy}."
            )
        return affinity

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        options = self._affinity_options
        if config and options is not None:
            config["affinity"] = keras.saving.serialize_keras_object(options)
        if config and self.gradient_method is not None:
            config["gradient_method"] = keras.saving.serialize_keras_object(self.gradient_method)
        return config


def _accumulated(optimizer: Any) -> int | None:
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    steps: int | None = optimizer.gradient_accumulation_steps
    return steps
