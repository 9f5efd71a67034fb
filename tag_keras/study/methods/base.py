"""The interface of a method: which networks it needs, and how it chooses among them."""

import dataclasses
import re
from pathlib import Path
from typing import Any, ClassVar

from tag_keras.results import Row
from tag_keras.study.networks import Choice, Group, load_choice
from tag_keras.study.study import Study
from tag_keras.sweep.network import Network
from tag_keras.utils.files import keep_settings

# Choices by number of networks or budget; the random method has several for each.
Choices = dict[float, list[Choice]]


@dataclasses.dataclass(frozen=True)
class Method:
    """A method that divides tasks among networks. A subclass implements `networks` and `choose`.

    Args:
        name: Name in the tables of the papers, and of the method's folder. `study.names` has
            its description in one line.
    """

    name: str

    # Whether it makes choices, which it keeps in its folder.
    chooses: ClassVar[bool] = True
    # Whether it chooses by the losses of networks, under a budget.
    by_loss: ClassVar[bool] = False
    # Whether the networks to choose by depend on its options. They then lie in its own folder.
    owns_networks: ClassVar[bool] = False
    # Names of the files of choices, with the budget.
    _file: ClassVar[re.Pattern[str]] = re.compile(r"groups_(\d+(?:\.\d+)?)\.json")

    def networks(self, tasks: Group, half_size: bool = False) -> list[Network]:
        """The networks to choose by; with `half_size`, also ones of half the size for single tasks.

        Raises:
            ValueError: If there are too many tasks to train all their groups or pairs.
        """
        return []

    def settings(self, study: Study) -> dict[str, Any]:
        """The options that the choices depend on, besides the first seed."""
        return {}

    def choose(
        self, study: Study, folder: Path, networks: list[Network], rows: list[Row]
    ) -> Choices:
        """Chooses by the rows of the networks, and writes the choices that are not there yet."""
        raise NotImplementedError

    def choices(self, study: Study) -> Choices:
        """Trains the networks to choose by, and chooses.

        Raises:
            ValueError: If the folder belongs to other options.
        """
        folder, first_seed = study.folder / self.name, study.seeds[0]
        keep_settings(folder, {"first_seed": first_seed, **self.settings(study)})
        networks = self.networks(study.tasks, study.half_size)
        study.say(f"{self.name}: {len(networks)} networks to choose by")
        # In the method's own folder, so that deleting it deletes all that depends on its options.
        rows = study.train(networks, [first_seed], folder if self.owns_networks else None)
        return self.choose(study, folder, networks, rows)

    def saved_choices(self, folder: Path, tasks: Group) -> Choices:
        """The choices in the folder of a study of `tasks`, by increasing budget."""
        found: Choices = {}
        for path in sorted((folder / self.name).glob("groups_*.json")):
            # Users may have put copies there.
            if name := self._file.fullmatch(path.name):
                found.setdefault(float(name[1]), []).append(load_choice(path, tasks))
        return dict(sorted(found.items()))
