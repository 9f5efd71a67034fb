"""scikit-learn's handwritten digits as a multi-task problem: nine questions about each image."""

import numpy as np
import numpy.typing as npt
import sklearn.datasets
import tensorflow as tf

from digits.names import CLASSIFICATION, REGRESSION, TASKS

__all__ = ["CLASSIFICATION", "REGRESSION", "TASKS", "batches", "load", "make_labels"]

Array = npt.NDArray[np.float32]
Split = tuple[Array, dict[str, Array]]

# Digits for which the answer is yes.
_DIGITS = {
    "is_even": (0, 2, 4, 6, 8),
    "at_least_five": (5, 6, 7, 8, 9),
    "is_prime": (2, 3, 5, 7),
    "has_loop": (0, 6, 8, 9),
    "multiple_of_three": (0, 3, 6, 9),
}


def load(num_train: int = 300, num_validation: int = 500, seed: int = 0) -> dict[str, Split]:
    """Loads the digits (Alpaydin and Kaynak 1998; 1797 images, bundled with scikit-learn).

    Six tasks classify: whether the digit is even, at least five, prime, written with a closed loop
    (0, 6, 8, 9), a multiple of three, and whether more than half of the ink lies left of the
    middle. Three regress, standardised: the amount of ink, the slant, and the height of the centre.

    Args:
        num_train: Number of training images; few, so that sharing can pay.
        num_validation: Number of validation images; the remaining images are for the test.
        seed: Seed of the split.

    Returns:
        By split, `"train"`, `"validation"` and `"test"`: images (N, 8, 8, 1) in [0, 1], and labels
        (N, 1) by task, in {0, 1} or, for regressions, in standard deviations.

    Raises:
        ValueError: If a split would be empty.
    """
    bunch = sklearn.datasets.load_digits()
    number = len(bunch.target)
    if num_train < 1 or num_validation < 1 or num_train + num_validation >= number:
        raise ValueError(
            f"`num_train` and `num_validation` should leave some of the {number} images for the "
            f"test. Received: num_train={num_train}, num_validation={num_validation}."
        )
    order = np.random.default_rng(seed).permutation(number)
    images = bunch.images[order] / 16
    labels = make_labels(images, bunch.target[order])
    ends = num_train, num_train + num_validation
    parts = {"train": slice(ends[0]), "validation": slice(*ends), "test": slice(ends[1], None)}
    return {
        split: (
            images[part, ..., None].astype(np.float32),
            {task: labels[task][part, None].astype(np.float32) for task in TASKS},
        )
        for split, part in parts.items()
    }


def batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """Shuffled batches of a split, without end."""
    images, labels = split
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).cache()
    return dataset.shuffle(len(images)).repeat().batch(batch_size, drop_remainder=True)


def make_labels(images: npt.NDArray[np.float64], digits: npt.NDArray[np.int64]) -> dict[str, Array]:
    """Labels (N,) by task of images (N, 8, 8) in [0, 1] and their digits (N,)."""
    labels = {task: np.isin(digits, yes).astype(np.float32) for task, yes in _DIGITS.items()}
    ink = images.sum(axis=(1, 2))
    x, y = np.meshgrid(np.arange(8) - 3.5, 3.5 - np.arange(8))
    centre_x, centre_y = ((images * axis).sum(axis=(1, 2)) / ink for axis in (x, y))
    covariance = (images * x * y).sum(axis=(1, 2)) / ink - centre_x * centre_y
    variance_y = (images * y * y).sum(axis=(1, 2)) / ink - centre_y**2
    labels["left_heavy"] = (images[:, :, :4].sum(axis=(1, 2)) > ink / 2).astype(np.float32)
    for task, values in zip(REGRESSION, (ink, covariance / variance_y, centre_y), strict=True):
        labels[task] = ((values - values.mean()) / values.std()).astype(np.float32)
    return labels
