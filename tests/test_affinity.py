"""Affinities as arrays and as files."""

import json
import re

import numpy as np
import pytest

from tag_keras.affinity import Affinity

TASKS = ("b", "a", "c")
ARRAYS = ("mean", "standard_error", "count", "history", "skipped", "replicates")
SERIES = ("history", "replicates")
NAN = float("nan")


def make_affinity():
    """Three tasks over two epochs; a step for "c" was never measured at "b"."""
    generator = np.random.default_rng(0)
    mean, error = generator.normal(size=(2, 3, 3))
    history = generator.normal(size=(2, 3, 3))
    count, skipped = generator.integers(1, 50, size=(2, 3, 3))
    replicates = generator.normal(size=(4, 3, 3))
    mean[2, 0] = error[2, 0] = history[0, 2, 0] = NAN
    replicates += mean - replicates.mean(axis=0)
    replicates[:, 2, 0] = NAN
    replicates[1, 0], replicates[[0, 2, 3], 0] = NAN, mean[0] + np.array([[-1], [0], [1]])
    count[2, 0] = 0
    return Affinity(TASKS, mean, np.abs(error), count, history, skipped, replicates)


def write(path, **changes):
    """A sound file of two tasks, and what a hand or another program might change in it."""
    matrix = [[0.1, 0.2], [0.3, 0.4]]
    fields = {"tasks": ["a", "b"], "mean": matrix, "standard_error": matrix}
    fields |= {"count": [[1, 2], [3, 4]], "history": [matrix], "skipped": [[0, 0], [0, 0]]}
    # Their mean is `mean`; one pair lacks a replicate.
    fields["replicates"] = [[[0.0, 0.1], [0.4, 0.4]], [[0.2, 0.3], [0.2, None]]]
    fields |= changes
    content = {name: value for name, value in fields.items() if value != "absent"}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_rows_are_sources_and_columns_targets_in_the_order_of_the_tasks():
    affinity = Affinity(["b", "a"], [[0.4, 0.1], [-0.2, 0.2]])
    assert affinity.tasks == ("b", "a")
    assert affinity.mean[0, 1] == 0.1
    everywhere = np.ones((2, 2), bool)
    expected = "b -> b: 0.4, b -> a: 0.1, a -> b: -0.2, a -> a: 0.2"
    assert affinity.describe_pairs(everywhere) == expected


def test_what_is_not_given_is_not_known():
    affinity = Affinity(TASKS, np.ones((3, 3)))
    assert np.isnan(affinity.standard_error).all()
    assert (affinity.count == 0).all()
    assert (affinity.skipped == 0).all()
    assert affinity.history.shape == affinity.replicates.shape == (0, 3, 3)


