"""The file of the index: named after what it was made from, and made by one process at a time."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tag_keras.utils import files
from taskonomy.index import Index, Samples
from taskonomy.layouts import Layout
from taskonomy.scan import Unreadable

# Increase it when older indices would be read wrongly.
_VERSION = 2


def index_path(cache_dir: Path, layout: Layout, settings: Mapping[str, object]) -> Path:
    """The file of an index that is made with these settings from the folders as they are now.

    The name changes when a file is added to a folder or removed.
    """
    places = {
        f"{domain} {building}": (str(path), path.stat().st_mtime_ns)
        for (building, domain), path in layout.places.items()
    }
    made_from = json.dumps([_VERSION, layout.pattern, places, settings], sort_keys=True)
    return cache_dir / f"index-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.npz"


def names_path(path: Path) -> Path:
    """The file beside an index that names everything that was left out."""
    return path.with_suffix(".txt")


def save_index(index: Index, path: Path) -> None:
    """Writes an index atomically, and the names of everything that was left out.

    Raises:
        OSError: If it cannot be written; the message says what to do.
    """
    fields = {"folders", "suffixes", "incomplete", "unreadable"}
    lists = json.dumps({name: getattr(index, name) for name in sorted(fields)})
    arrays = {"lists": np.frombuffer(lists.encode(), np.uint8)}
    for split, samples in index.samples.items():
        for field in dataclasses.fields(samples):
            arrays[f"{split} {field.name}"] = getattr(samples, field.name)
    with _naming(path.parent):
        # The names first, so that they are there when the index is.
        with files.replacing(names_path(path)) as partial:
            partial.write_text("\n".join([*index.problems, ""]), encoding="utf-8")
        with files.replacing(path) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


@contextlib.contextmanager
def made_alone(path: Path) -> Iterator[None]:
    """Lets one process at a time run the block, which makes an index.

    Raises:
        OSError: If the folder cannot be written to; the message says what to do.
    """
    lock = path.with_name(".lock")
    busy = f"Waiting for another process that looks for samples ({lock})."
    with contextlib.ExitStack() as stack:
        with _naming(path.parent):
            stack.enter_context(files.locked(lock, busy, wait=True))
        yield


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Names the folder in an `OSError`, and says what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"The index of samples cannot be written to {folder} ({error}). Give another "
            "`cache_dir`, with some megabytes of space."
        ) from error


def load_index(path: Path) -> Index:
    """Reads an index.

    Raises:
        ValueError: If the file is damaged; the message names it.
    """
    try:
        return _read(path)
    # Of any type: a damaged file may ask for a decompressor that is not there, or for terabytes.
    except Exception as error:
        raise ValueError(
            f"{path} is not an index of samples ({error}). Delete it, and it is made again."
        ) from None


def _read(path: Path) -> Index:
    # Opened here, because NumPy would not close a damaged file.
    with open(path, "rb") as file, np.load(file) as arrays:
        names = [field.name for field in dataclasses.fields(Samples)]
        splits = [name.removesuffix(" views") for name in arrays if name.endswith(" views")]
        samples = {
            split: Samples(**{name: arrays[f"{split} {name}"] for name in names})
            for split in splits
        }
        lists = json.loads(bytes(arrays["lists"]))
        lists["unreadable"] = [Unreadable(*fields) for fields in lists["unreadable"]]
        return Index(**lists, samples=samples)
