"""Methods that replace the joint training step: what `compile(gradient_method=...)` takes."""

from collections.abc import Callable
from typing import Any

import keras

from tag_keras.affinity import Affinity


class GradientMethod(keras.layers.Layer):  # type: ignore[misc]
    """What all gradient methods have in common. A subclass implements `make_step`.

    It is a layer, so that its state is saved with the model that it was compiled into.
    """

    # Whether training with the method gives affinities, so that no other can be measured.
    measures_affinity = False

    def start(self, tasks: tuple[str, ...]) -> None:
        """Creates the weights for these tasks, or sets them back. `compile` calls it."""

    def make_step(self, model: Any) -> Callable[[Any], dict[str, Any]]:
        """A training step, which takes a batch and returns logs, as `train_step` does."""
        raise NotImplementedError

    def after_execution(self) -> None:
        """What is to be done in Python after each call of the compiled train function."""

    def get_affinity(self) -> Affinity:
        """The affinities, if the method measures any."""
        raise NotImplementedError
