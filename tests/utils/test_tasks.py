"""Task names in every dict that a user gives."""

import re

import numpy as np
import pytest

from tag_keras.utils import tasks

# Neither sorted nor reversed, so that an order other than the user's shows.
NAMES = ("slant", "ink", "height")


@pytest.mark.parametrize("kind", [tuple, list])
def test_check_task_names_gives_a_tuple_in_the_order_given(kind):
    assert tasks.check_task_names(kind(NAMES)) == NAMES


@pytest.mark.parametrize("wrong", ["ink", 5, None, {"a": 1}, ["a", 1], [""], [None], [("a", "b")]])
def test_check_task_names_refuses_what_is_no_list_of_names(wrong):
    message = re.escape(f"`tasks` should be a list of names. Received: tasks={wrong!r}.")
    with pytest.raises(ValueError, match=message):
        tasks.check_task_names(wrong)


def test_check_task_names_refuses_no_task():
    with pytest.raises(ValueError, match=r"should name at least one task\. Received: tasks=\[\]"):
        tasks.check_task_names([])


def test_check_task_names_lists_every_repeated_name_once():
    message = re.escape("`tasks` should be unique. Repeated: ['a', 'c'].")
    with pytest.raises(ValueError, match=message):
        tasks.check_task_names(["c", "a", "b", "a", "c", "a"])


def test_check_task_names_refuses_half_a_surrogate_pair():
    assert tasks.check_task_names(["\U0001f600", "é"]) == ("\U0001f600", "é")
    message = re.escape(r"UTF-8, without a half of a surrogate pair. Received: ['b\ud83d'].")
    with pytest.raises(ValueError, match=message):
        tasks.check_task_names(["a", "b\ud83d"])


def test_check_agreement_passes_over_what_is_no_dict_and_what_may_be_partial():
    everything = dict.fromkeys(reversed(NAMES))
    tasks.check_agreement(NAMES, {"loss": everything}, {"metrics": {"ink": []}, "weights": None})
    tasks.check_agreement(NAMES, {"loss": "mse"}, {"metrics": None})


def test_check_agreement_lists_all_differences_in_one_message():
    message = (
        "Task names should agree with the heads ['slant', 'ink', 'height'], but `loss` has the "
        "unknown tasks ['hieght', 'width']; `loss` lacks the tasks ['slant', 'height']; `metrics` "
        "has the unknown tasks ['Ink']."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tasks.check_agreement(
            NAMES,
            {"loss": {"hieght": 1, "ink": 2, "width": 3}},
            {"metrics": {"Ink": 1}, "loss_weights": {"ink": 1}},
        )


def test_select_labels_puts_the_tasks_in_their_order_and_leaves_others_out():
    labels = {"other": 0, "height": 1, "ink": 2, "slant": 3}
    selected = tasks.select_labels(labels, NAMES)
    assert list(selected.items()) == [("slant", 3), ("ink", 2), ("height", 1)]


def test_select_labels_takes_labels_alone_for_one_task():
    assert tasks.select_labels([1, 2], ("ink",)) == {"ink": [1, 2]}
    assert tasks.select_labels({"ink": [1, 2], "slant": 0}, ("ink",)) == {"ink": [1, 2]}


def test_select_labels_takes_one_array_for_each_task():
    array = np.zeros(3)
    assert tasks.select_labels([np.float32(1)], ("ink",)) == {"ink": [1]}
    for labels in ([array], (array,)):
        assert tasks.select_labels(labels, ("ink",))["ink"] is array
    several = [{"ink": [array]}, {"ink": (array, array)}, {"ink": {"x": array}}, [array, array]]
    for labels in several:
        wanted = (
            r"^The labels of the task 'ink' should be one array\. Received: (list|tuple|dict)\.$"
        )
        with pytest.raises(ValueError, match=wanted):
            tasks.select_labels(labels, ("ink",))


@pytest.mark.parametrize(
    ("labels", "names", "kind"),
    [([1, 2, 3], NAMES, "list"), (None, NAMES, "NoneType"), (None, ("ink",), "NoneType")],
)
def test_select_labels_says_which_dict_it_wants(labels, names, kind):
    message = f"Labels should be a dict with the tasks {list(names)}. Received: {kind}."
    with pytest.raises(ValueError, match=re.escape(message)):
        tasks.select_labels(labels, names)


@pytest.mark.parametrize("names", [NAMES, ("slant",)])
def test_select_labels_names_missing_and_received_tasks(names):
    missing = [name for name in names if name != "ink"]
    message = (
        f"Labels should hold every task of the model. Missing: {missing}. "
        "Received: ['ink', 'other']."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        tasks.select_labels({"other": 0, "ink": 1}, names)


def test_select_weights_from_a_dict_gives_none_to_absent_tasks():
    selected = tasks.select_weights({"height": 2, "other": 1, "slant": 3}, NAMES)
    assert list(selected.items()) == [("slant", 3), ("ink", None), ("height", 2)]


@pytest.mark.parametrize("weight", [None, 0.5, (1.0, 2.0)])
def test_select_weights_gives_one_to_all_tasks(weight):
    selected = tasks.select_weights(weight, NAMES)
    assert list(selected.items()) == [(name, weight) for name in NAMES]


@pytest.mark.parametrize("metrics", [None, {"ink": ["mae"]}, {}])
def test_metrics_by_task_leaves_none_and_dicts_as_they_are(metrics):
    assert tasks.metrics_by_task("metrics", metrics, NAMES) is metrics


@pytest.mark.parametrize("metrics", ["mae", ["mae"], ("mae",)])
def test_metrics_by_task_gives_names_to_every_task(metrics):
    by_task = tasks.metrics_by_task("metrics", metrics, NAMES)
    assert list(by_task.items()) == [(name, ["mae"]) for name in NAMES]
    # Keras may replace names in a list: no two tasks have the same one.
    assert len({id(one) for one in by_task.values()}) == len(NAMES)


@pytest.mark.parametrize("metrics", [[len], len, ["mae", ["mse"]], 3])
def test_metrics_by_task_refuses_objects_which_hold_one_task(metrics):
    message = (
        "`weighted_metrics` should be a dict of metrics by task, or a list of names for all tasks. "
        f"Received: weighted_metrics={metrics!r}."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        tasks.metrics_by_task("weighted_metrics", metrics, NAMES)
