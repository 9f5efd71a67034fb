"""Scanning the files of one building for complete samples, and for files that cannot be read."""

import contextlib
import dataclasses
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from taskonomy import png
from taskonomy.domains import DOMAINS

# "ends" looks at the first and last bytes of every file, and "contents" at all of it.
Verify = Literal["ends", "contents"]
_NAME = re.compile(r"point_(0|[1-9][0-9]*)_view_(0|[1-9][0-9]*)([^0-9].*)?\.png")
# The index has 32 bits for a point or view.
_MOST_DIGITS = 9
# Far more than a file of Taskonomy takes.
_LARGEST_FILE = 2**26
View = tuple[int, int]


class Part(NamedTuple):
    """The place of a file's bytes.

    Args:
        suffix: The part of its name after point and view.
        offset: Number of its first byte in a tar file.
        size: Number of bytes in a tar file; -1 for a file of its own.
    """

    suffix: str
    offset: int = 0
    size: int = -1


class Unreadable(NamedTuple):
    """A file that cannot be read.

    Args:
        place: Path of its folder or tar file.
        name: Its name; "" if it is the tar file itself.
        domain: Name of its domain.
        problem: Why it cannot be read.
    """

    place: str
    name: str
    domain: str
    problem: str

    def __str__(self) -> str:
        text = f"{self.place}{self.name and f', {self.name}'}: {self.problem}"
        # A name on the disc may be no text.
        return text.encode(errors="backslashreplace").decode()


class Scan(NamedTuple):
    """The result of scanning a building.

    Args:
        parts: The parts of each complete sample by domain, by point and view, in the order of the
            file names.
        incomplete: Sentences that say what an incomplete sample lacks.
        unreadable: Files that cannot be read.
    """

    parts: dict[View, dict[str, Part]]
    incomplete: list[str]
    unreadable: list[Unreadable]


def scan(building: str, places: Mapping[str, Path | None], verify: Verify = "ends") -> Scan:
    """Finds the complete samples of a building, and leaves out those that cannot be read.

    Args:
        building: Name of the building.
        places: Folder or tar file by domain; `None` for a domain without one.
        verify: `"ends"` to look at the first and last bytes of every file, `"contents"` to decode
            them all.
    """
    unreadable: list[Unreadable] = []
    by_domain = {}
    for domain, place in places.items():
        by_domain[domain], problems = _parts(place, domain, verify)
        unreadable += problems
    parts, incomplete = {}, []
    views = set().union(*by_domain.values())
    for view in sorted(views, key=lambda view: "point_{}_view_{}_".format(*view)):
        lacking = [domain for domain, found in by_domain.items() if view not in found]
        if lacking:
            name = "{}/point_{}_view_{}".format(building, *view)
            incomplete.append(f"{name} lacks {', '.join(lacking)}")
        own = {domain: found[view] for domain, found in by_domain.items() if view in found}
        if not lacking and None not in own.values():
            parts[view] = {domain: part for domain, part in own.items() if part}
    return Scan(parts, incomplete, unreadable)


def is_repaired(file: Unreadable, verify: Verify) -> bool:
    """Whether a file that could not be read can be read now.

    A file in a tar file is never repaired by itself: the tar file has a new time then.
    """
    place, found = Path(file.place), _Found()
    if place.suffix == ".tar":
        return False
    if not file.name:
        return not _files(place).problems
    found.add(file.name)
    return any(
        part and not _problem(place, view, part, file.domain, verify)
        for view, part in found.parts.items()
    )


def read(place: str | os.PathLike[str], view: View, part: Part) -> bytes:
    """The bytes of one file."""
    with _opened(place, view, part) as (file, size):
        return file.read(size)


def file_name(view: View, suffix: str) -> str:
    return "point_{}_view_{}{}.png".format(*view, suffix)


def _parts(
    place: Path | None, domain: str, verify: Verify
) -> tuple[dict[View, Part | None], list[Unreadable]]:
    """The files of one domain by point and view, `None` for a file that cannot be read."""
    if place is None:
        return {}, []
    found = _members(place) if place.suffix == ".tar" else _files(place)
    for view, part in found.parts.items():
        if part and (problem := _problem(place, view, part, domain, verify)):
            found.problems.append((file_name(view, part.suffix), problem))
            found.parts[view] = None
    unreadable = [Unreadable(str(place), name, domain, why) for name, why in found.problems]
    return found.parts, unreadable


@dataclasses.dataclass
class _Found:
    """Files by point and view, `None` for one that cannot be read; names that cannot, and why."""

    parts: dict[View, Part | None] = dataclasses.field(default_factory=dict)
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def add(self, name: str, offset: int = 0, size: int = -1, problem: str = "") -> None:
        """Adds a file, if that is its name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return
        if max(len(match[1]), len(match[2])) > _MOST_DIGITS:
            self.problems.append((name[:80], f"its numbers have more than {_MOST_DIGITS} digits"))
            return
        if problem:
            self.problems.append((name, problem))
        part = None if problem else Part(match[3] or "", offset, size)
        view = int(match[1]), int(match[2])
        # Which of them the labels belong to, nobody knows. In a tar file the last of a name counts.
        other = self.parts.get(view, part)
        if part and other and other.suffix != part.suffix:
            both = " and ".join(sorted(file_name(view, one.suffix) for one in (part, other)))
            self.problems.append(("", f"one view has two files, {both}"))
            part = None
        self.parts[view] = other and part


def _files(folder: Path) -> _Found:
    found = _Found()
    try:
        for name in os.listdir(folder):
            found.add(name)
    except OSError as error:
        found.problems.append(("", str(error)))
    return found


def _members(path: Path) -> _Found:
    """The files in a tar file, by its headers alone."""
    found = _Found()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                # It leads back to a header before, and round and round.
                if member.size < 0:
                    raise tarfile.ReadError("a size is negative")
                if member.isfile():
                    # Its bytes do not stand in a row.
                    problem = "it is a sparse file" if member.issparse() else ""
                    name = os.path.basename(member.name)
                    found.add(name, member.offset_data, member.size, problem)
    # Of any type: `tarfile` reads numbers and sizes of damaged headers as they come.
    except Exception as error:
        found.problems.append(("", str(error) or type(error).__name__))
    return found


def _problem(place: Path, view: View, part: Part, domain: str, verify: Verify) -> str:
    """Why a file cannot be read; "" if it can be."""
    bits = DOMAINS[domain].bits
    try:
        if verify == "contents":
            return png.problem(read(place, view, part), bits)
        with _opened(place, view, part) as (file, size):
            head = file.read(min(size, png.HEAD))
            file.seek(part.offset + max(size - png.TAIL, 0))
            return png.problem_at_ends(head, file.read(png.TAIL), bits)
    except OSError as error:
        return str(error)


@contextlib.contextmanager
def _opened(
    place: str | os.PathLike[str], view: View, part: Part
) -> Iterator[tuple[BinaryIO, int]]:
    """A file, open at its first byte, and the number of its bytes.

    Raises:
        OSError: If it cannot be read, or is too large to be a file of Taskonomy.
    """
    path = Path(place) if part.size >= 0 else Path(place, file_name(view, part.suffix))
    status = path.stat()
    # A pipe would never end.
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no file")
    size = status.st_size if part.size < 0 else part.size
    if size > _LARGEST_FILE:
        raise OSError(f"it has {size} bytes, more than {_LARGEST_FILE}")
    with open(path, "rb") as file:
        file.seek(part.offset)
        yield file, size
