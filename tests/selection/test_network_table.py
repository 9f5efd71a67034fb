"""Tables of networks: what a user gives by hand, results, affinities, files, and every error."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

import tag_keras
from tag_keras import NetworkTable
from tag_keras.results import Row, save_results

STANDLEY = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "standley2020"
NAN = math.nan


def assert_table(table, tasks, networks, scores, costs):
    assert table.tasks == tasks and table.networks == networks
    np.testing.assert_allclose(table.scores, scores, rtol=1e-12)
    np.testing.assert_allclose(table.costs, costs)


def test_names_come_in_the_order_of_tasks():
    table = NetworkTable(["b", "a"], [["a"], ["a", "b"]], [[NAN, 0.3], [0.2, 0.1]])
    scores = [[NAN, 0.3], [0.2, 0.1]]
    assert_table(table, ("b", "a"), (("a",), ("b", "a")), scores, [1, 1])
    assert repr(table) == "NetworkTable(tasks=('b', 'a'), 2 networks)"
    with pytest.raises(ValueError, match="read-only"):
        table.scores[0, 1] = 0.0


# --- By hand.


def test_losses_by_network():
    table = NetworkTable.from_losses({("a",): {"a": 0.3}, ("b", "a"): {"a": 0.1, "b": 0.2}})
    assert_table(table, ("a", "b"), (("a",), ("a", "b")), [[0.3, NAN], [0.1, 0.2]], [1, 1])


def test_losses_of_full_and_half_size():
    rows = [{"a": 0.2}, ({"a": 0.25}, 0.5), {"a": 0.1, "b": 0.4}]
    table = NetworkTable.from_losses(rows, ["b", "a"])
    scores = [[NAN, 0.2], [NAN, 0.25], [0.4, 0.1]]
    assert_table(table, ("b", "a"), (("a",), ("a",), ("b", "a")), scores, [1, 0.5, 1])
    assert table.find(("a",), 0.5) == 1 and table.find(["a", "b"], 1) == 2
    with pytest.raises(ValueError, match=r"should have a network \('a',\) at a cost of 2"):
        table.find(("a",), 2.0)


# --- Results.


def row(network, tasks, task, loss, seed=0, split="validation"):
    return Row(network, tasks, seed, task, split, loss, {}, 1.0)


RESULTS = [
    row("single_a", ("a",), "a", 0.5),
    row("joint", ("b", "a"), "a", 0.3),
    row("joint", ("b", "a"), "b", 0.6),
    row("joint", ("b", "a"), "a", 0.5, seed=1),
    row("joint", ("b", "a"), "b", 0.8, seed=1),
    row("joint", ("b", "a"), "b", 9.0, split="test"),
    row("group_0", ("a", "b"), "a", 0.1),
    row("group_0", ("a", "b"), "b", 0.1),
]


def test_results_are_averaged_by_set_of_tasks():
    table = NetworkTable.from_results(RESULTS)
    assert_table(table, ("b", "a"), (("a",), ("b", "a")), [[NAN, 0.5], [0.5, 0.3]], [1, 1])
    table = NetworkTable.from_results(
        iter(RESULTS), tasks=["a", "b"], costs={("a",): 0.5, ("a", "b"): 2}
    )
    assert_table(table, ("a", "b"), (("a",), ("a", "b")), [[0.5, NAN], [0.3, 0.5]], [0.5, 2])


def test_results_from_a_file(tmp_path):
    save_results(tmp_path / "results.json", RESULTS)
    table = NetworkTable.load(tmp_path / "results.json", tasks=["a", "b"])
    assert_table(table, ("a", "b"), (("a",), ("a", "b")), [[0.5, NAN], [0.3, 0.5]], [1, 1])
    message = r"results\.json does not hold a table of networks: The network \('b', 'a'\) has no"
    with pytest.raises(ValueError, match=message):
        NetworkTable.load(tmp_path / "results.json", split="test")
    (tmp_path / "results.json").write_text("[{")
    with pytest.raises(ValueError, match=r"results\.json is not a JSON file"):
        NetworkTable.load(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "train"}, r"no result on 'train'\. Splits found: \['test', 'validation'\]"),
        ({"split": "test"}, r"The network \('b', 'a'\) has no result on 'test' for: \['a'\]"),
        ({"tasks": ["a"]}, r"`networks\[1\]` should be .* different names out of \('a',\)"),
        (
            {"costs": {("a",): 1}},
            r"`costs` should have a cost for \('b', 'a'\)\. Received: costs of 1",
        ),
    ],
)
def test_refuses_results_that_are_not_complete(arguments, message):
    with pytest.raises(ValueError, match=message):
        NetworkTable.from_results(RESULTS, **arguments)


# --- Affinities.

MEAN = [[9.0, 0.3, -0.1], [0.2, 9.0, -0.2], [0.1, -0.3, 9.0]]


def test_affinities_become_scores_of_all_groups():
    affinity = tag_keras.Affinity(["a", "b", "c"], MEAN)
    table = NetworkTable.from_affinity(affinity, lambda group: len(group) / 2)
    networks = (("a", "b"), ("a", "b", "c"), ("a", "c"), ("b", "c"))
    scores = [[0.2, 0.3, NAN], [0.15, 0.0, -0.15], [0.1, NAN, -0.1], [NAN, -0.3, -0.2]]
    np.testing.assert_array_equal(np.isnan(table.scores), np.isnan(scores))
    assert table.networks == networks
    np.testing.assert_allclose(table.scores, scores, atol=1e-15)
    np.testing.assert_allclose(table.costs, [1, 1.5, 1, 1])
    costs = {
        tuple(reversed(group)): cost for group, cost in zip(networks, range(1, 5), strict=True)
    }
    np.testing.assert_allclose(NetworkTable.from_affinity(affinity, costs).costs, [1, 2, 3, 4])
    alone = NetworkTable.from_affinity(affinity, singletons="baseline")
    assert len(alone.networks) == 7 and alone.scores[alone.find(("b",), 1.0), 1] == 0.0
    by_task = NetworkTable.from_affinity(affinity, singletons={"b": 0.25})
    assert len(by_task.networks) == 5 and by_task.scores[by_task.find(("b",), 1.0), 1] == 0.25


@pytest.mark.parametrize(
    ("affinity", "arguments", "message"),
    [
        (np.zeros((3, 3)), {}, "`affinity` should be an Affinity.*Received: type=.*ndarray"),
        (16, {}, r"`affinity` should have at most 15 tasks\. Received: num_tasks=16"),
        (1, {}, "'t0' should have a group: it may not be alone"),
        (
            3,
            {"singletons": "diagonal"},
            "`singletons` should be .* Received: singletons='diagonal'",
        ),
        (
            3,
            {"costs": {("t0", "t1"): 1}},
            r"have a cost for \('t0', 't1', 't2'\)\. Received: costs of",
        ),
        (3, {"costs": lambda group: 0}, r"`costs\[0\]` should be positive and finite.*0 for"),
    ],
)
def test_refuses_affinities_that_make_no_table(affinity, arguments, message):
    if isinstance(affinity, int):
        names = [f"t{task}" for task in range(affinity)]
        affinity = tag_keras.Affinity(names, np.zeros((affinity, affinity)))
    with pytest.raises(ValueError, match=message):
        NetworkTable.from_affinity(affinity, **arguments)


def test_refuses_affinities_that_were_not_measured():
    affinity = tag_keras.Affinity(["a", "b"], [[0, NAN], [1, 0]], count=[[1, 0], [1, 1]])
    with pytest.raises(ValueError, match=r"finite for all pairs.*Received: pairs='a -> b: nan'"):
        NetworkTable.from_affinity(affinity)


# --- Text tables.


def test_text_in_the_paper_s_layout(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("0.3\t0.4\n0.2\t\n\t0.3\n0.1\t0.5")
    table = NetworkTable.load(path, tasks=["a", "b"])
    networks = (("a",), ("b",), ("a",), ("b",), ("a", "b"))
    scores = [[0.3, NAN], [NAN, 0.4], [0.2, NAN], [NAN, 0.3], [0.1, 0.5]]
    assert_table(table, ("a", "b"), networks, scores, [0.5, 0.5, 1, 1, 1])
    path.write_text("a\tb\r\n0.3\t0.4\r\n0.2\t\r\n\t0.3\r\n0.1\t0.5\r\n")
    assert_table(NetworkTable.load(path), ("a", "b"), networks, scores, [0.5, 0.5, 1, 1, 1])
    assert NetworkTable.load(path, ["a", "b"]).tasks == ("a", "b")


def test_text_with_the_mark_of_an_editor(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("a\tcost\n0.3\t2\n", encoding="utf-8-sig")
    assert_table(NetworkTable.load(path), ("a",), (("a",),), [[0.3]], [2])


def test_text_with_costs(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("a\tcost\tb\n0.3\t2\t0.4\n\t0.5\t0.2\n")
    networks = (("a", "b"), ("b",))
    assert_table(NetworkTable.load(path), ("a", "b"), networks, [[0.3, 0.4], [NAN, 0.2]], [2, 0.5])


@pytest.mark.parametrize("name", ["results", "results_20", "results_test", "results_large"])
def test_published_tables(name):
    if not STANDLEY.is_dir():
        pytest.skip("needs the published tables")
    table = NetworkTable.load(STANDLEY / f"{name}.txt")
    assert table.tasks == ("s", "d", "n", "k", "e") and len(table.networks) == 36
    assert table.networks[:6] == (("s",), ("d",), ("n",), ("k",), ("e",), ("s",))
    assert table.costs.tolist() == [0.5] * 5 + [1.0] * 31
    assert table.networks[-1] == table.tasks


@pytest.mark.parametrize(
    ("text", "tasks", "message"),
    [
        ("", None, "is empty; it should have a line for each network"),
        ("\n\n", None, "is empty"),
        ("garbage", None, "does not hold a table of networks: `losses` should have at least one"),
        ("1\t2\n1\t", None, r"should name its tasks in line 1, since it has 2 columns"),
        ("1\t2\n1\t", ["a"], r"line 1 has 2 columns\. Received: tasks=\['a'\]"),
        ("a\ta\n1\t2", None, r"line 1 should have unique names\. Received: \['a', 'a'\]"),
        ("a\tb\n1\t2", ["b", "a"], r"names the tasks \['a', 'b'\]\. Received: tasks=\['b', 'a'\]"),
        ("a\tb\n1\t2\n1\t2\t3", None, r"line 3 should have 2 columns as line 1 has.*Received: 3\."),
        ("a\tb\n1\t2\n\t", None, r"line 3 has no loss of any task"),
        ("a,b\n1,2", None, r"number for 'a,b'; columns are separated by tabs\. Found: '1,2'"),
        (
            "a\tb\n1\t2\n\n1\t",
            None,
            r"line 3 should have 2 columns.*tabs, and blank.*Received: 1\.",
        ),
        ("a\tb\n1\t2\n0.1x\t", None, r"line 3 should have a finite number for 'a'\. Found: '0.1x'"),
        ("a\tb\n1\tnan", None, r"line 2 should have a finite number for 'b'\. Found: 'nan'"),
        ("a\tb\n1\t" + "9" * 5000, None, r"line 2 should have .* for 'b'\. Found: '9{79}\.$"),
        ("1\tinf", ["a", "b"], r"line 1 should have a finite number for 'b'\. Found: 'inf'"),
        ("a\tb\n1\t", None, r"line 2 should have a loss for each task, .* a column `cost`"),
        ("a\tcost\n1\t", None, r"line 2 should have a cost"),
        ("a\tcost\n1\t-1", None, r"table of networks: `costs\[0\]` should be positive.*-1 for"),
        ("a\tb\n1\t2\n1\t\n2\t", None, r"networks\[2\] and networks\[3\], both \('a',\) at a cost"),
    ],
)
def test_names_file_and_line_of_what_is_wrong(text, tasks, message, tmp_path):
    path = tmp_path / "table.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}.*{message}"):
        NetworkTable.load(path, tasks)


def test_names_a_file_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"table\.txt"):
        NetworkTable.load(tmp_path / "table.txt")
    (tmp_path / "table.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"table\.txt is not a text file"):
        NetworkTable.load(tmp_path / "table.txt")


# --- Higher order approximation.


def test_higher_order_is_the_mean_over_the_pairs():
    table = NetworkTable.from_losses(
        [
            {"a": 0.5, "b": 0.6, "c": 0.7},
            {"a": 0.1, "b": 0.2},
            {"a": 0.3, "c": 0.6},
            {"b": 0.4, "c": 0.8},
            {"a": 0.9},
            ({"b": 0.1, "c": 0.1}, 0.5),
        ]
    )
    # "a" has 0.1 beside "b" and 0.3 beside "c". The pair at the cost of the network counts.
    estimated = table.higher_order()
    np.testing.assert_allclose(estimated.scores[0], [0.2, 0.3, 0.7])
    np.testing.assert_array_equal(estimated.scores[1:], table.scores[1:])
    assert estimated.networks == table.networks and (estimated.costs == table.costs).all()


def test_higher_order_makes_the_larger_groups_of_which_only_pairs_were_trained():
    pairs = {("a", "b"): (0.1, 0.2), ("a", "c"): (0.3, 0.6), ("b", "c"): (0.4, 0.8)}
    pairs |= {("a", "d"): (0.2, 0.9), ("b", "d"): (0.6, 0.1)}
    rows = [(dict(zip(pair, losses, strict=True)), 1.0) for pair, losses in pairs.items()]
    # Half-size networks of one task, as in the paper, and no pair of "c" and "d".
    rows = [({"a": 0.7}, 0.5), *rows]
    estimated = NetworkTable.from_losses(rows, ["a", "b", "c", "d"]).higher_order()
    assert estimated.networks[:6] == (("a",), *pairs)
    assert estimated.networks[6:] == (("a", "b", "c"), ("a", "b", "d"))
    np.testing.assert_allclose(estimated.scores[6:], [[0.2, 0.3, 0.7, NAN], [0.15, 0.4, NAN, 0.5]])
    np.testing.assert_array_equal(estimated.costs, [0.5, *[1.0] * 7])
    # Each pair also at the cost of 3, but for one: a group needs all of its pairs at one cost.
    dear = [(losses, 3.0) for losses, _ in rows[1:5]]
    more = NetworkTable.from_losses([*rows, *dear], ["a", "b", "c", "d"]).higher_order()
    assert list(zip(more.networks, more.costs, strict=True))[10:] == [
        (("a", "b", "c"), 1.0),
        (("a", "b", "c"), 3.0),
        (("a", "b", "d"), 1.0),
    ]


def test_higher_order_of_pairs_is_that_of_all_groups():
    names = ["a", "b", "c", "d", "e"]
    random = np.random.default_rng(0)
    groups = [group for size in range(1, 6) for group in itertools.combinations(names, size)]
    losses = [dict(zip(group, random.uniform(size=len(group)), strict=True)) for group in groups]
    every = NetworkTable.from_losses(losses, names).higher_order()
    few = NetworkTable.from_losses(losses[:15], names).higher_order()
    assert sorted(few.networks) == sorted(every.networks)
    for network in few.networks:
        np.testing.assert_allclose(
            few.scores[few.find(network, 1.0)], every.scores[every.find(network, 1.0)]
        )
    # The case of the paper: the best single network, by pairs alone.
    pairs = NetworkTable.from_losses(losses[5:15], names).higher_order()
    assert tag_keras.select_networks(pairs, 1, "min").groups == (tuple(names),)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], r"the pair \('b', 'c'\), which the estimate for \('a', 'b', 'c'\) needs.*none"),
        ([({"b": 1, "c": 2}, 3.0), ({"b": 1, "c": 2}, 4.0)], r"\('b', 'c'\).*2 of other costs"),
    ],
)
def test_names_the_pair_that_is_missing(more, message):
    rows = [{"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 1}, {"a": 1, "c": 1}, *more]
    with pytest.raises(ValueError, match=message):
        NetworkTable.from_losses(rows).higher_order()


@pytest.mark.parametrize(
    ("pairs", "costs", "message"),
    [
        (
            itertools.combinations("abcdefghijklmnop", 2),
            [1],
            "of more than 15 tasks, not all groups",
        ),
        # Each pair costs what its latency is.
        (["ab", "bc", "ac"], [1.0, 1.2, 0.9], r"at one cost.*costs \[1\.0, 1\.2, 0\.9\]"),
        (["ab", "bc", "cd"], [1], "the pairs of at least three tasks"),
    ],
)
def test_higher_order_says_why_there_is_nothing_to_estimate(pairs, costs, message):
    rows = [(dict.fromkeys(pair, 0.5), cost) for pair, cost in zip(pairs, itertools.cycle(costs))]
    with pytest.raises(ValueError, match=message):
        NetworkTable.from_losses(rows).higher_order()
    # Of two tasks, there is no larger network.
    assert NetworkTable.from_losses(rows[:1]).higher_order().networks == (tuple(rows[0][0]),)


# --- Errors.

RIGHT = {
    "tasks": ["a", "b"],
    "networks": [["a"], ["a", "b"]],
    "scores": [[0.3, NAN], [0.1, 0.2]],
    "costs": [0.5, 1.0],
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": ["a", "a"]}, "`tasks` should be unique"),
        ({"networks": []}, r"`networks` should be a list of at least one network.*networks=\[\]"),
        ({"networks": "ab"}, "`networks` should be a list of at least one network.*'ab'"),
        ({"networks": [["a"], []]}, r"`networks\[1\]` should be a tuple of .*Received: \[\]"),
        ({"networks": ["a", ["a", "b"]]}, r"`networks\[0\]` should be a tuple of .*Received: 'a'"),
        ({"networks": [["a"], ["a", "x"]]}, r"`networks\[1\]` .* out of \('a', 'b'\).*'x'"),
        ({"networks": [["a"], ["a", "a"]]}, r"`networks\[1\]` should be .* different names"),
        ({"scores": [[0.3, NAN]]}, r"`scores` should have the shape \(2, 2\).*shape \(1, 2\)"),
        ({"scores": [[0.3, NAN], [0.1]]}, r"`scores` should be an array.*Received: \[\[0.3, nan\]"),
        (
            {"scores": "x"},
            r"`scores` should be an array of numbers of shape \(2, 2\).*Received: 'x'",
        ),
        (
            {"scores": [[0.3, NAN], [0.1, NAN]]},
            r"`scores\[1\]` should have a finite score for 'b', .* \('a', 'b'\)\. Received: nan",
        ),
        (
            {"scores": [[math.inf, NAN], [0.1, 0.2]]},
            r"`scores\[0\]` should have a finite score for 'a'.*Received: inf",
        ),
        (
            {"scores": [[0.3, 0.5], [0.1, 0.2]]},
            r"`scores\[0\]` should have NaN for 'b', since the network is \('a',\)\. Received: 0.5",
        ),
        (
            {"scores": [[0.3, -math.inf], [0.1, 0.2]]},
            r"`scores\[0\]` should have NaN for 'b'.*Received: -inf",
        ),
        (
            {"scores": [[1e308, NAN], [0.1, 0.2]]},
            r"`scores\[0\]` should have a finite score for 'a', at most 1e\+300 in size, since",
        ),
        ({"scores": [[10**400, NAN], [0.1, 0.2]]}, r"`scores` should be an array of numbers"),
        ({"costs": [10**400, 1]}, r"`costs` should be an array of numbers of shape \(2,\)"),
        (
            {"costs": [1e-320, 1]},
            r"`costs\[0\]` should be positive and finite, from 1e-100 to 1e\+100",
        ),
        ({"costs": [1.0]}, r"`costs` should have the shape \(2,\).*shape \(1,\)"),
        (
            {"costs": [1.0, None]},
            r"`costs\[1\]` should be positive and finite.*Received: nan for",
        ),
        (
            {"costs": [0.0, 1.0]},
            r"`costs\[0\]` should be positive and finite.*Received: 0 for \('a',\)",
        ),
        (
            {"costs": [1.0, math.inf]},
            r"`costs\[1\]` should be positive and finite.*Received: inf",
        ),
        (
            {
                "networks": [["b", "a"], ["a", "b"]],
                "scores": [[1, 2], [3, 4]],
                "costs": [0.3, 0.1 + 0.2],
            },
            r"differ.*networks\[0\] and networks\[1\], both \('a', 'b'\) at a cost of 0\.3",
        ),
    ],
)
def test_refuses_tables_that_contradict_themselves(wrong, message):
    NetworkTable(**RIGHT)
    with pytest.raises(ValueError, match=message):
        NetworkTable(**(RIGHT | wrong))


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (
            3,
            r"`losses` should be a dict of losses by network, .*from_affinity.*Received: int",
        ),
        ({"a": {"a": 0.1}}, r'tuples of task names as keys, such as \("a",\)\. Received: \'a\''),
        ({("a", "b"): {"a": 0.1}}, r"give \('a', 'b'\) the loss of each of its tasks, in a dict"),
        ({("a",): 0.1}, r"give \('a',\) the loss of each of its tasks, in a dict\. Received: 0.1"),
        ([{"a": 0.1}, 0.5], r"`losses\[1\]` should be a dict of losses by task, or .*0.5"),
        ([({"a": 0.1}, 0.5, 1)], r"`losses\[0\]` should be a dict of losses by task, or"),
        ([], r"`losses` should have at least one network\. Received: losses=\[\]"),
        ([{"a": 0.1}, {}], r"`networks\[1\]` should be a tuple of"),
        ([{"a": None}], r"`scores\[0\]` should have a finite score for 'a'"),
        ([({"a": 1}, "x")], r"`costs` should be an array of numbers of shape \(1,\)"),
    ],
)
def test_refuses_losses_by_hand_that_make_no_table(losses, message):
    with pytest.raises(ValueError, match=message):
        NetworkTable.from_losses(losses)
