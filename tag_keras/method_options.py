"""What the methods that train one network for all tasks give `MultiTaskModel.compile`."""

from typing import Any

import keras

from tag_keras.checks import check_choice
from tag_keras.dynamic_weights import DynamicWeightAverage
from tag_keras.gradient_methods import PCGrad
from tag_keras.gradnorm import GradNorm
from tag_keras.uncertainty_weighting import UncertaintyWeighting


def method_options(
    method: str,
    shared_layer: keras.layers.Layer | str,
    alpha: float = 1.5,
    learning_rate: float = 0.025,
    original: bool = False,
) -> dict[str, Any]:
    """Arguments of `compile` for a method, by the names of the papers' tables.

    Args:
        method: `"uw"`, `"gradnorm"`, `"pcgrad"` or `"dwa"`; or `"mtl"` or `"mtan"`, which train as
            any model.
        shared_layer: Last shared layer, or its name, at whose kernel GradNorm looks.
        alpha: Strength with which GradNorm balances the tasks.
        learning_rate: Learning rate of GradNorm's weights.
        original: Whether to do as TAG's notebook does, which weighs losses by the variant V3 of
            uncertainty weighting for both uw and pcgrad, and projects in a fixed order.

    Raises:
        ValueError: If there is no such method.
    """
    weighting = UncertaintyWeighting("V3") if original else UncertaintyWeighting()
    options: dict[str, dict[str, Any]] = {
        "mtl": {},
        "mtan": {},
        "uw": {"loss_weighting": weighting},
        "dwa": {"loss_weighting": DynamicWeightAverage()},
        "gradnorm": {"loss_weighting": GradNorm(shared_layer, alpha, learning_rate)},
        "pcgrad": {"gradient_method": PCGrad()},
    }
    if original:
        options["pcgrad"] = {"gradient_method": PCGrad("authors"), "loss_weighting": weighting}
    check_choice("method", method, [*options])
    return options[method]
