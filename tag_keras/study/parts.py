"""Parts of the validation data: gains differ between them as they would on other examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tag_keras.decision.common_examples import share_of_common_examples
from tag_keras.results import part_names
from tag_keras.sweep.network import Data


def with_parts(data: Mapping[str, Data], tasks: Sequence[str], split: str) -> dict[str, Data]:
    """The data, and after them equal parts of a split, in the order of its examples.

    Neighbours stay together, because those of a time series are alike. Datasets and functions are
    not divided: they could only be read again for each part. Nor is what cannot be sliced, nor are
    arrays of which a part would lack the labels of a task.

    Args:
        data: Data by split.
        tasks: Names of the tasks.
        split: Name of the split to divide.
    """
    whole = data[split]
    if not isinstance(whole, tuple | list) or not isinstance(whole[1], Mapping):
        return {**data}
    leaves = [one for one in keras.tree.flatten([*whole]) if one is not None]
    if not all(map(_can_be_sliced, leaves)):
        return {**data}
    names = part_names(split)
    if len(whole[1][tasks[0]]) < len(names):
        return {**data}
    ends = np.linspace(0, len(whole[1][tasks[0]]), len(names) + 1).round().astype(int).tolist()
    divided: dict[str, Data] = {}
    for name, begin, end in zip(names, ends, ends[1:], strict=False):
        inside = slice(begin, end)
        part = keras.tree.map_structure(
            lambda one, inside=inside: one if one is None else one[inside], [*whole]
        )
        labels = {task: part[1][task] for task in tasks}
        shares = share_of_common_examples(labels, part[2] if len(part) > 2 else None)
        if np.isnan(shares.diagonal()).any():
            return {**data}
        divided[name] = tuple(part)
    return {**data, **divided}


def _can_be_sliced(one: Any) -> bool:
    try:
        one[:0]
    except (IndexError, NotImplementedError, TypeError):
        # Numbers of a list, or a sparse matrix that SciPy does not slice.
        return False
    return hasattr(one, "shape")
