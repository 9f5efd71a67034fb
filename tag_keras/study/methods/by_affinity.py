"""Groups by the affinities that one joint training measures (Fifty et al. 2021, 2109.04617)."""

from pathlib import Path
from typing import Any, ClassVar

from tag_keras.results import Row
from tag_keras.selection.groups import select_groups
from tag_keras.study.methods.base import Choices, Method
from tag_keras.study.networks import Group, load_choice, method_network, save_choice
from tag_keras.study.study import Study
from tag_keras.sweep.network import Network


class ByAffinity(Method):
    """Groups by the affinities that the study's estimator of the same name measures."""

    owns_networks: ClassVar[bool] = True

    def networks(self, tasks: Group, half_size: bool = False) -> list[Network]:
        return [method_network(self.name, tasks)]

    def settings(self, study: Study) -> dict[str, Any]:
        return study.estimators[self.name].settings()

    def choose(
        self, study: Study, folder: Path, networks: list[Network], rows: list[Row]
    ) -> Choices:
        (network,) = networks
        affinity = study.affinity_of(network, folder=folder)
        affinity.save(folder / "affinity.json")
        choices: Choices = {}
        for number in study.num_groups:
            path = folder / f"groups_{number}.json"
            if not path.exists():
                save_choice(path, select_groups(affinity, number))
            choices[float(number)] = [load_choice(path, study.tasks)]
        return choices
