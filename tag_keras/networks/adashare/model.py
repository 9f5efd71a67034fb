"""AdaShare: training a network together with the policy that says which blocks a task executes."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.replicas import check_strategy
from tag_keras.backend.steps import EpochBounds
from tag_keras.model import MultiTaskModel
from tag_keras.multitask.task_model import TaskModel
from tag_keras.networks.adashare.encoder import AdaShareEncoder
from tag_keras.networks.adashare.fixed_network import fixed_model
from tag_keras.networks.adashare.options import AdaShareSearch
from tag_keras.networks.adashare.policy import sharing_loss, sparsity_loss
from tag_keras.networks.adashare.steps import SearchProgress, SearchSteps


@keras.saving.register_keras_serializable(package="tag_keras")
class AdaShareModel(TaskModel):
    """Searches which blocks each task executes (AdaShare; Sun et al. 2020, arXiv 1911.12423).

    `fit` first trains the weights with all blocks executed. Then the weights and the policy take
    turns, as `compile(search=...)` says. A step trains one of them and leaves the other as it is:
    in a step of the policy, nothing of the network moves, not even BatchNorm's moving statistics.

    The turns take different batches of the data that `fit` gets. The authors train the policy on
    data of its own. To do so, give `fit` the data set `first.concatenate(second)`, their numbers of
    batches as `weight_steps` and `policy_steps`, and a multiple of the sum as `warm_up`.

    After the search, `sample_policy` draws policies. `retrain_model` makes the network of a policy
    with fresh weights, and `pruned_model` makes it with the weights as they are. Evaluation and
    `predict` take the more probable decisions, `model.encoder.policy.most_probable()`. While the
    temperature is high, training mixes "execute" and "skip", so validation says little about a
    search: what counts is how the network of a policy does after it was trained anew.

    The logs hold the losses of the tasks for all steps, and `sparsity_loss` and `sharing_loss`,
    which are not part of `loss`.

    For nine tasks, a step of the weights costs about 7 plain steps and one of the policy 5, and the
    network found is trained once more. Take it where the network has blocks to spare: it takes
    blocks from each task.

    Args:
        encoder: An `AdaShareEncoder`.
        heads: Layer or model by task, in the order of the encoder's tasks.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If the encoder is no `AdaShareEncoder`, if the heads have other tasks or another
            order, or if a task has the name of a loss in the logs.

    Example:

    ```python
    model = tag_keras.AdaShareModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    search = tag_keras.AdaShareSearch(warm_up=1000, weight_steps=100, policy_steps=100)
    model.compile("adam", "mse", search=search)
    model.fit(x, y, epochs=20)
    candidates = [model.retrain_model(model.sample_policy(seed)) for seed in range(8)]
    for candidate in candidates:
        candidate.compile("adam", "mse")
        candidate.fit(x, y, epochs=20)
    network = tag_keras.task_network(candidates[0], tasks[0])
    ```
    """

    encoder: AdaShareEncoder

    def __init__(
        self, encoder: AdaShareEncoder, heads: Mapping[str, keras.layers.Layer], **kwargs: Any
    ) -> None:
        if not isinstance(encoder, AdaShareEncoder):
            raise ValueError(
                "`encoder` should be a `tag_keras.AdaShareEncoder`, whose policy can be trained. "
                f"Received: encoder={encoder!r}."
            )
        super().__init__(encoder, heads, **kwargs)
        if self.tasks != encoder.tasks:
            raise ValueError(
                f"`heads` should have the tasks of the encoder in their order, "
                f"{list(encoder.tasks)}. Received: {list(self.tasks)}."
            )
        if taken := [task for task in self.tasks if task in ("sparsity", "sharing")]:
            raise ValueError(
                "A task should not be named 'sparsity' or 'sharing', because the logs have losses "
                f"of these names. Received: {taken}."
            )
        self._progress = SearchProgress(name="search_progress")
        self._policy_losses = [
            keras.metrics.Mean(name=f"{name}_loss") for name in ("sparsity", "sharing")
        ]
        # Set by `compile`.
        self.policy_optimizer: Any = None
        self._search = AdaShareSearch()

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Mapping[str, Any] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        *,
        policy_optimizer: Any = None,
        search: AdaShareSearch | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures a search. It begins with its first step, from the policy as it is.

        Affinities, loss weightings and gradient methods go with the models that `retrain_model`
        gives.

        Args:
            optimizer: Optimizer of the weights.
            loss: Loss by task, or one for all tasks.
            loss_weights: Weight by task in the joint loss. Defaults to 1.
            metrics: Metrics by task, or a list of names for all tasks.
            weighted_metrics: The same, weighted by `sample_weight`.
            policy_optimizer: Optimizer of the policy's logits. Defaults to Adam with the authors'
                learning rate of 0.01. Their weight decay is `policy_decay` of `search`.
            search: Schedule and losses of the policy. Defaults to `AdaShareSearch()`.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: If the dicts have other tasks than the heads, if there is no loss, if
                `search` is no `AdaShareSearch`, if both optimizers are one object, if an affinity,
                a loss weighting or a gradient method is given, or if Keras cannot train under the
                strategy with these arguments.
        """
        _check_compile(optimizer, policy_optimizer, search, kwargs)
        if policy_optimizer is None:
            policy_optimizer = keras.optimizers.Adam(0.01)
        policy_optimizer = keras.optimizers.get(policy_optimizer)
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)
        check_strategy(self)
        scaled = keras.optimizers.LossScaleOptimizer
        if isinstance(self.optimizer, scaled) and not isinstance(policy_optimizer, scaled):
            policy_optimizer = scaled(policy_optimizer)
        # Now, because its variables have to be there before a checkpoint is read.
        policy_optimizer.build([self.encoder.policy.logits])
        self.policy_optimizer = policy_optimizer
        self._search = search or AdaShareSearch()
        self._progress.reset_steps()

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The weights that `optimizer` trains: all but the logits of the policy."""
        logits = self.encoder.policy.logits
        return [variable for variable in super().trainable_variables if variable is not logits]

    def make_train_function(self, force: bool = False) -> None:
        self.train_function: Any
        if self.train_function is None or force:
            self.train_function = SearchSteps(
                self, self._search, self._progress, self.policy_optimizer
            )

    def logs_after(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, loss: Any
    ) -> dict[str, Any]:
        policy = self.encoder.policy
        logits, active = tf.convert_to_tensor(policy.logits), tf.convert_to_tensor(policy.active)
        sparsity, sharing = self._policy_losses
        sparsity.update_state(sparsity_loss(logits, active, self._search.sparsity_weight))
        sharing.update_state(sharing_loss(logits, self._search.sharing_weight))
        return super().logs_after(x, y, y_pred, sample_weight, loss)

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        return [EpochBounds(self._progress)]

    def sample_policy(self, seed: int = 0) -> Any:
        """Draws a hard policy by the probabilities that the search has found.

        Args:
            seed: Seed of the draw.

        Returns:
            Boolean array (K, L): whether a task executes a block.

        Raises:
            ValueError: If the policy has not been trained yet.
        """
        made, first = self._progress.steps, self._search.warm_up + self._search.weight_steps
        if made <= first:
            raise ValueError(
                f"The search has made {made} steps, and the policy is trained from step "
                f"{first + 1} on. Train for longer, or lower `warm_up` and `weight_steps` of "
                "`compile(search=AdaShareSearch(...))`."
            )
        return self.encoder.policy.sample_policy(seed)

    def retrain_model(self, policy: Any) -> MultiTaskModel:
        """The network of a hard policy, with fresh weights.

        Args:
            policy: Boolean array (K, L), whether task k executes block l, such as from
                `sample_policy`.

        Returns:
            A `MultiTaskModel` to be compiled, without the layers that no task executes.

        Raises:
            ValueError: If the policy has another shape, or if the model has not seen any data.
        """
        return fixed_model(self.encoder, self.heads, policy, copy_weights=False)

    def pruned_model(self, policy: Any) -> MultiTaskModel:
        """The network of a hard policy, with a copy of the weights as they are now.

        Args:
            policy: Boolean array (K, L), as for `retrain_model`.

        Returns:
            A `MultiTaskModel` to be compiled, without the layers that no task executes.
        """
        return fixed_model(self.encoder, self.heads, policy, copy_weights=True)

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if config:
            serialize = keras.saving.serialize_keras_object
            config["policy_optimizer"] = serialize(self.policy_optimizer)
            config["search"] = serialize(self._search)
        return config


def _check_compile(
    optimizer: Any, policy_optimizer: Any, search: Any, others: Mapping[str, Any]
) -> None:
    """Raises a `ValueError` if an argument of `AdaShareModel.compile` does not go with a search."""
    for name in ("affinity", "loss_weighting", "gradient_method"):
        if (value := others.get(name)) is not None:
            raise ValueError(
                "AdaShareModel trains weights and policy by the sum of the losses and takes no "
                f"`{name}`. Give it to the model of a policy, `model.retrain_model(policy)`. "
                f"Received: {name}={value!r}."
            )
    if not isinstance(search, AdaShareSearch | None):
        raise ValueError(
            "`search` should be a `tag_keras.AdaShareSearch(warm_up=..., ...)`. "
            f"Received: search={search!r}."
        )
    if policy_optimizer is optimizer and isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            "`policy_optimizer` should be another optimizer than `optimizer`, because each "
            f"keeps a state of its own. Received: {optimizer!r} for both."
        )
