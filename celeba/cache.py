"""CelebA decoded once, in files that every training reads.

A cache is a folder with, for each split, one file of pixels and one of labels, whose examples all
have the same number of bytes, and with index.json. It is written under another name and renamed
when it is whole, so that no part of one looks whole.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from celeba.decoding import Pixels, decode_all, decoder
from celeba.lists import ATTRIBUTES, SPLITS
from celeba.sources import Example, Source
from tag_keras import files

Kind = Literal["float32", "uint8"]
# Of the disc, or of what its user may take.
_FULL = (errno.ENOSPC, errno.EDQUOT)
# How many images are decoded before what was reached is written down: a few seconds' work.
_STRIDE = 4096


@dataclasses.dataclass(frozen=True)
class Cache:
    """A cache that is whole.

    Args:
        folder: Its folder.
        image_size: Height and width of the images, in pixels.
        kind: Type of the pixels.
        numbers: Number of places for examples, by split.
        unreadable: By split, the place and the name of each example whose file cannot be read. It
            is left out.
    """

    folder: Path
    image_size: int
    kind: Kind
    numbers: Mapping[str, int]
    unreadable: Mapping[str, list[tuple[int, str]]]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples by split."""
        return {split: self.numbers[split] - len(self.unreadable[split]) for split in SPLITS}

    @property
    def image_bytes(self) -> int:
        return self.image_size**2 * 3 * np.dtype(self.kind).itemsize

    @property
    def bytes(self) -> int:
        """Bytes of all files of pixels and labels."""
        return sum(self.numbers.values()) * (self.image_bytes + len(ATTRIBUTES))

    def pixels(self, split: str) -> Path:
        return self.folder / f"{split}.pixels"

    def places(self, split: str) -> npt.NDArray[np.int64]:
        """Places of the examples in the files."""
        unreadable = [place for place, _ in self.unreadable[split]]
        return np.setdiff1d(np.arange(self.numbers[split]), unreadable)

    def labels(self, split: str) -> npt.NDArray[np.int8]:
        """Labels (N, 40) of the examples."""
        labels = np.fromfile(self.labels_file(split), np.int8).reshape(-1, len(ATTRIBUTES))
        return labels[self.places(split)]

    def labels_file(self, split: str) -> Path:
        return self.folder / f"{split}.labels"

    def is_whole(self) -> bool:
        """Whether the files have the bytes that they should have."""
        wanted = {self.pixels(split): self.image_bytes for split in SPLITS}
        wanted |= {self.labels_file(split): len(ATTRIBUTES) for split in SPLITS}
        return all(
            path.is_file() and path.stat().st_size == self.numbers[path.stem] * size
            for path, size in wanted.items()
        )


def prepare_cache(source: Source, cache_dir: Path, image_size: int, kind: Kind) -> Cache:
    """Gives the cache of a source; decodes what is not there yet.

    One process decodes, others that ask for the same cache wait for it. After a kill it goes on
    where it stopped.

    Args:
        source: Where the images are.
        cache_dir: Folder of caches. Each is named after what it was made of.
        image_size: Height and width of the images, in pixels.
        kind: Type of the pixels, as in `decoder`.

    Raises:
        OSError: If the disc has not enough room for it.
        ValueError: If the images are not of one size, or if none of a split can be read.
    """
    made_of = json.dumps(source.fingerprint(), sort_keys=True)
    stamp = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    folder = cache_dir / f"celeba-{image_size}-{kind}-{stamp}"
    cache = _open(folder, image_size, kind)
    if cache is not None:
        return cache
    source.check()
    _make_writable(cache_dir)
    with _alone(cache_dir / f".lock-{folder.name}"):
        # Another process may have made it meanwhile.
        cache = _open(folder, image_size, kind)
        if cache is None:
            if folder.exists():
                print(f"{folder} is damaged, and made anew.", flush=True)
                shutil.rmtree(folder)
            nothing: dict[str, list[tuple[int, str]]] = {split: [] for split in SPLITS}
            partial = cache_dir / f".partial-{folder.name}"
            _decode(source, Cache(partial, image_size, kind, dict(source.sizes), nothing))
            os.replace(partial, folder)
            cache = _open(folder, image_size, kind)
    if cache is None:
        raise OSError(f"{folder} was written and cannot be read.")
    return cache


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise OSError(
            error.errno, f"Decoded images cannot be written to {folder}. Give another cache_dir"
        ) from error


