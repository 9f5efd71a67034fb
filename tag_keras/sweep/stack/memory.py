"""How many networks of a stack the memory holds."""

import os
import re
from pathlib import Path

import keras

from tag_keras.model import MultiTaskModel

# Larger stacks are no faster.
_MOST = 256
# Share of the free memory that a stack may take.
_SHARE = 0.3


def most_networks(model: MultiTaskModel, bytes_of_pass: int, processes: int = 1) -> int:
    """Number of networks that can be trained at once.

    Args:
        model: The built model for all tasks.
        bytes_of_pass: Bytes of the tensors that a forward pass of one network computes.
        processes: Number of processes that train stacks at once.
    """
    variables = [*model.variables, *model.trainable_variables, *model.optimizer.variables]
    # A step holds old and new values, and what the forward pass computes until the gradients are
    # done, which are about as large.
    size = 2 * sum(keras.ops.convert_to_numpy(one).nbytes for one in variables) + 2 * bytes_of_pass
    if model.measures_affinity:
        # The gradients of every task, and the passes of lookaheads.
        own = sum(keras.ops.convert_to_numpy(one).nbytes for one in model.shared_variables)
        size += 2 * len(model.tasks) * own + bytes_of_pass
    return int(max(1, min(_MOST, _SHARE * _free_bytes() // (processes * max(1, size)))))


def _free_bytes() -> int:
    """Memory that is free, or could be."""
    path = Path("/proc/meminfo")
    if path.exists():
        found = re.search(r"MemAvailable: *(\d+) kB", path.read_text(encoding="utf-8"))
        if found:
            return 1024 * int(found[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
