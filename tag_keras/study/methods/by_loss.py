"""Networks under a budget, by the losses of networks (Standley et al. 2020, arXiv 1905.07553)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tag_keras.results import ResultTable, Row
from tag_keras.selection.network_table import NetworkTable
from tag_keras.selection.networks import select_networks
from tag_keras.study.methods.base import Choices, Method
from tag_keras.study.networks import Group, groups_of, load_choice, plain_network, save_choice
from tag_keras.study.study import Study
from tag_keras.sweep.network import Network


def measured(
    study: Study, networks: Sequence[Network], rows: Sequence[Row]
) -> list[tuple[dict[str, float], float]]:
    """Each network's validation errors by task with the first seed, and its cost."""
    table, found = ResultTable(study.errors(list(rows))), []
    for one in networks:
        serves = dict.fromkeys(one.tasks, one.name)
        losses = table.losses(serves, "validation", study.seeds[:1])
        found.append(({task: float(values[0]) for task, values in losses.items()}, one.cost))
    return found


class ByLoss(Method):
    """The best networks by the losses of all groups, each trained to the end."""

    by_loss: ClassVar[bool] = True
    # Whether the networks to choose by are trained for a few epochs only.
    early: ClassVar[bool] = False

    def networks(self, tasks: Group, half_size: bool = False) -> list[Network]:
        groups = groups_of(tasks, self._largest(tasks))
        networks = [plain_network(group, tasks, self.early) for group in groups]
        if half_size:
            networks += [plain_network((task,), tasks, self.early, True) for task in tasks]
        return networks

    def settings(self, study: Study) -> dict[str, Any]:
        return {"half_size": study.half_size}

    def choose(
        self, study: Study, folder: Path, networks: list[Network], rows: list[Row]
    ) -> Choices:
        table, networks = self._table(study, networks, rows)
        choices: Choices = {}
        for budget in study.budgets or study.num_groups:
            path = folder / f"groups_{budget:g}.json"
            if not path.exists():
                chosen = select_networks(table, budget, sense="min")
                # Chosen after a short training, a network still serves after a whole one.
                save_choice(path, chosen, [networks[row].half_size for row in chosen.networks])
            choices[budget] = [load_choice(path, study.tasks)]
        return choices

    def _largest(self, tasks: Group) -> int:
        """Number of tasks of the largest network to choose by."""
        return len(tasks)

    def _table(
        self, study: Study, networks: list[Network], rows: list[Row]
    ) -> tuple[NetworkTable, list[Network]]:
        """The table of errors to choose by, and the networks of its rows."""
        return NetworkTable.from_losses(measured(study, networks, rows), study.tasks), networks


class EarlyStopping(ByLoss):
    """Early stopping approximation (ESA): chooses by losses after a short training."""

    early: ClassVar[bool] = True
    owns_networks: ClassVar[bool] = True

    def settings(self, study: Study) -> dict[str, Any]:
        return {**super().settings(study), "early_epochs": study.early_epochs}


class HigherOrder(ByLoss):
    """Higher order approximation (HOA): estimates losses of larger groups from losses of pairs."""

    def _largest(self, tasks: Group) -> int:
        return 2

    def _table(
        self, study: Study, networks: list[Network], rows: list[Row]
    ) -> tuple[NetworkTable, list[Network]]:
        groups = groups_of(study.tasks, len(study.tasks))
        larger = [plain_network(group, study.tasks) for group in groups if len(group) > 2]
        # `higher_order` puts estimates from pairs in place of the zeros.
        unknown = [(dict.fromkeys(one.tasks, 0.0), one.cost) for one in larger]
        known = measured(study, networks, rows)
        table = NetworkTable.from_losses([*known, *unknown], study.tasks)
        return table.higher_order(), [*networks, *larger]
