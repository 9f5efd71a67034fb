"""Layouts: the folders that a download of Taskonomy may have, and finding which one it is."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tag_keras.utils.checks import check

# In this order: the layout of Standley et al.; Taskonomy's sample, by building; tar files extracted
# each into its own folder; Omnidata's download tool, which puts other data sets beside; and the tar
# files themselves, with Taskonomy's names and with Omnidata's.
LAYOUTS = (
    "{domain}/{building}",
    "{building}/{domain}",
    "{building}_{domain}/{domain}",
    "{domain}/taskonomy/{building}",
    "{building}_{domain}.tar",
    "{domain}__taskonomy__{building}.tar",
)
WHERE_TO_GET_IT = (
    "To download it: pip install omnidata-tools, and omnitools.download rgb segment_semantic "
    "depth_zbuffer normal edge_texture keypoints2d --components taskonomy --subset tiny --dest "
    "FOLDER (https://docs.omnidata.vision/starter_dataset_download.html); see also "
    "https://github.com/StanfordVL/taskonomy/tree/master/data"
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout that was found, with the places of the files.

    Args:
        pattern: One of `LAYOUTS`.
        places: By building, in small letters, and domain: the folder of the PNG files, or the tar
            file that holds them.
        others: Other layouts that the folder has data in; they are not used.
    """

    pattern: str
    places: Mapping[tuple[str, str], Path]
    others: tuple[str, ...] = ()

    @property
    def buildings(self) -> list[str]:
        """Names of the buildings with images."""
        return sorted(building for building, domain in self.places if domain == "rgb")


def find_layout(data_dir: str | Path, domains: Sequence[str], layout: str | None = None) -> Layout:
    """Finds the layout with images of the most buildings; folders come before tar files in a tie.

    Args:
        data_dir: Folder of the data.
        domains: Names of the domains that are needed, `"rgb"` among them.
        layout: One of `LAYOUTS`, to use instead of the one with the most buildings.

    Raises:
        FileNotFoundError: If there is no such folder, or no layout that is known in it.
        ValueError: If a domain is missing, if a tar file is a folder, a pipe or a link to nothing,
            or if `layout` is none of `LAYOUTS`.
    """
    check(
        layout is None or layout in LAYOUTS, f"`layout` should be one of {LAYOUTS}", layout=layout
    )
    root = Path(data_dir).expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root} with Taskonomy. {WHERE_TO_GET_IT}.")
    patterns = LAYOUTS if layout is None else (layout,)
    found = {pattern: _places(root, pattern, domains) for pattern in patterns}
    numbers = {
        pattern: sum(domain == "rgb" for _, domain in places) for pattern, places in found.items()
    }
    chosen = max(patterns, key=lambda pattern: numbers[pattern])
    if not numbers[chosen]:
        looked = ", ".join(_readable(pattern, "rgb") for pattern in patterns)
        raise FileNotFoundError(
            f"{root} has no images of Taskonomy. Looked for: {looked}. {_compressed(root)}"
            f"{WHERE_TO_GET_IT}."
        )
    others = tuple(pattern for pattern in patterns if numbers[pattern] and pattern != chosen)
    places = found[chosen]
    if missing := [name for name in domains if not any(name == domain for _, domain in places)]:
        raise ValueError(
            f"{root} lacks {', '.join(missing)}, which the tasks need (depth_zbuffer, too, because "
            "it tells where depth, normals and edges of occlusion have no label). Looked for: "
            f"{_readable(chosen, missing[0])}. {WHERE_TO_GET_IT}."
        )
    if broken := [str(path) for path in places.values() if not _is_place(path, chosen)]:
        raise ValueError(
            f"{broken[0]} should be a tar file, but is a folder, a pipe or a link to nothing. "
            f"Repair or remove it{f', and {len(broken) - 1} more' if broken[1:] else ''}."
        )
    return Layout(chosen, places, others)


def _places(root: Path, pattern: str, domains: Sequence[str]) -> dict[tuple[str, str], Path]:
    """Folders or tar files of a layout, by building and domain."""
    places = {}
    for domain in domains:
        # The dot is the only character of the patterns that a regular expression reads otherwise.
        name = pattern.replace(".", r"\.").format(domain=domain, building="([^/]+)")
        for path in sorted(root.glob(pattern.format(domain=domain, building="*"))):
            match = re.fullmatch(name, path.relative_to(root).as_posix())
            # What only has the name of a tar file is told later.
            right = pattern.endswith(".tar") or _is_place(path, pattern)
            if match and right and not _belongs_elsewhere(match[1], domain):
                places[match[1].lower(), domain] = path
    return places


def _is_place(path: Path, pattern: str) -> bool:
    """Whether a path is what the layout has: a folder, or a tar file."""
    return path.is_file() if pattern.endswith(".tar") else path.is_dir()


def _belongs_elsewhere(building: str, domain: str) -> bool:
    """Whether the name of a folder that looks like a building belongs to another layout."""
    return building == "taskonomy" or building.endswith(f"_{domain}")


def _readable(pattern: str, domain: str) -> str:
    """A layout with an example of a file, for messages."""
    file = "" if pattern.endswith(".tar") else f"/point_0_view_0_domain_{domain}.png"
    return pattern.format(domain=domain, building="<building>") + file


def _compressed(root: Path) -> str:
    """A hint for messages if there are compressed tar files."""
    if not any(root.glob("*.tar.gz")):
        return ""
    return (
        "There are .tar.gz files: unpack them with gunzip, because a file in them cannot be read "
        "without all those before it. "
    )
