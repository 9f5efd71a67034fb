"""Scanning the files of one building for complete samples, and for files that cannot be read."""

import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from taskonomy import png
from taskonomy.domains import DOMAINS

# "ends" looks at the first and last bytes of every file, and "contents" at all checksums.
Verify = Literal["ends", "contents"]
_NAME = re.compile(r"point_(0|[1-9]\d*)_view_(0|[1-9]\d*)(\D.*)?\.png")
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
        return f"{self.place}{self.name and f', {self.name}'}: {self.problem}"


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
        verify: `"ends"` to look at the first and last bytes of every file, `"contents"` to look at
            all checksums.
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
    match = _NAME.fullmatch(file.name)
    if match is None or file.place.endswith(".tar"):
        return False
    view, part = (int(match[1]), int(match[2])), Part(match[3] or "")
    return not _problem(Path(file.place), view, part, file.domain, verify)


def read(place: str | os.PathLike[str], view: View, part: Part) -> bytes:
    """The bytes of one file."""
    if part.size < 0:
        return Path(place, file_name(view, part.suffix)).read_bytes()
    with open(place, "rb") as file:
        file.seek(part.offset)
        return file.read(part.size)


def file_name(view: View, suffix: str) -> str:
    return "point_{}_view_{}{}.png".format(*view, suffix)


def _parts(
    place: Path | None, domain: str, verify: Verify
) -> tuple[dict[View, Part | None], list[Unreadable]]:
    """The files of one domain by point and view, `None` for a file that cannot be read."""
    if place is None:
        return {}, []
    parts: dict[View, Part | None] = {}
    found, problem = _members(place) if place.suffix == ".tar" else (_files(place), "")
    unreadable = [Unreadable(str(place), "", domain, problem)] if problem else []
    for view, part in found.items():
        if problem := _problem(place, view, part, domain, verify):
            name = file_name(view, part.suffix)
            unreadable.append(Unreadable(str(place), name, domain, problem))
        parts[view] = None if problem else part
    return parts, unreadable


def _files(folder: Path) -> dict[View, Part]:
    with os.scandir(folder) as entries:
        matches = [_NAME.fullmatch(entry.name) for entry in entries]
    return {(int(m[1]), int(m[2])): Part(m[3] or "") for m in matches if m}


def _members(path: Path) -> tuple[dict[View, Part], str]:
    """The files in a tar file, by its headers alone, and what is wrong with the tar file."""
    parts: dict[View, Part] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                match = _NAME.fullmatch(os.path.basename(member.name))
                if match and member.isfile():
                    view = int(match[1]), int(match[2])
                    parts[view] = Part(match[3] or "", member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        return parts, str(error)
    return parts, ""


def _problem(place: Path, view: View, part: Part, domain: str, verify: Verify) -> str:
    """Why a file cannot be read; "" if it can be."""
    bits = DOMAINS[domain].bits
    try:
        if verify == "contents":
            return png.problem(read(place, view, part), bits)
        return png.problem_at_ends(*_ends(place, view, part), bits)
    except OSError as error:
        return str(error)


def _ends(place: Path, view: View, part: Part) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file."""
    path = place if part.size >= 0 else place / file_name(view, part.suffix)
    with open(path, "rb") as file:
        file.seek(part.offset)
        head = file.read(png.HEAD)
        end = part.offset + part.size if part.size >= 0 else file.seek(0, os.SEEK_END)
        file.seek(max(end - png.TAIL, part.offset))
        return head, file.read(png.TAIL)
