"""Tables of measured losses: every group of a problem's tasks, with several seeds."""

import dataclasses
import functools
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tag_keras.decision.measured import mask_of
from tag_keras.utils import files

Floats = npt.NDArray[np.float64]

# Significant bits of a value in a file, nearly four decimal digits. The others are 0, so that the
# file is small.
BITS = 13
_ARRAYS = ("validation", "test", "early", "folds")
_AFFINITY = "affinity_"
# Of each network in the tables that are kept.
NUM_SEEDS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Losses of all M = 2^T - 1 groups of T tasks, each trained with S seeds.

    A loss is NaN where the task is not in the group.

    Args:
        tasks: Names of the T tasks.
        groups: Array (M,): the groups 1 to M as bit masks: bit t is 1 if task t is in the group.
        seeds: The S seeds.
        validation: Array (S, M, T): validation losses.
        test: Array (S, M, T): test losses.
        early: Array (S, M, T): validation losses after the first fifth of the training.
        folds: Array (F, M, T): validation losses on each of F parts of the validation data, mean
            over the seeds.
        affinities: By name of the estimator, array (R, T, T): inter-task affinities [source,
            target] of R joint trainings with other seeds.
        about: What the table is of: `"problem"`, `"width"`, `"size"`, `"steps"` and others.
    """

    tasks: tuple[str, ...]
    groups: npt.NDArray[np.int64]
    seeds: tuple[int, ...]
    validation: Floats
    test: Floats
    early: Floats
    folds: Floats
    affinities: Mapping[str, Floats]
    about: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Raises a `ValueError` if the parts do not fit each other."""
        number, masks = len(self.tasks), 2 ** len(self.tasks) - 1
        if not np.array_equal(self.groups, np.arange(1, masks + 1)):
            raise ValueError(f"`groups` should be 1 to {masks} for {number} tasks.")
        losses = {name: getattr(self, name) for name in _ARRAYS}
        for name, values in losses.items():
            first = len(values) if name == "folds" else len(self.seeds)
            if values.shape != (first, masks, number) or not first:
                raise ValueError(
                    f"`{name}` should have the shape {(first, masks, number)}. Received: "
                    f"{values.shape}."
                )
            if not np.array_equal(np.isfinite(values), np.broadcast_to(self.members, values.shape)):
                raise ValueError(f"`{name}` should be finite where the task is in the group only.")
        for name, values in self.affinities.items():
            if values.shape[1:] != (number, number):
                raise ValueError(
                    f"the affinities {name!r} should have the shape (R, {number}, {number}). "
                    f"Received: {values.shape}."
                )

    @functools.cached_property
    def members(self) -> npt.NDArray[np.bool_]:
        """Boolean array (M, T): whether the task is in the group."""
        members: npt.NDArray[np.bool_] = (
            self.groups[:, None] >> np.arange(len(self.tasks))
        ) & 1 > 0
        return members

    def row(self, group: tuple[str, ...]) -> int:
        """The row of a group of tasks."""
        return mask_of(group, self.tasks) - 1

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table, atomically, with values of about four digits."""
        # In Fortran's order all seeds lack a loss together, which compresses better.
        arrays = {name: np.asfortranarray(rounded(getattr(self, name))) for name in _ARRAYS}
        arrays |= {f"{_AFFINITY}{name}": rounded(one) for name, one in self.affinities.items()}
        about = json.dumps(dict(self.about), allow_nan=False)
        with files.replacing(path) as partial:
            np.savez_compressed(
                partial,
                tasks=np.array(self.tasks),
                groups=self.groups.astype(np.uint16),
                seeds=np.array(self.seeds),
                about=np.array(about),
                **arrays,
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Table":
        """Reads a table.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, or something else; the message names it.
        """
        path = Path(path)
        try:
            # NumPy does not close a damaged file that it has opened itself.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = dict(arrays)
            return cls(
                tasks=tuple(map(str, found["tasks"])),
                groups=found["groups"].astype(np.int64),
                seeds=tuple(map(int, found["seeds"])),
                affinities={
                    name.removeprefix(_AFFINITY): values.astype(np.float64)
                    for name, values in found.items()
                    if name.startswith(_AFFINITY)
                },
                about=dict(json.loads(str(found["about"]))),
                **{name: found[name].astype(np.float64) for name in _ARRAYS},
            )
        except FileNotFoundError:
            raise
        except _DAMAGES as error:
            raise ValueError(
                f"{path} is not a whole table ({type(error).__name__}: {error}). Delete it, and "
                "run `python -m benchmarks.truth.make` again."
            ) from error


# What NumPy, zipfile and `Table` raise at damaged files.
_DAMAGES = (
    *(ValueError, KeyError, TypeError, IndexError, AttributeError, OSError, EOFError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)


def rounded(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Values with `BITS` significant bits: off by a part in 8,192 at most."""
    fractions, exponents = np.frexp(np.asarray(values, np.float64))
    return np.ldexp(np.round(np.ldexp(fractions, BITS)), exponents - BITS).astype(np.float32)
