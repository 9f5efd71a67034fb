"""Checkpoints: the state of a stack between two epochs, in a file from which it goes on."""

import json
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from tag_keras.utils.files import replacing, short_hash

_PREFIX = ".stack-"
# Another number where `save` writes something else than before.
_FORMAT = 2


class Checkpoint:
    """The file of a stack, which a run that was killed goes on from.

    Args:
        folder: Folder of the networks.
        networks: File names of the networks of the stack.
        identity: What else tells a stack from others: the descriptions of its networks.
        every: Seconds between two writings.
    """

    def __init__(self, folder: Path, networks: Sequence[str], identity: Any, every: float) -> None:
        text = json.dumps([_FORMAT, networks, identity])
        self._networks = list(networks)
        self._path = folder / f"{_PREFIX}{short_hash(text)}.npz"
        self._every = every
        self._begin = self._last = time.monotonic()

    def seconds(self) -> float:
        """Seconds since the stack began, in this process and in those that were killed."""
        return time.monotonic() - self._begin

    def is_due(self) -> bool:
        """Whether the last writing is long enough ago."""
        return time.monotonic() - self._last >= self._every

    def save(self, state: dict[str, Any]) -> None:
        """Writes dicts and lists of arrays, numbers, bools and `None`."""
        arrays: list[np.ndarray] = []
        structure = _without_arrays({**state, "seconds": self.seconds()}, arrays)
        text, networks = _as_array(structure), _as_array(self._networks)
        with replacing(self._path) as partial:
            np.savez(partial, *arrays, structure=text, networks=networks)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What `save` was given; `None` if there is no file, or if it is damaged."""
        try:
            # Opened here, because NumPy would not close a damaged file.
            with open(self._path, "rb") as file, np.load(file) as arrays:
                state: dict[str, Any] = _with_arrays(_from_array(arrays["structure"]), arrays)
        except FileNotFoundError:
            return None
        # Of any type: a damaged file may ask for a decompressor that is not there.
        except Exception as error:
            print(f"{self._path} is damaged ({error}): its networks begin anew.", flush=True)
            return None
        self._begin -= state["seconds"]
        return state

    def delete(self) -> None:
        self._path.unlink(missing_ok=True)


def delete_all(folder: Path, networks: Set[str]) -> None:
    """Deletes the checkpoints of stacks that have some of these networks, and damaged ones."""
    for path in folder.glob(f"{_PREFIX}*.npz"):
        try:
            with open(path, "rb") as file, np.load(file) as arrays:
                is_of_others = networks.isdisjoint(_from_array(arrays["networks"]))
        except Exception:
            is_of_others = False
        if not is_of_others:
            path.unlink(missing_ok=True)


def _as_array(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _from_array(array: np.ndarray) -> Any:
    return json.loads(bytes(array))


def _without_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    """A structure for JSON, in which the index in `arrays` stands for an array."""
    if isinstance(value, dict):
        return {name: _without_arrays(one, arrays) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_arrays(one, arrays) for one in value]
    if isinstance(value, np.ndarray) and value.ndim:
        # NumPy's files do not know bfloat16.
        arrays.append(value.astype("float32") if value.dtype.kind == "V" else value)
        return {"array": len(arrays) - 1}
    return value.item() if isinstance(value, np.ndarray | np.generic) else value


def _with_arrays(value: Any, arrays: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"array"}:
            return arrays[f"arr_{value['array']}"]
        return {name: _with_arrays(one, arrays) for name, one in value.items()}
    return [_with_arrays(one, arrays) for one in value] if isinstance(value, list) else value
