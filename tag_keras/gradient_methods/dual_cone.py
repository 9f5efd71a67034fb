"""What methods that project onto the dual cone of the gradients have in common."""

from typing import Any

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.utils.checks import check_number


class DualConeMethod(GradientMethod):
    """Base class of methods that project onto the vectors without a conflict.

    Args:
        ridge: Number, relative to the trace, that is added to the diagonal of the products.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `ridge` is not between 1e-6 and 1.
    """

    def __init__(self, ridge: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        wanted = "between 1e-6 and 1, such as 1e-4"
        # Less would not make up for the rounding of the float32 products.
        self.ridge = check_number("ridge", ridge, wanted, lambda number: 1e-6 <= number <= 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ridge": self.ridge}
