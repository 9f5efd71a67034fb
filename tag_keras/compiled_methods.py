"""The methods that a model was compiled with, kept with their weights in the model."""

from typing import Any, TypeVar

import keras

Method = TypeVar("Method", bound=keras.layers.Layer)


class CompiledMethods(keras.layers.Layer):  # type: ignore[misc]
    """Holds what `compile` gets and what has weights: a loss weighting and a gradient method.

    A model that is built takes no more layers. This one, which is a part of the model from its
    start, is never built by Keras and always does; so the weights are saved with the model.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True

    def put(self, name: str, method: Method | None, tasks: Any) -> Method | None:
        """Replaces the method of that name by a copy of another one, with weights of its own.

        A copy, because one object may be given to two models, or to `compile` twice, and each of
        them starts anew.

        Args:
            name: Name of the attribute that holds it.
            method: Layer with a configuration, and with a method `start` that creates its weights;
                `None` for no method.
            tasks: What its `start` takes: the number of tasks, or their names.

        Returns:
            The copy.
        """
        if (old := getattr(self, name, None)) is not None:
            delattr(self, name)
            # Keras leaves a layer in its list whose attribute is deleted.
            self._tracker.untrack(old)
        if method is None:
            return None
        copy: Method = type(method).from_config(method.get_config())
        copy.start(tasks)
        setattr(self, name, copy)
        return copy
