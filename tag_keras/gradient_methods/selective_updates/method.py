"""The gradient method: its options, its weights, and when groups form."""

import math
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tag_keras.affinity import Affinity
from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.gradient_methods.selective_updates.clustering import check_clustering, cluster_tasks
from tag_keras.gradient_methods.selective_updates.optimizer import check_partial
from tag_keras.gradient_methods.selective_updates.step import GroupUpdateStep
from tag_keras.utils.checks import check_bool, check_count, check_number, check_seed, check_whole


@keras.saving.register_keras_serializable(package="tag_keras")
class SelectiveTaskGroupUpdates(GradientMethod):
    """Selective task group updates (Jeong and Yoon 2025, arXiv 2502.11986).

    Each batch makes one update for every group of tasks, in random order. An update is a step of
    the optimizer with the loss of the group, on the shared variables and on the group's heads. The
    relative change of each loss on the same batch is the proximal inter-task affinity, and its
    moving average is kept:

        B[i, j] = (1 - decay) * B[i, j] + decay * (1 - L_j after the update / L_j before it)

    The tasks i of the group share a change equally. Each task is in one group. At first every task
    is a group; after the warm-up, affinity propagation on B forms new groups after every batch.
    Tasks of a group look alike, because they are measured together: groups that have formed tend to
    stay, right or wrong. `model.get_affinity()` gives B, and `groups` the groups.

    A batch costs one forward and one backward pass for each group, and one more forward pass with
    `measure_last`. With several replicas of `tf.distribute`, it makes these passes for each task.
    `optimizer.iterations` counts batches. Weight decay and regularisation losses count in every
    update. Forming groups needs scikit-learn: `pip install "tag_keras[clustering]"`.

    For nine tasks that is about 9 plain steps with each task alone, and 4 with three groups. Take
    it for one network that serves all tasks, and compare it with others at equal time, not at equal
    epochs.

    Args:
        decay: Weight of a new value in the moving averages, in (0, 1]. The authors use 0.001, and
            0.0001 for Taskonomy.
        preference: Similarity of a task to itself in the affinity propagation, in units of its
            affinity onto itself: the higher, the more groups. Defaults to the median of all
            similarities.
        warmup: Number of batches before groups form.
        regroup_every: Number of batches between two formations of groups. Groups can only form
            after an execution of `steps_per_execution` batches.
        group_norm: Whether to divide the loss of a group by its number of tasks.
        measure_last: Whether to measure the last update of a batch, by one more forward pass.
            Otherwise nothing is measured as long as all tasks are in one group.
        seed: Seed of the order of the groups and of the affinity propagation, from 0 on. By
            default it is drawn, and saved with the model.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an option has another type, or is out of range.

    Example:

    ```python
    model.compile("adam", loss, gradient_method=tag_keras.SelectiveTaskGroupUpdates())
    model.fit(x, y, epochs=10)
    model.gradient_method.groups  # (("age", "smiling"), ("hat",))
    affinity = model.get_affinity()
    ```
    """

    measures_affinity = True

    def __init__(
        self,
        decay: float = 0.001,
        preference: float | None = None,
        warmup: int = 100,
        regroup_every: int = 1,
        group_norm: bool = False,
        measure_last: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        self.decay = check_number("decay", decay, "in (0, 1]", lambda number: 0 < number <= 1)
        self.preference = preference
        if preference is not None:
            self.preference = check_number("preference", preference, "a finite number, or None")
        self.warmup = check_whole("warmup", warmup)
        check_bool("group_norm", group_norm)
        check_bool("measure_last", measure_last)
        self.regroup_every = check_count("regroup_every", regroup_every)
        self.group_norm, self.measure_last = group_norm, measure_last
        # `keras.utils.set_random_seed` also sets the generator of Python.
        self.seed = random.randrange(2**24) if seed is None else check_seed(seed)
        self._tasks: tuple[str, ...] = ()

    def start(self, tasks: tuple[str, ...]) -> None:
        self._tasks, number = tasks, len(tasks)
        # Each task's group, as a number.
        self.assignment = self.add_zeros("assignment", (number,), "float32")
        self.affinity = self.add_zeros("affinity", (number, number), "float32")
        self.count = self.add_zeros("count", (number, number))
        self.batches = self.add_zeros("batches", ())
        self.grouped_at = self.add_zeros("grouped_at", ())
        self.more_updates = self.add_zeros("more_updates", ())
        # A weight, so that a resumed run goes on with the same seed.
        self.seed_used = self.add_zeros("seed", ())
        self.assignment.assign(np.arange(number, dtype="float32"))
        self.seed_used.assign(tf.constant(self.seed, "int64"))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The present groups of tasks.

        Raises:
            ValueError: If no model trains with this object: `compile` makes a copy.
        """
        self._check_started()
        numbers = self.assignment.numpy()
        return tuple(
            tuple(task for task, one in zip(self._tasks, numbers, strict=True) if one == number)
            for number in np.unique(numbers)
        )

    def shuffled_groups(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The groups in a random order, the same on all replicas, and their number, int32.

        The groups are the rows of a boolean tensor (T, T), whose last rows may be empty.
        """
        numbers = tf.range(len(self._tasks), dtype="float32")
        groups = numbers[:, None] == tf.convert_to_tensor(self.assignment)[None, :]
        filled = tf.reduce_any(groups, axis=1)
        seed = tf.stack([tf.convert_to_tensor(one) for one in (self.seed_used, self.batches)])
        keys = tf.random.stateless_uniform([len(self._tasks)], seed)
        order = tf.argsort(tf.where(filled, keys, 2.0))
        return tf.gather(groups, order), tf.reduce_sum(tf.cast(filled, "int32"))

    def make_step(self, model: Any) -> Callable[[Any], dict[str, Any]]:
        check_clustering()
        check_partial(model.optimizer)
        return GroupUpdateStep(model, self)

    def after_execution(self) -> None:
        batches, grouped_at = int(self.batches.numpy()), int(self.grouped_at.numpy())
        if batches < self.warmup or batches - grouped_at < self.regroup_every:
            return
        # The generator of scikit-learn takes 32 bits.
        seed = int(self.seed_used.numpy()) % 2**32
        labels = cluster_tasks(self.affinity.numpy(), self.preference, seed=seed)
        self.grouped_at.assign(tf.constant(batches, "int64"))
        if labels is not None:
            self.assignment.assign(labels.astype("float32"))

    def get_affinity(self) -> Affinity:
        """The proximal affinities: moving averages over all batches since `compile`.

        They are corrected for their start from 0, as Adam's averages are; groups form from the
        uncorrected averages. The diagonal is never negative, because it leaves out updates that
        raised the task's own loss. Standard errors are not known.

        Raises:
            ValueError: If nothing was measured.
        """
        self._check_started()
        count = self.count.numpy()
        if not count.any():
            raise ValueError(
                "No affinities have been measured. Call `fit` first, with losses that are positive."
            )
        with np.errstate(invalid="ignore"):
            # 1 - (1 - decay) ** count, without its rounding for small decays.
            log = math.log1p(-self.decay) if self.decay < 1 else -math.inf
            mean = self.affinity.numpy().astype(np.float64) / -np.expm1(count * log)
        return Affinity(self._tasks, mean, count=count)

    def _check_started(self) -> None:
        if not self._tasks:
            raise ValueError(
                "A model trains with a copy of its own: ask `model.gradient_method`, after "
                "`model.compile(gradient_method=...)`."
            )

    def load_own_variables(self, store: Any) -> None:
        # A file of a model that was trained without the method has no weights for it.
        if "0" in store:
            super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        names = ("decay", "preference", "warmup", "regroup_every", "group_norm", "measure_last")
        options = {name: getattr(self, name) for name in (*names, "seed")}
        return {**super().get_config(), **options}
