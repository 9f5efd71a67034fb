"""Affinities, groups and results to report on."""

import html.parser

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.results import Row
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.stability import GroupingStability

TASKS = (
    "is_even",
    "at_least_five",
    "prime",
    "has_loop",
    "multiple_of_three",
    "left_heavy",
    "a<b>",
    "slant",
    "height",
)
GROUPS = (
    ("is_even", "prime", "multiple_of_three", "a<b>"),
    ("at_least_five", "has_loop", "height"),
    ("left_heavy", "a<b>", "slant"),
)
SERVES = {task: index for index, group in enumerate(GROUPS) for task in group}
METRIC_TASKS = ("prime", "has_loop")
MINUS = "\N{MINUS SIGN}"


def make_affinity(tasks=TASKS, epochs=12, **changes):
    generator = np.random.default_rng(0)
    size = len(tasks)
    mean = generator.normal(0.01, 0.02, (size, size)) + 0.2 * np.eye(size)
    noise = generator.normal(0, 0.005, (epochs, size, size))
    decay = np.exp(-np.arange(epochs) / 6)[:, None, None]
    fields = {
        "mean": mean,
        "standard_error": generator.uniform(0.002, 0.01, (size, size)),
        "count": np.full((size, size), 216),
        "history": mean * (0.5 + decay) + noise,
        "skipped": np.zeros((size, size)),
    }
    return Affinity(tasks, **(fields | changes))


def make_grouping(tasks=TASKS, groups=GROUPS, serves=None, **changes):
    serves = serves or {task: index for index, group in enumerate(groups) for task in group}
    fields = {"score": 0.02, "upper_bound": 0.02, "optimal": True}
    return Grouping(tasks, groups, serves, **(fields | changes))


def make_rows(seeds=3):
    """Rows of every kind of network on both splits, and of the training that measured."""
    generator = np.random.default_rng(1)
    level = dict(zip(TASKS, generator.uniform(0.05, 0.6, len(TASKS)), strict=True))
    networks = {"joint": (TASKS, 0.0), "affinity": (TASKS, 0.0)}
    networks |= {f"single_{task}": ((task,), 0.03) for task in TASKS}
    networks |= {f"group_{index}": (group, -0.02) for index, group in enumerate(GROUPS)}
    rows = []
    for network, (tasks, shift) in networks.items():
        for seed in range(1 if network == "affinity" else seeds):
            for task in tasks:
                for split in ("validation", "test"):
                    loss = level[task] + shift + generator.normal(0, 0.003)
                    metrics = {"accuracy": 1 - loss / 3} if task in METRIC_TASKS else {}
                    seconds = 60.0 if network == "affinity" else 10.0 + len(tasks)
                    rows.append(Row(network, tasks, seed, task, split, loss, metrics, seconds))
    return rows


# A smaller problem with totals that are easy to work out: the helper is b in group_1.
ABC = ("a", "b", "c")
ABC_GROUPING = {
    "tasks": ABC,
    "groups": (("a", "b"), ("b", "c")),
    "serves": {"a": 0, "b": 0, "c": 1},
}


def rows_with_totals(**totals):
    """Rows of the kinds of networks whose test losses over a, b, c sum to the given totals."""
    networks = {
        "joint": {"joint": ABC},
        "single": {f"single_{task}": (task,) for task in ABC},
        "grouped": {"group_0": ("a", "b"), "group_1": ("b", "c")},
    }
    return [
        Row(network, tasks, seed, task, "test", total * share, {}, 1.0)
        for kind, values in totals.items()
        for seed, total in enumerate(values)
        for network, tasks in networks[kind].items()
        for task, share in zip(ABC, (0.5, 0.25, 0.25), strict=True)
        if task in tasks
    ]


class Tables(html.parser.HTMLParser):
    """Tables of a page as lists of lines of cells, each a list of its words, and its drawings.

    Attributes:
        tables: By table, a list of lines.
        by_section: Tables by the heading that they stand below.
        texts: By section, all of its text outside of tables, drawings, styles and scripts.
        marked: Table, line and cell, counted from 1, of cells of the class "best".
        resources: What "src" and "href" name.
        drawings: By drawing, its class, its label and its texts.
        ids: Values of "id".
    """

    def __init__(self, page):
        super().__init__()
        self.tables, self.inside, self.resources, self.marked = [], False, [], []
        self.by_section, self.texts, self.drawings, self.ids = {}, {}, [], []
        self._section, self._heading, self._open = "", None, []
        self.feed(page)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.resources += [attributes[name] for name in ("src", "href") if name in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in ("meta", "br", "col", "path", "line", "rect", "circle", "input"):
            self._open.append(tag)
        if tag == "h2":
            self._section = ""
        elif tag == "svg" and "role" in attributes:
            self.drawings.append((attributes["class"], attributes["aria-label"], []))
        elif tag == "table":
            self.tables.append([])
            self.by_section.setdefault(self._section, []).append(self.tables[-1])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append([])
            self.inside = True
            if attributes.get("class") == "best":
                self.marked.append(
                    (len(self.tables), len(self.tables[-1]), len(self.tables[-1][-1]))
                )

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self._open[-1:] == [tag]:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag == "path":
            return
        assert self._open.pop() == tag
        self.inside = self.inside and tag not in ("th", "td")

    def handle_data(self, data):
        words = " ".join(data.split())
        if not words or {"style", "script"} & {*self._open}:
            return
        if self._open[-1] == "h2":
            self._section += words
        elif "svg" in self._open:
            self.drawings[-1][2].append(words) if self.drawings else None
        elif self.inside:
            self.tables[-1][-1][-1].append(words)
        else:
            before = self.texts.get(self._section, "")
            self.texts[self._section] = f"{before} {words}".strip()


# Four tasks, for which other groups are known, too.
FOUR = ("a", "b", "c", "d<e>$f$")
FOUR_GROUPS = (("a", "c"), ("b", "d<e>$f$"))
# The largest is between 10 and 100 thousandths, so figures are in thousandths.
FOUR_AFFINITY = Affinity(FOUR, 0.02 * (np.ones((4, 4)) - np.eye(4)), np.full((4, 4), 0.01))


def make_choice(score=0.01, groups=FOUR_GROUPS, tasks=FOUR):
    return make_grouping(tasks, groups, score=score, upper_bound=score)


def make_stability(**changes):
    share = np.array([[1, 0.1, 0.9, 0.2], [0.1, 1, 0, 0.74], [0.9, 0, 1, 0.3], [0.2, 0.74, 0.3, 1]])
    fields = {"tasks": FOUR, "grouping": make_choice(), "share": share, "wins": 0.645}
    return GroupingStability(**(fields | {"regret": 2.7e-4, "num_samples": 200} | changes))
