"""Posterior of one task's loss in every group: a Bayesian regression over the groups.

The loss of the task in group S with seed r is

    y(S, r) = level + size @ x(S) + sum over the others u in S of member_u / sqrt(T - 1)
              + weight * a(S) + own(S) + noise(S, r)

where x(S) has the share of the other tasks that are in the group and whether any is (a first one
changes more than a further one), and a(S) is the affinity of the group onto the task. Networks of
one seed begin alike and see the same batches, so their noise is alike:

    noise(S, r) = shift(r) + tilt(r) @ (size and members of S) + e(S, r)

All terms but the level are normal with mean 0. Their variances are multiples of that of e; the
multiples lie on a grid. Level and variance of e have flat priors (the latter in its logarithm) and
integrate in closed form, so that the posterior is a mixture of Student's t, one for each point of
the grid, with their marginal likelihoods times the prior of the grid as weights.

All points with the multiples of shift, tilt and own in common share one regression on T + 3
columns, in the eigenvectors of the precision of the groups' means.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tag_keras.results import Array

Indices = npt.NDArray[np.int64]
Factorised = dict[bytes, tuple[Array, Array]]
# Variances as multiples of that of e. The first is no effect.
_MULTIPLES = (0.0, 0.1, 1.0, 10.0, 100.0, 1e4)
SHIFT = (0.0, 0.3, 3.0, 30.0, 1e4)
TILT = (0.0, 0.2, 2.0)
OWN = SIZE = MEMBERS = AFFINITY = _MULTIPLES
# Points of the grid below this part of the largest weight do not count.
_LEAST_WEIGHT = 1e-5


@dataclasses.dataclass(frozen=True)
class Design:
    """The N groups that contain a task, G of them measured, and the n losses.

    Args:
        size: Array (N, 2): share of the other tasks that are in the group, and whether any is.
        members: Array (N, T - 1): 1 / sqrt(T - 1) for each other task in the group, else 0.
        affinity: Array (N,): affinity of the group onto the task, standardised, or None.
        measured: Array (G,): the rows of the measured groups.
        group: Array (n,): of each loss, the index of its group among the measured ones.
        seed: Array (n,): of each loss, the index of its seed.
        losses: Array (n,).
    """

    size: Array
    members: Array
    affinity: Array | None
    measured: Indices
    group: Indices
    seed: Indices
    losses: Array

    @property
    def columns(self) -> Array:
        """Array (N, P): level, size, members and affinity."""
        affinity = np.zeros(len(self.size)) if self.affinity is None else self.affinity
        level = np.ones(len(self.size))
        return np.column_stack([level, self.size, self.members, affinity])

    @property
    def multiples(self) -> Array:
        """Array (K, 6): the grid of multiples of shift, tilt, own, size, members and affinity."""
        affinity = AFFINITY[:1] if self.affinity is None else AFFINITY
        return np.array(list(itertools.product(SHIFT, TILT, OWN, SIZE, MEMBERS, affinity)))

    def share_of_affinity(self) -> Array:
        """Array (K,): share of affinity in the prior variance between groups; 0 where that is 0."""
        _, _, own, size, members, affinity = self.multiples.T
        # Affinities are standardised.
        others = own + size * self.size.var(axis=0).sum() + members * self.members.var(axis=0).sum()
        share: Array = affinity / np.where(affinity > 0, others + affinity, 1.0)
        return share


class _Noise:
    """The losses (n,) of a design, whitened for one pair of multiples, of shift and tilt.

    The groups' means have a precision matrix A. Its eigenvectors are coordinates in which their
    noise has variance 1.

    Attributes:
        values: Array (G,): eigenvalues of A.
        vectors: Array (G, G): eigenvectors, in columns.
        means: Array (G,): the groups' means in the coordinates.
        columns: Array (G, P): the columns of the design in the coordinates.
        within: Sum of squares within the groups.
        log_determinant: That of the covariance of all losses.
    """

    def __init__(
        self, design: Design, losses: Array, shift: float, tilt: float, factorised: Factorised
    ) -> None:
        columns = design.columns[:, 1:-1]
        columns = (columns - columns.mean(axis=0))[design.measured] * tilt**0.5
        columns = np.column_stack([np.full(len(columns), shift**0.5), columns])
        number = len(design.measured)
        precision, right = np.zeros((number, number)), np.zeros(number)
        square = self.log_determinant = 0.0
        # Most seeds have the same groups.
        known: dict[bytes, tuple[Array, Array, float]] = {}
        for seed in np.unique(design.seed):
            group, own = (values[design.seed == seed] for values in (design.group, losses))
            if group.tobytes() not in known:
                known[group.tobytes()] = _inverse(columns[group])
            half, inverse, log_determinant = known[group.tobytes()]
            precision[np.ix_(group, group)] += inverse
            whitened = own - half.T @ (half @ own)
            right[group] += whitened
            square += own @ whitened
            self.log_determinant += log_determinant
        key = precision.tobytes()
        if key not in factorised:
            values, vectors = np.linalg.eigh(precision)
            factorised[key] = values, vectors
        self.values, self.vectors = factorised[key]
        root = np.sqrt(self.values)
        self.means = self.vectors.T @ right / root
        self.columns = root[:, None] * (self.vectors.T @ design.columns[design.measured])
        self.within = max(float(square - self.means @ self.means), 0.0)


class _Regression:
    """The regression in the coordinates of some noise; `own` adds to it."""

    def __init__(self, noise: _Noise, own: float) -> None:
        self.values, self.vectors, self.own = noise.values, noise.vectors, own
        self.means, self.columns = noise.means, noise.columns
        self.weights = 1 / (1 + own * noise.values)
        self.squares = noise.within + float(self.weights @ noise.means**2)
        self.log_weight = 0.5 * (np.log(self.weights).sum() - noise.log_determinant)

    def solve(self, scales: Array) -> tuple[Array, Array, Array, Array]:
        """Solves for prior deviations (J, P) of the columns; the level's is not read.

        Returns:
            Coefficients (J, P), roots (J, P, P) of their covariances without the variance of e,
            sums of squares (J,), and log determinants (J,).
        """
        gram = self.columns.T @ (self.weights[:, None] * self.columns)
        moments = self.columns.T @ (self.weights * self.means)
        scales = np.concatenate([np.ones((len(scales), 1)), scales[:, 1:]], axis=1)
        prior = np.diag([0.0] + [1.0] * (len(moments) - 1))
        factors = np.linalg.cholesky(scales[:, :, None] * gram * scales[:, None] + prior)
        # A column without effect has a row of zeros.
        roots = scales[:, :, None] * np.linalg.inv(factors).swapaxes(1, 2)
        halves = np.einsum("jqp,q->jp", roots, moments)
        squares = np.maximum(self.squares - (halves**2).sum(axis=1), 1e-20)
        log_determinants = 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        return np.einsum("jpq,jq->jp", roots, halves), roots, squares, log_determinants

    def own_effects(self, vectors: Array) -> tuple[Array, Array]:
        """Posterior means of own(S) of groups, given by their rows (m, G) of the eigenvectors.

        Returns:
            Base (m,) and slopes (m, P): the means are base - slopes @ coefficients.
        """
        given_back = vectors * (self.own * np.sqrt(self.values) * self.weights)
        return given_back @ self.means, given_back @ self.columns

    def own_root(self, vectors: Array) -> Array:
        """A root (m, m) of the covariance of own(S) by given coefficients, in units of e's."""
        covariance: Array = (vectors * (self.own * self.weights)) @ vectors.T
        # Without own effects it is 0.
        root: Array = np.zeros_like(covariance)
        if self.own:
            root = np.asarray(np.linalg.cholesky(covariance), np.float64)
        return root


