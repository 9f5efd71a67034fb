"""Small files as Taskonomy's, in every layout that these are found in."""

import io
import pathlib
import tarfile

import numpy as np
import tensorflow as tf

from taskonomy.domains import DOMAINS

# Two points, of which the second comes first in the order of names, and several views.
VIEWS = ((1, 0), (1, 1), (10, 0))
SPLITS = {"train": ["allensville", "hanson"], "validation": ["darden"], "test": ["uvalda"]}
BUILDINGS = [name for names in SPLITS.values() for name in names]
# The names that files really have, but for those of a layout without any domain in the name.
NAMES = {"segment_semantic": "segmentsemantic"}


def make_pixels(domain: str, size: int, seed: list[int]) -> np.ndarray:
    """Values (size, size, C) as they are in a file; a quarter of the depth is unknown."""
    rng = np.random.default_rng(seed)
    shape = (size, size, DOMAINS[domain].channels)
    if domain == "segment_semantic":
        return rng.integers(0, 18, shape).astype("uint8")
    if domain == "depth_zbuffer":
        depth = rng.integers(500, 8000, shape).astype("uint16")
        depth[: size // 2, : size // 2] = 65535
        return depth
    largest = 255 if DOMAINS[domain].bits == 8 else 3000
    return rng.integers(0, largest + 1, shape).astype(f"uint{DOMAINS[domain].bits}")


def make_files(size: int = 32, domains=tuple(DOMAINS), buildings=BUILDINGS, views=VIEWS) -> dict:
    """PNG files as bytes by building, domain and view."""
    return {
        (building, domain, view): tf.io.encode_png(
            make_pixels(domain, size, [number, *view, [*DOMAINS].index(domain)])
        ).numpy()
        for number, building in enumerate(buildings)
        for domain in domains
        for view in views
    }


def write(root: pathlib.Path, contents: dict, pattern: str) -> pathlib.Path:
    """Writes files in a layout of `taskonomy.layouts.LAYOUTS`."""
    for (building, domain, (point, view)), data in contents.items():
        place = root / pattern.format(building=building, domain=domain)
        name = f"point_{point}_view_{view}"
        if pattern != "{domain}/{building}":
            name += f"_domain_{NAMES.get(domain, domain)}"
        if pattern.endswith(".tar"):
            place.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(place, "a") as tar:
                member = tarfile.TarInfo(f"{domain}/{name}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        else:
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.png").write_bytes(data)
    return root
