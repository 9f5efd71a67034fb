"""Sources: checking and reading CelebA on disc, in any of its forms."""

import dataclasses
import functools
import hashlib
import os
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from celeba.lists import ATTRIBUTES, SPLITS, Labels, Lists, read_lists
from tag_keras.utils.checks import check

# Far more than any image of CelebA has.
_LARGEST_FILE = 2**26


@dataclasses.dataclass(frozen=True)
class Example:
    """One example, before its image is read.

    Args:
        position: Its place among the examples of its split, in the order of the file names.
        name: File name of its image.
        labels: Array (40,) of 0 and 1.
        read: Gives the bytes of its JPEG file.
    """

    position: int
    name: str
    labels: Labels
    read: Callable[[], bytes]


class Source(Protocol):
    """CelebA in one of its forms."""

    @property
    def where(self) -> str:
        """The path of the images."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of examples by split."""

    def fingerprint(self) -> dict[str, Any]:
        """Values that change with the files, to be written as JSON. Takes a second or two."""

    def check(self) -> None:
        """Raises an error if files are missing or wrong."""

    def examples(self, split: str, start: int) -> Iterator[Example]:
        """The examples of a split from `start` on, in the order that is the fastest to read."""


@dataclasses.dataclass(frozen=True)
class FileSource:
    """CelebA as it was published, or from Kaggle: images in a folder or zip file, and two lists.

    Args:
        images: The folder or the zip file.
        attributes: The list of attributes.
        partition: The list of splits.
    """

    images: Path
    attributes: Path
    partition: Path

    @functools.cached_property
    def lists(self) -> Lists:
        return read_lists(self.attributes, self.partition)

    @property
    def where(self) -> str:
        return str(self.images)

    @property
    def sizes(self) -> Mapping[str, int]:
        return {split: len(self.lists.names[split]) for split in SPLITS}

    def check(self) -> None:
        names = [name for split in SPLITS for name in self.lists.names[split]]
        if missing := [name for name in names if name not in self._found]:
            raise FileNotFoundError(
                f"{self.images} lacks {len(missing)} of the {len(names)} images that "
                f"{self.attributes} names: {_few(missing)}. Unpack or download it again."
            )

    def fingerprint(self) -> dict[str, Any]:
        lists = (self.attributes, self.partition)
        # Only the files that the lists name: systems leave files of their own in a folder.
        names = sorted(name for split in SPLITS for name in self.lists.names[split])
        stamps = "\n".join(f"{name} {self._found.get(name)}" for name in names)
        return {
            "lists": [hashlib.sha256(path.read_bytes()).hexdigest() for path in lists],
            "images": hashlib.sha256(stamps.encode()).hexdigest(),
        }

    def examples(self, split: str, start: int) -> Iterator[Example]:
        names, labels = self.lists.names[split], self.lists.labels[split]
        for position in range(start, len(names)):
            name = names[position]
            read = functools.partial(self._read, name)
            yield Example(position, name, labels[position], read)

    @functools.cached_property
    def _found(self) -> dict[str, str]:
        """Size and time, or size and checksum in a zip file, by file name."""
        if self._archive is not None:
            members = self._archive.infolist()
            return {Path(one.filename).name: f"{one.file_size} {one.CRC}" for one in members}
        with os.scandir(self.images) as entries:
            return {entry.name: _stamp(entry) for entry in entries}

    @functools.cached_property
    def _archive(self) -> zipfile.ZipFile | None:
        if self.images.suffix != ".zip":
            return None
        try:
            return zipfile.ZipFile(self.images)
        # Of names and numbers in a damaged table of contents, others than BadZipFile.
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error):
            raise ValueError(
                f"{self.images} is cut off, damaged, or no zip file. Download it again."
            ) from None

    @functools.cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        """Members of the zip file by file name."""
        members = [] if self._archive is None else self._archive.infolist()
        return {Path(one.filename).name: one for one in members}

    def _read(self, name: str) -> bytes:
        """The bytes of an image; any error if they cannot be read, or are far too many."""
        if self._archive is not None:
            _check_size(self._members[name].file_size)
            return self._archive.read(self._members[name])
        status = (self.images / name).stat()
        # A pipe would never end.
        check(stat.S_ISREG(status.st_mode), "An image should be a file", name=name)
        _check_size(status.st_size)
        return (self.images / name).read_bytes()


@dataclasses.dataclass(frozen=True)
class PreparedSource:
    """CelebA as TensorFlow Datasets has prepared it (`celeb_a`).

    Its examples have lost their file names, and are stored in the order of a hash of the name. The
    published names are numbers without gaps that begin with the training images, so the hashes of
    all names give the order back.

    Args:
        folder: The folder of a version.
    """

    folder: Path

    @functools.cached_property
    def _builder(self) -> Any:
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(str(self.folder))

    @property
    def where(self) -> str:
        return str(self.folder)

    @property
    def sizes(self) -> Mapping[str, int]:
        return {split: int(self._builder.info.splits[split].num_examples) for split in SPLITS}

    def check(self) -> None:
        sizes = {split: one.num_examples for split, one in self._builder.info.splits.items()}
        if wrong := [split for split in SPLITS if not sizes.get(split)]:
            raise ValueError(
                f"{self.folder} should have examples of all splits. Without any: {wrong}. Delete "
                "it and prepare it again."
            )

    def fingerprint(self) -> dict[str, Any]:
        # Without folders, because the cache may be one of them.
        paths = [path for path in sorted(self.folder.iterdir()) if path.is_file()]
        stats = {path.name: path.stat() for path in paths}
        files = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()]
        return {"files": files}

    def examples(self, split: str, start: int) -> Iterator[Example]:
        import tensorflow as tf
        import tensorflow_datasets as tfds

        dataset = self._builder.as_dataset(
            split=split,
            decoders={"image": tfds.decode.SkipDecoding()},
            # One file after the other, as they were written.
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
        )
        order = self._order(split)
        try:
            for index, example in enumerate(dataset.skip(start).as_numpy_iterator(), start):
                labels = np.array([example["attributes"][name] for name in ATTRIBUTES], np.int8)
                number, image = order[index], example["image"]
                position = number - self._first(split)
                yield Example(position, _file_name(number), labels, functools.partial(bytes, image))
        except tf.errors.OpError as error:
            # A record does not say where the next one is.
            raise ValueError(
                f"{self.folder} is damaged ({error.message}). Delete it and prepare it again."
            ) from None

    def _first(self, split: str) -> int:
        """Number of the first file of a split."""
        return 1 + sum(self.sizes[one] for one in SPLITS[: SPLITS.index(split)])

    def _order(self, split: str) -> list[int]:
        """Numbers of the files in the order in which the examples of a split are stored."""
        first = self._first(split)
        salted = hashlib.md5(split.encode(), usedforsecurity=False)

        def key(number: int) -> bytes:
            hashed = salted.copy()
            hashed.update(_file_name(number).encode())
            return hashed.digest()

        return sorted(range(first, first + self.sizes[split]), key=key)


def _stamp(entry: os.DirEntry[str]) -> str:
    """Size and time of a file, which change with it."""
    try:
        status = entry.stat()
    except OSError:
        # A link to nowhere, perhaps of an image that is not CelebA's.
        return "unreadable"
    return f"{status.st_size} {status.st_mtime_ns}"


def _check_size(size: int) -> None:
    """Refuses a file before it takes memory."""
    check(size <= _LARGEST_FILE, f"An image should have at most {_LARGEST_FILE} bytes", size=size)


def _file_name(number: int) -> str:
    return f"{number:06}.jpg"


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
