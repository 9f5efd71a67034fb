"""Networks under a budget, by the losses of networks (Standley et al. 2020, arXiv 1905.07553)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tag_keras.results import ResultTable, Row
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.network_table import NetworkTable
from tag_keras.selection.networks import select_networks
from tag_keras.study.methods.base import Choices, Method
from tag_keras.study.networks import (
    Group,
    groups_of,
    load_choice,
    plain_network,
    save_choice,
)
from tag_keras.study.study import Study
from tag_keras.sweep.network import Network


def measured(
    study: Study, networks: Sequence[Network], rows: Sequence[Row]
) -> list[tuple[dict[str, float], float]]:
    """Validation errors by task of networks that were trained with the first seed, and costs."""
    table, first = ResultTable(study.errors(list(rows))), study.seeds[:1]
    found = [
        table.losses(dict.fromkeys(one.tasks, one.name), "validation", first) for one in networks
    ]
    return [
        ({task: float(values[0]) for task, values in losses.items()}, one.cost)
        for losses, one in zip(found, networks, strict=True)
    ]


class ByLoss(Method):
    """The best networks by the losses of all groups, each trained to the end."""

    by_loss: ClassVar[bool] = True
    # Whether the networks to choose by are trained for a few epochs only.
    early: ClassVar[bool] = False

    def networks(self, tasks: Group, half_size: bool = False) -> list[Network]:
        groups = groups_of(tasks, self._largest(tasks))
        singles = [(task,) for task in tasks] if half_size else []
        return [plain_network(group, tasks, self.early) for group in groups] + [
            plain_network(single, tasks, self.early, half_size=True) for single in singles
        ]

    def settings(self, study: Study) -> dict[str, Any]:
        return {"half_size": study.half_size}

    def choose(self, study: Study, folder: Path, rows: list[Row]) -> Choices:
        networks = self.networks(study.tasks, study.half_size)
        table, networks = self._table(study, networks, rows)
        choices: Choices = {}
        for budget in study.budgets or study.num_groups:
            path = folder / f"groups_{budget:g}.json"
            if not path.exists():
                _save_selection(path, table, networks, budget)
            choices[budget] = [load_choice(path, study.tasks)]
        return choices

    def _largest(self, tasks: Group) -> int:
        """The largest number of tasks of a network to choose by."""
        return len(tasks)

    def _table(
        self, study: Study, networks: list[Network], rows: list[Row]
    ) -> tuple[NetworkTable, list[Network]]:
        """The networks that may be chosen, and their errors."""
        return NetworkTable.from_losses(measured(study, networks, rows), study.tasks), networks


class EarlyStopping(ByLoss):
    """ESA: the same by losses after a short training."""

    early: ClassVar[bool] = True
    owns_networks: ClassVar[bool] = True

    def settings(self, study: Study) -> dict[str, Any]:
        return {**super().settings(study), "early_epochs": study.early_epochs}


class HigherOrder(ByLoss):
    """HOA: the same by losses of single tasks and pairs, of which it estimates the others'."""

    def _largest(self, tasks: Group) -> int:
        return 2

    def _table(
        self, study: Study, networks: list[Network], rows: list[Row]
    ) -> tuple[NetworkTable, list[Network]]:
        groups = groups_of(study.tasks, len(study.tasks))
        larger = [plain_network(group, study.tasks) for group in groups if len(group) > 2]
        # Nobody has measured them: `higher_order` replaces their losses by those of their pairs.
        unknown = [(dict.fromkeys(one.tasks, 0.0), one.cost) for one in larger]
        known = measured(study, networks, rows)
        table = NetworkTable.from_losses([*known, *unknown], study.tasks)
        return table.higher_order(), [*networks, *larger]


def _save_selection(
    path: Path, table: NetworkTable, networks: Sequence[Network], budget: float
) -> None:
    chosen = select_networks(table, budget, sense="min")
    grouping = Grouping(
        chosen.tasks,
        chosen.groups,
        chosen.serves,
        chosen.score,
        chosen.upper_bound,
        chosen.optimal,
    )
    # A network that was chosen after a short training is trained whole to serve.
    save_choice(path, grouping, [networks[row].half_size for row in chosen.networks])
