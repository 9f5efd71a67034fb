"""The networks of the papers' Taskonomy tables."""

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

import tag_keras
from tag_keras.estimators.base import AffinityEstimator
from tag_keras.study.methods import method_options
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
    """Builds the compiled network of a method for some of the tasks.

    Args:
        tasks: Names of tasks.
        method: Method that trains one network: `"mtan"`, or one that `method_options` knows,
            such as `"mtl"`, `"uw"` or `"cagrad"`.
        affinity: Estimator that measures affinities during the training.
        half_size: Whether to build Standley's network of half the size, with `width="full"`.
        learning_rate: Learning rate at the start.
        width: Channels of the encoder, of `xception.WIDTHS`.
        image_size: Height and width of the images, divisible by 16.
        reproduce_original: Whether to divide the gradients of the Xception by the square root of
            the number of tasks, and to weigh losses and project gradients as TAG's notebook does.

    Raises:
        ValueError: If there is no such method, or if another width than `"full"` is to be halved.
    """
    if half_size and width != "full":
        raise ValueError(
            f'`half_size` is for networks that are half of `width="full"`. Received: {width=}.'
        )
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
    """Shuffled batches without end: an epoch of the papers may be a part of the images."""
    return taskonomy.batches("train", batch_size, shuffle=True).repeat()


def _mtan_encoder(tasks: Sequence[str], width: Width, image_size: int) -> keras.Model:
    return xception_mtan.mtan_encoder(tasks, image_size, xception.WIDTHS[width])
