"""Decoding: from JPEG files to the pixels that TAG's notebook trains on."""

import functools
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from celeba.sources import Example

Pixels = npt.NDArray[Any]
# Work for all threads, in little memory.
_AT_ONCE = 256
# Far more than any image of CelebA has. Decoded, some kilobytes could take all memory.
_MOST_PIXELS = 2**26


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
            file = example.read()
        # Of many types: `zipfile` passes on those of its decompressors.
        except Exception:
            return None, None
        try:
            fits = _claimed_pixels(file) <= _MOST_PIXELS
            return decode(file) if fits else (None, None)
        except (tf.errors.InvalidArgumentError, struct.error):
            return None, None

    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(examples, _AT_ONCE)):
            for example, result in zip(chunk, pool.map(decode_one, chunk), strict=True):
                yield example, *result


def _claimed_pixels(file: bytes) -> int:
    """Height times width, as the header of a JPEG, PNG or GIF file says them; 0 for others."""
    height, width = 0, 0
    if file.startswith(b"\xff\xd8"):
        height, width, _ = tf.io.extract_jpeg_shape(file).numpy().tolist()
    elif file.startswith(b"\x89PNG"):
        width, height = struct.unpack(">II", file[16:24])
    elif file.startswith(b"GIF"):
        width, height = struct.unpack("<HH", file[6:10])
    return int(height * width)
