"""Preparation: decodes CelebA once before the first training, into a cache for all later ones.

A cache is filled under another name, and renamed when it is whole: so a part of a cache never looks
like a whole one.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy.typing as npt

from celeba.cache import Cache, Kind, open_cache
from celeba.decoding import Pixels, decode_all, decoder
from celeba.lists import ATTRIBUTES, SPLITS
from celeba.sources import Example, Source
from tag_keras.utils import files
from tag_keras.utils.progress import Progress

# The disc is full, or the user's quota of it.
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Number of images, a few seconds' work, after which the progress is written down.
_STRIDE = 4096
_PROGRESS = "progress.json"


def prepare_cache(source: Source, cache_dir: Path, image_size: int, kind: Kind) -> Cache:
    """Gives the cache of a source, and makes it if it is not there yet.

    One process decodes, and others that ask for the same cache wait. After a kill, the next call
    goes on where the last one stopped.

    Args:
        source: Source of the images.
        cache_dir: Folder of caches. The name of each has a hash of the files it was made from.
        image_size: Height and width of the images in the cache, in pixels.
        kind: Type of the pixels: `"float32"`, exact in [0, 1], or `"uint8"`, rounded to 256 values.

    Raises:
        OSError: If the disc has not enough room for the cache.
        ValueError: If the images are not of one size, or if none of a split can be read.
    """
    made_of = json.dumps(source.fingerprint(), sort_keys=True)
    stamp = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    folder = cache_dir / f"celeba-{image_size}-{kind}-{stamp}"
    cache = open_cache(folder, image_size, kind)
    if cache is not None:
        return cache
    source.check()
    _make_writable(cache_dir)
    lock = cache_dir / f".lock-{folder.name}"
    busy = f"Waiting for another process that decodes the images ({lock})."
    with files.locked(lock, busy, wait=True):
        # Another process may have made it meanwhile.
        cache = open_cache(folder, image_size, kind)
        if cache is None:
            if folder.exists():
                print(f"{folder} is damaged, and made anew.", flush=True)
                shutil.rmtree(folder)
            nothing: dict[str, list[tuple[int, str]]] = {split: [] for split in SPLITS}
            partial = cache_dir / f".partial-{folder.name}"
            _decode(source, Cache(partial, image_size, kind, dict(source.sizes), nothing))
            os.replace(partial, folder)
            (folder / _PROGRESS).unlink()
            cache = open_cache(folder, image_size, kind)
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


def _decode(source: Source, cache: Cache) -> None:
    """Fills the files of a cache, from where an earlier call stopped."""
    progress = _read_progress(cache)
    try:
        _reserve(cache)
        total = sum(cache.numbers.values())
        done = sum(progress["done"][split] for split in SPLITS)
        print(f"Decoding {total:,} images of {source.where} into {cache.folder.parent}", flush=True)
        line = Progress("Decoding", total, "images", sys.stdout, done)
        with contextlib.closing(line):
            for split in SPLITS:
                _decode_split(source, cache, split, progress, line)
    except ValueError:
        # Another attempt would fail at the same place.
        shutil.rmtree(cache.folder)
        raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        shutil.rmtree(cache.folder)
        free = shutil.disk_usage(cache.folder.parent).free
        raise OSError(
            errno.ENOSPC,
            f"The images of CelebA as {cache.kind} take {cache.bytes:,} bytes in "
            f"{cache.folder.parent}, where {free:,} are free. Make room, give another cache_dir, "
            "or use in_memory=True, which takes a quarter of that of the default",
        ) from None
    index = {"numbers": dict(cache.numbers), "unreadable": progress["unreadable"]}
    files.write_json(cache.folder / "index.json", index)


def _decode_split(
    source: Source, cache: Cache, split: str, progress: dict[str, Any], line: Progress
) -> None:
    """Decodes the images of a split that are not done yet, and writes down the progress."""
    start, number = progress["done"][split], cache.numbers[split]
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
                # The images have to be on the disc before they are written down as done.
                os.fsync(pixels.fileno())
                os.fsync(labels.fileno())
                progress["done"][split] = done
                files.write_json(cache.folder / _PROGRESS, progress)
            line.add()
    if len(progress["unreadable"][split]) == number:
        raise ValueError(
            f"None of the {number} images of the split {split!r} in {source.where} can be read. "
            "Unpack or download them again."
        )


def _write(file: IO[bytes], values: npt.NDArray[Any], offset: int) -> None:
    if os.pwrite(file.fileno(), values.tobytes(), offset) != values.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reserve(cache: Cache) -> None:
    """Reserves the room on the disc, so that a lack of it shows before the work."""
    for path, size in cache.file_sizes.items():
        with open(path, "ab") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                # On macOS a full disc shows only during the work.
                file.truncate(size)


def _read_progress(cache: Cache) -> dict[str, Any]:
    """The progress of an earlier call, with the size of the first image; or no progress."""
    try:
        return dict(files.read_fields(cache.folder / _PROGRESS, ["done", "unreadable"]))
    except (FileNotFoundError, ValueError):
        shutil.rmtree(cache.folder, ignore_errors=True)
        cache.folder.mkdir(parents=True)
        return {
            "done": dict.fromkeys(SPLITS, 0),
            "unreadable": {split: [] for split in SPLITS},
            "shape": None,
        }


def _check_shape(progress: dict[str, Any], example: Example, shape: Pixels) -> None:
    """Checks that all images have the same height and width."""
    height, width = (int(one) for one in shape)
    first = progress["shape"] = progress["shape"] or [height, width]
    if [height, width] != first:
        raise ValueError(
            "The images should all have the same size: the aligned and cropped ones of CelebA have "
            f"218 x 178 pixels. Received: {example.name} with {height} x {width} after others with "
            f"{first[0]} x {first[1]}. Are they those of img_celeba, in the wild?"
        )
