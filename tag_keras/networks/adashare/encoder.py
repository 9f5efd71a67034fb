"""Residual blocks that each task executes or skips, as AdaShare's policy decides."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.layers import layers_in
from tag_keras.networks.adashare.policy import AdaSharePolicy
from tag_keras.networks.resnet import resnet_layers
from tag_keras.utils.checks import check, check_input_shape

layers = keras.layers


@keras.saving.register_keras_serializable(package="tag_keras")
class AdaShareEncoder(keras.layers.Layer):  # type: ignore[misc]
    """Residual blocks that each task executes or skips: AdaShare (Sun et al. 2020, section 3).

    With the decision (u, 1 - u) of a task at a block, the block turns its input x into

        u relu(shortcut(x) + residual(x)) + (1 - u) shortcut(x)

    A task that executes all blocks has exactly the features of the plain residual network. Each of
    the K tasks makes a pass of its own through the blocks. In training, each pass updates the
    moving statistics of BatchNorm, as in the authors' code: these are means over the tasks, and
    follow the batches faster than with one pass.

    Args:
        stem: Layer before the blocks.
        blocks: L layers such as `tag_keras.ResidualBlock`, made of Keras layers and `keras.ops`.
            They have the methods `shortcut(inputs, training=None)` and
            `residual(inputs, training=None)`, and `call` gives the ReLU of the sum of the two.
        tasks: Names of the K tasks.
        top: Layer after the blocks, such as a pooling layer. Defaults to none.
        temperature: Temperature of the policy's samples at the start of a search.
        seed: Seed of the policy's samples.
        **kwargs: Arguments of `keras.layers.Layer`.

    Returns:
        Dict of features by task.

    Raises:
        ValueError: If there is no block, or if a block has no shortcut and residual, or weights
            outside of its layers.

    Example:

    ```python
    encoder = tag_keras.AdaShareEncoder(
        stem=keras.layers.Conv2D(16, 3, padding="same"),
        blocks=[tag_keras.ResidualBlock(16), tag_keras.ResidualBlock(32, strides=2)],
        tasks=["age", "smiling"],
        top=keras.layers.GlobalAveragePooling2D(),
    )
    encoder.policy.probabilities()  # (2, 2)
    ```
    """

    def __init__(
        self,
        stem: keras.layers.Layer,
        blocks: Sequence[keras.layers.Layer],
        tasks: Sequence[str],
        top: keras.layers.Layer | None = None,
        temperature: float = 5.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        # Each layer casts its inputs by its own dtype policy.
        super().__init__(**{"autocast": False, **kwargs})
        check(isinstance(stem, keras.layers.Layer), "`stem` should be a layer", stem=stem)
        check(isinstance(top, keras.layers.Layer | None), "`top` should be a layer", top=top)
        self.blocks = _check_blocks(blocks)
        self.stem, self.top = stem, top
        self.policy = AdaSharePolicy(tasks, len(self.blocks), temperature, seed, name="policy")
        self.tasks = self.policy.tasks

    def build(self, input_shape: Any) -> None:
        # Blocks make their weights here: `call` calls only their two halves.
        features = self.stem(keras.tree.map_shape_structure(symbolic_input, input_shape))
        for block in self.blocks:
            following = block(features)
            # Keras refuses a block that uses functions of TensorFlow: here, and not only after the
            # search, when a pruned network is made of it.
            block.residual(features)
            features = following
        if self.top is not None:
            self.top(features)
        _check_weights(self.blocks)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        decisions = tf.unstack(self.policy.decisions(training))
        start = self.stem(inputs, training=training)
        return {
            task: self._features(start, of_task, training)
            for task, of_task in zip(self.tasks, decisions, strict=True)
        }

    def _features(
        self, features: tf.Tensor, decisions: tf.Tensor, training: bool | None
    ) -> tf.Tensor:
        """Features of one task under its decisions (L, 2), from the features after the stem."""
        for block, decision in zip(self.blocks, tf.unstack(decisions), strict=True):
            skipped = block.shortcut(features, training=training)
            executed = keras.ops.relu(skipped + block.residual(features, training=training))
            # In float32, because the gradient of a decision is a sum over the batch's features.
            one, other = (tf.cast(outcome, "float32") for outcome in (executed, skipped))
            features = tf.cast(decision[0] * one + decision[1] * other, executed.dtype)
        return features if self.top is None else self.top(features, training=training)

    def get_config(self) -> dict[str, Any]:
        parts = {"stem": self.stem, "blocks": list(self.blocks), "top": self.top}
        policy = self.policy.get_config()
        return {
            **super().get_config(),
            **keras.saving.serialize_keras_object(parts),
            **{name: policy[name] for name in ("tasks", "temperature", "seed")},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "AdaShareEncoder":
        parts = {name: config[name] for name in ("stem", "blocks", "top")}
        return cls(**{**config, **keras.saving.deserialize_keras_object(parts, custom_objects)})


def symbolic_input(shape: Sequence[int | None]) -> keras.KerasTensor:
    """A stand-in for inputs of a shape, with any number of examples."""
    return keras.KerasTensor((None, *shape[1:]))


def _check_blocks(blocks: Any) -> list[Any]:
    """Checks the blocks, and returns them as a list."""
    found: list[Any] = list(blocks) if isinstance(blocks, list | tuple) else [blocks]
    methods = ("shortcut", "residual")
    for block in found:
        is_layer = isinstance(block, keras.layers.Layer)
        if not is_layer or not all(callable(getattr(block, name, None)) for name in methods):
            raise ValueError(
                "`blocks` should be a list of layers with the methods `shortcut` and `residual`, "
                f"such as `tag_keras.ResidualBlock`. Received: {block!r}."
            )
    if not found:
        raise ValueError(
            "`blocks` should hold at least one layer, for a policy to decide on. Received: []."
        )
    if len({id(block) for block in found}) < len(found):
        raise ValueError(
            "`blocks` should hold every layer once, because each has a decision of its own. "
            f"Received: {[block.name for block in found]}."
        )
    return found


def _check_weights(blocks: Sequence[Any]) -> None:
    """Checks that all weights of the built blocks belong to layers in them."""
    for block in blocks:
        inner = layers_in(block, include_self=False)
        in_layers = {id(variable) for layer in inner for variable in layer.weights}
        if own := [one.name for one in block.weights if id(one) not in in_layers]:
            raise ValueError(
                f"The block {block.name!r} should have its weights in layers, so that what a task "
                f"does not execute can be left out. Put these in a layer: {own}."
            )


def adashare_encoder(
    tasks: Sequence[str],
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
    temperature: float = 5.0,
    seed: int = 0,
) -> AdaShareEncoder:
    """AdaShare: each task executes some blocks of a ResNet (Sun et al. 2020, arXiv 1911.12423).

    Training an `AdaShareModel` with this encoder finds out which blocks.

    Args:
        tasks: Task names.
        input_shape: Height, width and channels of the images.
        depth: 18 or 34, or the number of blocks of each stage.
        widths: Number of channels of each stage.
        temperature: Temperature of the policy's samples at the start of a search.
        seed: Seed of the policy's samples.

    Returns:
        Encoder from images (B, H, W, channels) to a dict of features (B, widths[-1]) by task.

    Raises:
        ValueError: If there are more or fewer widths than stages, or if a number is out of range.

    Example:

    ```python
    tasks = ["smiling", "young"]
    encoder = tag_keras.adashare_encoder(tasks, (64, 64, 3), widths=(16, 32, 64, 128))
    model = tag_keras.AdaShareModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    ```
    """
    resnet = resnet_layers(depth, widths)
    stem = keras.Sequential(
        [keras.Input(check_input_shape(input_shape)), resnet.stem, layers.ReLU()], name="stem"
    )
    top = layers.GlobalAveragePooling2D(data_format="channels_last", dtype="float32")
    return AdaShareEncoder(stem, resnet.blocks, tasks, top, temperature, seed)
