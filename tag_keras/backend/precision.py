"""Computing in float32 with a model of mixed precision."""

import contextlib
from collections.abc import Iterator

import keras


class FullPrecision:
    """Lets layers compute in float32 for a while, whatever their dtype policies.

    A lookahead changes a loss by a percent or less, which is lost in the rounding of float16 and
    bfloat16.

    Args:
        model: Model whose layers are meant.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._policies: list[tuple[keras.layers.Layer, keras.DTypePolicy]] = []
        self._entered = 0

    def is_needed(self) -> bool:
        """Whether any layer computes in less than float32."""
        return any(layer.compute_dtype in ("float16", "bfloat16") for layer in self._layers())

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        # Replicas are traced in turns, in threads that wait for each other wherever they
        # communicate: the first to come sets the policies, the last to go sets them back.
        if self._entered == 0:
            self._policies = [(layer, layer.dtype_policy) for layer in self._layers()]
            for layer, policy in self._policies:
                if policy.compute_dtype in ("float16", "bfloat16"):
                    layer.dtype_policy = keras.DTypePolicy("float32")
        self._entered += 1
        try:
            yield
        finally:
            self._entered -= 1
            if self._entered == 0:
                for layer, policy in self._policies:
                    layer.dtype_policy = policy

    def _layers(self) -> list[keras.layers.Layer]:
        return list(self._model._flatten_layers())
