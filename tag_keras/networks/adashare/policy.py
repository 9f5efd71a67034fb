"""The policy of AdaShare: which blocks of a network each task executes, its losses and schedule."""

from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tag_keras.utils.checks import check, check_count, check_number, check_seed
from tag_keras.utils.tasks import check_task_names

SharingWeight = Literal["top", "bottom", "uniform"]
SparsityWeight = Literal["uniform", "top"]


def gumbel_noise(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Float32 tensor of independent Gumbel variables, the same for the same seed (2,)."""
    tiny = np.finfo(np.float32).tiny
    # Philox gives the same numbers on all kinds of devices. XLA has an algorithm of its own.
    uniform = tf.random.stateless_uniform(shape, seed, minval=tiny, maxval=1.0, alg="philox")
    return -tf.math.log(-tf.math.log(uniform))


def policy_sample(logits: tf.Tensor, noise: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
    """Soft decisions of AdaShare by Gumbel-softmax (Sun et al. 2020, arXiv 1911.12423).

        u = softmax((A + noise) / temperature)

    At any temperature, the first entry is the larger one with the probability softmax(A)[..., 0].
    The lower the temperature, the closer the larger entry is to 1.

    Args:
        logits: Float32 tensor A (K, L, 2) for K tasks and L blocks: "execute" and "skip".
        noise: Gumbel variables (K, L, 2).
        temperature: Positive scalar.

    Returns:
        Float32 tensor (K, L, 2), whose rows add up to 1.
    """
    noisy = logits + noise
    # After thousands of cycles the temperature would be 0 in float32.
    scaled = (noisy[..., 0] - noisy[..., 1]) / tf.maximum(temperature, 1e-6)
    # The softmax of two numbers is the sigmoid of their difference. TensorFlow's softmax multiplies
    # by a reciprocal, which some processors round: a certain decision would be 1 - 2 ** -24.
    return tf.stack([tf.sigmoid(scaled), tf.sigmoid(-scaled)], axis=-1)


def is_active(num_blocks: int, active: tf.Tensor) -> tf.Tensor:
    """Boolean tensor (L,): whether a block has a policy; the last `active` ones have."""
    # A mask, so that the graph stays the same while the number grows.
    return tf.range(num_blocks, dtype="float32") >= num_blocks - tf.cast(active, "float32")


def sparsity_loss(
    logits: tf.Tensor, active: tf.Tensor, sparsity_weight: SparsityWeight = "uniform"
) -> tf.Tensor:
    """Sparsity loss of AdaShare's code (arXiv 1911.12423): it makes networks small.

        sum over the tasks of the mean over the active blocks l of -v_l log P(skip)

    All v_l are 1, "uniform". Where the authors' code shares nothing, it may make the last blocks
    the sparsest: v_l = 2 (l + 1) / L, "top", for the blocks l = 0, ..., L - 1.

    Args:
        logits: Float32 tensor (K, L, 2) for K tasks and L blocks: "execute" and "skip".
        active: Scalar: number of blocks, from the last one on, that have a policy.
        sparsity_weight: Which blocks count more, `"uniform"` or `"top"`.

    Returns:
        Float32 scalar; 0 if no block is active.
    """
    num_blocks = logits.shape[1]
    mask = tf.cast(is_active(num_blocks, active), "float32")
    skip = -tf.nn.log_softmax(logits)[:, :, 1]
    if sparsity_weight == "top":
        skip *= 2 * (tf.range(num_blocks, dtype="float32") + 1) / num_blocks
    return tf.math.divide_no_nan(tf.reduce_sum(skip * mask), tf.reduce_sum(mask))


def sharing_loss(logits: tf.Tensor, sharing_weight: SharingWeight = "top") -> tf.Tensor:
    """Sharing loss of AdaShare (arXiv 1911.12423): it draws the tasks' policies together.

        sum over pairs of tasks k < k' and blocks l of w_l |A[k, l, 0] - A[k', l, 0]|

    for the blocks l = 0, ..., L - 1, active or not. The authors' settings draw the last blocks
    together most: w_l = (l + 1) / L, "top". Their paper argues for sharing the first blocks:
    w_l = (L - 1 - l) / L, "bottom". With `diff_sparsity_weights: False` of their code, all blocks
    count alike: w_l = 1, "uniform".

    Args:
        logits: Float32 tensor A (K, L, 2) for K tasks and L blocks: "execute" and "skip".
        sharing_weight: Where the weight is largest, `"top"` or `"bottom"`, or `"uniform"`.

    Returns:
        Float32 scalar; 0 for one task.
    """
    num_blocks = logits.shape[1]
    place = tf.range(num_blocks, dtype="float32")
    weights = {
        "top": place + 1,
        "bottom": num_blocks - 1 - place,
        "uniform": num_blocks * tf.ones_like(place),
    }[sharing_weight]
    execute = logits[:, :, 0]
    # This counts every pair twice, and every task with itself.
    distances = tf.reduce_sum(tf.abs(execute[:, None] - execute[None, :]), axis=(0, 1)) / 2
    return tf.reduce_sum(distances * weights) / num_blocks


def active_blocks(cycle: int, num_blocks: int, curriculum_speed: int = 3) -> int:
    """Curriculum of AdaShare: how many blocks, from the last one on, have a policy in a cycle."""
    return min(num_blocks, cycle // curriculum_speed + 1)


def temperature_after(cycle: int, temperature: float = 5.0, decay: float = 0.965) -> float:
    """Temperature of the policy's samples in a cycle, counted from 0."""
    return float(temperature * decay**cycle)


