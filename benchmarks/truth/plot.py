"""The figure of truth tables: the regret of each way to choose, with a panel for each set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.truth.regret import Line
from tag_keras.report import plots
from tag_keras.report.plots import Figure

# A way to choose: its name, number of runs, and options.
Way = tuple[str, int, str]


def plot_regret(lines: Mapping[str, Sequence[Line]], ways: Mapping[Way, str]) -> Figure:
    """Draws the regret of each way to choose, with its standard deviation.

    Args:
        lines: By set, the lines of all ways to choose.
        ways: Labels of the ways to draw, from top to bottom.
    """
    figure = plots.new_figure(2.6 + 2.1 * len(lines), 0.9 + 0.3 * len(ways))
    panels: Any = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
    for panel, (name, own) in zip(panels, lines.items(), strict=True):
        found = {(line.way, line.runs, line.options): line for line in own}
        for place, way in enumerate(ways):
            if way not in found:
                continue
            line = found[way]
            noise = 100 * line.deviation() if len(line.totals) > 1 else None
            panel.errorbar(
                100 * float(np.mean(line.regret)),
                place,
                xerr=noise,
                marker="o",
                color=plots.LINE_COLOURS[0 if line.runs else 1],
                markersize=5,
                linewidth=1.3,
            )
        panel.set_title(name, fontsize=10)
        panel.set_xlim(left=min(0.0, panel.get_xlim()[0]))
        panel.set_xlabel("regret, %", fontsize=9)
        panel.set_yticks(range(len(ways)), list(ways.values()), fontsize=9)
        panel.tick_params(labelsize=9, length=2)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color=plots.GREY, linewidth=0.6)
        panel.set_axisbelow(True)
    panels[0].invert_yaxis()
    return figure
