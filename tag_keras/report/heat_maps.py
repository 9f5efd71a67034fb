"""Heat maps as tables: each pair of tasks has a colour and a number that a reader can copy."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.results import Array
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.stability import GroupingStability
from tag_keras.utils.colours import between_tasks, find_scale
from tag_keras.utils.text import with_minus

# With more tasks a cell has two digits and no error, and a column a number instead of a name.
MOST_WITH_ERRORS = 12
# The colours of cells are steps from 0 (red) to 20 (blue); 10 is that of the value 0.
STEPS = 20


@dataclasses.dataclass(frozen=True)
class HeatCell:
    """A cell of a heat map.

    Args:
        text: Its number.
        error: The noise of the number, or the empty string.
        step: Step of its colour, or None without a colour.
        kind: `"own"` on the diagonal, `"noise"` where the number may be 0, `"pair"` where the two
            tasks share a chosen network, or the empty string.
        title: What a pointer over the cell shows.
    """

    text: str
    error: str = ""
    step: int | None = None
    kind: str = ""
    title: str = ""


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """A table of pairs of T tasks, which stand in the order of the groups that serve them.

    Args:
        corner: What rows and columns are.
        result: What it shows, in a sentence.
        unit: The unit of the numbers, such as `", in units of 10⁻³"`.
        blocks: For each group, the names and the cells of its rows.
        few: Whether the tasks are few.
    """

    corner: str
    result: str
    unit: str
    blocks: Sequence[Sequence[tuple[str, Sequence[HeatCell]]]]
    few: bool

    @property
    def names(self) -> list[str]:
        """The T tasks, in the order of rows and columns."""
        return [name for block in self.blocks for name, _ in block]


def affinity_map(affinity: Affinity, grouping: Grouping) -> HeatMap:
    """The affinities: a row for each source, a column for each target, blue helps and red hurts.

    Outliers and what a task does to itself do not set the scale of the colours.

    Args:
        affinity: Affinities of T tasks.
        grouping: Groups of the same tasks.
    """
    few = len(affinity.tasks) <= MOST_WITH_ERRORS
    factor, unit, largest = find_scale(affinity.mean, whole=not few)
    decimals = max(0, 2 - int(np.floor(np.log10(largest * factor)))) if few else 0
    low, high = affinity.interval(confidence=0.95)
    # False where the interval is not known.
    may_be_zero = (low <= 0) & (high >= 0)

    def number(value: float) -> str:
        # Plus 0, because -0 is no number for people.
        rounded = round(value * factor, decimals) + 0.0
        return with_minus(f"{rounded:.{decimals}f}" if abs(rounded) < 1e4 else f"{rounded:.1e}")

    def cell(source: int, target: int) -> HeatCell:
        mean, error = affinity.mean[source, target], affinity.standard_error[source, target]
        own = source == target
        if not np.isfinite(mean):
            return HeatCell("\N{EN DASH}", kind="own" if own else "", title="not measured")
        known = few and bool(np.isfinite(error))
        text, step = number(mean), None
        if not own:
            step = _step(mean / largest)
            text = f"({text})" if few and may_be_zero[source, target] else text
        return HeatCell(
            text=text if few or not own else "",
            error=f"±{number(error)}" if known else "",
            step=step,
            kind="own" if own else "noise" if may_be_zero[source, target] else "",
            title="" if few else _mean_and_error(mean, error),
        )

    blocks = _blocks(affinity.tasks, grouping, cell)
    result = _strongest(affinity, number)
    return HeatMap("source \\ target", result, unit, blocks, few)


def stability_map(stability: GroupingStability, grouping: Grouping) -> HeatMap:
    """How often each pair of tasks shares a network, in percent of the draws.

    Args:
        stability: What noise would choose.
        grouping: The chosen groups.

    Raises:
        ValueError: If `stability` is of other groups.
    """
    if set(stability.grouping.groups) != set(grouping.groups):
        raise ValueError(
            "`stability` should be of the groups of `grouping`. Received: "
            f"{stability.grouping.groups} and {grouping.groups}."
        )
    tasks, share = stability.tasks, stability.share
    chosen = np.array(
        [[any({a, b} <= {*group} for group in grouping.groups) for b in tasks] for a in tasks]
    )

    def cell(first: int, second: int) -> HeatCell:
        if first == second:
            return HeatCell("", kind="own")
        kind = "pair" if chosen[first, second] else ""
        value = float(share[first, second])
        return HeatCell(f"{100 * value:.0f}", step=_step(value), kind=kind)

    pairs = chosen & ~np.eye(len(tasks), dtype=bool)
    result = "No two tasks share a chosen network."
    if pairs.any():
        lowest = 100 * float(share[pairs].min())
        result = f"Each pair of the chosen groups shares a network in {lowest:.0f} % of the draws "
        result += "or more."
    few = len(tasks) <= MOST_WITH_ERRORS
    return HeatMap("pairs of tasks", result, " %", _blocks(tasks, grouping, cell), few)


def _blocks(
    tasks: Sequence[str], grouping: Grouping, cell: Callable[[int, int], HeatCell]
) -> list[list[tuple[str, list[HeatCell]]]]:
    """For each group, the rows of the tasks that it serves."""
    order = sorted(range(len(tasks)), key=lambda index: grouping.serves[tasks[index]])
    blocks: dict[int, list[tuple[str, list[HeatCell]]]] = {}
    for row in order:
        cells = [cell(row, column) for column in order]
        blocks.setdefault(grouping.serves[tasks[row]], []).append((tasks[row], cells))
    return [*blocks.values()]


def _step(share: float) -> int:
    half = STEPS // 2
    return half + round(half * float(np.clip(share, -1.0, 1.0)))


def _mean_and_error(mean: float, error: float) -> str:
    after = f" ± {error:.2g}" if np.isfinite(error) else ""
    return with_minus(f"{mean:.3g}") + after


def _strongest(affinity: Affinity, number: Callable[[float], str]) -> str:
    """The pair that helps most and the pair that hurts most, in words."""
    between: Array = between_tasks(affinity.mean)
    if not np.isfinite(between).any():
        return "No pair of different tasks was measured."
    parts = []
    for find, sign, word in ((np.nanargmax, 1, "helps"), (np.nanargmin, -1, "hurts")):
        source, target = np.unravel_index(find(between), between.shape)
        if sign * (value := float(between[source, target])) > 0:
            names = affinity.tasks[source], affinity.tasks[target]
            parts.append(f"{names[0]} {word} {names[1]} most ({number(value)})")
    return f"{'; '.join(parts)}." if parts else "All affinities between tasks are 0."
