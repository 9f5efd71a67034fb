"""A selection in words: its networks, what each serves, and how good it is proven to be."""

from collections.abc import Iterable, Mapping, Sequence

from tag_keras.grouping import Grouping


def summary(
    grouping: Grouping, scores: Mapping[str, float], sense: str = "max", costs: Iterable[float] = ()
) -> list[str]:
    """Lines for a screen.

    Args:
        grouping: The selection.
        scores: By task, the score that the network which serves it gives it.
        sense: `"max"`, or `"min"` where less is better.
        costs: Cost of each network, where costs matter.

    Returns:
        A line for each network, with the tasks that it serves and those that only help, and one
        for the score.
    """
    lines = []
    prices = [f" (cost {cost:.6g})" for cost in costs] or [""] * len(grouping.groups)
    for index, (group, price) in enumerate(zip(grouping.groups, prices, strict=True)):
        served = ", ".join(f"{task} {scores[task]:.6g}" for task in grouping.served(index))
        line = f"network {index}{price}: {', '.join(group)}; serves {served or 'none'}"
        if helpers := grouping.helpers(index):
            line += f"; helped by {', '.join(helpers)}"
        lines.append(line)
    number = f"{len(grouping.tasks)} task{'s' if len(grouping.tasks) > 1 else ''}"
    return [*lines, f"mean score of {number}: {grouping.score:.6g}, {certificate(grouping, sense)}"]


def certificate(grouping: Grouping, sense: str = "max") -> str:
    """How good the selection is proven to be, in words."""
    if grouping.optimal:
        return "optimal"
    gap, where = abs(grouping.upper_bound - grouping.score), "above" if sense == "max" else "below"
    return f"not proven optimal: the best is at most {gap:.6g} {where} it"


def reason(grouping: Grouping, frontier: Sequence[Grouping]) -> str:
    """What one network less or more would change.

    Args:
        grouping: The selection.
        frontier: The best for all numbers of networks, up to one more than was asked for.
    """
    number, more = len(grouping.groups), frontier[-1]
    fewer = [one.score for one in frontier if len(one.groups) < number]
    text = "fewer networks cannot serve all tasks"
    if number == 1:
        text = "there are no fewer networks"
    elif fewer:
        text = f"{_networks(number - 1)} would score {fewer[-1]:.6g}"
    if len(more.groups) > number:
        return f"{text}, {_networks(len(more.groups))} {more.score:.6g}"
    return f"{text}, more than {_networks(number)} no more"


def _networks(number: int) -> str:
    return f"{number} network{'' if number == 1 else 's'}"