def check_policy(policy: Any, num_tasks: int, num_blocks: int) -> npt.NDArray[np.bool_]:
    """Returns a hard policy as a boolean array (K, L), and checks its shape and its entries."""
    array = np.asarray(policy)
    if array.shape != (num_tasks, num_blocks):
        raise ValueError(
            f"`policy` should have a row for each of the {num_tasks} tasks and a column for each "
            f"of the {num_blocks} blocks. Received: shape={array.shape}."
        )
    valid = array.dtype.kind in "biuf" and bool(np.isin(array, (0, 1)).all())
    check(valid, "`policy` should hold booleans: whether a task executes a block", policy=policy)
    return array.astype(bool)


@keras.saving.register_keras_serializable(package="tag_keras")
class AdaSharePolicy(keras.layers.Layer):  # type: ignore[misc]
    """The policy of AdaShare (Sun et al. 2020, arXiv 1911.12423, section 3).

    For every task k and block l the layer holds two trainable logits, "execute" and "skip", which
    begin equal. `decisions` gives what the tasks do, in place of a call of the layer.

    In training, decisions are samples, the same on all replicas. In evaluation they are the more
    probable ones, so that two evaluations agree; the authors' code draws there, too. Every task
    executes the blocks that are not active, because they have no policy yet.

    Args:
        tasks: Names of the K tasks.
        num_blocks: Number of blocks, L.
        temperature: Temperature of the samples at the start; `AdaShareModel` lowers it.
        seed: Seed of the samples.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If there is no task or no block, or if the temperature is not positive.

    Example:

    ```python
    policy = AdaSharePolicy(["age", "smiling"], num_blocks=8)
    policy.decisions(training=True)  # (2, 8, 2)
    policy.sample_policy(seed=0)  # (2, 8), booleans
    ```
    """

    def __init__(
        self, tasks: Any, num_blocks: int, temperature: float = 5.0, seed: int = 0, **kwargs: Any
    ) -> None:
        # The logits decide by small differences, which mixed precision would round away.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.tasks = check_task_names(tasks)
        self.num_blocks = check_count("num_blocks", num_blocks)
        self._first_temperature = check_number(
            "temperature", temperature, "a positive number", lambda number: number > 0
        )
        self._seed = check_seed(seed)
        self.logits = self.add_weight(
            shape=(len(self.tasks), self.num_blocks, 2),
            initializer=keras.initializers.Constant(0.5),
            autocast=False,
            name="logits",
        )
        self.temperature = self._add_state("temperature", self._first_temperature, "mean")
        # Number of blocks, from the last one on, that have a policy.
        self.active = self._add_state("active", self.num_blocks, "mean")
        # A weight, because Keras does not save the state of a `SeedGenerator`. All replicas draw by
        # it, and so have the same policy.
        self.draws = self._add_state("draws", 0, "only_first_replica", dtype="int64")
        self.built = True

    def _add_state(
        self, name: str, value: float, aggregation: str, dtype: str = "float32"
    ) -> keras.Variable:
        return self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype=dtype,
            trainable=False,
            autocast=False,
            aggregation=aggregation,
            name=name,
        )

    def set_phase(self, active: int, temperature: float) -> None:
        """Sets what changes during a search.

        Args:
            active: Number of blocks, from the last one on, that have a policy.
            temperature: Temperature of the samples.
        """
        self.active.assign(active)
        self.temperature.assign(temperature)

    def decisions(self, training: bool | None = None) -> tf.Tensor:
        """How much each task executes each block, and how much it skips it.

        Args:
            training: Whether to draw a sample. Otherwise the decisions are 0 and 1.

        Returns:
            Float32 tensor (K, L, 2), whose rows add up to 1.
        """
        logits = tf.convert_to_tensor(self.logits)
        if training:
            draws = tf.convert_to_tensor(self.draws)
            self.draws.assign(draws + 1)
            noise = gumbel_noise(logits.shape, tf.stack([tf.constant(self._seed, "int64"), draws]))
            chosen = policy_sample(logits, noise, tf.convert_to_tensor(self.temperature))
        else:
            execute = tf.cast(logits[:, :, 0] >= logits[:, :, 1], "float32")
            chosen = tf.stack([execute, 1 - execute], axis=-1)
        active = is_active(self.num_blocks, tf.convert_to_tensor(self.active))
        return tf.where(active[:, None], chosen, [1.0, 0.0])

    def probabilities(self) -> npt.NDArray[np.float64]:
        """Probability (K, L) that a task executes a block; 1 if the block is not active."""
        logits = np.asarray(self.logits.numpy(), np.float64)
        probabilities = 1 / (1 + np.exp(logits[:, :, 1] - logits[:, :, 0]))
        probabilities[:, : self.num_blocks - int(self.active.numpy())] = 1
        return np.asarray(probabilities)

    def sample_policy(self, seed: int = 0) -> npt.NDArray[np.bool_]:
        """Draws a hard policy: each decision by its probability, independently.

        Args:
            seed: Seed of the draw.

        Returns:
            Boolean array (K, L): whether a task executes a block.
        """
        check_seed(seed)
        probabilities = self.probabilities()
        return np.asarray(np.random.default_rng(seed).random(probabilities.shape) < probabilities)

    def most_probable(self) -> npt.NDArray[np.bool_]:
        """The hard policy of evaluation, a boolean array (K, L); blocks at 1/2 are executed."""
        return np.asarray(self.decisions().numpy()[:, :, 0] > 0)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "tasks": list(self.tasks),
            "num_blocks": self.num_blocks,
            "temperature": self._first_temperature,
            "seed": self._seed,
        }
