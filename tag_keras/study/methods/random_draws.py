"""Random networks, to compare other choices with chance."""

import itertools
import re
from typing import ClassVar

import numpy as np

from tag_keras.selection.grouping import Grouping
from tag_keras.selection.network_table import NetworkTable
from tag_keras.study.methods.base import Choices, Method
from tag_keras.study.methods.by_loss import measured
from tag_keras.study.networks import load_choice, plain_network, random_groups, save_choice
from tag_keras.study.study import Study
from tag_keras.utils.files import keep_settings


class RandomDraws(Method):
    """Several draws of networks that cover the tasks; the best one for each task serves it."""

    _file: ClassVar[re.Pattern[str]] = re.compile(r"groups_(\d+)_\d+\.json")

    def choices(self, study: Study) -> Choices:
        folder, seed = study.folder / self.name, study.seeds[0]
        keep_settings(folder, {"first_seed": seed})
        drawn = {}
        for number, draw in itertools.product(study.num_groups, range(study.num_draws)):
            random = np.random.default_rng([seed, number, draw])
            groups = random_groups(study.tasks, number, random)
            drawn[number, draw] = [plain_network(group, study.tasks) for group in groups]
        every = dict.fromkeys(network for networks in drawn.values() for network in networks)
        study.say(f"{self.name}: {len(every)} networks drawn")
        rows = study.train(list(every), [seed])
        choices: Choices = {number: [] for number in study.num_groups}
        for (number, draw), networks in drawn.items():
            path = folder / f"groups_{number}_{draw}.json"
            if not path.exists():
                table = NetworkTable.from_losses(measured(study, networks, rows), study.tasks)
                best = np.nanargmin(table.scores, axis=0).tolist()
                serves = dict(zip(table.tasks, best, strict=True))
                score = float(np.nanmin(table.scores, axis=0).mean())
                grouping = Grouping(table.tasks, table.networks, serves, score, score, False)
                save_choice(path, grouping)
            choices[number].append(load_choice(path, study.tasks))
        return choices
