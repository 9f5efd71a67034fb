"""CelebA as a multi-task problem: up to forty questions about a face."""

import dataclasses
import difflib
import functools
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from celeba.cache import Cache, Kind
from celeba.finding import find_source
from celeba.lists import ATTRIBUTES, SPLITS, TASKS
from celeba.preparation import prepare_cache
from tag_keras.utils.checks import check, check_count
from tag_keras.utils.tasks import check_task_names

__all__ = ["ATTRIBUTES", "SPLITS", "TASKS", "CelebA"]

# TensorFlow may choose hundreds, which take more memory than the images do.
_BATCHES_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class CelebA:
    """CelebA (Liu et al. 2015, arXiv 1411.7766), with the pixels of TAG's notebook.

    Images are decoded, scaled to [0, 1] and resized by bilinear interpolation without antialiasing,
    as in Fifty et al. 2021 (arXiv 2109.04617). This is done once and not in every epoch: the result
    stays on the disc. All forms of the files give the same examples, order, labels and splits.
    Nothing is read before a method is called, and the object can be pickled.

    Args:
        data_dir: A data folder of TensorFlow Datasets, or the folder of a download by hand, with
            `img_align_celeba/` or its zip file and the two lists.
        tasks: Attributes to give as labels, out of `ATTRIBUTES`.
        cache_dir: Folder for the decoded images. Defaults to `tag_keras_cache` in `data_dir`.
        in_memory: Whether to hold the images in memory, rounded to 256 values. They take 2.5 GB on
            disc and in memory, which the processes of a machine share. By default the images are
            exact and read from the disc, where they take 10 GB.
        image_size: Height and width of the images, in pixels.

    Raises:
        ValueError: If a task is no attribute of CelebA, or if `image_size` is out of range.

    Example:

    ```python
    celeba = CelebA("~/tensorflow_datasets")
    model.fit(celeba.batches("train", 256, shuffle=True), epochs=100)
    ```
    """

    data_dir: str | os.PathLike[str]
    tasks: tuple[str, ...] = TASKS
    cache_dir: str | os.PathLike[str] | None = None
    in_memory: bool = False
    image_size: int = 64

    def __post_init__(self) -> None:
        tasks = check_task_names(list(self.tasks))
        for task in tasks:
            if task not in ATTRIBUTES:
                raise ValueError(
                    f"`tasks` should be attributes of CelebA, such as {_like(task)}. "
                    f"Received: task={task!r}."
                )
        # The network pools twice, and the images have 178 columns of pixels.
        size = check_count("image_size", self.image_size)
        check(8 <= size <= 178, "`image_size` should be from 8 to 178", image_size=size)
        object.__setattr__(self, "tasks", tasks)

    def prepare(self) -> dict[str, list[str]]:
        """Decodes the images if that was not done before, and prints which files cannot be read.

        Returns:
            By split, the names of the files that cannot be read and are left out.

        Raises:
            FileNotFoundError: If files are missing.
            OSError: If the disc has not enough room.
            ValueError: If the files are not those of CelebA.
        """
        _prepare_once.cache_clear()
        cache = self._prepared()
        names = {split: [name for _, name in cache.unreadable[split]] for split in SPLITS}
        if number := sum(len(one) for one in names.values()):
            listed = ", ".join(name for one in names.values() for name in one)
            print(f"{number} images cannot be read and are left out: {listed}", flush=True)
        return names

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples by split."""
        return self._prepared().sizes

    @property
    def fingerprint(self) -> str:
        """Short hash of the lists, and of the names, sizes and times of the image files.

        A copy of the images without their times has another fingerprint. For images in a zip file,
        checksums count instead of times.
        """
        return self._prepared().stamp

    def batches(self, split: str, batch_size: int, shuffle: bool = False) -> tf.data.Dataset:
        """Batches of one pass over a split; the last one may be short.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            batch_size: Number of examples in a batch.
            shuffle: Whether to shuffle all examples, anew in each pass. The order follows from
                TensorFlow's global seed, which `keras.utils.set_random_seed` sets.

        Returns:
            Data set of images (B, S, S, 3), float32 in [0, 1], and labels (B,), int32 in {0, 1},
            by task.

        Raises:
            ValueError: If there is no such split, or if `batch_size` is not at least 1.
        """
        check(split in SPLITS, f"`split` should be one of {SPLITS}", split=split)
        size = check_count("batch_size", batch_size)
        cache = self._prepared()
        places = cache.places(split)
        labels = cache.labels(split)[:, [ATTRIBUTES.index(task) for task in self.tasks]]
        read = _reader(cache, split, places)

        def batch(indices: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            pixels = tf.numpy_function(read, [indices], cache.kind, stateful=False)
            pixels.set_shape((None, self.image_size, self.image_size, 3))
            rows = tf.cast(tf.gather(labels, indices), tf.int32)
            by_task = {task: rows[:, number] for number, task in enumerate(self.tasks)}
            return tf.image.convert_image_dtype(pixels, tf.float32), by_task

        indices = tf.data.Dataset.range(len(places))
        if shuffle:
            indices = indices.shuffle(len(places))
        dataset = indices.batch(size).map(batch, num_parallel_calls=_BATCHES_AHEAD)
        options = tf.data.Options()
        # There are no files to distribute among hosts.
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return dataset.prefetch(_BATCHES_AHEAD).with_options(options)

    def _prepared(self) -> Cache:
        data_dir = Path(self.data_dir).expanduser()
        cache_dir = self.cache_dir or data_dir / "tag_keras_cache"
        kind: Kind = "uint8" if self.in_memory else "float32"
        return _prepare_once(data_dir, Path(cache_dir).expanduser(), self.image_size, kind)


@functools.lru_cache(maxsize=8)
def _prepare_once(data_dir: Path, cache_dir: Path, image_size: int, kind: Kind) -> Cache:
    """The cache; a process looks for it once."""
    return prepare_cache(find_source(data_dir), cache_dir, image_size, kind)


def _like(task: str) -> str:
    """Attributes with a name similar to a wrong one, or all attributes."""
    names = {name.lower(): name for name in ATTRIBUTES}
    close = difflib.get_close_matches(task.lower().replace(" ", "_"), names, n=2)
    return " or ".join(names[name] for name in close) if close else ", ".join(ATTRIBUTES)


def _reader(
    cache: Cache, split: str, places: npt.NDArray[np.int64]
) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.generic]]:
    """A function from the indices of examples to their pixels."""
    if cache.kind == "uint8":
        held = _held(cache.pixels(split), cache.image_size)
        return lambda indices: held[places[indices]]
    file = _PixelFile(cache.pixels(split), cache.image_size)
    return lambda indices: file.read(places[indices])


@functools.lru_cache(maxsize=len(SPLITS))
def _held(path: Path, image_size: int) -> npt.NDArray[np.uint8]:
    """All pixels of a split, in memory that processes on the same machine share."""
    # Read now, if the system can.
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    with open(path, "rb") as file:
        pixels = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
    return np.frombuffer(pixels, np.uint8).reshape(-1, image_size, image_size, 3)


class _PixelFile:
    """Reads pixels from the disc when they are needed.

    A memory map would stop all Python threads while the disc is busy.
    """

    def __init__(self, path: Path, image_size: int) -> None:
        self.path = path
        self.shape = (image_size, image_size, 3)
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def read(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        pixels = np.empty((len(places), *self.shape), np.float32)
        for image, place in zip(pixels, places, strict=True):
            if os.preadv(self.descriptor, [image.data], int(place) * image.nbytes) != image.nbytes:
                raise OSError(f"{self.path} is cut off. Run the same command again: it is remade.")
        return pixels
