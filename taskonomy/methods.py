"""What the lines of the papers' Taskonomy tables train."""

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

import tag_keras
from tag_keras.estimators.base import AffinityEstimator
from tag_keras.study.methods import method_options
from tag_keras.utils.checks import check
from taskonomy import network, xception, xception_mtan
from taskonomy.data import Taskonomy
from taskonomy.network import Width

# The last layer that all tasks share.
LAST_CONVOLUTION = "top_convolution"


def build_model(
    tasks: Sequence[str],
    method: str = "mtl",
    affinity: AffinityEstimator | None = None,
    half_size: bool = False,
    learning_rate: float = 0.1,
    width: Width = "wide",
    image_size: int = 256,
    reproduce_original: bool = False,
) -> tag_keras.MultiTaskModel:
    """The compiled network of a method for some of the tasks.

    Args:
        tasks: Names of tasks.
        method: Name of a method that trains one network: `"mtl"`, `"uw"`, `"gradnorm"`, `"pcgrad"`,
            `"dwa"` or `"mtan"`.
        affinity: What to measure while it trains.
        half_size: Whether to build Standley's network of half the size.
        learning_rate: As in `network.build_model`, and so are the arguments after it.
        width: See `network.build_model`.
        image_size: See `network.build_model`.
        reproduce_original: See `network.build_model`.

    Raises:
        ValueError: If there is no such method, or if half of another size than `"full"` is asked
            for.
    """
    wanted = '`half_size` is for networks that are half of `width="full"`'
    check(not half_size or width == "full", wanted, width=width)
    build_encoder = functools.partial(_mtan_encoder, width=width, image_size=image_size)
    return network.build_model(
        tasks,
        learning_rate,
        "half" if half_size else width,
        image_size,
        reproduce_original=reproduce_original,
        build_encoder=build_encoder if method == "mtan" else None,
        affinity=affinity,
        **method_options(method, LAST_CONVOLUTION, original=reproduce_original),
    )


def training_batches(taskonomy: Taskonomy, batch_size: int) -> tf.data.Dataset:
    """Shuffled batches without end: an epoch of the papers may be a part of the images only."""
    return taskonomy.batches("train", batch_size, shuffle=True).repeat()


def _mtan_encoder(tasks: Sequence[str], width: Width, image_size: int) -> keras.Model:
    return xception_mtan.mtan_encoder(tasks, image_size, xception.WIDTHS[width])
