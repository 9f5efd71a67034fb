"""The multi-task model, which measures inter-task affinity while it trains."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from tag_keras.affinity import Affinity
from tag_keras.backend.replicas import check_strategy
from tag_keras.backend.steps import build_for, compiled, peek, traced_once
from tag_keras.estimators.base import AffinityEstimator, check_estimator
from tag_keras.estimators.cadence import EpochEnds
from tag_keras.estimators.held_out import HeldOutBatches, HeldOutLabels
from tag_keras.estimators.statistics import ProbeStatistics
from tag_keras.gradient_methods.base import GradientMethod, check_method
from tag_keras.loss_weighting.base import LossWeighting, WeightingEpochs, looks_again
from tag_keras.multitask.task_model import TaskModel
from tag_keras.train_step import ProbeStep, TaskStep, probing_steps, step_without_probe


@keras.saving.register_keras_serializable(package="tag_keras")
class MultiTaskModel(TaskModel):
    """A Keras model with one shared encoder and one head per task.

    It works as any `keras.Model` whose output is a dict by task. With `compile(affinity=...)` it
    also measures, while it trains, how a step for one task changes the loss of every other task
    (TAG; Fifty et al. 2021, arXiv 2109.04617). `from_functional` makes one from a Functional model.

    The logs hold `loss`, `<task>_loss` and `<task>_<metric>` for any number of tasks. Labels are a
    dict by task and may hold more tasks than the model has.

    Args:
        encoder: Layer or model from the inputs to one feature tensor, or to a dict of one feature
            tensor per task. The tasks share all its trainable variables; with a dict, those that
            more than one task depends on.
        heads: Layer or model by task, from the features to the prediction.
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

    # Whether `compile` is called for a saved model.
    _is_loading = False

    def __init__(
        self, encoder: keras.layers.Layer, heads: Mapping[str, keras.layers.Layer], **kwargs: Any
    ) -> None:
        super().__init__(encoder, heads, **kwargs)
        self._statistics = ProbeStatistics(len(self.tasks), name="probe_statistics")
        # Set by `compile`.
        self._affinity_options: Any = None
        self._held_out: Any = None

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Mapping[str, Any] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        affinity: AffinityEstimator | None = None,
        loss_weighting: LossWeighting | None = None,
        gradient_method: GradientMethod | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures training, as `keras.Model.compile` does, and the measuring of affinities.

        The model keeps copies of the loss weighting and the gradient method, which start anew.

        Args:
            optimizer: A Keras optimizer, or its name.
            loss: Loss by task, or one for all tasks.
            loss_weights: Weight by task in the joint loss: a float, or a `keras.Variable` that may
                be assigned during training. Defaults to 1. Affinities do not depend on them.
            metrics: Metrics by task, or a list of names for all tasks.
            weighted_metrics: The same, weighted by `sample_weight`.
            affinity: Estimator of affinities, such as `LookaheadAffinity`; by default nothing is
                measured. Measuring starts anew.
            loss_weighting: Method that sets weights by task during training, such as
                `UncertaintyWeighting`. `loss_weights` multiply them. The logs also hold
                `<task>_weight`.
            gradient_method: Method that combines the gradients of the tasks with respect to the
                shared variables, such as `PCGrad`; by default they are added up.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: If the dicts have other tasks than the heads, if there is no loss, if
                `affinity`, `loss_weighting` or `gradient_method` is of another kind or does not go
                with the others or lacks shared variables, or if Keras cannot train under the
                strategy with these arguments.
        """
        if affinity is not None:
            check_estimator(affinity)
        check_method(gradient_method, affinity, loss_weighting)
        given = (optimizer, loss, loss_weights, metrics, weighted_metrics)
        super().compile(*given, loss_weighting=loss_weighting, **kwargs)
        self.compiled_methods.put("gradient_method", gradient_method, self.tasks)
        check_strategy(self)
        self._affinity_options = affinity
        if self.encoder.built and not self._is_loading:
            self.check_encoder()
        self._held_out = None
        if affinity is not None:
            self._statistics.start()
            if (data := affinity.target_data()) is not None:
                self._held_out = HeldOutBatches(data, self.tasks)

    def compile_from_config(self, config: dict[str, Any], **more: Any) -> None:
        # A layer may have been frozen after training. Loading allows that; `fit` checks again.
        self._is_loading = True
        try:
            super().compile_from_config(config, **more)
        finally:
            self._is_loading = False

    def make_train_function(self, force: bool = False) -> None:
        self.train_function: Any
        if self.train_function is not None and not force:
            return
        options = self._affinity_options
        if options is None:
            self.train_function = compiled(self, step_without_probe(self))
        else:
            self.train_function = probing_steps(self, self.probe_step(), self._held_out)
        looks = looks_again(self.loss_weighting)
        if options is not None or self.gradient_method is not None or looks:
            self.train_function = self._building_first(self.train_function)
        elif not self.run_eagerly and self.distribute_strategy.num_replicas_in_sync == 1:
            self.train_function = traced_once(self, self.encoder, self.train_function)

    def _building_first(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A train function that creates all variables before the first step, to trace it once."""
        built = False

        def train_function(iterator: Any) -> Any:
            nonlocal built
            if not built:
                batch, iterator = peek(iterator)
                build_for(self, batch)
                self.check_encoder()
                if self.measures_affinity or looks_again(self.loss_weighting):
                    self._find_state(batch)
                built = True
            logs = function(iterator)
            if self.gradient_method is not None:
                self.gradient_method.after_execution()
            return logs

        return train_function

    def _find_state(self, batch: Any) -> None:
        """Finds what a probe has to leave as it is."""

        def forward(x: Any, y: Any, sample_weight: Any) -> Any:
            return self.task_losses.sums(y, self(x, training=True), sample_weight)

        parts = keras.utils.unpack_x_y_sample_weight(batch)
        self.pass_state.find(self, forward, parts)

    def probe_step(self) -> ProbeStep:
        """The training step that measures affinities; only after `compile(affinity=...)`."""
        return ProbeStep(self, self._affinity_options, self._statistics)

    def check_encoder(self) -> None:
        """Raises a `ValueError` if the built encoder lacks variables that an option needs."""
        if self._affinity_options is not None:
            self.check_shares("an affinity could be measured on")
            if self._affinity_options.on_features:
                self.find_shared_features()
        TaskStep(self).check()

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        ends: list[keras.callbacks.Callback] = []
        if self._affinity_options is not None:
            ends.append(EpochEnds(self._statistics, self.tasks, self.task_losses.labels_seen))
        if self._held_out is not None:
            ends.append(HeldOutLabels(self._held_out, self._statistics))
        if self.loss_weighting is not None:
            ends.append(WeightingEpochs(self.loss_weighting, self._statistics))
        # After those that raise an error where the others warn.
        return [*ends, *super().own_callbacks()]

    @property
    def measures_affinity(self) -> bool:
        """Whether `affinity` or the gradient method of `compile` measures affinities."""
        by_method = getattr(self.gradient_method, "measures_affinity", False)
        return by_method or self._affinity_options is not None

    def get_affinity(self) -> Affinity:
        """Inter-task affinities measured since `compile(affinity=...)`, over all calls of `fit`.

        Returns:
            `Affinity` of the T tasks, with standard errors, counts and the mean of every epoch.

        Raises:
            ValueError: If nothing was measured, or if all values were left out.
        """
        if self.gradient_method is not None and self.gradient_method.measures_affinity:
            measured: Affinity = self.gradient_method.get_affinity()
            return measured
        return self._statistics.measured_affinity(self.tasks)

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        options = self._affinity_options
        if config and options is not None:
            config["affinity"] = keras.saving.serialize_keras_object(options)
        if config and (method := self.gradient_method) is not None:
            config["gradient_method"] = keras.saving.serialize_keras_object(method)
        return config
