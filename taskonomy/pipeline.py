"""The pipeline from the files of a sample to an image and its labels."""

import sys
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from taskonomy import png
from taskonomy.domains import DEPTH, DOMAINS, SEGMENTATION, UNKNOWN_DEPTH
from taskonomy.index import Index
from taskonomy.scan import Part, file_name, read

_already_named: set[str] = set()


def make_reader(
    index: Index, split: str, domains: Sequence[str]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the function that reads the files of a sample.

    The function names a damaged file on stderr, and gives D empty strings for its sample.

    Args:
        index: Index of the samples.
        split: `"train"`, `"validation"` or `"test"`.
        domains: Names of the D domains of the index.

    Returns:
        Function from the number of a sample, an int64 scalar, to a string tensor (D,).
    """
    samples = index.samples[split]
    # Those whose files could be decoded. Checksums tell of later damage.
    decoded = np.zeros(len(samples), bool)

    def read_sample(number: np.int64) -> npt.NDArray[np.object_]:
        point, view = (int(value) for value in samples.views[number])
        contents = []
        for domain, place, (offset, size) in zip(
            domains, samples.places[number], samples.spans[number], strict=True
        ):
            part = Part(index.suffixes[place], int(offset), int(size))
            folder = index.folders[place]
            try:
                contents.append(read(folder, (point, view), part))
                bits = DOMAINS[domain].bits
                problem = png.problem(contents[-1], bits, decode=not decoded[number])
            except OSError as error:
                problem = str(error)
            if problem:
                _name(f"{folder}, {file_name((point, view), part.suffix)}: {problem}")
                return np.array([b""] * len(domains), object)
        decoded[number] = True
        return np.array(contents, object)

    def reader(number: tf.Tensor) -> tf.Tensor:
        contents = tf.numpy_function(read_sample, [number], tf.string)
        return tf.ensure_shape(contents, [len(domains)])

    return reader


def decode(
    contents: tf.Tensor,
    domains: Sequence[str],
    tasks: Sequence[str],
    image_size: int,
    seed: tf.Tensor | None = None,
    min_crop: float = 1.0,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Decodes an image and its labels, which are cropped, flipped and resized together.

    Values are interpolated linearly, as by Standley et al., and the class of a pixel is that of the
    nearest one. They interpolate classes, too, which makes false ones between two others. Depth,
    normals and edges of occlusion are NaN if a pixel has no label, or if one of the pixels that it
    is made from has none. A sample that could not be read is a black image without any label,
    because it is counted already, and all batches have the same shape.

    Args:
        contents: Files, string tensor (D,).
        domains: Name of the domain of each file.
        tasks: Names of the tasks.
        image_size: Height and width of the result, in pixels.
        seed: Seed of the crop and of the flip, integer tensor (2,). Defaults to neither of them.
        min_crop: Smallest side of the square that is cropped, as a fraction of the image's side.

    Returns:
        Image (H, W, 3) in [0, 1], and by task int32 classes (H, W) or float32 values (H, W, C).
    """
    image, labels = tf.cond(
        tf.strings.length(contents[0]) > 0,
        lambda: _decode(contents, domains, tasks, image_size, seed, min_crop),
        lambda: _blank(tasks, image_size),
    )
    return image, labels


def _decode(
    contents: tf.Tensor,
    domains: Sequence[str],
    tasks: Sequence[str],
    image_size: int,
    seed: tf.Tensor | None,
    min_crop: float,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    images = {}
    for content, name in zip(tf.unstack(contents), domains, strict=True):
        domain = DOMAINS[name]
        dtype = tf.uint8 if domain.bits == 8 else tf.uint16
        images[name] = tf.io.decode_png(content, domain.channels, dtype)
    flipped = tf.constant(False)
    if seed is not None:
        draws = tf.random.stateless_uniform([4], seed)
        flipped = draws[0] < 0.5
        images = {name: _crop(image, draws[1:], min_crop) for name, image in images.items()}
        images = {
            name: tf.where(flipped, tf.reverse(image, [1]), image) for name, image in images.items()
        }
    known = images[DEPTH] < UNKNOWN_DEPTH if DEPTH in images else None
    labels = {task: _label(task, images[task], known, flipped, image_size) for task in tasks}
    return _values("rgb", images["rgb"], image_size), labels


def _blank(tasks: Sequence[str], size: int) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    labels = {task: tf.fill((size, size, DOMAINS[task].channels), float("nan")) for task in tasks}
    if SEGMENTATION in labels:
        labels[SEGMENTATION] = tf.zeros((size, size), "int32")
    return tf.zeros((size, size, 3)), labels


def _label(
    task: str, image: tf.Tensor, known: tf.Tensor | None, flipped: tf.Tensor, size: int
) -> tf.Tensor:
    if task == SEGMENTATION:
        classes = tf.image.resize(image, (size, size), "nearest")
        return tf.cast(classes[:, :, 0], "int32")
    if not DOMAINS[task].geometric:
        return _values(task, image, size)
    # Pixels without a label are 0: their values in the file are far too large.
    values = _values(task, tf.where(known, image, tf.zeros_like(image)), size)
    if task == "normal":
        # In a mirror, what points to the right points to the left.
        values *= tf.where(flipped, [-1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    share = tf.image.resize(tf.cast(known, "float32"), (size, size), antialias=True)
    return tf.where(share > 0.999, values, float("nan"))


def _values(name: str, image: tf.Tensor, size: int) -> tf.Tensor:
    """Resized and normalised values."""
    domain = DOMAINS[name]
    values = tf.image.resize(image, (size, size), antialias=True)
    return (values - domain.offset) / domain.scale


def _crop(image: tf.Tensor, draws: tf.Tensor, min_crop: float) -> tf.Tensor:
    """A square of an image, at the same relative place and size in all domains."""
    shape = tf.shape(image)
    side = min_crop + (1.0 - min_crop) * draws[0]
    size = tf.cast(tf.round(side * tf.cast(shape[:2], "float32")), "int32")
    start = tf.cast(draws[1:] * tf.cast(shape[:2] - size + 1, "float32"), "int32")
    return tf.slice(image, [start[0], start[1], 0], [size[0], size[1], image.shape[2]])


def _name(problem: str) -> None:
    """Prints the problem of a damaged file, once in a process."""
    if problem not in _already_named:
        _already_named.add(problem)
        print(f"Left out: {problem}", file=sys.stderr)
