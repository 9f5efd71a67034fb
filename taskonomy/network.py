"""The networks of the papers' experiments on Taskonomy."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras

import tag_keras
from tag_keras.utils.checks import check
from taskonomy import xception
from taskonomy.domains import DOMAINS, SEGMENTATION, task_names
from taskonomy.losses import Over, build_losses
from taskonomy.optimizer import SGDWithPenalty

Width = Literal["wide", "full", "half"]
# Uncertain, background, and 16 kinds of objects.
CLASSES = 18


def build_model(
    tasks: Sequence[str],
    learning_rate: float = 0.1,
    width: Width = "wide",
    image_size: int = 256,
    decoder: Literal["small", "large"] = "small",
    shifts: bool = True,
    over: Over = "all",
    reproduce_original: bool = False,
    build_encoder: Callable[[Sequence[str]], keras.Model] | None = None,
    **options: Any,
) -> tag_keras.MultiTaskModel:
    """A compiled model for `tasks`: an Xception for all, and a decoder for each.

    By default, the one of TAG's Taskonomy experiments (Fifty et al. 2021, arXiv 2109.04617), with
    the optimizer of PyTorch. Standley et al. 2020 (arXiv 1905.07553) have `width="full"` or
    `"half"` and, in their current code, `decoder="large"`.

    Args:
        tasks: Letters or names of tasks.
        learning_rate: Learning rate at the start; `recipe.PlateauRule` lowers it.
        width: Channels of the encoder, of `xception.WIDTHS`.
        image_size: Height and width of the images, divisible by 16.
        decoder: Channels of the decoders, of `xception.DECODERS`.
        shifts: As in `losses.build_losses`.
        over: As in `losses.build_losses`.
        reproduce_original: Whether the gradients that the Xception gets are divided by the square
            root of the number of tasks, as in the papers' code.
        build_encoder: Gives another encoder for the tasks, such as `xception_mtan.mtan_encoder`,
            to features (B, H/16, W/16, 512).
        **options: Further arguments of `compile`, such as `affinity`.

    Returns:
        Model from images (B, H, W, 3) in [0, 1] to, by task, logits (B, H, W, 18) of classes, or
        values (B, H, W, C).

    Raises:
        ValueError: If a task or a width does not exist, if the size is not divisible by 16, or if
            gradients of another encoder are to be divided.
    """
    names = task_names(tasks if isinstance(tasks, str) else list(tasks))
    for name, value, choices in (
        ("width", width, xception.WIDTHS),
        ("decoder", decoder, xception.DECODERS),
    ):
        check(value in choices, f"`{name}` should be one of {', '.join(choices)}", **{name: value})
    check(
        build_encoder is None or not reproduce_original,
        "`reproduce_original` should be False with a `build_encoder`, because it divides the "
        "gradients of the Xception",
        reproduce_original=reproduce_original,
    )
    if build_encoder is None:
        scale = 1 / math.sqrt(len(names)) if reproduce_original else 1.0
        encoder = xception.xception_encoder(image_size, xception.WIDTHS[width], scale)
    else:
        encoder = build_encoder(names)
    widths = xception.DECODERS[decoder]
    heads = {
        task: xception.xception_decoder(
            CLASSES if task == SEGMENTATION else DOMAINS[task].channels, task, image_size, widths
        )
        for task in names
    }
    model = tag_keras.MultiTaskModel(encoder, heads)
    model.compile(SGDWithPenalty(learning_rate), build_losses(names, shifts, over), **options)
    return model
