"""Taskonomy's domains: the names of the tasks, and the contents of their files.

TAG (Fifty et al. 2021, arXiv 2109.04617) has the five tasks of the first task set of Standley et
al. 2020 (arXiv 1905.07553): semantic segmentation, depth, surface normals, keypoints and edges.
Depth is along the optical axis (z-buffer), keypoints are 2D (SURF), and edges are edges of texture
(Canny). The code of both papers calls these edges `t`; its `e` are the edges of occlusion of
Standley's second task set.
"""

import dataclasses
import re
from collections.abc import Sequence

DEPTH = "depth_zbuffer"
SEGMENTATION = "segment_semantic"
# The order of TAG's flag: sdntk.
TASKS = (SEGMENTATION, DEPTH, "normal", "edge_texture", "keypoints2d")
# Pixels from this depth on have no geometry: 16 m, in units of 1/512 m. Where the scan reaches
# nothing, the depth is the largest number of 16 bits.
UNKNOWN_DEPTH = 8192


@dataclasses.dataclass(frozen=True)
class Domain:
    """The PNG files of a domain, and how Standley et al. normalise their values.

    The label is (value - offset) / scale, with the value from the file, up to 255 or 65535.

    Args:
        letter: Letter of the task in the flags of Standley et al. and of TAG; "" for images.
        published: Name of the task's loss in the files that they published; "" for images.
        bits: Bits of each channel.
        channels: Number of channels.
        offset: Value in the file that becomes the label 0.
        scale: Difference of values in the file that becomes a difference of 1 in the label.
        geometric: Whether pixels without geometry have no label.
    """

    letter: str
    published: str
    bits: int
    channels: int
    offset: float = 0.0
    scale: float = 1.0
    geometric: bool = False


# The numbers of tstandley/taskgrouping, taskonomy_loader.py (MIT); numbers for values in [0, 1] are
# converted to values of bytes. The classes of segmentation are 0 for uncertain, which does not
# count, 1 for background, and 2 to 17 for 16 kinds of objects.
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
    """Names of tasks, from letters or names.

    Args:
        tasks: Letters, as in `"sdntk"`, or names separated by commas; or a list of letters, of
            names, or of names in the published files, such as `"ss_l"`.

    Returns:
        Names of Taskonomy's domains, such as `"segment_semantic"`, in the order given.

    Raises:
        ValueError: If there is no task, if a task does not exist, or if a task is there twice.
    """
    names = {
        alias: name
        for name, domain in DOMAINS.items()
        if domain.letter
        for alias in (domain.letter, domain.published, name)
    }
    parts = tasks
    if isinstance(tasks, str):
        are_letters = re.fullmatch("[a-z]+", tasks) and tasks not in names
        parts = list(tasks) if are_letters else tasks.split(",")
    found = tuple(names.get(part.strip(), "") for part in parts)
    if not found or not all(found) or len({*found}) < len(found):
        known = ", ".join(
            f"{domain.letter} {name}" for name, domain in DOMAINS.items() if name != "rgb"
        )
        raise ValueError(
            f"`tasks` should be some of Taskonomy's, each once: {known}. Received: tasks={tasks!r}."
        )
    return found


def domains_of(tasks: Sequence[str]) -> tuple[str, ...]:
    """The domains that tasks need: images, labels, and the depth, which shows where geometry is."""
    needs_depth = any(DOMAINS[task].geometric for task in tasks)
    return ("rgb", *dict.fromkeys([*tasks, *([DEPTH] if needs_depth else [])]))
