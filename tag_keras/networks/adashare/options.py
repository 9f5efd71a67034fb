"""Options of an AdaShare search: the schedule of weights and policy, and the policy's losses."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import keras
import tensorflow as tf

from tag_keras.networks.adashare.policy import (
    SharingWeight,
    SparsityWeight,
    active_blocks,
    sharing_loss,
    sparsity_loss,
    temperature_after,
)
from tag_keras.utils.checks import check_choice, check_count, check_number, check_whole


class Phase(NamedTuple):
    """What a training step does."""

    # Whether it trains the policy; otherwise it trains the weights.
    trains_policy: bool
    # Number of blocks, from the last one on, that have a policy.
    active: int
    # Temperature of the policy's samples.
    temperature: float
    # Number of steps left in this phase, this one included.
    left: int


@keras.saving.register_keras_serializable(package="tag_keras")
@dataclasses.dataclass(frozen=True)
class AdaShareSearch:
    """Schedule and losses of AdaShare (Sun et al. 2020, arXiv 1911.12423, section 3).

    A warm-up trains the weights alone, with all blocks executed. Then cycles follow: some batches
    train the weights, and some the policy. The temperature falls after each cycle, and after every
    few cycles one more block gets a policy, from the last block to the first.

    Args:
        warm_up: Number of batches before the first cycle. The authors take a fifth of all: 4000,
            and 20000 for Taskonomy.
        weight_steps: Number of batches of a cycle that train the weights. The authors take an epoch
            of one half of the data, and for Taskonomy 400 batches.
        policy_steps: Number of batches of a cycle that train the policy. The authors take an epoch
            of the other half of the data, and for Taskonomy 100 batches.
        sparsity: Weight of `sparsity_loss`. The authors take 0.05 (NYUv2, two tasks), 0.001 (three
            tasks), 0.01 (Cityscapes), and 0.001 (Taskonomy).
        sharing: Weight of `sharing_loss`. The authors take 0.05, 0.05, 0.1, and 0.005.
        sharing_weight: `"top"` to share the last blocks most, as in the authors' settings,
            `"bottom"` to share the first blocks most, as the paper argues, or `"uniform"`.
        temperature: Temperature of the policy's samples in the first cycle.
        temperature_decay: What the temperature is multiplied by after each cycle.
        curriculum_speed: Number of cycles after which one more block gets a policy. The authors
            take 3, and 1 for Taskonomy.
        sparsity_weight: `"uniform"`, or `"top"` to make the last blocks the sparsest, which the
            authors' code does where it shares nothing (`sharing=0`).
        policy_decay: L2 decay of the logits: their gradients in a step of the policy grow by so
            many times the logits, as by the weight decay of the authors' optimizer.

    Raises:
        ValueError: If an option is out of range.
    """

    warm_up: int = 4000
    weight_steps: int = 400
    policy_steps: int = 100
    sparsity: float = 0.05
    sharing: float = 0.05
    sharing_weight: SharingWeight = "top"
    temperature: float = 5.0
    temperature_decay: float = 0.965
    curriculum_speed: int = 3
    sparsity_weight: SparsityWeight = "uniform"
    policy_decay: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("weight_steps", "policy_steps", "curriculum_speed"):
            self._put(name, check_count(name, getattr(self, name)))
        self._put("warm_up", check_whole("warm_up", self.warm_up))
        numbers: dict[str, tuple[str, Callable[[float], bool]]] = {
            "sparsity": ("a number of at least 0", lambda number: number >= 0),
            "sharing": ("a number of at least 0", lambda number: number >= 0),
            "policy_decay": ("a number of at least 0", lambda number: number >= 0),
            "temperature": ("a positive number", lambda number: number > 0),
            "temperature_decay": ("above 0, and at most 1", lambda number: 0 < number <= 1),
        }
        for name, wanted in numbers.items():
            self._put(name, check_number(name, getattr(self, name), *wanted))
        check_choice("sharing_weight", self.sharing_weight, get_args(SharingWeight))
        check_choice("sparsity_weight", self.sparsity_weight, get_args(SparsityWeight))

    def _put(self, name: str, value: float) -> None:
        # A number of Python, which can be written as JSON.
        object.__setattr__(self, name, value)

    def phase(self, step: int, num_blocks: int) -> Phase:
        """The phase of a training step.

        Args:
            step: Number of the step, counted from 0.
            num_blocks: Number of blocks of the network.
        """
        if step < self.warm_up:
            return Phase(False, 0, self.temperature, left=self.warm_up - step)
        length = self.weight_steps + self.policy_steps
        cycle, position = divmod(step - self.warm_up, length)
        trains_policy = position >= self.weight_steps
        return Phase(
            trains_policy,
            active_blocks(cycle, num_blocks, self.curriculum_speed),
            temperature_after(cycle, self.temperature, self.temperature_decay),
            left=(length if trains_policy else self.weight_steps) - position,
        )

    def policy_loss(self, logits: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
        """Float32 scalar that a step of the policy adds: its weighted losses, and the decay.

        Args:
            logits: Float32 tensor (K, L, 2) for K tasks and L blocks: "execute" and "skip".
            active: Scalar: number of blocks, from the last one on, that have a policy.
        """
        sparsity = self.sparsity * sparsity_loss(logits, active, self.sparsity_weight)
        sharing = self.sharing * sharing_loss(logits, self.sharing_weight)
        return sparsity + sharing + self.policy_decay * tf.nn.l2_loss(logits)

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AdaShareSearch":
        # Version 0.1 had no decay, and a search goes on as it began.
        return cls(**{"policy_decay": 0.0, **config})
