"""Stocks: the volatility of eight stocks in the next week.

Source: skfolio 1.12.2 (BSD-3-Clause), skfolio/datasets/data/sp500_dataset.csv.gz: daily prices of
twenty stocks of the S&P 500, 1990 to 2022.

Volatility is here the logarithm of the root of the mean square of daily logarithmic returns, plus a
thousandth, as prices of the first years are in coarse steps. All of it is relative to the last 60
trading days, as its level changes from decade to decade. The inputs are, for each of the twenty
stocks, the volatility of the last 5 and 20 days, and the return of the last 5 in units of the
volatility. The tasks are the volatility of eight stocks in the next 5 days. The split is in time:
training until 2006, validation until 2013, test from then on.
"""

import csv
import gzip

import numpy as np

from benchmarks.truth.problems.packages import read_members
from benchmarks.truth.problems.problem import Numbers, Problem, split_in_time

PACKAGE, VERSION = "skfolio", "1.12.2"
MEMBERS = ["skfolio/datasets/data/sp500_dataset.csv.gz"]
# Two banks, two of oil, two of medicine, two of computers.
STOCKS = ("BAC", "JPM", "CVX", "XOM", "JNJ", "PFE", "AAPL", "MSFT")
SHORT, MIDDLE, LONG, AHEAD = 5, 20, 60, 5
_FLOOR = 1e-3


def load() -> Problem:
    """Loads the problem."""
    (content,) = read_members(PACKAGE, VERSION, MEMBERS)
    (_, *names), *rows = csv.reader(gzip.decompress(content).decode().splitlines())
    prices = np.array([row[1:] for row in rows], float)
    # Row d is the return from day d to day d + 1.
    returns = np.diff(np.log(prices), axis=0)
    # A day's inputs end with its return, and the next days' returns are its labels.
    days = np.arange(LONG - 1, len(returns) - AHEAD)
    level = _volatility(returns, LONG)[days - LONG + 1]
    inputs = [_volatility(returns, one)[days - one + 1] - level for one in (SHORT, MIDDLE)]
    inputs.append(_means(returns, SHORT)[days - SHORT + 1] / np.exp(level))
    later = _volatility(returns, AHEAD)[days + 1] - level
    y = {name: later[:, names.index(name)] for name in STOCKS}
    return split_in_time(np.concatenate(inputs, axis=1), y, gap=AHEAD)


def _volatility(returns: Numbers, window: int) -> Numbers:
    """Logarithms of the volatility of each window of days, by its first day."""
    volatility: Numbers = np.log(np.sqrt(_means(returns**2, window)) + _FLOOR)
    return volatility


def _means(values: Numbers, window: int) -> Numbers:
    windows = np.lib.stride_tricks.sliding_window_view(values, window, axis=0)
    means: Numbers = windows.mean(axis=-1)
    return means
