"""Running means and counts of the probes, kept in weights, with the means of batches of probes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tag_keras.affinity import Affinity
from tag_keras.backend.steps import StepCounter
from tag_keras.utils.replicates import replicates_of

# A slot holds the mean of consecutive probes: 16 slots for the running epoch, 64 for all epochs.
_SLOTS = 16
_MOST_SLOTS = 64
# Standard errors come from this many batches of slots. More batches would hold fewer probes each,
# and their means would still be correlated.
_BATCHES = 8


class ProbeStatistics(StepCounter):
    """Means and counts for each pair of tasks, in slots of consecutive probes.

    The compiled step updates the slots of the running epoch, which are weights. When all are full,
    each two neighbours are merged, and from then on a slot holds twice as many probes (dynamic
    batch means; Yeh and Schmeiser 2000). Epochs that have ended are float64 arrays. Checkpoints
    hold both, the number of training steps since `start`, which creates the weights, and `every`,
    the number of steps from one probe to the next that an `overhead` allows: 0 until it is known.

    A batch of less than half of the largest batch so far is left out: at the end of an epoch it may
    be one example, whose affinities would outweigh all others.
    """

    def __init__(self, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.every = 0
        pairs, slots = (num_tasks, num_tasks), (_SLOTS, num_tasks, num_tasks)
        self._shapes = {"mean": slots, "count": slots, "skipped": pairs}
        self._shapes |= {"overflowed": (num_tasks,), "probes": (), "width": ()}
        self._host: dict[str, npt.NDArray[np.float64]] = {}

    def start(self) -> None:
        """Creates the weights if there are none, and starts anew at no probe."""
        self.reset_steps()
        self.every = 0
        pairs = self._shapes["skipped"]
        self._host = {
            # By epoch: mean, count and skipped.
            "epochs": np.zeros((0, 3, *pairs)),
            # By slot: mean and count.
            "slots": np.zeros((0, 2, *pairs)),
            "overflowed": np.zeros(pairs[:1]),
        }
        if not self.weights:
            for name, shape in {**self._shapes, "largest_batch": ()}.items():
                # Replicas hold equal values; "mean" keeps them so when they are restored.
                self.add_weight(
                    shape=shape, initializer="zeros", trainable=False, aggregation="mean", name=name
                )
        self.weights[-1].assign(0.0)
        self._start_epoch()

    def update(
        self,
        values: tf.Tensor,
        batch_size: tf.Tensor,
        has_labels: tf.Tensor | None = None,
        overflowed: tf.Tensor | None = None,
        has_target_labels: tf.Tensor | None = None,
    ) -> None:
        """Adds one probe.

        Args:
            values: Affinities: tensor (T, T), [source, target]; NaN marks a value to skip.
            batch_size: Number of examples in the batch.
            has_labels: Boolean tensor (T,): whether the batch has labels of the source. A task
                without labels takes no part in the probe. By default all have labels.
            overflowed: Boolean tensor (T,): whether the task's gradient overflowed; by default no.
            has_target_labels: Boolean tensor (T,): whether the batch that the losses were measured
                on has labels of the target; by default `has_labels`.
        """
        mean, count, skipped, overflows, probes, width, largest_batch = self.weights
        batch_size = tf.cast(batch_size, "float32")
        whole = batch_size >= largest_batch / 2
        largest_batch.assign(tf.maximum(largest_batch, batch_size))
        taking_part = tf.fill(tf.shape(values), whole)
        if has_labels is not None:
            targets = has_labels if has_target_labels is None else has_target_labels
            taking_part &= has_labels[:, None] & targets[None, :]
        # float32 cannot average larger values. The comparison is false for NaN.
        usable = (tf.abs(values) < 1e15) & taking_part
        skipped.assign(skipped + tf.cast(taking_part & ~usable, "float32"))
        if overflowed is not None:
            overflows.assign(overflows + tf.cast(overflowed & whole, "float32"))

        full = probes >= _SLOTS * width
        means, counts = _merged(tf.convert_to_tensor(mean), tf.convert_to_tensor(count))
        means, counts = tf.where(full, means, mean), tf.where(full, counts, count)
        width.assign(tf.where(full, 2 * width, width))
        slot = tf.one_hot(tf.cast(probes // width, "int32"), _SLOTS)[:, None, None]
        here = slot * tf.cast(usable, "float32")
        counts += here
        means += tf.where(here > 0, (values - means) / tf.maximum(counts, 1.0), 0.0)
        mean.assign(means)
        count.assign(counts)
        probes.assign(probes + tf.cast(whole, "float32"))

    def end_epoch(self) -> None:
        """Closes the running epoch, even one without probes."""
        super().end_epoch()
        self._host = self._with_running_epoch()
        self._start_epoch()

    def end_interrupted_epoch(self) -> None:
        if self.is_running():
            self.end_epoch()
        # An epoch without probes has nothing to close, but its steps count.
        super().end_epoch()

    def is_running(self) -> bool:
        """Whether there were probes after the end of the last epoch."""
        return bool(self.weights and self._values()["probes"])

    def affinity(self, tasks: tuple[str, ...]) -> Affinity:
        """Affinities over all epochs, including one that is still running."""
        host = self._with_running_epoch() if self.is_running() else self._host
        means, counts, skipped = host["epochs"].transpose(1, 0, 2, 3)
        batches = _batches(host["slots"], _BATCHES)
        return Affinity(
            tasks,
            _mean(means, counts),
            count=counts.sum(axis=0),
            history=np.where(counts > 0, means, np.nan),
            skipped=skipped.sum(axis=0),
            replicates=replicates_of(batches[:, 0], batches[:, 1]),
        )

    def measured_affinity(self, tasks: tuple[str, ...]) -> Affinity:
        """Affinities over all epochs; a `ValueError` if nothing was measured, or nothing usable."""
        affinity = self.affinity(tasks) if self.weights else None
        if affinity is None or not (affinity.count + affinity.skipped).any():
            raise ValueError(
                "No affinities have been measured. Compile with "
                "`affinity=tag_keras.LookaheadAffinity(...)` and call `fit` first."
            )
        if not affinity.count.any():
            overflowed, reasons, remedies = self.overflowed(), [], []
            if overflowed.any():
                reasons.append("the gradients, times the loss scale of the optimizer, overflowed")
                remedies.append(
                    'Use losses of smaller values; under float16, the policy "mixed_bfloat16"; '
                    "under float32, an optimizer without a loss scale."
                )
            if (affinity.skipped > overflowed[:, None]).any():
                reasons.append(
                    "a loss was not positive or not finite, or a step made it more than 1e15 times "
                    "as large"
                )
                remedies.append("Check the losses and the learning rate.")
            raise ValueError(
                f"All {affinity.skipped.max()} probes were left out, because "
                f"{' or '.join(reasons)}. {' '.join(remedies)}"
            )
        return affinity

    def largest_batch(self) -> int:
        """Number of examples in the largest batch probed so far."""
        return int(self.weights[-1].numpy())

    def values_by_target(self) -> npt.NDArray[np.float64]:
        """Number of values by target (T,) in the epochs that have ended, used or skipped."""
        return np.asarray(self._host["epochs"][:, 1:].sum(axis=(0, 1, 2)))

    def overflowed(self) -> npt.NDArray[np.float64]:
        """Number of probes by task (T,) in which the gradient of the task overflowed."""
        running = self._values()["overflowed"]
        return np.asarray(self._host["overflowed"] + running)

    def save_own_variables(self, store: Any) -> None:
        if self.weights:
            super().save_own_variables(store)
            for name, array in self._host.items():
                store[name] = array
            store["every"] = np.array(self.every)

    def load_own_variables(self, store: Any) -> None:
        if "steps" not in store:
            return
        self.start()
        super().load_own_variables(store)
        self._host = {name: np.array(store[name], np.float64) for name in self._host}
        for index, weight in enumerate(self.weights):
            weight.assign(store[str(index)])
        if "every" in store:
            self.every = int(np.array(store["every"]))

    def _start_epoch(self) -> None:
        # Without the last weight, the largest batch, which outlives the epoch.
        for name, weight in zip(self._shapes, self.weights, strict=False):
            weight.assign(tf.ones_like(weight) if name == "width" else tf.zeros_like(weight))

    def _values(self) -> dict[str, npt.NDArray[np.float64]]:
        return {
            name: np.array(weight.numpy(), np.float64)
            for name, weight in zip(self._shapes, self.weights, strict=False)
        }

    def _with_running_epoch(self) -> dict[str, npt.NDArray[np.float64]]:
        values = self._values()
        means, counts = values["mean"], values["count"]
        epoch = [_mean(means, counts), counts.sum(axis=0), values["skipped"]]
        slots = np.stack([means, counts], axis=1)[counts.any(axis=(1, 2))]
        return {
            "epochs": np.concatenate([self._host["epochs"], np.nan_to_num(epoch)[None]]),
            "slots": _batches(np.concatenate([self._host["slots"], slots]), _MOST_SLOTS),
            "overflowed": self._host["overflowed"] + values["overflowed"],
        }


def saved_statistics(statistics: ProbeStatistics) -> dict[str, npt.NDArray[Any]]:
    """A copy of the arrays that a checkpoint holds; for `load_own_variables`."""
    store: dict[str, Any] = {}
    statistics.save_own_variables(store)
    return {name: np.array(value) for name, value in store.items()}


def _merged(means: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Means and counts (S, T, T) with each two neighbours merged, and empty slots at the end."""
    shape = [_SLOTS // 2, 2, *means.shape[1:]]
    means, counts = tf.reshape(means, shape), tf.reshape(counts, shape)
    together = tf.reduce_sum(counts, axis=1)
    merged = tf.math.divide_no_nan(tf.reduce_sum(means * counts, axis=1), together)
    nothing = tf.zeros_like(merged)
    return tf.concat([merged, nothing], axis=0), tf.concat([together, nothing], axis=0)


def _batches(slots: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.float64]:
    """Slots (S, 2, T, T) of means and counts, merged to at most `most` of about equal counts."""
    if len(slots) <= most:
        return slots
    sizes = slots[:, 1].max(axis=(1, 2))
    middles = np.cumsum(sizes) - sizes / 2
    batch = np.floor(middles / sizes.sum() * most).astype(int)
    parts = [slots[batch == index] for index in np.unique(batch)]
    return np.stack(
        [[np.nan_to_num(_mean(part[:, 0], part[:, 1])), part[:, 1].sum(axis=0)] for part in parts]
    )


def _mean(
    means: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Mean (T, T) of all values from means and counts (N, T, T) of N parts; NaN for no values."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((means * counts).sum(axis=0) / counts.sum(axis=0))