def _open(folder: Path, image_size: int, kind: Kind) -> Cache | None:
    try:
        index = files.read_fields(folder / "index.json", ["numbers", "unreadable"])
        numbers = {split: int(index["numbers"][split]) for split in SPLITS}
        unreadable = {
            split: sorted((int(place), str(name)) for place, name in index["unreadable"][split])
            for split in SPLITS
        }
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    cache = Cache(folder, image_size, kind, numbers, unreadable)
    return cache if cache.is_whole() else None


def _decode(source: Source, cache: Cache) -> None:
    """Fills the files of a cache, from where an earlier call was stopped."""
    progress = _read_progress(cache)
    try:
        _reserve(cache)
        total = sum(cache.numbers.values())
        print(f"Decoding {total:,} images of {source.where} into {cache.folder.parent}", flush=True)
        bar = keras.utils.Progbar(total, unit_name="image", interval=1)
        for split in SPLITS:
            _decode_split(source, cache, split, progress, bar)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        shutil.rmtree(cache.folder, ignore_errors=True)
        free = shutil.disk_usage(cache.folder.parent).free
        raise OSError(
            errno.ENOSPC,
            f"The images of CelebA as {cache.kind} take {cache.bytes:,} bytes in "
            f"{cache.folder.parent}, where {free:,} are free. Make room, give another cache_dir, "
            "or use in_memory=True, which takes a quarter of that of the default",
        ) from None
    index = {"numbers": dict(cache.numbers), "unreadable": progress["unreadable"]}
    files.write_json(cache.folder / "index.json", index)
    (cache.folder / "progress.json").unlink()


def _decode_split(
    source: Source, cache: Cache, split: str, progress: dict[str, Any], bar: keras.utils.Progbar
) -> None:
    start, number = progress["done"][split], cache.numbers[split]
    before = sum(cache.numbers[one] for one in SPLITS[: SPLITS.index(split)])
    decode = decoder(cache.image_size, rounded=cache.kind == "uint8")
    decoded = decode_all(source.examples(split, start), decode)
    with (
        open(cache.pixels(split), "rb+") as pixels,
        open(cache.labels_file(split), "rb+") as labels,
    ):
        for done, (example, image, shape) in enumerate(decoded, start + 1):
            if image is None or shape is None:
                progress["unreadable"][split].append((example.position, example.name))
            else:
                _check_shape(progress, example, shape)
                _write(pixels, image, example.position * cache.image_bytes)
            _write(labels, example.labels, example.position * len(ATTRIBUTES))
            if done % _STRIDE == 0 or done == number:
                # What is written down as done must be on the disc before.
                os.fsync(pixels.fileno())
                os.fsync(labels.fileno())
                progress["done"][split] = done
                files.write_json(cache.folder / "progress.json", progress)
            if done % 256 == 0 or done == number:
                bar.update(before + done)
    if len(progress["unreadable"][split]) == number:
        raise ValueError(
            f"None of the {number} images of the split {split!r} in {source.where} can be read. "
            "Unpack or download them again."
        )


def _write(file: IO[bytes], values: npt.NDArray[Any], offset: int) -> None:
    if os.pwrite(file.fileno(), values.tobytes(), offset) != values.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reserve(cache: Cache) -> None:
    """Takes the room on the disc, so that it is known before the work that there is enough."""
    sizes = {cache.pixels(split): cache.image_bytes for split in SPLITS}
    sizes |= {cache.labels_file(split): len(ATTRIBUTES) for split in SPLITS}
    for path, size in sizes.items():
        with open(path, "ab") as file:
            whole = cache.numbers[path.stem] * size
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, whole)
            else:
                # On macOS, where a full disc shows in the midst of the work.
                file.truncate(whole)


def _read_progress(cache: Cache) -> dict[str, Any]:
    """How far an earlier call came; the size of the images is that of the first one read."""
    try:
        return dict(files.read_fields(cache.folder / "progress.json", ["done", "unreadable"]))
    except (FileNotFoundError, ValueError):
        shutil.rmtree(cache.folder, ignore_errors=True)
        cache.folder.mkdir(parents=True)
        return {
            "done": dict.fromkeys(SPLITS, 0),
            "unreadable": {split: [] for split in SPLITS},
            "shape": None,
        }


def _check_shape(progress: dict[str, Any], example: Example, shape: Pixels) -> None:
    height, width = (int(one) for one in shape)
    first = progress["shape"] = progress["shape"] or [height, width]
    if [height, width] != first:
        raise ValueError(
            "The images should all have the same size: the aligned and cropped ones of CelebA have "
            f"218 x 178 pixels. Received: {example.name} with {height} x {width} after others with "
            f"{first[0]} x {first[1]}. Are they those of img_celeba, in the wild?"
        )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Runs the block in one process at a time."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another process that decodes the images ({path}).", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
