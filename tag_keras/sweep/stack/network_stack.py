"""Networks that are trained in one graph: their weights stacked along a first axis."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tag_keras.backend.gradients import (
    Gradients,
    looped_gradients,
    of_whole_batch,
    task_gradients,
)
from tag_keras.backend.optimizers import rate_variable, stateless_view
from tag_keras.backend.vectorized import LoopGradientError, for_each_network
from tag_keras.model import MultiTaskModel
from tag_keras.multitask.backward_passes import is_looped
from tag_keras.multitask.shared_features import FeatureTape
from tag_keras.multitask.task_losses import of_one_replica
from tag_keras.sweep.evaluation import task_of
from tag_keras.sweep.stack.refusals import NotStackedError
from tag_keras.sweep.stack.values import Stacked, Start


class NetworkStack:
    """K networks that are trained and evaluated together, each as if it was alone.

    One model for all T tasks computes for each network with the network's own weights. Networks
    differ in the heads that they have: the losses of other heads count 0, and their weights stay.

    Networks that begin with the same seeds of random numbers, and see the same batches, also have
    the same dropout masks: TensorFlow draws them once.

    Args:
        model: A built and compiled model for all T tasks.
        starts: What the networks begin with.
        spec: What is known of every training batch, a `tf.TensorSpec` for each tensor: steps are
            traced once for batches of all sizes.
    """

    def __init__(self, model: MultiTaskModel, starts: Sequence[Start], spec: Any) -> None:
        self.model, self.size = model, len(starts)
        self._streams = [start.stream for start in starts]
        self._specs = (spec,) * (max(self._streams) + 1)
        metrics = {id(one) for one in model.metrics_variables}
        states = [one for one in model.non_trainable_variables if id(one) not in metrics]
        self._common = [
            (one, tf.Variable(keras.ops.convert_to_numpy(one)))
            for one in states
            if self._is_common_seed(one, starts)
        ]
        common = {id(one) for one, _ in self._common}
        self._weights = Stacked(model.trainable_variables, self.size)
        self._states = Stacked([one for one in states if id(one) not in common], self.size)
        self._slots = Stacked(model.optimizer.variables, self.size)
        self._metrics = Stacked(model.metrics_variables, self.size)
        kinds = (self._weights, self._states, self._slots, self._metrics)
        self._values = {id(one): value for kind in kinds for one, value in kind.of(kind.values)}
        self._probe: Any = model.probe_step() if model.measures_affinity else None
        shape = (self.size, len(model.tasks))
        self._has, self._factors = tf.Variable(tf.zeros(shape, bool)), tf.Variable(tf.zeros(shape))
        self._stopped = tf.Variable(tf.zeros(self.size, bool))
        self._may_stop = False
        self._has_parts = self._are_parts(starts)
        self._trace()
        self._test = tf.function(self._test_on, autograph=False, reduce_retracing=True)
        self._results = tf.function(self._results_now, autograph=False)
        self._start(starts)

    def begin(self, starts: Sequence[Start]) -> bool:
        """Starts anew with other networks, unless they need another graph; returns whether."""
        common = [one for one, _ in self._common]
        common += [one for one in self._states.variables if self._is_common_seed(one, starts)]
        if [start.stream for start in starts] != self._streams or len(common) != len(self._common):
            return False
        if not all(self._is_common_seed(one, starts) for one in common):
            return False
        if self._are_parts(starts) != self._has_parts:
            return False
        self._start(starts)
        return True

    def _start(self, starts: Sequence[Start]) -> None:
        self.starts, tasks = list(starts), self.model.tasks
        self._has.assign([[task in start.tasks for task in tasks] for start in starts])
        self._factors.assign(
            [[start.loss_weights.get(one, 0.0) for one in tasks] for start in starts]
        )
        for kind in (self._weights, self._states, self._slots):
            kind.begin(starts)
        for variable, value in self._common:
            known = (one.values for one in starts if id(variable) in one.values)
            own = keras.ops.convert_to_numpy(variable)
            value.assign(next(known, {id(variable): own})[id(variable)])
        self._stopped.assign(tf.zeros_like(self._stopped))
        self.reset_metrics()

    def _are_parts(self, starts: Sequence[Start]) -> bool:
        """Whether variables of a Functional encoder belong to some of the networks only."""
        ids = [id(one) for one in self.model.encoder.variables]
        return not all(one in start.values for one in ids for start in starts)

    def _trace(self) -> None:
        self._train = tf.function(self._train_on, autograph=False, reduce_retracing=True)

    def values(self) -> list[dict[int, Any]]:
        """By network, the values of the model's variables, by `id`."""
        kinds = (self._weights, self._states, self._slots)
        whole = {id(v): one.numpy() for kind in kinds for v, one in kind.of(kind.values)}
        common = {id(variable): value.numpy() for variable, value in self._common}
        return [{**common, **{key: one[k] for key, one in whole.items()}} for k in range(self.size)]

    def state(self) -> dict[str, Any]:
        """All that a training changes, between two epochs, as arrays; for `set_state`."""
        kinds = (self._weights, self._states, self._slots)
        values = [one for kind in kinds for one in kind.values]
        return {
            "values": [one.numpy() for one in values],
            "common": [value.numpy() for _, value in self._common],
            "stopped": [bool(one) for one in self._stopped.numpy()],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        kinds = (self._weights, self._states, self._slots)
        values = [one for kind in kinds for one in kind.values]
        pairs = list(zip(values, state["values"], strict=True))
        common = [value for _, value in self._common]
        for variable, value in [*pairs, *zip(common, state["common"], strict=True)]:
            variable.assign(tf.cast(value, variable.dtype))
        for index, has_stopped in enumerate(state["stopped"]):
            if has_stopped:
                self.stop(index)

    def train_on(self, batches: Sequence[Any]) -> None:
        """Makes one training step of all networks, with a batch of each stream."""
        self._train.get_concrete_function(self._specs)
        self._train(tuple(batches))

    def probe_on(self, batches: Sequence[Any], held_out: Any = None) -> None:
        """Makes the training step that measures affinities.

        Args:
            batches: A batch of each stream.
            held_out: Batch to measure the losses on; by default the training batch.
        """
        self._train.get_concrete_function(self._specs, True, held_out)
        self._train(tuple(batches), True, held_out)

    def test_on(self, batch: Any, spec: Any) -> None:
        """Adds a batch to the losses and metrics of all networks.

        Args:
            batch: The batch.
            spec: What is known of every batch of these data.
        """
        self._test.get_concrete_function(spec)
        self._test(batch)

    @property
    def changing(self) -> tf.Variable:
        """A variable that every step changes: who reads it waits for the end of the last step."""
        return self._metrics.values[0]

    def reset_metrics(self) -> None:
        """Begins new means of losses and metrics."""
        self.model.reset_metrics()
        self._metrics.begin(self.starts)

    def tasks_without_labels(self) -> list[str]:
        """The tasks that had no label since `reset_metrics`."""
        for variable, value in self._metrics.of(self._metrics.values):
            variable.assign(value[0])
        return self.model.tasks_without_labels()

    def tell_missing_labels(self) -> None:
        """Warns, once, of tasks that had no label in the training since `reset_metrics`."""
        self.model.tell_missing_labels("training", self.tasks_without_labels())

    def logs(self) -> list[dict[str, Any]]:
        """The logs of each network since `reset_metrics`, by the names that `evaluate` gives."""
        together = {name: one.numpy() for name, one in self._results().items()}
        found = []
        for index, start in enumerate(self.starts):
            others = [task for task in self.model.tasks if task not in start.tasks]
            names = [name for name in together if task_of(name, self.model.tasks) not in others]
            found.append({name: together[name][index] for name in names})
        return found

    def row(self, index: int) -> list[Any]:
        """Weights and states of a network, in an order of the stack's own."""
        return [*self._weights.row(index), *self._states.row(index)]

    def set_row(self, index: int, values: Sequence[Any]) -> None:
        """Sets what `row` gave."""
        number = len(self._weights.values)
        self._weights.set_row(index, values[:number])
        self._states.set_row(index, values[number:])

    def get(self, variables: Sequence[keras.Variable], index: int) -> list[Any]:
        """A network's values of variables that each network has for itself, as arrays."""
        return [self._values[id(one)][index].numpy() for one in variables]

    def set(self, variables: Sequence[keras.Variable], index: int, values: Sequence[Any]) -> None:
        """Sets what `get` gives."""
        for variable, value in zip(variables, values, strict=True):
            self._values[id(variable)][index].assign(value)

    def learning_rate(self, index: int) -> Any:
        """The learning rate of a network."""
        rates = self._learning_rates()
        return self.model.optimizer.learning_rate if rates is None else rates[index].numpy()

    def set_learning_rate(self, index: int, value: float) -> None:
        """Sets the learning rate of a network. Keras refuses that where it follows a schedule."""
        rates = self._learning_rates()
        if rates is None:
            self.model.optimizer.learning_rate = value
        else:
            rates[index].assign(value)

    def _learning_rates(self) -> tf.Variable | None:
        """The learning rates of all networks; `None` where they follow a schedule."""
        return self._values.get(id(rate_variable(self.model.optimizer)))

    def let_stop(self) -> None:
        """Makes steps that leave the networks alone which have stopped; until then, none may."""
        if not self._may_stop:
            # Traced anew: for networks that never stop, it would cost time for nothing.
            self._may_stop = True
            self._trace()

    def stop(self, index: int) -> None:
        """Ends the training of a network: from now on its values stay."""
        self.let_stop()
        self._stopped.scatter_update(tf.IndexedSlices([True], [index]))

    def _train_on(self, batches: Sequence[Any], probes: bool = False, held_out: Any = None) -> None:
        own, common = self._now()
        own["slots"] = self._slots.now()
        if len(batches) > 1:
            own["batch"] = _by_network(batches, self._streams)

        def step(one: dict[str, Any]) -> dict[str, Any]:
            batch = one.get("batch", batches[0])
            if not probes:
                return self._step(one, batch, common)
            return self._probing_step(one, batch, common, batch if held_out is None else held_out)

        try:
            after = for_each_network(step, own)
        except LoopGradientError as error:
            if probes:
                raise NotStackedError(str(error)) from error
            after = self._steps_after_all_forward(own, batches[0], common)
        keeps = self._stopped.value() if self._may_stop else None
        self._weights.assign(after["weights"], keeps)
        self._slots.assign(after["slots"], keeps)
        self._states.assign(after["states"], keeps)
        self._metrics.assign(after["metrics"])
        for (_, variable), value in zip(self._common, after["common"], strict=True):
            # The same for all networks.
            variable.assign(value[0])

    def _test_on(self, batch: Any) -> None:
        own, common = self._now()
        after = for_each_network(lambda one: self._forward(one, batch, common, False), own)
        self._metrics.assign(after["metrics"])

    def _now(self) -> tuple[dict[str, Any], list[tuple[keras.Variable, tf.Tensor]]]:
        """What a pass depends on: by network, and for all networks in common."""
        own = {"weights": self._weights.now(), "states": self._states.now()}
        own |= {"metrics": self._metrics.now()}
        own |= {"has": self._has.value(), "factors": self._factors.value()}
        return own, [(variable, value.value()) for variable, value in self._common]

    def _forward(
        self, one: Mapping[str, Any], batch: Any, common: Any, training: bool
    ) -> dict[str, Any]:
        """The joint loss of one network on a batch, and the values of variables after it."""
        mapping = [*self._mapping(one, common), *self._metrics.of(one["metrics"])]
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        model, losses = self.model, self.model.task_losses
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            predictions = model(x, training=training)
            of_tasks, labels = losses(y, predictions, sample_weight)
            terms = [
                tf.where(has, loss * tf.cast(factor, loss.dtype), 0.0)
                for loss, has, factor in zip(
                    of_tasks, tf.unstack(one["has"]), tf.unstack(one["factors"]), strict=True
                )
            ]
            loss = tf.add_n([*terms, *self._own_losses(tf.unstack(one["has"]))])
            losses.track(of_tasks, labels, training)
            model.logs_after(x, y, predictions, sample_weight, loss)
        return {
            "loss": loss,
            "losses": of_tasks,
            "labels": labels,
            "states": self._states.after(scope),
            "metrics": self._metrics.after(scope),
            "common": [scope.get_current_value(variable) for variable, _ in common],
        }

    def _own_losses(self, has: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """What layers add to the loss, such as regularisers; of the heads that a network has."""
        found = [of_one_replica(loss) for loss in self.model.encoder.losses]
        if found and self._has_parts:
            raise NotStackedError("layers of its Functional model add losses, such as regularisers")
        for task, is_own in zip(self.model.tasks, has, strict=True):
            of_head = [of_one_replica(loss) for loss in self.model.heads[task].losses]
            found += [tf.where(is_own, loss, 0.0) for loss in of_head]
        return found

    def _step(self, one: dict[str, Any], batch: Any, common: Any) -> dict[str, Any]:
        """The values of one network's variables after a training step."""
        after, gradients = _gradients(
            lambda own: self._forward(own, batch, common, training=True), one
        )
        return self._update(one, after, gradients)

    def _steps_after_all_forward(self, own: dict[str, Any], batch: Any, common: Any) -> Any:
        """The values of all networks after a step, by the gradient of all forward passes at once.

        It is of use with recurrent layers only: its graph takes longer to make.
        """

        def forward(one: dict[str, Any]) -> dict[str, Any]:
            return self._forward(one, one.get("batch", batch), common, training=True)

        first = keras.tree.map_structure(lambda one: one[0], own)
        if any(isinstance(one, tf.IndexedSlices) for one in _gradients(forward, first)[1]):
            # Adam squares the slices before it adds them up. Here they would be added up.
            raise NotStackedError("a recurrent layer follows an Embedding")
        after, gradients = _gradients(lambda every: for_each_network(forward, every), own)
        found = [index for index, one in enumerate(gradients) if one is not None]

        def update(one: dict[str, Any]) -> dict[str, Any]:
            known = dict(zip(found, one["gradients"], strict=True))
            each = [known.get(index) for index in range(len(gradients))]
            return self._update(one["own"], one["after"], each)

        stacked = [gradients[index] for index in found]
        return for_each_network(update, {"own": own, "after": after, "gradients": stacked})

    def _probing_step(
        self, one: Mapping[str, Any], batch: Any, common: Any, target: Any
    ) -> dict[str, Any]:
        """A training step that measures affinities by the losses on `target`."""
        probe, shared, heads = self._probe, self.model.shared_variables, FeatureTape()
        with keras.StatelessScope(self._mapping(one, common)):
            sums_at = probe.loss_sums_on(target)
        with (
            tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape,
            heads.recording() if probe.on_features else contextlib.nullcontext(),
        ):
            tape.watch(one["weights"])
            after = self._forward(one, batch, common, training=True)
        gradients: Gradients = [[] for _ in after["losses"]]
        of_features = None
        if probe.on_features:
            of_features = heads.gradients(after["losses"])
        else:
            tensors = {id(v): tensor for v, tensor in self._weights.of(one["weights"])}
            chosen = [tensors[id(variable)] for variable in shared]
            by_task = looped_gradients if is_looped(self.model) else task_gradients
            gradients = of_whole_batch(by_task(tape, after["losses"], chosen), chosen)
        # The statistics are added to the states after the forward pass.
        moved = {"weights": one["weights"], "states": after["states"]}
        common = [
            (variable, value) for (variable, _), value in zip(common, after["common"], strict=True)
        ]
        mapping = [*self._mapping(moved, common), *self._slots.of(one["slots"])]
        size = tf.shape(keras.tree.flatten(batch)[0])[0]
        with keras.StatelessScope(mapping) as scope:
            probe.measure(after["losses"], after["labels"], gradients, size, sums_at, of_features)
        after["states"] = self._states.after(scope)
        return self._update(one, after, tape.gradient(after["loss"], one["weights"]))

    def _mapping(self, one: Mapping[str, Any], common: Any) -> list[Any]:
        """Variables of the model with their values in one network."""
        return [*self._weights.of(one["weights"]), *self._states.of(one["states"]), *common]

    def _update(
        self, one: Mapping[str, Any], after: dict[str, Any], gradients: Sequence[Any]
    ) -> dict[str, Any]:
        """Makes the step of the optimizer."""
        variables = self._weights.variables
        pairs = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
        view = stateless_view(self.model.optimizer, variables)
        mapping = [*self._weights.of(one["weights"]), *self._slots.of(one["slots"])]
        with keras.StatelessScope(mapping) as scope:
            view.apply(*zip(*pairs, strict=True))
        moved = {"weights": self._weights.after(scope), "slots": self._slots.after(scope)}
        return moved | {kind: after[kind] for kind in ("states", "metrics", "common")}

    def _results_now(self) -> dict[str, tf.Tensor]:
        def results(values: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
            with keras.StatelessScope(self._metrics.of(values)):
                found = self.model.get_metrics_result()
                return {name: tf.convert_to_tensor(value) for name, value in found.items()}

        return dict(for_each_network(results, self._metrics.now()))

    def _is_common_seed(self, variable: keras.Variable, starts: Sequence[Start]) -> bool:
        """Whether a variable is a seed of random numbers, and all networks begin with the same."""
        if "seed_generator_state" not in variable.path or len(set(self._streams)) > 1:
            return False
        found = [start.values[id(variable)] for start in starts if id(variable) in start.values]
        return all(np.array_equal(one, found[0]) for one in found)


def _gradients(
    forward: Callable[[dict[str, Any]], dict[str, Any]], own: dict[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    """What a forward pass gives, and the gradients of its losses with respect to the weights."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(own["weights"])
        after = forward(own)
        loss = tf.reduce_sum(after["loss"])
    return after, tape.gradient(loss, own["weights"])


def _by_network(batches: Sequence[Any], streams: Sequence[int]) -> Any:
    """The batch that each network sees: a structure of tensors (K, B, ...)."""
    return keras.tree.map_structure(lambda *ones: tf.gather(tf.stack(ones), streams), *batches)