def test_arrays_are_of_float64_and_int64_whatever_was_given():
    ones = np.ones((1, 1), np.float32)
    affinity = Affinity(["a"], ones, ones, ones, ones[None], ones, ones[None])
    kinds = [getattr(affinity, name).dtype for name in ARRAYS]
    assert kinds == [np.float64, np.float64, np.int64, np.float64, np.int64, np.float64]


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_copies_that_cannot_be_written_to(name):
    shape = (2, 3, 3) if name in SERIES else (3, 3)
    given = np.ones(shape, np.int64 if name in ("count", "skipped") else np.float64)
    affinity = Affinity(TASKS, **{"mean": np.ones((3, 3)), name: given})
    given[...] = 7
    assert (getattr(affinity, name) == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        getattr(affinity, name)[0, 0] = 7


@pytest.mark.parametrize("tasks", [["a", "a"], ["a", ""], [], "ab", ["a", 1]])
def test_task_names_are_checked(tasks):
    with pytest.raises(ValueError, match="`tasks` should "):
        Affinity(tasks, np.ones((2, 2)))


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("shape", [(2, 3), (2, 2), (3,), (), (1, 3, 3, 3), (4, 4)])
def test_arrays_of_another_shape_are_refused(name, shape):
    # A series has one axis more, that of the epochs or the replicates.
    wrong = np.ones((2, *shape) if name in SERIES else shape)
    message = (
        f"`{name}` should have the shape {(None, 3, 3) if name in SERIES else (3, 3)}, "
        f"[source, target] in the order of `tasks`. Received: shape {wrong.shape}."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        Affinity(TASKS, **{"mean": np.ones((3, 3)), name: wrong})


@pytest.mark.parametrize("name", ["mean", "standard_error", "count", "skipped"])
@pytest.mark.parametrize("wrong", [[["x", 1], [1, 1]], [[1, 1], [1]], {"a": 1}])
def test_arrays_of_something_else_are_refused(name, wrong):
    message = re.escape(f"`{name}` should be an array of numbers of shape (2, 2).")
    with pytest.raises(ValueError, match=message):
        Affinity(["a", "b"], **{"mean": np.ones((2, 2)), name: wrong})


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize("count", [None, [[1, 1], [1, 1]]])
def test_a_mean_that_was_measured_must_be_finite(value, count):
    message = rf"`mean` should be finite wherever it was measured\. Received: a -> b: {value}\."
    with pytest.raises(ValueError, match=message):
        Affinity(["a", "b"], [[1, value], [1, 1]], count=count)


def test_nan_stands_for_a_mean_that_was_not_measured_and_infinity_never():
    count = [[1, 0], [1, 1]]
    assert np.isnan(Affinity(["a", "b"], [[1, NAN], [1, 1]], count=count).mean[0, 1])
    with pytest.raises(ValueError, match="a -> b: inf"):
        Affinity(["a", "b"], [[1, float("inf")], [1, 1]], count=count)


def test_no_more_than_five_pairs_are_listed():
    with pytest.raises(ValueError, match=r"b -> b: nan, .*, a -> a: nan and 4 more\.$"):
        Affinity(TASKS, np.full((3, 3), NAN))


def test_save_and_load_give_every_array_back_exactly(tmp_path):
    affinity = make_affinity()
    affinity.save(tmp_path / "affinity.json")
    loaded = Affinity.load(tmp_path / "affinity.json")
    assert loaded.tasks == TASKS
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(affinity, name), name)
        assert getattr(loaded, name).dtype == getattr(affinity, name).dtype
        assert not getattr(loaded, name).flags.writeable


def test_save_and_load_of_means_alone(tmp_path):
    Affinity(["a", "b"], [[1, 2], [3, 4]]).save(str(tmp_path / "affinity.json"))
    loaded = Affinity.load(str(tmp_path / "affinity.json"))
    np.testing.assert_array_equal(loaded.mean, [[1, 2], [3, 4]])
    assert np.isnan(loaded.standard_error).all()
    assert loaded.history.shape == loaded.replicates.shape == (0, 2, 2)


def test_the_file_is_strict_json_with_null_for_nan_and_integers_for_counts(tmp_path):
    count = [[1, 0], [1, 1]]
    affinity = Affinity(["a", "b"], [[1.5, NAN], [1, 1]], count=count)
    affinity.save(tmp_path / "affinity.json")

    def refuse(constant):
        raise ValueError(constant)

    content = json.loads((tmp_path / "affinity.json").read_text(), parse_constant=refuse)
    assert content == {
        "tasks": ["a", "b"],
        "mean": [[1.5, None], [1.0, 1.0]],
        "standard_error": [[None, None], [None, None]],
        "count": count,
        "history": [],
        "skipped": [[0, 0], [0, 0]],
        "replicates": [],
    }
    assert all(type(number) is int for row in content["count"] for number in row)


def test_extra_fields_may_be_absent_from_a_file_and_unknown_ones_are_passed_over(tmp_path):
    absent = dict.fromkeys(("history", "skipped", "replicates"), "absent")
    path = write(tmp_path / "a.json", **absent, author="me")
    affinity = Affinity.load(path)
    np.testing.assert_array_equal(affinity.count, [[1, 2], [3, 4]])
    assert affinity.history.shape == affinity.replicates.shape == (0, 2, 2)
    assert (affinity.skipped == 0).all()


@pytest.mark.parametrize("field", ["tasks", "mean", "standard_error", "count"])
def test_a_file_that_lacks_a_field_is_named_with_the_field(tmp_path, field):
    path = write(tmp_path / "foreign.json", **{field: "absent"})
    with pytest.raises(ValueError, match=re.escape(f"{path} lacks the field {field!r}.")):
        Affinity.load(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tasks", ["a", "a"]),
        ("tasks", [["a"], "b"]),
        ("tasks", "ab"),
        ("mean", [[1, 2, 3]]),
        ("mean", None),
        ("mean", [[0.1, None], [0.3, 0.4]]),
        ("standard_error", [[1, 2], [3]]),
        ("count", [["many", 2], [3, 4]]),
        ("skipped", {"a": 1}),
        ("history", [[1, 2], [3, 4]]),
        ("replicates", [[1, 2], [3, 4]]),
        ("mean", [["0.1", 0.2], [0.3, 0.4]]),
        ("mean", [[True, 0.2], [0.3, 0.4]]),
        ("count", [[1, 2], [3, "4"]]),
        ("skipped", [[False, 0], [0, 0]]),
        ("mean", [[0.1, 0.2], [0.3, 0.5]]),
    ],
)
def test_a_file_with_a_wrong_field_is_named_with_the_field(tmp_path, field, value):
    path = write(tmp_path / "foreign.json", **{field: value})
    message = f"^{re.escape(str(path))} does not hold affinities: `{field}` should "
    with pytest.raises(ValueError, match=message):
        Affinity.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"tasks": ["a"', "is not a JSON file"), ("[1, 2]", "should hold a JSON object")],
)
def test_a_file_that_holds_something_else_is_named(tmp_path, content, message):
    path = tmp_path / "corrupt.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} {message}"):
        Affinity.load(path)


