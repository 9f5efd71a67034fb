"""A problem with several tasks: its examples, how they are split, and how they are standardised."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from tag_keras.utils.checks import check

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]
# Inputs (N, D), and labels (N, 1) by task.
Examples = tuple[Array, dict[str, Array]]

MOST_TASKS = 8
MOST_VALIDATION, MOST_TEST = 1000, 4000
SHARE_OF_VALIDATION, SHARE_OF_TEST = 0.2, 0.3
# In standard deviations.
LARGEST_INPUT = 10.0
# The validation data are a whole number of examples for each.
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Problem:
    """Examples of several tasks, in three splits.

    Args:
        tasks: Names of the tasks, at most 8.
        classes: The tasks whose labels are 0 or 1. All others are standardised numbers.
        train: All training examples, in random order: the first n of them are a training set of n.
        validation: Validation examples.
        test: Test examples.
    """

    tasks: tuple[str, ...]
    classes: frozenset[str]
    train: Examples
    validation: Examples
    test: Examples

    def sizes(self) -> dict[str, int]:
        """By split, the number of examples."""
        return {split: len(getattr(self, split)[0]) for split in ("train", "validation", "test")}


def split_at_random(
    x: Numbers, y: Mapping[str, Numbers], classes: Collection[str] = (), seed: int = 0
) -> Problem:
    """Splits examples at random, with a fixed seed.

    A fifth is for the validation, at most 1,000; three tenths for the test, at most 4,000; the rest
    for the training. Arguments are those of `split_in_time`.
    """
    number = len(x)
    num_validation, num_test = _numbers(number)
    order = np.random.default_rng(seed).permutation(number)
    ends = number - num_validation - num_test, number - num_test
    return _problem(x, y, classes, np.split(order, ends))


def split_in_time(
    x: Numbers,
    y: Mapping[str, Numbers],
    classes: Collection[str] = (),
    seed: int = 0,
    gap: int = 0,
    periods: int = 1,
) -> Problem:
    """Splits examples that are in the order of time: first training, then validation, then test.

    The first half of the time is for the training, the next fifth for the validation, the last
    three tenths for the test. Of the validation, at most 1,000 examples are drawn at random; of the
    test, at most 4,000.

    Args:
        x: Array (N, D): inputs, NaN where one is missing.
        y: By task, array (N,): labels.
        classes: The tasks whose labels are 0 or 1.
        seed: Seed of the order of the training data, and of the examples that are drawn.
        gap: Number of examples to leave out at the end of each stretch of time, because their
            labels are of a time that the next one begins in.
        periods: Number of equal periods of time that are each split so. With data of one year,
            several show all seasons to each split.
    """
    ends = np.linspace(0, len(x), periods + 1).astype(int)
    shares = np.cumsum([1 - SHARE_OF_VALIDATION - SHARE_OF_TEST, SHARE_OF_VALIDATION])
    stretches: list[list[npt.NDArray[np.intp]]] = [[], [], []]
    for start, end in itertools.pairwise(ends):
        inner = (start + shares * (end - start)).astype(int)
        for found, part in zip(
            stretches, np.split(np.arange(start, end), inner - start), strict=True
        ):
            found.append(part[: len(part) - gap])
    random = np.random.default_rng(seed)
    train, validation, test = (random.permutation(np.concatenate(one)) for one in stretches)
    num_validation = min(MOST_VALIDATION, len(validation)) // FOLDS * FOLDS
    return _problem(x, y, classes, [train, validation[:num_validation], test[:MOST_TEST]])


def _numbers(number: int) -> tuple[int, int]:
    """Number of examples for the validation and for the test."""
    num_validation = min(MOST_VALIDATION, int(SHARE_OF_VALIDATION * number))
    return num_validation // FOLDS * FOLDS, min(MOST_TEST, int(SHARE_OF_TEST * number))


def _problem(
    x: Numbers,
    y: Mapping[str, Numbers],
    classes: Collection[str],
    parts: list[npt.NDArray[np.intp]],
) -> Problem:
    """Cuts examples into parts, and standardises inputs and numbers by the first part."""
    tasks = tuple(y)
    check(len(tasks) <= MOST_TASKS, f"there should be at most {MOST_TASKS} tasks", tasks=tasks)
    train = parts[0]
    # What is missing becomes the mean. Some inputs are nearly constant, such as pixels of a margin.
    x = np.clip(np.nan_to_num(standardised(x, x[train])), -LARGEST_INPUT, LARGEST_INPUT)
    labels = {
        task: values if task in classes else standardised(values, values[train])
        for task, values in y.items()
    }
    splits = [
        (
            x[part].astype(np.float32),
            {task: values[part, None].astype(np.float32) for task, values in labels.items()},
        )
        for part in parts
    ]
    return Problem(tasks, frozenset(classes), *splits)


def standardised(values: Numbers, by: Numbers) -> Numbers:
    """Values less the mean of others, in standard deviations of these; NaN stay NaN."""
    deviation = np.nanstd(by, axis=0)
    # A constant is 0.
    scaled: Numbers = (values - np.nanmean(by, axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return scaled