@dataclasses.dataclass(frozen=True)
class _Points:
    """Points of the grid that share a regression, J of them; see `_Regression.solve`."""

    regression: _Regression
    coefficients: Array
    roots: Array
    squares: Array
    log_likelihoods: Array


class TaskPosterior:
    """Posterior of one task's loss in each of the N groups that contain it.

    `log_likelihoods` (K,) are those of the points of `design.multiples`. All other methods need
    their weights, which `weigh` sets.

    Args:
        design: Groups and losses.
        factorised: Eigenvectors by matrix, to share between tasks: if all groups have all seeds,
            they have the same ones.
    """

    def __init__(self, design: Design, factorised: Factorised | None = None) -> None:
        self._design = design
        factorised = {} if factorised is None else factorised
        self._center = float(design.losses.mean())
        # Equal losses differ by a rounding error. Squares of tiny differences would be 0.
        spread = float(np.abs(design.losses - self._center).max())
        self._scale = spread if spread > 1e-12 * abs(self._center) else 0.0
        losses = (design.losses - self._center) / (self._scale or 1.0)
        self._freedom = max(len(losses) - 1, 1)
        multiples = design.multiples.reshape(len(SHIFT), len(TILT), len(OWN), -1, 6)
        self._points = []
        for points in itertools.chain.from_iterable(multiples):
            shift, tilt = points[0, 0, :2]
            noise = _Noise(design, losses, shift, tilt, factorised)
            self._points += [
                self._solve(_Regression(noise, one[0, 2]), one[:, 3:]) for one in points
            ]
        self.log_likelihoods = np.concatenate([one.log_likelihoods for one in self._points])
        self._all, self._cases = np.zeros(0), [np.zeros(0)]

    def weigh(self, all_weights: Array, cases: Sequence[Array]) -> None:
        """Sets the weights of the points.

        Args:
            all_weights: Array (K,): posterior weights, with a sum of 1.
            cases: Arrays (K,): posterior weights if groups are not all alike, in some cases; the
                sum over the cases is 1.
        """
        self._all, self._cases = _without_tiny(all_weights), [_without_tiny(case) for case in cases]

    def mean_and_variance(self) -> tuple[Array, Array]:
        """Posterior means and variances (N,); these are infinite with three losses or fewer."""
        mean, square = np.zeros((2, len(self._design.size)))
        for weights, one in self._kept(self._all):
            means = self._means(one)
            mean += weights @ means
            # Around its mean, Student's t has the variance squares / (freedom - 2).
            freedom = self._freedom - 2
            spread = one.squares / freedom if freedom > 0 else np.full(len(weights), np.inf)
            square += weights @ (means**2 + spread[:, None] * self._variances(one))
        variance = np.maximum(square - mean**2, 0.0) if self._scale else np.zeros_like(mean)
        return self._center + self._scale * mean, self._scale**2 * variance

    def residual_variance(self) -> float:
        """Posterior mean of the variance of e; of three losses or fewer, its scale."""
        freedom = self._freedom - 2 if self._freedom > 2 else self._freedom
        total = sum(weights @ one.squares for weights, one in self._kept(self._all))
        return self._scale**2 * float(total) / freedom

    def draw(self, rows: Indices, number: int, generator: np.random.Generator) -> Array:
        """Draws losses (number, len(rows)) of groups, if they are not all alike.

        The draws of each case stand together, as many as its probability says.

        Args:
            rows: Different rows of the design.
            number: Number of draws.
            generator: NumPy's generator.
        """
        design = self._design
        known = np.isin(rows, design.measured)
        columns, place = design.columns[rows], np.searchsorted(design.measured, rows[known])
        draws, start, before = np.zeros((number, len(rows))), 0, 0.0
        for weights, one in [found for case in self._cases for found in self._kept(case)]:
            # Systematic: each point gets its weight times the number of draws, but for rounding.
            ends = np.rint((before + weights.cumsum()) * number).astype(int)
            point = np.repeat(np.arange(len(weights)), np.diff(ends, prepend=start))
            part, regression = slice(start, start + len(point)), one.regression
            start, before = start + len(point), before + weights.sum()
            freedom = generator.chisquare(self._freedom, (len(point), 1))
            deviation = np.sqrt(one.squares[point, None] / freedom)
            noise = generator.normal(size=(len(point), one.coefficients.shape[1]))
            noise = np.einsum("npq,nq->np", one.roots[point], noise)
            coefficients = one.coefficients[point] + deviation * noise
            # own(S): of measured groups a linear function of the coefficients, and noise.
            base, slopes = regression.own_effects(regression.vectors[place])
            root = regression.own_root(regression.vectors[place])
            own = generator.normal(size=(len(point), len(rows)))
            own[:, ~known] *= deviation * regression.own**0.5
            own[:, known] = deviation * (own[:, known] @ root.T) + base - coefficients @ slopes.T
            draws[part] = coefficients @ columns.T + own
        return self._center + self._scale * draws

    def _solve(self, regression: _Regression, multiples: Array) -> _Points:
        size, members, affinity = np.sqrt(multiples.T)
        others = self._design.members.shape[1]
        scales = np.column_stack(
            [np.ones_like(size), size, size, np.repeat(members[:, None], others, 1), affinity]
        )
        coefficients, roots, squares, log_determinants = regression.solve(scales)
        log_likelihoods = regression.log_weight - 0.5 * (
            log_determinants + self._freedom * np.log(squares)
        )
        return _Points(regression, coefficients, roots, squares, log_likelihoods)

    def _kept(self, weights: Array) -> Iterator[tuple[Array, _Points]]:
        """Yields weights and points of each regression, of points with a weight (K,) above 0."""
        ends = np.cumsum([len(one.squares) for one in self._points])[:-1]
        for part, one in zip(np.split(weights, ends), self._points, strict=True):
            if len(kept := np.flatnonzero(part)):
                arrays = (one.coefficients, one.roots, one.squares, one.log_likelihoods)
                yield part[kept], _Points(one.regression, *(array[kept] for array in arrays))

    def _means(self, one: _Points) -> Array:
        """Posterior means (J, N)."""
        means: Array = one.coefficients @ self._design.columns.T
        base, slopes = one.regression.own_effects(one.regression.vectors)
        means[:, self._design.measured] += base - one.coefficients @ slopes.T
        return means

    def _variances(self, one: _Points) -> Array:
        """Posterior variances (J, N) in units of the variance of e."""
        design, regression = self._design, one.regression
        moved = np.array(design.columns)
        moved[design.measured] -= regression.own_effects(regression.vectors)[1]
        variances = ((moved @ one.roots) ** 2).sum(axis=2)
        left = np.full(len(moved), regression.own)
        left[design.measured] = regression.vectors**2 @ (regression.own * regression.weights)
        total: Array = variances + left
        return total


def _inverse(effects: Array) -> tuple[Array, Array, float]:
    """The inverse of I + U U' for U (m, P), by Woodbury's identity.

    Returns:
        A half (P, m) with inverse = I - half' half, the inverse (m, m), and the log determinant.
    """
    inner = np.linalg.cholesky(np.eye(effects.shape[1]) + effects.T @ effects)
    half = np.linalg.solve(inner, effects.T)
    log_determinant = 2 * float(np.log(np.diag(inner)).sum())
    return half, np.eye(len(effects)) - half.T @ half, log_determinant


def _without_tiny(weights: Array) -> Array:
    """The weights without those that hardly count, with the same sum."""
    large = np.where(weights < _LEAST_WEIGHT * weights.max(), 0.0, weights)
    normalised: Array = large * (weights.sum() / (large.sum() or 1.0))
    return normalised
