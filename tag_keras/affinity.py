"""Inter-task affinities: the matrix with its standard errors, and the options for measuring it."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tag_keras import files
from tag_keras.tasks import check_task_names


@dataclasses.dataclass(frozen=True)
class LookaheadAffinity:
    """Inter-task affinity by lookahead (TAG; Fifty et al. 2021, arXiv 2109.04617, eq. 1).

    A probe takes, for every source task i, the step that the optimizer would make on the shared
    variables from the gradient of L_i alone, and measures every target's loss after it, on the
    same batch and with the heads as they are:

        Z[i, j] = 1 - L_j(shared variables after the step for i) / L_j(shared variables)

    Positive means that a step for the source lowers the loss of the target. Nothing of a probe
    remains: weights, BatchNorm statistics, optimizer state and random seeds are as without it. (A
    layer that draws random numbers otherwise than by a `keras.random.SeedGenerator` draws others
    in each forward pass, which adds noise to its affinities.) Probes of batches of less than half
    the usual size are left out.

    Args:
        every: Probe one training step in `every`, the first one included. The paper's code uses
            10; its notebook 1.
        update: `"optimizer"` takes the step of the compiled optimizer (momentum, adaptive rates,
            clipping, weight decay); `"sgd"` takes `-learning_rate * gradient`, the paper's
            equation.
        baseline: Whether to subtract, for each target, the Z of a step with a zero gradient. What
            is left is due to the source's gradient, not to momentum that was there already.

    Example:

    ```python
    model.compile("adam", loss, affinity=tag_keras.LookaheadAffinity(every=10))
    ```
    """

    every: int = 10
    update: Literal["optimizer", "sgd"] = "optimizer"
    baseline: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(
                f"`every` should be an integer of at least 1. Received: every={self.every!r}."
            )
        if self.update not in ("optimizer", "sgd"):
            raise ValueError(
                f'`update` should be "optimizer" or "sgd". Received: update={self.update!r}.'
            )
        if not isinstance(self.baseline, bool):
            raise ValueError(f"`baseline` should be a bool. Received: baseline={self.baseline!r}.")


class Affinity:
    """Inter-task affinities, always [source, target].

    Args:
        tasks: Task names, in the user's order; T is their number.
        mean: Array (T, T), no unit: mean over probes of the affinity of the row's task (source)
            onto the column's task (target). NaN only where `count` is 0.
        standard_error: Array (T, T): standard error of `mean`. NaN where it is not known, which
            is the default.
        count: Integer array (T, T): number of probes behind each mean. Defaults to 0, not known.
        history: Array (E, T, T): mean over the probes of each of E epochs, NaN for a pair that
            was not measured in that epoch. Defaults to no epochs.
        skipped: Integer array (T, T): number of probe values that were left out because a loss
            was not positive or not finite. Defaults to 0.

    Raises:
        ValueError: If a name is repeated, empty or not a string, if an array has another shape,
            or if an entry of `mean` is infinite, or NaN although it was counted.

    Example:

    ```python
    affinity = tag_keras.Affinity(["a", "b"], [[0.3, 0.1], [-0.2, 0.2]])
    affinity.mean[0, 1]  # 0.1: a step for "a" lowers the loss of "b" by 10 %
    affinity.save("affinity.json")
    ```
    """

    def __init__(
        self,
        tasks: Sequence[str],
        mean: npt.ArrayLike,
        standard_error: npt.ArrayLike | None = None,
        count: npt.ArrayLike | None = None,
        history: npt.ArrayLike | None = None,
        skipped: npt.ArrayLike | None = None,
    ) -> None:
        self.tasks = check_task_names(tasks)
        pairs = (len(self.tasks), len(self.tasks))
        nothing, unknown = np.zeros(pairs, np.int64), np.full(pairs, np.nan)
        self.mean = _array("mean", mean, pairs, np.float64)
        error = unknown if standard_error is None else standard_error
        self.standard_error = _array("standard_error", error, pairs, np.float64)
        self.count = _array("count", nothing if count is None else count, pairs, np.int64)
        self.skipped = _array("skipped", nothing if skipped is None else skipped, pairs, np.int64)
        epochs = np.zeros((0, *pairs)) if history is None else history
        self.history = _array("history", epochs, (None, *pairs), np.float64)
        measured = self.count > 0 if count is not None else np.ones(pairs, bool)
        wrong = np.isinf(self.mean) | (np.isnan(self.mean) & measured)
        if wrong.any():
            raise ValueError(
                "`mean` should be finite wherever it was measured. Received: "
                f"{self.describe_pairs(wrong)}."
            )
        if (self.standard_error < 0).any() or np.isinf(self.standard_error).any():
            raise ValueError("`standard_error` should be NaN, or finite and at least 0.")
        if np.isinf(self.history).any():
            raise ValueError("`history` should be finite or NaN.")

    def describe_pairs(self, where: npt.NDArray[np.bool_]) -> str:
        """The pairs at which `where` (T, T) is true, with their means, for messages."""
        pairs = [
            f"{self.tasks[source]} -> {self.tasks[target]}: {self.mean[source, target]:.4g}"
            for source, target in np.argwhere(where)
        ]
        return ", ".join(pairs[:5]) + (f" and {len(pairs) - 5} more" if len(pairs) > 5 else "")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the affinities as JSON, atomically; NaN is written as null."""
        arrays = {name: _to_lists(getattr(self, name)) for name in _ARRAYS}
        files.write_json(path, {"tasks": list(self.tasks), **arrays})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Affinity":
        """Reads what `save` wrote.

        Raises:
            ValueError: If the file is not such a file; the message names the file and the field.
        """
        fields = files.read_fields(path, ["tasks", "mean", "standard_error", "count"])
        try:
            return cls(**{name: fields[name] for name in ("tasks", *_ARRAYS) if name in fields})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} does not hold affinities: {error}") from None

    def __repr__(self) -> str:
        return f"Affinity(tasks={self.tasks}, mean=\n{self.mean})"


_ARRAYS = ("mean", "standard_error", "count", "history", "skipped")


def _array(name: str, value: npt.ArrayLike, shape: tuple[Any, ...], dtype: Any) -> Any:
    try:
        # Through float64, because None stands for NaN in the files.
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` should be an array of numbers of shape {shape}.") from None
    if array.size == 0 and shape[0] is None:
        array = array.reshape((0, *shape[1:]))
    if array.ndim != len(shape) or array.shape[-2:] != shape[-2:]:
        raise ValueError(
            f"`{name}` should have the shape {shape}, [source, target] in the order of `tasks`. "
            f"Received: shape {array.shape}."
        )
    if dtype is np.int64 and not ((array >= 0) & (array == np.floor(array))).all():
        raise ValueError(f"`{name}` should hold whole numbers of at least 0.")
    array = array.astype(dtype)
    array.setflags(write=False)
    return array


def _to_lists(array: npt.NDArray[Any]) -> Any:
    if array.dtype.kind == "i":
        return array.tolist()
    values = array.astype(object)
    values[np.isnan(array)] = None
    return values.tolist()
