"""Computing in float32 with a model of mixed precision."""

import contextlib
from collections.abc import Iterator

import keras

from tag_keras.backend.layers import layers_in

_LOW = ("float16", "bfloat16")


class FullPrecision:
    """Context in which all layers of a model compute in float32, whatever their dtype policies.

    A lookahead changes a loss by a percent or less; float16 and bfloat16 would round that away.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._policies: list[tuple[keras.layers.Layer, keras.DTypePolicy]] = []
        self._entered = 0

    def is_needed(self) -> bool:
        """Whether any layer computes in less than float32."""
        return any(layer.compute_dtype in _LOW for layer in layers_in(self._model))

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        # Replicas are traced in threads that take turns and wait for each other wherever they
        # communicate. The first to enter sets the policies, the last to leave sets them back.
        if self._entered == 0:
            self._policies = [(layer, layer.dtype_policy) for layer in layers_in(self._model)]
            for layer, policy in self._policies:
                if policy.compute_dtype in _LOW:
                    layer.dtype_policy = keras.DTypePolicy("float32")
        self._entered += 1
        try:
            yield
        finally:
            self._entered -= 1
            if self._entered == 0:
                for layer, policy in self._policies:
                    layer.dtype_policy = policy
