"""The cache of CelebA's decoded images: the files that every training reads."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from celeba.lists import ATTRIBUTES, SPLITS
from tag_keras.utils import files

Kind = Literal["float32", "uint8"]


@dataclasses.dataclass(frozen=True)
class Cache:
    """A folder with index.json, and with a file of pixels and a file of labels for each split.

    In a file, all examples take the same number of bytes. A cache gets its final name when it is
    whole; until then its folder has another one.

    Args:
        folder: Folder of the cache.
        image_size: Height and width of the images, in pixels.
        kind: Type of the pixels.
        numbers: Number of places for examples, by split.
        unreadable: By split, the place and the name of each example whose file cannot be read.
            These examples are left out.
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
    def stamp(self) -> str:
        """The end of the folder's name: a hash of the files that the cache was made from."""
        return self.folder.name.rpartition("-")[2]

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.image_size**2 * 3 * np.dtype(self.kind).itemsize

    @property
    def bytes(self) -> int:
        """Bytes of all files of pixels and labels."""
        return sum(self.numbers.values()) * (self.image_bytes + len(ATTRIBUTES))

    @property
    def file_sizes(self) -> dict[Path, int]:
        """Bytes of each file of pixels and labels."""
        return {
            path: self.numbers[split] * size
            for split in SPLITS
            for path, size in (
                (self.pixels(split), self.image_bytes),
                (self.labels_file(split), len(ATTRIBUTES)),
            )
        }

    def pixels(self, split: str) -> Path:
        """The file of pixels."""
        return self.folder / f"{split}.pixels"

    def places(self, split: str) -> npt.NDArray[np.int64]:
        """Places in the files of the examples that can be read."""
        unreadable = [place for place, _ in self.unreadable[split]]
        return np.setdiff1d(np.arange(self.numbers[split]), unreadable)

    def labels(self, split: str) -> npt.NDArray[np.int8]:
        """Labels (N, 40) of the examples that can be read."""
        labels = np.fromfile(self.labels_file(split), np.int8).reshape(-1, len(ATTRIBUTES))
        return labels[self.places(split)]

    def labels_file(self, split: str) -> Path:
        """The file of labels."""
        return self.folder / f"{split}.labels"

    def is_whole(self) -> bool:
        """Whether all files are there with the right number of bytes."""
        return all(
            path.is_file() and path.stat().st_size == size for path, size in self.file_sizes.items()
        )


def open_cache(folder: Path, image_size: int, kind: Kind) -> Cache | None:
    """The cache in a folder, or `None` if there is no whole one."""
    try:
        index = files.read_fields(folder / "index.json", ["numbers", "unreadable"])
        numbers = {split: int(index["numbers"][split]) for split in SPLITS}
        unreadable = {
            split: sorted((int(place), str(name)) for place, name in index["unreadable"][split])
            for split in SPLITS
        }
        # A place beyond the file would be an error in the midst of a training.
        if any(place not in range(numbers[one]) for one in SPLITS for place, _ in unreadable[one]):
            return None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, OverflowError):
        return None
    cache = Cache(folder, image_size, kind, numbers, unreadable)
    return cache if cache.is_whole() else None
