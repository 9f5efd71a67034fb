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
# Classes of segmentation: uncertain, background, and 16 kinds of objects.
CLASSES = 18
_WIDTHS, _DECODERS = ", ".join(xception.WIDTHS), ", ".join(xception.DECODERS)


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
    """A compiled model for `tasks`: an Xception for all of them, and a decoder for each.

    The default is the model of TAG's Taskonomy experiments (Fifty et al. 2021, arXiv 2109.04617),
    with PyTorch's optimizer. Standley et al. 2020 (arXiv 1905.07553) have `width="full"` or
    `"half"` and, in their current code, `decoder="large"`.

    Args:
        tasks: Letters or names of tasks.
        learning_rate: Learning rate at the start; `recipe.PlateauRule` lowers it.
        width: Channels of the encoder, `"wide"`, `"full"` or `"half"`.
        image_size: Height and width of the images in pixels, divisible by 16.
        decoder: Channels of the decoders, `"small"` or `"large"`.
        shifts: Whether the losses of depth, normals and edges of occlusion allow the predictions to
            be off by one pixel.
        over: Whether absolute errors are divided by the number of `"all"` values, or of the
            `"known"` values, which have a label.
        reproduce_original: Whether to divide the gradients that the Xception gets by the square
            root of the number of tasks, as in the papers' code.
        build_encoder: Function from the tasks to another encoder, such as
            `xception_mtan.mtan_encoder`, to features (B, H/16, W/16, 512).
        **options: Further arguments of `compile`, such as `affinity`.

    Returns:
        Model from images (B, H, W, 3) in [0, 1] to, by task, logits (B, H, W, 18) of classes, or
        values (B, H, W, C).

    Raises:
        ValueError: If a task, a width or a decoder does not exist, if the size is not divisible by
            16, or if `reproduce_original` is set with another encoder.
    """
    names = task_names(tasks if isinstance(tasks, str) else list(tasks))
    check(width in xception.WIDTHS, f"`width` should be one of {_WIDTHS}", width=width)
    check(decoder in xception.DECODERS, f"`decoder` should be one of {_DECODERS}", decoder=decoder)
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
