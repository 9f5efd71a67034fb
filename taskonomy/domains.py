"""Taskonomy's tasks: their names, and what is in their files.

The five tasks of TAG (Fifty et al. 2021, arXiv 2109.04617) are those of the first task set of
Standley et al. 2020 (arXiv 1905.07553): semantic segmentation, depth, surface normals, keypoints
and edges. Both take the depth along the optical axis (z-buffer), 2D (SURF) keypoints and, as edges,
those of texture (Canny), which the code of both calls `t`. There, `e` are the edges of occlusion,
of Standley's second task set.
"""

import dataclasses
import re
from collections.abc import Sequence

from tag_keras.utils.checks import check

DEPTH = "depth_zbuffer"
SEGMENTATION = "segment_semantic"
# The order of TAG's flag: sdntk.
TASKS = (SEGMENTATION, DEPTH, "normal", "edge_texture", "keypoints2d")
# Pixels at this depth and beyond, in units of 1/512 m, have no geometry: 16 m. What a scan does not
# reach has the largest value of 16 bits.
UNKNOWN_DEPTH = 8192


@dataclasses.dataclass(frozen=True)
class Domain:
    """What the PNG files of one domain hold, and how Standley et al. normalise it.

    The label is (value - offset) / scale.

    Args:
        letter: Letter of the task in the flags of Standley et al. and of TAG; "" for images.
        published: Name of the task's loss in the files that these published; "" for images.
        bits: Bits of each channel.
        channels: Number of channels.
        offset: As they come from the file, 0 to 255 or to 65535.
        scale: As they come from the file.
        geometric: Whether pixels without geometry have no label.
    """

    letter: str
    published: str
    bits: int
    channels: int
    offset: float = 0.0
    scale: float = 1.0
    geometric: bool = False


# The numbers of tstandley/taskgrouping, taskonomy_loader.py (MIT), with those for values in [0, 1]
# brought to values of bytes. Classes of segmentation are 0 for uncertain, which counts nothing, 1
# for background, and 2 to 17 for 16 kinds of objects.
DOMAINS = {
    "rgb": Domain("", "", 8, 3, 0.0, 255.0),
    SEGMENTATION: Domain("s", "ss_l", 8, 1),
    DEPTH: Domain("d", "depth_l", 16, 1, 1500.0, 1000.0, True),
    "normal": Domain("n", "norm_l", 8, 3, 127.5, 127.5, True),
    "edge_texture": Domain("t", "edge2d_l", 16, 1, 718.0, 1070.0),
    "keypoints2d": Domain("k", "key_l", 16, 1, 50.0, 100.0),
    "edge_occlusion": Domain("e", "edge_l", 16, 1, 56.0248, 239.1265, True),
}


def task_names(tasks: str | Sequence[str]) -> tuple[str, ...]:
    """Tasks by their own names.

    Args:
        tasks: Letters, as in `"sdntk"`, or names separated by commas; or a list of letters, names,
            or names of the published files, such as `"ss_l"`.

    Returns:
        Names of Taskonomy's domains, such as `"segment_semantic"`, in the order given.

    Raises:
        ValueError: If there is no task, if one does not exist, or if one is there twice.
    """
    names = {
        alias: name
        for name, domain in DOMAINS.items()
        if domain.letter
        for alias in (domain.letter, domain.published, name)
    }
    given = tasks
    if isinstance(tasks, str):
        together = re.fullmatch("[a-z]+", tasks) and tasks not in names
        tasks = list(tasks) if together else tasks.split(",")
    found = tuple(names.get(task.strip(), "") for task in tasks)
    known = ", ".join(
        f"{domain.letter} {name}" for name, domain in DOMAINS.items() if name != "rgb"
    )
    wanted = f"`tasks` should be some of Taskonomy's, each once: {known}"
    check(bool(found) and all(found) and len({*found}) == len(found), wanted, tasks=given)
    return found


def domains_of(tasks: Sequence[str]) -> tuple[str, ...]:
    """The domains that tasks need: images, labels, and the depth that tells what has geometry."""
    needs_depth = any(DOMAINS[task].geometric for task in tasks)
    return ("rgb", *dict.fromkeys([*tasks, *([DEPTH] if needs_depth else [])]))
