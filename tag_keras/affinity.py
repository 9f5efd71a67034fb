"""Inter-task affinities: the matrix, its noise, and affinity.json."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tag_keras.utils import files
from tag_keras.utils.colours import between_tasks, robust_limit
from tag_keras.utils.frames import data_frame
from tag_keras.utils.html_tables import Cell, block, paragraph, table
from tag_keras.utils.replicates import Interval, interval, interval_of_differences, mean_and_error
from tag_keras.utils.tasks import check_task_names
from tag_keras.utils.text import cells_as_markdown, counted

# The arrays of an `Affinity`, as named in the file.
_ARRAYS = ("mean", "standard_error", "count", "history", "skipped", "replicates")
# Larger counts are not exact in float64; squares of larger numbers would be infinite.
_MOST, _LARGEST = 2.0**53, 1e150
# With more tasks, a table of numbers is wider than a screen: the text names the strongest pairs.
_MOST_TASKS, _STRONGEST = 12, 5
# Longer names are cut in the head of a table.
_LONGEST_NAME = 16


class Affinity:
    """Inter-task affinities, always [source, target].

    Args:
        tasks: T task names, in the user's order.
        mean: Array (T, T), no unit: mean over probes of the affinity of the row's task (source)
            onto the column's task (target). NaN only where `count` is 0.
        standard_error: Array (T, T): standard error of `mean`, NaN where unknown. Defaults to the
            standard error of the replicates.
        count: Integer array (T, T): number of probes behind each mean. Defaults to 0: unknown.
        history: Array (E, T, T): mean over the probes of each of E epochs, NaN for a pair that
            an epoch did not measure. Defaults to no epochs.
        skipped: Integer array (T, T): number of probes left out because a loss was not positive
            or not finite. Defaults to 0.
        replicates: Array (B, T, T): B nearly independent measurements with the mean `mean`: batches
            of successive probes, or whole runs. NaN for a pair not measured. Defaults to none.

    Raises:
        ValueError: If a name is repeated, empty or not a string, an array has another shape or
            holds infinity, or a mean is NaN although `count` counts probes of it.

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
        replicates: npt.ArrayLike | None = None,
    ) -> None:
        self.tasks = check_task_names(tasks)
        pairs = (len(self.tasks), len(self.tasks))
        nothing = np.zeros(pairs, np.int64)
        self.mean = _checked_array("mean", mean, pairs, np.float64)
        self.history = _checked_series("history", history, pairs)
        self.replicates = _checked_series("replicates", replicates, pairs)
        if standard_error is None:
            standard_error = mean_and_error(self.replicates)[1]
        self.standard_error = _checked_array("standard_error", standard_error, pairs, np.float64)
        self.count = _checked_array("count", nothing if count is None else count, pairs, np.int64)
        skipped = nothing if skipped is None else skipped
        self.skipped = _checked_array("skipped", skipped, pairs, np.int64)
        measured = self.count > 0 if count is not None else np.ones(pairs, bool)
        wrong = np.isinf(self.mean) | (np.isnan(self.mean) & measured)
        if wrong.any():
            raise ValueError(
                "`mean` should be finite wherever it was measured. Received: "
                f"{self.describe_pairs(wrong)}."
            )
        if ((self.standard_error < 0) | (self.standard_error > _LARGEST)).any():
            raise ValueError(
                f"`standard_error` should be NaN, or finite and at least 0 (at most {_LARGEST:g})."
            )

    def describe_pairs(self, where: npt.NDArray[np.bool_]) -> str:
        """Some pairs with their means, as text.

        Args:
            where: Boolean array (T, T).
        """
        pairs = [
            f"{self.tasks[source]} -> {self.tasks[target]}: {self.mean[source, target]:.4g}"
            for source, target in np.argwhere(where)
        ]
        return ", ".join(pairs[:5]) + (f" and {len(pairs) - 5} more" if len(pairs) > 5 else "")

    def interval(self, confidence: float = 0.95) -> Interval:
        """Confidence intervals of the affinities.

        The interval of batch means (Law and Kelton, Simulation Modeling and Analysis; Flegal and
        Jones 2010, Annals of Statistics 38): `mean` plus and minus `standard_error` times the
        quantile of Student's t with B - 1 degrees of freedom for B replicates of the pair, or of
        the normal distribution without replicates.

        Successive probes are alike, batches of them less so. The interval is too narrow where
        probes stay alike for longer than a batch, and too wide where the affinity has a trend,
        which counts as noise. One run says nothing about other seeds: `combine` several.

        Args:
            confidence: Level, between 0 and 1.

        Returns:
            Lower and upper ends, arrays (T, T), NaN where unknown.

        Raises:
            ValueError: If `confidence` is out of range.
        """
        number = (~np.isnan(self.replicates)).sum(axis=0) if len(self.replicates) else None
        return interval(self.mean, self.standard_error, number, confidence)

    def better_sources(self, confidence: float = 0.95) -> npt.NDArray[np.bool_]:
        """Whether a source helps a target more than another source does, beyond the noise.

        Two sources share the noise of a replicate: its batches, and how the momentum of the
        optimizer moves the target whatever the source. So the test is paired: Student's t of
        their differences, over the replicates that measured both. Without replicates, the errors
        count as independent and normal.

        Args:
            confidence: Level of the two-sided test of each comparison, between 0 and 1, not
                corrected for their number. At 0.95, chance makes one of two equally good sources
                better in 5 % of the comparisons.

        Returns:
            Boolean array (T, T, T) [source, other, target], false where the noise is unknown. The
            target counts as a source, too, although selection does not use it.

        Raises:
            ValueError: If `confidence` is out of range.
        """
        mean, error = self.mean, self.standard_error
        return interval_of_differences(mean, error, self.replicates, confidence)[0] > 0

    @classmethod
    def combine(cls, runs: Iterable["Affinity"]) -> "Affinity":
        """Affinities over several runs, with the noise between the runs.

        The errors of one run say nothing about other seeds; differences between runs do. Every run
        has the same weight, whatever its number of probes.

        Args:
            runs: R >= 2 affinities of the same tasks in the same order. At 95 %, an interval from 2
                runs is wide (12.7 standard errors), one from 5 runs is not (2.8).

        Returns:
            Mean over the runs that measured a pair, the runs' means as `replicates` (R, T, T), and
            sums of `count` and `skipped`. `history` is the mean over the runs for each epoch, or
            empty if the runs have different numbers of epochs.

        Raises:
            ValueError: If there are fewer than two runs, or if their tasks differ.

        Example:

        ```python
        runs = [tag_keras.Affinity.load(f"seed_{seed}/affinity.json") for seed in range(3)]
        affinity = tag_keras.Affinity.combine(runs)
        ```
        """
        runs = list(runs)
        _check_runs(runs)
        means = np.stack([run.mean for run in runs])
        epochs = [run.history for run in runs]
        alike = len({len(history) for history in epochs}) == 1
        return cls(
            runs[0].tasks,
            mean=mean_and_error(means)[0],
            count=np.sum([run.count for run in runs], axis=0),
            history=mean_and_error(np.stack(epochs))[0] if alike else None,
            skipped=np.sum([run.skipped for run in runs], axis=0),
            replicates=means,
        )

    def to_frame(self) -> Any:
        """The affinities as a `pandas.DataFrame` in long form: one row for each pair.

        Returns:
            A frame of T * T rows, by source and then by target, in the order of the tasks, with the
            columns `source`, `target`, `mean`, `standard_error` and `count`. A task is a target of
            its own, too.

        Raises:
            ImportError: If there is no pandas: `pip install "tag_keras[tools]"`.

        Example:

        ```python
        frame = affinity.to_frame()
        frame[frame.source != frame.target].nlargest(5, "mean")
        frame.pivot(index="source", columns="target", values="mean")
        ```
        """
        pairs = [(source, target) for source in self.tasks for target in self.tasks]
        sources, targets = zip(*pairs, strict=True)
        arrays = {name: getattr(self, name) for name in ("mean", "standard_error", "count")}
        columns = {name: array.ravel() for name, array in arrays.items()}
        return data_frame({"source": sources, "target": targets, **columns})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the affinities as JSON, atomically; NaN is written as null.

        Args:
            path: File to write, such as `"affinity.json"`.
        """
        lists = {name: _to_lists(getattr(self, name)) for name in _ARRAYS}
        files.write_json(path, {"tasks": list(self.tasks), **lists})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Affinity":
        """Reads what `save` wrote.

        Args:
            path: File to read.

        Raises:
            ValueError: If the file holds anything else; the message names the file and the field.
        """
        fields = files.read_fields(path, ["tasks", "mean", "standard_error", "count"])
        try:
            for name in _ARRAYS:
                _check_numbers(name, fields.get(name))
            affinity = cls(**{name: fields[name] for name in ("tasks", *_ARRAYS) if name in fields})
            affinity._check_replicates()
            return affinity
        except (TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} does not hold affinities: {error}") from None

    def _check_replicates(self) -> None:
        """Raises a `ValueError` if all replicates of a pair are above, or below, its mean."""
        if not len(self.replicates):
            return
        unknown = np.isnan(self.replicates)
        least = np.where(unknown, np.inf, self.replicates).min(axis=0)
        most = np.where(unknown, -np.inf, self.replicates).max(axis=0)
        slack = 0.01 * np.where(unknown, 0.0, np.abs(self.replicates)).max(axis=0)
        wrong = (self.mean < least - slack) | (self.mean > most + slack)
        if (wrong := wrong & ~unknown.all(axis=0)).any():
            raise ValueError(
                f"`mean` should be among its `replicates`. Received: {self.describe_pairs(wrong)}."
            )

    def __repr__(self) -> str:
        shown = {"mean": self.mean}
        if np.isfinite(self.standard_error).any():
            shown["standard_error"] = self.standard_error
        with np.printoptions(precision=4, linewidth=100):
            arrays = [f", {name}=\n{array}" for name, array in shown.items()]
        return f"Affinity(tasks={self.tasks}{''.join(arrays)})"

    def __str__(self) -> str:
        title = f"Inter-task affinities of {counted(len(self.tasks), 'task')}{self._noise()}."
        if len(self.tasks) > _MOST_TASKS:
            return f"{title}\n{self._strongest()}"
        head = ["source \\ target", *_short_names(self.tasks)]
        rows = [[_one_line(task), *line] for task, line in self._lines()]
        return f"{title}\n{cells_as_markdown([head, *rows])}"

    def _repr_html_(self) -> str:
        few = len(self.tasks) <= _MOST_TASKS
        limit = robust_limit(between_tasks(self.mean))
        rows: list[list[str | Cell]] = []
        for source, (task, texts) in enumerate(self._lines()):
            cells: list[str | Cell] = [task]
            for target, text in enumerate(texts):
                mean = self.mean[source, target]
                # What a task does to itself is of another size.
                coloured = source != target and np.isfinite(mean)
                share = float(mean / limit) if coloured else None
                title = f"{task} → {self.tasks[target]}: {text}"
                cells.append(Cell(text if few else "", share, title, "right"))
            rows.append(cells)
        words = f"Inter-task affinities{self._noise()}. Blue helps, red hurts."
        head = ["source \\ target", *self.tasks]
        return block(paragraph(words), table(head, rows, upright=not few))

    def _noise(self) -> str:
        return ", mean ± standard error" if np.isfinite(self.standard_error).any() else ""

    def _lines(self) -> list[tuple[str, list[str]]]:
        """By source, its affinities onto all targets, as text."""
        # Three digits of the larger affinities between tasks.
        power = int(np.floor(np.log10(robust_limit(between_tasks(self.mean)))))
        kind = f".{max(0, 2 - power)}f" if -4 <= power < 4 else ".2e"
        pairs = zip(self.tasks, self.mean, self.standard_error, strict=True)
        return [
            (task, [_rounded(*pair, kind) for pair in zip(means, errors, strict=True)])
            for task, means, errors in pairs
        ]

    def _strongest(self) -> str:
        """The pairs of different tasks that help and harm most, a line each."""
        between = between_tasks(self.mean).ravel()
        order = np.argsort(between, kind="stable")[: np.isfinite(between).sum()]
        found = {
            "Strongest helpers": [place for place in order[::-1] if between[place] > 0],
            "Strongest harmers": [place for place in order if between[place] < 0],
        }
        lines, texts = [], self._lines()
        for words, places in found.items():
            lines.append(f"{words} ({counted(len(places), 'pair')} in all):")
            for place in places[:_STRONGEST]:
                source, target = divmod(int(place), len(self.tasks))
                names = f"{_one_line(self.tasks[source])} -> {_one_line(self.tasks[target])}"
                lines.append(f"  {names}: {texts[source][1][target]}")
        return "\n".join(lines)


def _rounded(mean: float, error: float, kind: str) -> str:
    """A mean with its standard error, if that is known."""
    if np.isnan(mean):
        return "not measured"
    kind = kind if abs(mean) < 1e9 else ".2e"
    return f"{mean:{kind}}" + (f" ± {error:{kind}}" if np.isfinite(error) else "")


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _short_names(tasks: Sequence[str]) -> list[str]:
    """Names for the head of a table: long ones are cut, unless two would be the same."""
    names = [_one_line(task) for task in tasks]
    short = [
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names
    ]
    return short if len({*short}) == len(short) else names


def _checked_array(name: str, value: npt.ArrayLike, shape: tuple[Any, ...], dtype: Any) -> Any:
    """A read-only copy of `value`, with NaN for None.

    A first axis of None may have any length; an array of `np.int64` holds whole numbers from 0 on.
    """
    try:
        # Through float64, because None stands for NaN in the files.
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"`{name}` should be an array of numbers of shape {shape}.") from None
    if array.size == 0 and shape[0] is None:
        array = array.reshape((0, *shape[1:]))
    if array.ndim != len(shape) or array.shape[-2:] != shape[-2:]:
        raise ValueError(
            f"`{name}` should have the shape {shape}, [source, target] in the order of `tasks`. "
            f"Received: shape {array.shape}."
        )
    whole = (array >= 0) & (array < _MOST) & (array == np.floor(array))
    if dtype is np.int64 and not whole.all():
        raise ValueError(f"`{name}` should hold whole numbers of at least 0, and below 2 ** 53.")
    array = array.astype(dtype)
    array.setflags(write=False)
    return array


def _checked_series(name: str, value: npt.ArrayLike | None, pairs: tuple[int, int]) -> Any:
    series = _checked_array(name, () if value is None else value, (None, *pairs), np.float64)
    if (np.abs(series) > _LARGEST).any():
        raise ValueError(f"`{name}` should be finite or NaN, and at most {_LARGEST:g} in size.")
    return series


def _check_numbers(name: str, value: Any) -> None:
    """Raises a `ValueError` for a text or a boolean in lists of numbers: NumPy would take it."""
    if isinstance(value, list):
        for one in value:
            _check_numbers(name, one)
    elif isinstance(value, str | bool):
        raise ValueError(f"`{name}` should hold numbers and null. Received: {value!r}.")


def _to_lists(array: npt.NDArray[Any]) -> Any:
    if array.dtype.kind == "i":
        return array.tolist()
    values = array.astype(object)
    values[np.isnan(array)] = None
    return values.tolist()


def _check_runs(runs: Sequence[Affinity]) -> None:
    if len(runs) < 2 or not all(isinstance(run, Affinity) for run in runs):
        kinds = [type(run).__name__ for run in runs]
        raise ValueError(f"`runs` should be two Affinity objects or more. Received: {kinds}.")
    first = runs[0].tasks
    for index, run in enumerate(runs):
        if run.tasks != first:
            lacking = [task for task in first if task not in run.tasks]
            other = [task for task in run.tasks if task not in first]
            how = f"has the order {run.tasks}"
            if lacking or other:
                how = f"lacks {lacking or 'none'} and has {other or 'no other'}"
            raise ValueError(
                f"`runs` should have the same tasks in the same order. Received: runs[0] with "
                f"{first}, and runs[{index}], which {how}."
            )
