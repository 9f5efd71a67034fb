"""Decoding: from JPEG files to the pixels that TAG's notebook trains on."""

import functools
import itertools
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from celeba.sources import Example

Pixels = npt.NDArray[Any]
# Work for all threads, in little memory.
_AT_ONCE = 256


@functools.lru_cache(maxsize=4)
def decoder(image_size: int, rounded: bool) -> Callable[[bytes], tuple[Pixels, Pixels]]:
    """Decodes and resizes one image as the notebook does (Fifty et al. 2021, arXiv 2109.04617).

    Args:
        image_size: Height and width of the result, in pixels.
        rounded: Whether to round the result to 256 values.

    Returns:
        Function from the bytes of a file to the pixels (S, S, 3), float32 in [0, 1] or rounded
        uint8, and to the height and width of the image in the file.
    """

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])  # type: ignore[untyped-decorator]
    def decode(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # On the CPU, because other devices round differently.
        with tf.device("/CPU:0"):
            # The same function as in TensorFlow Datasets.
            image = tf.io.decode_image(file, channels=3, expand_animations=False)
            pixels = tf.image.convert_image_dtype(image, tf.float32)
            pixels = tf.image.resize(pixels, [image_size, image_size])
            if rounded:
                pixels = tf.cast(tf.round(pixels * 255), tf.uint8)
            return pixels, tf.shape(image)[:2]

    # Traced here once, and not in each of many threads.
    concrete = decode.get_concrete_function()

    def decode_one(file: bytes) -> tuple[Pixels, Pixels]:
        pixels, shape = concrete(tf.constant(file))
        return pixels.numpy(), shape.numpy()

    return decode_one


def decode_all(
    examples: Iterator[Example], decode: Callable[[bytes], tuple[Pixels, Pixels]]
) -> Iterator[tuple[Example, Pixels | None, Pixels | None]]:
    """Decodes examples in their order, several at once.

    Returns:
        Iterator of the examples, each with its pixels and the height and width in its file, or
        with None twice if the file cannot be read.
    """

    def decode_one(example: Example) -> tuple[Pixels | None, Pixels | None]:
        try:
            return decode(example.read())
        except (tf.errors.InvalidArgumentError, OSError, zipfile.BadZipFile, zlib.error):
            return None, None

    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(examples, _AT_ONCE)):
            for example, result in zip(chunk, pool.map(decode_one, chunk), strict=True):
                yield example, *result
