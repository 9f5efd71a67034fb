"""The report: one HTML page that says what was chosen, whether it paid, and how far to trust it."""

import base64
import importlib.resources
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tag_keras import files, results
from tag_keras.affinity import Affinity
from tag_keras.comparison import Comparison, compare, serving_networks
from tag_keras.conclusion import Conclusion, conclusion
from tag_keras.grouping import Grouping
from tag_keras.grouping_plots import COLOURS, NAMES, plot_comparison, plot_grouping
from tag_keras.plots import plot_affinity, plot_history, with_minus
from tag_keras.results import Array, Row

try:
    import jinja2
except ImportError as error:
    raise ImportError(
        'The report needs jinja2. Install it with: pip install "tag_keras[experiments]"'
    ) from error

__all__ = [
    "Conclusion",
    "conclusion",
    "plot_affinity",
    "plot_comparison",
    "plot_grouping",
    "plot_history",
    "write_report",
]

# Network, or what its name begins with, and what training it is for.
_STAGES = {
    "affinity": "Measuring: joint training with probes",
    "group_": "Retraining the groups",
    "joint": "Yardstick: joint network",
    "single_": "Yardstick: one network per task",
}


def write_report(
    path: str | os.PathLike[str],
    affinity: Affinity,
    grouping: Grouping,
    rows: Sequence[Row],
    title: str = "Which tasks should share a network?",
) -> None:
    """Writes the report: one HTML page that needs no other file, and its figures as PNG beside it.

    The figures are affinity.png, grouping.png, affinity_history.png and comparison.png; one for
    which there is no data is left out. Each file is written atomically, the page last.

    Args:
        path: Page to write, for instance `"report.html"`.
        affinity: Affinities of T tasks.
        grouping: Groups of the same tasks.
        rows: Results of the networks `"joint"` (all tasks), `"single_<task>"` (one task) and
            `"group_<index>"`, for several seeds, and of `"affinity"`, the training that measured.
            Losses are read on the split `"test"`. What is missing is left out of the page, which
            says so; networks of other names are not looked at.
        title: Title of the page.

    Raises:
        ValueError: If `rows` is empty or has a loss that is not finite, or if its tasks, those
            of `grouping` and those of `affinity` disagree.

    Example:

    ```python
    from tag_keras.results import Row

    affinity = tag_keras.Affinity(["a", "b"], [[0.3, 0.1], [-0.2, 0.2]])
    grouping = tag_keras.Grouping(["a", "b"], [["a", "b"]], {"a": 0, "b": 0}, -0.05, -0.05, True)
    rows = [Row("joint", ("a", "b"), 0, task, "test", 0.7, {}, 60.0) for task in ("a", "b")]
    tag_keras.write_report("report.html", affinity, grouping, rows)
    ```
    """
    summary = conclusion(affinity, grouping, rows)
    comparison = compare(grouping, rows)
    images = _images(affinity, grouping, comparison)
    page = _template().render(
        title=title,
        conclusion=summary,
        groups=_groups(grouping),
        comparison=comparison,
        kinds={kind: NAMES[kind] for kind in comparison.losses},
        missing=[NAMES[kind] for kind in NAMES if kind not in comparison.losses],
        colours=COLOURS,
        losses=_losses(grouping, comparison),
        metrics=_metrics(grouping, comparison, rows),
        costs=_costs(grouping, rows),
        images={name: base64.b64encode(png).decode() for name, png in images.items() if png},
    )
    for name, png in images.items():
        _write(Path(path).with_name(f"{name}.png"), png)
    _write(Path(path), page.encode())


def _template() -> Any:
    source = importlib.resources.files("tag_keras") / "report.html.jinja"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source.read_text("utf-8"))


def _images(
    affinity: Affinity, grouping: Grouping, comparison: Comparison
) -> dict[str, bytes | None]:
    changes = comparison.changes()
    return {
        "grouping": _png(plot_grouping(grouping, affinity)),
        "comparison": _png(plot_comparison(grouping.tasks, changes)) if changes else None,
        "affinity": _png(plot_affinity(affinity)),
        "affinity_history": _png(plot_history(affinity)),
    }


def _png(figure: Any) -> bytes | None:
    if figure is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _write(path: Path, content: bytes | None) -> None:
    # A figure of an earlier report must not stand beside this one.
    if content is None:
        path.unlink(missing_ok=True)
        return
    with files.replacing(path) as partial:
        partial.write_bytes(content)


