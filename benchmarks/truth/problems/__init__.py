"""Real and made problems with several tasks, small enough to train every group of their tasks.

`problem` has what all share: how examples are split and standardised. `packages` reads the files of
other packages. Each other file is one problem: a docstring that says what it is and where it is
from, and a function `load` that gives it.
"""

import functools
from collections.abc import Callable

from benchmarks.truth.problems import (
    cancer,
    digits6,
    factors,
    nhefs,
    planted,
    rf1,
    stocks,
    weather,
    yeast,
)
from benchmarks.truth.problems.problem import Problem

# By name, the functions that load the problems.
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "rf1": rf1.load,
    "yeast": yeast.load,
    "weather": weather.load,
    "stocks": stocks.load,
    "nhefs": nhefs.load,
    "digits6": digits6.load,
    "planted": planted.load,
    "cancer": cancer.load,
    "factors0": functools.partial(factors.load, 0),
    "factors1": functools.partial(factors.load, 1),
    "factors2": functools.partial(factors.load, 2),
}
