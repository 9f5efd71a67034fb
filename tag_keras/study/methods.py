"""The methods of a study: each trains networks to choose by, chooses, and trains those chosen.

What is in the study's folder is not done again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.gradient_methods.pcgrad import PCGrad
from tag_keras.loss_weighting.dynamic_average import DynamicWeightAverage
from tag_keras.loss_weighting.gradnorm import GradNorm
from tag_keras.loss_weighting.uncertainty import UncertaintyWeighting
from tag_keras.results import Row
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.groups import select_groups
from tag_keras.selection.network_table import NetworkTable
from tag_keras.selection.networks import select_networks
from tag_keras.study.networks import (
    BY_AFFINITY,
    BY_LOSS,
    CHOOSING,
    METHODS,
    Candidate,
    Choice,
    choosing_networks,
    fixed_choice,
    groups_of,
    load_choice,
    random_groups,
    save_choice,
)
from tag_keras.study.study import Study
from tag_keras.sweep.job import JobFiles
from tag_keras.sweep.network import Network
from tag_keras.utils.checks import check_choice
from tag_keras.utils.files import keep_settings


def method_options(
    method: str,
    shared_layer: keras.layers.Layer | str,
    alpha: float = 1.5,
    learning_rate: float = 0.025,
    original: bool = False,
) -> dict[str, Any]:
    """Arguments of `compile` for a method, by the names of the papers' tables.

    Args:
        method: `"uw"`, `"gradnorm"`, `"pcgrad"` or `"dwa"`; or `"mtl"` or `"mtan"`, which train as
            any model.
        shared_layer: Last shared layer, or its name, at whose kernel GradNorm looks.
        alpha: Strength with which GradNorm balances the tasks.
        learning_rate: Learning rate of GradNorm's weights.
        original: Whether to do as TAG's notebook does, which weighs losses by the variant V3 of
            uncertainty weighting for both uw and pcgrad, and projects in a fixed order.

    Raises:
        ValueError: If there is no such method.
    """
    weighting = UncertaintyWeighting("V3") if original else UncertaintyWeighting()
    options: dict[str, dict[str, Any]] = {
        "mtl": {},
        "mtan": {},
        "uw": {"loss_weighting": weighting},
        "dwa": {"loss_weighting": DynamicWeightAverage()},
        "gradnorm": {"loss_weighting": GradNorm(shared_layer, alpha, learning_rate)},
        "pcgrad": {"gradient_method": PCGrad()},
    }
    if original:
        options["pcgrad"] = {"gradient_method": PCGrad("authors"), "loss_weighting": weighting}
    check_choice("method", method, [*options])
    return options[method]


def run_method(study: Study, method: str) -> dict[float, list[Choice]]:
    """Trains and chooses what a method needs; what is in the folder is not done again.

    Args:
        study: The study.
        method: One of `networks.METHODS`.

    Returns:
        Its choices by budget; random ones are several. For a method without a choice, the number
        of its networks is the budget.

    Raises:
        ValueError: If there is no such method, or if the folder belongs to other options.
    """
    check_choice("method", method, [*METHODS])
    if method not in CHOOSING:
        choice = fixed_choice(method, study.tasks)
        choices = {float(len(choice.networks)): [choice]}
    else:
        choices = _choose(study, method)
    flat = [network for several in choices.values() for one in several for network in one.networks]
    serving = list(dict.fromkeys(flat))
    print(f"{method}: {len(serving)} networks to serve, {len(study.seeds)} seeds", flush=True)
    study.train(serving, study.seeds)
    return choices


def _choose(study: Study, method: str) -> dict[float, list[Choice]]:
    folder, seed = study.folder / method, study.seeds[0]
    networks = choosing_networks(method, study.tasks, study.half_size)
    options: dict[str, Any] = {"first_seed": seed}
    if method in BY_AFFINITY:
        options |= study.estimators[method].settings()
    if method in BY_LOSS:
        options["half_size"] = study.half_size
    if method == "esa":
        options["early_epochs"] = study.early_epochs
    keep_settings(folder, options)
    if method == "random":
        return _choose_randomly(study, folder)
    print(f"{method}: {len(networks)} networks to choose by", flush=True)
    # What depends on the options goes with them, when the method's folder is deleted.
    own = method == "esa" or method in BY_AFFINITY
    rows = study.train(networks, [seed], folder if own else None)
    if method in BY_AFFINITY:
        return _choose_by_affinity(study, folder, networks[0])
    table, networks = _table(study, method, networks, rows)
    paths = {
        budget: folder / f"groups_{budget:g}.json" for budget in study.budgets or study.num_groups
    }
    for budget, path in paths.items():
        if not path.exists():
            _save_selection(path, table, networks, budget)
    return {budget: [load_choice(path, study.tasks)] for budget, path in paths.items()}


def _choose_by_affinity(
    study: Study, folder: Path, network: Candidate
) -> dict[float, list[Choice]]:
    trained = Network(network.name(study.tasks), network.tasks, study.seeds[0])
    affinity = Affinity.load(JobFiles(folder, trained).affinity)
    affinity.save(folder / "affinity.json")
    choices = {}
    for number in study.num_groups:
        path = folder / f"groups_{number}.json"
        if not path.exists():
            grouping = select_groups(affinity, number)
            save_choice(path, grouping, ["plain"] * len(grouping.groups))
        choices[float(number)] = [load_choice(path, study.tasks)]
    return choices


def _choose_randomly(study: Study, folder: Path) -> dict[float, list[Choice]]:
    """Draws networks, and serves each task from the one that is best for it on validation."""
    drawn = {
        (number, draw): [
            Candidate(group)
            for group in random_groups(
                study.tasks, number, np.random.default_rng([study.seeds[0], number, draw])
            )
        ]
        for number in study.num_groups
        for draw in range(study.num_draws)
    }
    every = dict.fromkeys(network for networks in drawn.values() for network in networks)
    print(f"random: {len(every)} networks drawn", flush=True)
    rows = study.train(list(every), study.seeds[:1])
    choices: dict[float, list[Choice]] = {number: [] for number in study.num_groups}
    for (number, draw), networks in drawn.items():
        path = folder / f"groups_{number}_{draw}.json"
        if not path.exists():
            _save_drawn(path, _table(study, "random", networks, rows)[0])
        choices[number].append(load_choice(path, study.tasks))
    return choices


def _table(
    study: Study, method: str, networks: Sequence[Candidate], rows: Sequence[Row]
) -> tuple[NetworkTable, list[Candidate]]:
    """Validation losses of networks, and for HOA the estimates of those that were not trained."""
    losses: dict[str, dict[str, float]] = {}
    for row in study.errors(list(rows)):
        if row.split == "validation":
            losses.setdefault(row.network, {})[row.task] = row.loss
    found = [(losses[one.name(study.tasks)], one.cost) for one in networks]
    table = NetworkTable.from_losses(found, study.tasks)
    if method != "hoa":
        return table, list(networks)
    groups = groups_of(study.tasks, len(study.tasks))
    larger = [Candidate(group) for group in groups if len(group) > 2]
    # Their losses, which nobody has measured, are replaced by those of their pairs.
    found += [(dict.fromkeys(one.tasks, 0.0), one.cost) for one in larger]
    return NetworkTable.from_losses(found, study.tasks).higher_order(), [*networks, *larger]


def _save_drawn(path: Path, table: NetworkTable) -> None:
    """All networks that were drawn, of which each task is served by the best for it."""
    serves = np.nanargmin(table.scores, axis=0).tolist()
    score = float(np.nanmin(table.scores, axis=0).mean())
    by_task = dict(zip(table.tasks, serves, strict=True))
    grouping = Grouping(table.tasks, table.networks, by_task, score, score, optimal=False)
    save_choice(path, grouping, ["plain"] * len(table.networks))


def _save_selection(
    path: Path, table: NetworkTable, networks: Sequence[Candidate], budget: float
) -> None:
    chosen = select_networks(table, budget, sense="min")
    kinds = [networks[row].kind for row in chosen.networks]
    # What an early network promised is trained whole to serve.
    kinds = ["half" if kind.endswith("half") else "plain" for kind in kinds]
    grouping = Grouping(
        chosen.tasks,
        chosen.groups,
        chosen.serves,
        chosen.score,
        chosen.upper_bound,
        chosen.optimal,
    )
    save_choice(path, grouping, kinds)
