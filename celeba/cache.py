"""CelebA's decoded images: files that every training reads."""

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
    """A folder with, for each split, a file of pixels and one of labels, and with index.json.

    All examples have the same number of bytes in a file. In a folder that bears its name, a cache
    is whole: it is filled under another one.

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
    def stamp(self) -> str:
        """What the end of the folder's name says of the files that it was made of."""
        return self.folder.name.rpartition("-")[2]

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


def open_cache(folder: Path, image_size: int, kind: Kind) -> Cache | None:
    """The cache in a folder, or `None` where none is whole."""
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
