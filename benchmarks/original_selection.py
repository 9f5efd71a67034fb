"""Network selection by the algorithm of TAG's notebook, to compare with.

The notebook is tag/network_selection/TAG_network_selection.ipynb of google-research; this code is
written anew after its algorithm. It lists all 2**T - 1 groups, each a dict of its members' scores,
and searches all families of up to `num_groups` groups, each a dict of groups, in plain Python.
"""

import math

import numpy as np

import tag_keras


def original_groups(affinity: tag_keras.Affinity) -> dict[str, dict[str, float]]:
    """By group, the score of each member; groups are in the original's order."""
    tasks, onto = affinity.tasks, {}
    for target, row in zip(tasks, affinity.mean.T.tolist(), strict=True):
        onto[target] = dict(zip(tasks, row, strict=True))
    groups = {}

    def extend(start: int, totals: dict[str, float]) -> None:
        for index in range(start, len(tasks)):
            task = tasks[index]
            larger = {other: total + onto[other][task] for other, total in totals.items()}
            larger[task] = sum(onto[task][other] for other in totals)
            if totals:
                scores = {name: total / len(totals) for name, total in larger.items()}
                groups["|".join(larger)] = scores
            extend(index + 1, larger)
            if not totals:
                groups[task] = {task: -1e6}

    extend(0, {})
    return groups


def original_selection(affinity: tag_keras.Affinity, num_groups: int) -> tuple[float, list[str]]:
    """The best score, and the groups of the first family that has it."""
    groups = list(original_groups(affinity).items())
    best_score, best_family = -math.inf, []

    def search(start: int, family: dict[str, dict[str, float]]) -> None:
        nonlocal best_score, best_family
        covered = {task for scores in family.values() for task in scores}
        if len(covered) == len(affinity.tasks):
            best = dict.fromkeys(covered, -math.inf)
            for scores in family.values():
                for task, score in scores.items():
                    if score > best[task]:
                        best[task] = score
            score = np.mean(list(best.values()))
            if score > best_score:
                best_score, best_family = float(score), list(family)
        if len(family) < num_groups:
            for index in range(start, len(groups)):
                name, scores = groups[index]
                search(index + 1, {**family, name: scores})

    search(0, {})
    return best_score, best_family
