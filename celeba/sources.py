"""CelebA on disc, in any of the forms that it is kept in: found, checked and read."""

import dataclasses
import functools
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from celeba.lists import ATTRIBUTE_LIST, ATTRIBUTES, SPLIT_LIST, SPLITS, Labels, Lists, read_lists

IMAGES = "img_align_celeba"
# Where people put what they downloaded, and the folders of the official download.
_ROOTS = (".", "downloads/manual", "celeba", "CelebA")
_PARTS = (".", "Anno", "Eval", "Img")


@dataclasses.dataclass(frozen=True)
class Example:
    """One example, not yet read.

    Args:
        position: Its place among the examples of its split, in the order of the file names.
        name: What to call it.
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
        """What changes with the files, as JSON. It takes a second or two."""

    def check(self) -> None:
        """Raises an error if files are missing or are not what they should be."""

    def examples(self, split: str, start: int) -> Iterator[Example]:
        """The examples of a split in the order that they are best read in, from `start` on."""


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
        stamps = "\n".join(f"{name} {self._found[name]}" for name in sorted(self._found))
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
        """Size and time by file name."""
        if self._archive is not None:
            members = self._archive.infolist()
            return {Path(one.filename).name: f"{one.file_size} {one.CRC}" for one in members}
        with os.scandir(self.images) as entries:
            stats = {entry.name: entry.stat() for entry in entries}
        return {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()}

    @functools.cached_property
    def _archive(self) -> zipfile.ZipFile | None:
        if self.images.suffix != ".zip":
            return None
        try:
            return zipfile.ZipFile(self.images)
        except zipfile.BadZipFile:
            raise ValueError(
                f"{self.images} is cut off, or no zip file. Download it again."
            ) from None

    @functools.cached_property
    def _members(self) -> dict[str, str]:
        """Path in the zip file by file name."""
        paths = [] if self._archive is None else self._archive.namelist()
        return {Path(path).name: path for path in paths}

    def _read(self, name: str) -> bytes:
        if self._archive is not None:
            return self._archive.read(self._members[name])
        return (self.images / name).read_bytes()


@dataclasses.dataclass(frozen=True)
class PreparedSource:
    """CelebA as TensorFlow Datasets has prepared it (`celeb_a`).

    Its examples have lost their names and are stored in the order of a hash of the name. The
    published names are numbers, without gaps, first those of the training images: their hashes
    give the order back.

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
        stats = {path.name: path.stat() for path in sorted(self.folder.iterdir())}
        files = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()]
        return {"files": files}

    def examples(self, split: str, start: int) -> Iterator[Example]:
        import tensorflow_datasets as tfds

        dataset = self._builder.as_dataset(
            split=split,
            decoders={"image": tfds.decode.SkipDecoding()},
            # One file after the other, as they were written.
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
        )
        order = self._order(split)
        for index, example in enumerate(dataset.skip(start).as_numpy_iterator(), start):
            labels = np.array([example["attributes"][name] for name in ATTRIBUTES], np.int8)
            number, image = order[index], example["image"]
            position = number - self._first(split)
            yield Example(position, _file_name(number), labels, functools.partial(bytes, image))

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


def find_source(data_dir: Path) -> FileSource | PreparedSource:
    """Finds CelebA in a folder.

    Args:
        data_dir: Either a folder of TensorFlow Datasets, with `celeb_a/` prepared or with the
            downloaded files in `downloads/manual/`; or the folder of the downloaded files:
            `img_align_celeba/` or `img_align_celeba.zip`, `list_attr_celeba.txt` and
            `list_eval_partition.txt`, or the lists as csv, as on Kaggle.

    Returns:
        The source. Of its files no more is known than that they are there.

    Raises:
        FileNotFoundError: If there is nothing, or not all of it.
    """
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir} is no folder. {_WHERE_TO_GET}")
    prepared = _find_prepared(data_dir)
    if prepared is not None:
        return prepared
    found = {name: _find_part(data_dir, name) for name in (IMAGES, ATTRIBUTE_LIST, SPLIT_LIST)}
    images, attributes, partition = found.values()
    if images is None or attributes is None or partition is None:
        looked_for = {
            IMAGES: f"{IMAGES}/ or {IMAGES}.zip",
            ATTRIBUTE_LIST: f"{ATTRIBUTE_LIST}.txt or .csv",
            SPLIT_LIST: f"{SPLIT_LIST}.txt or .csv",
        }
        missing = [looked_for[name] for name, path in found.items() if path is None]
        there = [str(path) for path in found.values() if path is not None]
        raise FileNotFoundError(
            f"{data_dir} does not hold the whole of CelebA. Missing: {', '.join(missing)}; "
            f"found: {', '.join(there) or 'nothing'}. Looked in {data_dir}, in its folders "
            f"{', '.join(_ROOTS[1:])}, and there in {', '.join(_PARTS[1:])}; and for celeb_a/ as "
            f"TensorFlow Datasets prepares it. {_WHERE_TO_GET}"
        )
    return FileSource(images, attributes, partition)


_WHERE_TO_GET = (
    "CelebA is at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (Align&Cropped Images, "
    "attributes, evaluation partitions), and on Kaggle as jessicali9530/celeba-dataset. Give the "
    "folder with img_align_celeba/ or img_align_celeba.zip, list_attr_celeba and "
    "list_eval_partition as data_dir, or put them into <data_dir>/downloads/manual/, the folder of "
    "TensorFlow Datasets for downloads by hand: its own download mostly fails for lack of quota."
)


def _find_prepared(data_dir: Path) -> PreparedSource | None:
    """The newest version that is there."""
    folders = [data_dir, *data_dir.glob("celeb_a/[0-9]*"), *data_dir.glob("[0-9]*")]
    infos = [one for one in folders if (one / "dataset_info.json").is_file()]
    if not infos:
        return None
    try:
        import tensorflow_datasets  # noqa: F401
    except ImportError:
        print(f"{infos[-1]} is left alone: reading it takes `pip install tensorflow-datasets`.")
        return None
    return PreparedSource(max(infos, key=lambda path: path.name))


def _find_part(data_dir: Path, name: str) -> Path | None:
    """The images or one of the lists."""
    folders = [data_dir / root / part for root in _ROOTS for part in _PARTS]
    for folder in folders:
        if name != IMAGES:
            candidates = [folder / f"{name}.txt", folder / f"{name}.csv"]
            if found := [path for path in candidates if path.is_file()]:
                return found[0]
            continue
        # Kaggle packs the folder into another one of the same name.
        for path in (folder / name / name, folder / name):
            if path.is_dir() and any(path.glob("*.[jJ]*")):
                return path
        if (folder / f"{name}.zip").is_file():
            return folder / f"{name}.zip"
    return None


def _file_name(number: int) -> str:
    return f"{number:06}.jpg"


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
