"""The networks and errors of TAG's CelebA tables."""

import dataclasses
from collections.abc import Iterable, Sequence

import tag_keras
from celeba import network
from tag_keras.estimators.base import AffinityEstimator
from tag_keras.results import Row
from tag_keras.study.methods import method_options

# GradNorm's alpha in the release.
_ALPHA = 0.1


def build_model(
    tasks: Sequence[str],
    method: str = "mtl",
    affinity: AffinityEstimator | None = None,
    half_size: bool = False,
    learning_rate: float = 5e-4,
    original: bool = False,
) -> tag_keras.MultiTaskModel:
    """Builds the compiled network of a method for some of the tasks.

    Args:
        tasks: Some of CelebA's attributes.
        method: Method that trains one network: `"mtan"`, or one that `method_options` knows,
            such as `"mtl"`, `"uw"` or `"cagrad"`.
        affinity: Estimator that measures affinities during the training.
        half_size: Must be False: CelebA's network has no variant of half the size.
        learning_rate: Learning rate of SGD, and of GradNorm's weights.
        original: Whether to weigh losses and project gradients as TAG's notebook does.

    Raises:
        ValueError: If there is no such method, or with `half_size`.
    """
    if half_size:
        raise ValueError("CelebA's network has no variant of half the size.")
    options = method_options(
        method, network.LAST_CONVOLUTION, _ALPHA, learning_rate, original=original
    )
    build_encoder = network.build_mtan_encoder if method == "mtan" else None
    return network.build_model(tasks, learning_rate, build_encoder, affinity, **options)


def error_rates(rows: Iterable[Row], too_many: float = 1.0) -> list[Row]:
    """Replaces the loss of rows by the error in percent, 100 minus accuracy.

    Args:
        rows: Results.
        too_many: Factor of the accuracy on test images. The release divides the number of right
            answers on the 19,962 test images by 19,867, the number of validation images. (It also
            divides the sum of the batches' mean losses by the number of validation batches, where
            the short last batch counts as much as the others.)
    """
    factors = {"test": too_many}
    return [
        dataclasses.replace(
            row, loss=100.0 - 100.0 * row.metrics["accuracy"] * factors.get(row.split, 1.0)
        )
        for row in rows
    ]