def _groups(grouping: Grouping) -> list[dict[str, Any]]:
    return [
        {
            "name": f"group_{index}",
            "served": grouping.served(index),
            "helpers": grouping.helpers(index),
        }
        for index in range(len(grouping.groups))
    ]


def _losses(grouping: Grouping, comparison: Comparison) -> list[dict[str, Any]]:
    """A line for each task, and one for the total, with a cell for each kind of network."""
    changes, lines = comparison.changes(), []
    decimals = _decimals([row for losses in comparison.losses.values() for row in losses])
    for place, label in enumerate([*grouping.tasks, "Total"]):
        values = {kind: losses[place] for kind, losses in comparison.losses.items()}
        lowest = min(float(value.mean()) for value in values.values()) if values else 0.0
        cells = {kind: _cell(value, decimals) for kind, value in values.items()}
        for kind, cell in cells.items():
            cell["best"] = len(values) > 1 and values[kind].mean() == lowest
            change = changes[kind][place].mean() if kind in changes else np.nan
            cell["change"] = with_minus(f"{100 * change:+.1f} %") if np.isfinite(change) else ""
        lines.append({"label": label, "cells": cells})
    return lines


def _metrics(
    grouping: Grouping, comparison: Comparison, rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """A line for each task and metric, with a cell for each kind of network."""
    table: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        if row.split == "test" and row.seed in comparison.seeds:
            for metric, value in row.metrics.items():
                key = (row.task, row.network)
                table.setdefault(metric, {}).setdefault(key, []).append(value)
    serving, lines = serving_networks(grouping), []
    for metric, values in table.items():
        series = {key: np.array(value) for key, value in values.items()}
        decimals = _decimals(series.values())
        for task in grouping.tasks:
            found = {
                kind: series.get((task, serving[kind][task]), np.array([]))
                for kind in comparison.losses
            }
            if any(value.size for value in found.values()):
                cells = {kind: _cell(value, decimals) for kind, value in found.items()}
                lines.append({"label": task, "metric": metric, "cells": cells})
    return lines


def _cell(values: Array, decimals: int) -> dict[str, Any]:
    if not values.size:
        return {"mean": "", "deviation": ""}
    mean, deviation = results.mean_and_deviation(values)
    after = f"{deviation:.{decimals}f}" if np.isfinite(deviation) else ""
    return {"mean": with_minus(f"{mean:.{decimals}f}"), "deviation": after}


def _decimals(series: Iterable[Array]) -> int:
    """Decimals for two digits of the median deviation, or else three digits of the median mean."""
    pairs = [results.mean_and_deviation(values) for values in series if values.size]
    means, deviations = np.abs(np.reshape(pairs, (-1, 2))).T
    for digits, sizes in ((2, deviations), (3, means)):
        positive = sizes[np.isfinite(sizes) & (sizes > 0)]
        if positive.size:
            return int(np.clip(digits - 1 - np.floor(np.log10(np.median(positive))), 0, 6))
    return 3


def _costs(grouping: Grouping, rows: Sequence[Row]) -> dict[str, Any]:
    """A line for each stage and their sum, and what it takes to measure and train groups once."""
    # Each network has a row for every task and split.
    runs: dict[str, dict[int, float]] = {}
    for row in rows:
        runs.setdefault(row.network, {})[row.seed] = row.seconds
    joint = float(np.mean([*runs.get("joint", {0: np.nan}).values()]))
    stages: dict[str, list[float]] = {}
    for name, words in _STAGES.items():
        networks = [n for n in runs if n == name or (name.endswith("_") and n.startswith(name))]
        if networks:
            stages[words] = [value for network in networks for value in runs[network].values()]
    stages["Sum"] = [value for values in stages.values() for value in values]
    needed = ["affinity", *(f"group_{index}" for index in range(len(grouping.groups)))]
    once = sum(float(np.mean([*runs.get(name, {0: np.nan}).values()])) for name in needed)
    return {
        "lines": [_cost(words, values, joint) for words, values in stages.items()],
        "once": _ratio(once, joint),
    }


def _cost(words: str, seconds: Sequence[float], joint: float) -> dict[str, str]:
    total = sum(seconds)
    return {
        "stage": words,
        "networks": str(len(seconds)),
        "seconds": f"{total:,.0f}" if total >= 100 else f"{total:.1f}",
        "ratio": _ratio(total, joint),
    }


def _ratio(seconds: float, joint: float) -> str:
    return f"{seconds / joint:.2f}" if joint > 0 and np.isfinite(seconds) else ""