def test_load_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        Affinity.load(tmp_path / "absent.json")


def test_repr_shows_tasks_means_and_what_is_known_of_their_errors():
    assert repr(Affinity(["a"], [[0.25]])) == "Affinity(tasks=('a',), mean=\n[[0.25]])"
    mean = [[0.123456, -2e-6], [0, 1]]
    affinity = Affinity(["a", "b"], mean, [[0.5, NAN], [0, 0]], replicates=np.ones((16, 2, 2)))
    assert repr(affinity) == (
        "Affinity(tasks=('a', 'b'), mean=\n"
        "[[ 1.2346e-01 -2.0000e-06]\n [ 0.0000e+00  1.0000e+00]], "
        "standard_error=\n[[0.5 nan]\n [0.  0. ]])"
    )


def test_repr_of_many_tasks_fits_on_a_screen():
    tasks = [f"t{index}" for index in range(40)]
    ones = np.ones((40, 40))
    assert len(repr(Affinity(tasks, ones, ones, replicates=np.ones((16, 40, 40))))) < 1500


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", -1.0, "`count` should hold whole numbers of at least 0"),
        ("skipped", 1.5, "`skipped` should hold whole numbers of at least 0"),
        ("count", NAN, "`count` should hold whole numbers of at least 0"),
        ("standard_error", -0.1, "`standard_error` should be NaN, or finite and at least 0"),
        ("standard_error", np.inf, "`standard_error` should be NaN, or finite and at least 0"),
        ("standard_error", 1e200, "`standard_error` should be NaN, or finite and at least 0"),
        ("count", 2.0**63, "`count` should hold whole numbers of at least 0, and below 2 .. 53"),
        ("skipped", np.inf, "`skipped` should hold whole numbers of at least 0, and below 2"),
    ],
)
def test_impossible_values_are_refused(name, value, message):
    array = np.ones((3, 3))
    array[1, 2] = value
    with pytest.raises(ValueError, match=message):
        Affinity(TASKS, **{"mean": np.ones((3, 3)), name: array})


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("value", [np.inf, -1e200])
def test_an_infinite_series_is_refused(name, value):
    series = np.full((2, 3, 3), NAN)
    series[1, 2, 0] = value
    with pytest.raises(ValueError, match=f"`{name}` should be finite or NaN"):
        Affinity(TASKS, np.ones((3, 3)), **{name: series})


def test_the_standard_error_is_that_of_the_replicates_unless_it_is_given():
    # Of 1 and 3: deviation sqrt(2), by sqrt(2). One replicate tells nothing.
    replicates = [[[1, 1], [1, 1]], [[3, 1], [NAN, 3]]]
    affinity = Affinity(["a", "b"], [[2, 1], [1, 2]], replicates=replicates)
    np.testing.assert_allclose(affinity.standard_error, [[1, 0], [NAN, 1]])
    given = Affinity(["a", "b"], [[2, 1], [1, 2]], np.ones((2, 2)), replicates=replicates)
    assert (given.standard_error == 1).all()


def test_standard_errors_of_a_file_are_not_computed_again(tmp_path):
    Affinity(["a"], [[2]], [[NAN]], replicates=[[[1]], [[3]]]).save(tmp_path / "affinity.json")
    assert np.isnan(Affinity.load(tmp_path / "affinity.json").standard_error).all()


@pytest.mark.parametrize("field", ["mean", "standard_error", "count", "history", "replicates"])
def test_an_integer_too_large_for_a_float_is_named(tmp_path, field):
    path = tmp_path / "affinity.json"
    Affinity(["a"], [[1]], history=[[[1]]], replicates=[[[1]]]).save(path)
    fields = json.loads(path.read_text())
    fields[field] = [[[10**400]]] if field in SERIES else [[10**400]]
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=rf"affinity\.json does not hold .*: `{field}` should be"):
        Affinity.load(path)
