"""A selection in words: its networks, what each serves, and how good it is proven to be."""

from collections.abc import Iterable, Mapping, Sequence

from tag_keras.grouping import Grouping


def summary(
    grouping: Grouping,
    scores: Mapping[str, float],
    sense: str = "max",
    costs: Iterable[float] = (),
    seconds: float | None = None,
) -> list[str]:
    """Lines for a screen.

    Args:
        grouping: The selection.
        scores: By task, the score that the network which serves it gives it.
        sense: `"max"`, or `"min"` where less is better.
        costs: Cost of each network, where costs matter.
        seconds: How long the selection took, which is said where it ended without a proof.

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
    proof = certificate(grouping, sense, seconds)
    return [*lines, f"mean score of {number}: {grouping.score:.6g}, {proof}"]


def certificate(grouping: Grouping, sense: str = "max", seconds: float | None = None) -> str:
    """How good the selection is proven to be, in words."""
    if grouping.optimal:
        return "optimal"
    bound, gap = grouping.upper_bound, abs(grouping.upper_bound - grouping.score)
    stopped = "" if seconds is None else f", stopped after {seconds:.0f} s"
    more, above = ("more", "above") if sense == "max" else ("less", "below")
    return (
        f"not proven optimal{stopped}: no choice scores {more} than {bound:.6g}, "
        f"which is {gap:.6g} {above}"
    )


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
