"""What a method of a study is: which networks it needs, and how it chooses among them."""

import dataclasses
import re
from pathlib import Path
from typing import Any, ClassVar

from tag_keras.results import Row
from tag_keras.study.networks import Choice, Group, load_choice
from tag_keras.study.study import Study
from tag_keras.sweep.network import Network
from tag_keras.utils.files import keep_settings

# Choices by number of networks, or by budget; random ones are several.
Choices = dict[float, list[Choice]]


@dataclasses.dataclass(frozen=True)
class Method:
    """A method that divides tasks among networks. A subclass implements `networks` and `choose`.

    Args:
        name: Name in the tables of the papers, and of the method's folder.
        words: What it does, in a line.
    """

    name: str
    words: str

    # Whether the method makes choices, which it keeps in its folder.
    chooses: ClassVar[bool] = True
    # Whether it chooses by the losses of networks, for which a budget may be given.
    by_loss: ClassVar[bool] = False
    # Whether the networks that it chooses by depend on its options, and lie in its own folder.
    owns_networks: ClassVar[bool] = False
    # Names of the files of choices.
    _file: ClassVar[re.Pattern[str]] = re.compile(r"groups_(\d+(?:\.\d+)?)\.json")

    def networks(self, tasks: Group, half_size: bool = False) -> list[Network]:
        """The networks that the method chooses by.

        Args:
            tasks: Task names.
            half_size: Whether it may choose networks of half the size for single tasks, too.

        Raises:
            ValueError: If there are too many tasks to train all their groups or pairs.
        """
        return []

    def settings(self, study: Study) -> dict[str, Any]:
        """What the choices depend on, besides the first seed."""
        return {}

    def choose(self, study: Study, folder: Path, rows: list[Row]) -> Choices:
        """Chooses; what is in the folder is not chosen again.

        Args:
            study: The study.
            folder: Folder of the method.
            rows: Results of `networks`.
        """
        raise NotImplementedError

    def choices(self, study: Study) -> Choices:
        """Trains what the method chooses by, and chooses.

        Raises:
            ValueError: If the folder belongs to other options.
        """
        folder, first = study.folder / self.name, study.seeds[:1]
        keep_settings(folder, {"first_seed": first[0], **self.settings(study)})
        networks = self.networks(study.tasks, study.half_size)
        print(f"{self.name}: {len(networks)} networks to choose by", flush=True)
        # They go with the options, when the folder of the method is deleted.
        rows = study.train(networks, first, folder if self.owns_networks else None)
        return self.choose(study, folder, rows)

    def saved_choices(self, folder: Path, tasks: Group) -> Choices:
        """The choices in the folder of a study, by increasing budget.

        Args:
            folder: Folder of the study.
            tasks: Its tasks.
        """
        found: Choices = {}
        for path in sorted((folder / self.name).glob("groups_*.json")):
            # Somebody may have put copies there.
            if name := self._file.fullmatch(path.name):
                found.setdefault(float(name[1]), []).append(load_choice(path, tasks))
        return dict(sorted(found.items()))
