"""AdaShare: training a network together with what of it each task executes."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.steps import before_others, steps_of
from tag_keras.model import MultiTaskModel
from tag_keras.networks.adashare.cadence import Alternation, SearchEpochs, SearchProgress
from tag_keras.networks.adashare.encoder import AdaShareEncoder
from tag_keras.networks.adashare.fixed_network import fixed_model
from tag_keras.networks.adashare.options import AdaShareSearch
from tag_keras.networks.adashare.policy import sharing_loss, sparsity_loss
from tag_keras.networks.adashare.step import PolicyStep, policy_optimizer_of


@keras.saving.register_keras_serializable(package="tag_keras")
class AdaShareModel(MultiTaskModel):
    """Searches which blocks each task executes (AdaShare; Sun et al. 2020, arXiv 1911.12423).

    `fit` trains the weights with all blocks executed, and then in turns the weights and the policy,
    as `compile(search=...)` says. A step trains one of them and leaves the other as it is. In the
    steps of the policy, nothing of the network moves, the moving statistics of BatchNorm included.

    The turns take different batches of the data that `fit` gets. To train the policy on data of its
    own, as the authors do, give `fit` the data set `first.concatenate(second)`, with the numbers of
    their batches as `weight_steps` and `policy_steps`, and a multiple of their sum as `warm_up`.

    Then `sample_policy` draws policies, `retrain_model` makes a network of one to be trained anew,
    and `pruned_model` one with the weights as they are. Evaluation and `predict` take the more
    probable decisions, as `pruned_model(model.encoder.policy.most_probable())` does. Training mixes
    execute and skip as long as the temperature is high, so validation says little of a search: what
    counts is how a network of a policy does when it has been trained anew.

    The logs hold the losses of the tasks in all steps, and `sparsity_loss` and `sharing_loss`,
    which `loss` does not contain.

    Args:
        encoder: An `AdaShareEncoder`.
        heads: Layer or model by task, in the order of the encoder's tasks.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If the encoder is another one, or its tasks are not those of the heads.

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
        affinity: Any = None,
        loss_weighting: Any = None,
        gradient_method: Any = None,
        policy_optimizer: Any = None,
        search: AdaShareSearch | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures a search, which begins with its first step, from the policy as it is.

        Args:
            optimizer: Of the weights.
            loss: This and the next three are as in `MultiTaskModel`.
            loss_weights: See there.
            metrics: See there.
            weighted_metrics: See there.
            affinity: To be left out, as are the next two: the models that `retrain_model` gives
                take them.
            loss_weighting: To be left out.
            gradient_method: To be left out.
            policy_optimizer: Of the policy's logits. Defaults to Adam with the authors' learning
                rate of 0.01, without their weight decay.
            search: Schedule and losses of the policy. Defaults to `AdaShareSearch()`.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: As in `MultiTaskModel`; if `search` is something else; if one optimizer is
                to do the work of two; or if affinities or another way to combine the tasks are
                asked for, too.
        """
        others = {
            "affinity": affinity,
            "loss_weighting": loss_weighting,
            "gradient_method": gradient_method,
        }
        for name, value in others.items():
            if value is not None:
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
        of_policy = policy_optimizer_of(policy_optimizer, optimizer)
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)
        scaled = keras.optimizers.LossScaleOptimizer
        if isinstance(self.optimizer, scaled) and not isinstance(of_policy, scaled):
            of_policy = scaled(of_policy)
        # Now, because it has to be there before a checkpoint is read.
        of_policy.build([self.encoder.policy.logits])
        self.policy_optimizer = of_policy
        self._search = search or AdaShareSearch()
        self._progress.reset_steps()

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The weights that `optimizer` trains: all but the logits of the policy."""
        logits = self.encoder.policy.logits
        return [variable for variable in super().trainable_variables if variable is not logits]

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is not None and not force:
            return
        steps = (self.train_step, PolicyStep(self, self._search, self.policy_optimizer))
        of_weights, of_policy = (steps_of(self, step) for step in steps)
        alternation = Alternation(
            self._search,
            self._progress,
            self.encoder.policy,
            self.steps_per_execution,
            of_weights,
            of_policy,
            self.get_metrics_result,
        )
        self.train_function = self._building_first(alternation)

    def logs_after(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, loss: Any
    ) -> dict[str, Any]:
        policy = self.encoder.policy
        logits, active = tf.convert_to_tensor(policy.logits), tf.convert_to_tensor(policy.active)
        sparsity, sharing = self._policy_losses
        sparsity.update_state(sparsity_loss(logits, active))
        sharing.update_state(sharing_loss(logits, self._search.sharing_weight))
        return super().logs_after(x, y, y_pred, sample_weight, loss)

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
        callbacks = before_others([SearchEpochs(self._progress)], callbacks)
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs)

    def sample_policy(self, seed: int = 0) -> Any:
        """Draws a hard policy by the probabilities that the search has found.

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
        """A network with fresh weights in which the tasks execute what a hard policy says.

        Args:
            policy: Boolean array (K, L), as from `sample_policy`.

        Returns:
            A `MultiTaskModel` to be compiled. What no task executes is absent.

        Raises:
            ValueError: If the policy has another shape, or if the model has not seen any data.
        """
        return fixed_model(self.encoder, self.heads, policy, copy_weights=False)

    def pruned_model(self, policy: Any) -> MultiTaskModel:
        """The same as `retrain_model`, with a copy of the weights as they are now."""
        return fixed_model(self.encoder, self.heads, policy, copy_weights=True)

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if config:
            serialize = keras.saving.serialize_keras_object
            config["policy_optimizer"] = serialize(self.policy_optimizer)
            config["search"] = serialize(self._search)
        return config
