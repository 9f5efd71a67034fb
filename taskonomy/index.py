"""The index: which samples are complete, and where their files are."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tag_keras.utils.progress import Progress
from taskonomy.layouts import Layout
from taskonomy.scan import Scan, Unreadable, Verify, is_repaired, scan


@dataclasses.dataclass(frozen=True)
class Samples:
    """The N samples of a split, with a file of each of D domains.

    Args:
        views: Point and view, int32 array (N, 2).
        places: Position of the folder and the suffix of a file in `Index.folders` and
            `Index.suffixes`, int32 array (N, D).
        spans: Offset and size in a tar file, in bytes, int64 array (N, D, 2); the size is -1 for a
            file of its own.
    """

    views: npt.NDArray[np.int32]
    places: npt.NDArray[np.int32]
    spans: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.views)


@dataclasses.dataclass(frozen=True)
class Index:
    """All complete samples, and what was left out.

    Args:
        folders: Folders and tar files, one for each combination with a suffix.
        suffixes: Suffix of each combination: the part of a file's name after point and view.
        samples: Samples by split.
        incomplete: Sentences that say what an incomplete sample lacks.
        unreadable: Files that cannot be read.
    """

    folders: list[str]
    suffixes: list[str]
    samples: dict[str, Samples]
    incomplete: list[str]
    unreadable: list[Unreadable]

    @property
    def problems(self) -> list[str]:
        """Sentences that say what was left out, and why."""
        return [*self.incomplete, *map(str, self.unreadable)]


def make_index(
    layout: Layout,
    domains: Sequence[str],
    lists: Mapping[str, Sequence[str]],
    limits: Mapping[str, int | None],
    verify: Verify = "ends",
) -> Index:
    """Looks for the samples with a readable file of every domain.

    Args:
        layout: Layout that was found.
        domains: Names of the D domains.
        lists: Buildings by split. Buildings that the layout does not have are skipped.
        limits: By split, the largest number of samples of each building; `None` for no limit.
        verify: `"ends"` to look at the first and last bytes of every file, `"contents"` to decode
            them all.
    """
    combinations: dict[tuple[str, str], int] = {}
    samples: dict[str, Samples] = {}
    incomplete: list[str] = []
    unreadable: list[Unreadable] = []
    lists = {
        split: [name for name in names if (name, "rgb") in layout.places]
        for split, names in lists.items()
    }
    total = sum(map(len, lists.values()))
    line = Progress("Looking for samples", total, "buildings", sys.stderr)
    # More threads than cores, because they mostly wait for the disc or the network.
    with contextlib.closing(line), concurrent.futures.ThreadPoolExecutor(32) as pool:
        for split, buildings in lists.items():
            parts = [_as_samples([], [], [], len(domains))]
            scans = pool.map(lambda name: _scan(layout, name, domains, verify), buildings)
            for building, found in zip(buildings, scans, strict=True):
                line.add()
                incomplete += found.incomplete
                unreadable += found.unreadable
                folders = {name: str(layout.places.get((building, name))) for name in domains}
                parts.append(_of_building(folders, found, limits[split], combinations))
            samples[split] = Samples(
                *(
                    np.concatenate([getattr(part, field.name) for part in parts])
                    for field in dataclasses.fields(Samples)
                )
            )
    places = [folder for folder, _ in combinations]
    suffixes = [suffix for _, suffix in combinations]
    return Index(places, suffixes, samples, incomplete, unreadable)


def is_outdated(index: Index, verify: Verify) -> bool:
    """Whether a file that was left out can be read now.

    A file that was overwritten in its place has not changed the time of its folder.
    """
    return any(is_repaired(file, verify) for file in index.unreadable)


def fingerprint(index: Index, layout: Layout) -> str:
    """Short hash of the buildings, points and views of all samples, in their order, by split.

    The same samples have the same fingerprint in another folder or layout.
    """
    of_place = {str(path): building for (building, _), path in layout.places.items()}
    buildings = [of_place[folder] for folder in index.folders]
    names = sorted({*buildings})
    numbers = np.array([names.index(name) for name in buildings], "<i4")
    digest = hashlib.sha256(json.dumps(names).encode())
    for split, samples in sorted(index.samples.items()):
        digest.update(f"{split} {len(samples)} ".encode())
        digest.update(numbers[samples.places[:, 0]].tobytes())
        digest.update(samples.views.astype("<i4").tobytes())
    return digest.hexdigest()[:12]


def _scan(layout: Layout, building: str, domains: Sequence[str], verify: Verify) -> Scan:
    places = {domain: layout.places.get((building, domain)) for domain in domains}
    return scan(building, places, verify)


def _of_building(
    folders: Mapping[str, str],
    found: Scan,
    limit: int | None,
    combinations: dict[tuple[str, str], int],
) -> Samples:
    """The samples of one building. Adds new combinations of folder and suffix to `combinations`."""
    parts = [[own[name] for name in folders] for own in list(found.parts.values())[:limit]]
    places = [
        [
            combinations.setdefault((folder, part.suffix), len(combinations))
            for folder, part in zip(folders.values(), own, strict=True)
        ]
        for own in parts
    ]
    spans = [[(part.offset, part.size) for part in own] for own in parts]
    return _as_samples(list(found.parts)[:limit], places, spans, len(folders))


def _as_samples(
    views: Sequence[object], places: Sequence[object], spans: Sequence[object], number: int
) -> Samples:
    return Samples(
        np.array(views, np.int32).reshape(-1, 2),
        np.array(places, np.int32).reshape(-1, number),
        np.array(spans, np.int64).reshape(-1, number, 2),
    )
