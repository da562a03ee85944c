"""This module computes metrics from the distances between the features of real and of generated examples.

Distances are Euclidean, in float64. The sets are compared in blocks of rows, so the memory is linear in their sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.metrics.estimate import Estimate, as_pair

_ENTRIES = 2**23  # of a block of distances: 64 MB
_RESOLUTION = 1e-13  # of squared distances; float32 features have a relative resolution of 1e-7


class PrecisionRecall(NamedTuple):
    """`PrecisionRecall` is the result of `precision_recall`.

    Attributes:
        precision: the fraction of generated examples within the real manifold.
        recall: the fraction of real examples within the generated manifold.
    """

    precision: Estimate
    recall: Estimate


class DensityCoverage(NamedTuple):
    """`DensityCoverage` is the result of `density_coverage`.

    Attributes:
        density: the mean number of real balls that contain a generated example, divided by k; 1 for one distribution.
        coverage: the fraction of real examples whose ball contains a generated example.
    """

    density: Estimate
    coverage: Estimate


class Nearest(NamedTuple):
    """`Nearest` is the result of `nearest`.

    Attributes:
        number: the number of the nearest reference example, int (n,).
        distance: its distance, (n,).
    """

    number: np.ndarray
    distance: np.ndarray


def precision_recall(real: ArrayLike, fake: ArrayLike, k: int = 3) -> PrecisionRecall:
    """Return improved precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991, Eqs. 1 and 2).

    The manifold of a set is the union of the balls around its examples whose radius is the distance to the k-th nearest
    other example of the set; points on a boundary are inside. The standard errors are binomial: they belong to the
    examples that are tested, for a fixed manifold.

    Args:
        real, fake: features, (n, d) and (m, d).
        k: the number of the neighbour.

    Raises:
        InputError: for features that are not finite, of different dimensions, or of at most k examples.
    """
    x, y = _checked(real, fake, k)
    radius_x, radius_y = kth_distance(x, k), kth_distance(y, k)
    in_real = np.concatenate([(d <= radius_x).any(axis=1) for d in _squares(y, x)])
    in_fake = np.concatenate([(d <= radius_y).any(axis=1) for d in _squares(x, y)])
    return PrecisionRecall(_fraction(in_real), _fraction(in_fake))


def density_coverage(real: ArrayLike, fake: ArrayLike, k: int = 5) -> DensityCoverage:
    """Return density and coverage (Naeem et al. 2020, arXiv:2002.09797, Eqs. 4 and 5).

    The balls are those of the real examples, with the distance to the k-th nearest other real example as radius; points
    on a boundary are outside. For n real and m generated draws of one continuous distribution the expected coverage is
    1 - prod_{j < k} (n - 1 - j) / (n + m - 1 - j). The standard error of the density is that of a mean over generated
    examples, and that of the coverage is binomial.

    Args:
        real, fake: features, (n, d) and (m, d).
        k: the number of the neighbour.

    Raises:
        InputError: for features that are not finite, of different dimensions, or of at most k real examples; for real
            features so often equal that every ball is empty.
    """
    x, y = _checked(real, fake, k)
    radius = kth_distance(x, k)
    if not (radius > 0).any():
        raise InputError(
            f"Each real example equals its {k} nearest real examples, so no ball has a size; expected features that "
            "differ."
        )
    counts, covered = [], np.zeros(len(x), bool)
    for d in _squares(y, x):
        inside = d < radius
        counts.append(inside.sum(axis=1) / k)
        covered |= inside.any(axis=0)
    per_fake = np.concatenate(counts)
    density = Estimate(float(per_fake.mean()), float(per_fake.std(ddof=1) / np.sqrt(len(per_fake))))
    return DensityCoverage(density, _fraction(covered))


def nearest(queries: ArrayLike, reference: ArrayLike) -> Nearest:
    """Return the nearest reference example of each query, by its features.

    Generated examples that lie much closer to training examples than held-out examples do are copies.
    """
    y, x = as_pair(queries, reference, least=1)
    numbers, squares = [], []
    for d in _squares(y, x):
        numbers.append(d.argmin(axis=1))
        squares.append(d.min(axis=1))
    return Nearest(np.concatenate(numbers), np.sqrt(np.concatenate(squares)))


def authenticity(training: ArrayLike, fake: ArrayLike) -> Estimate:
    """Return the fraction of generated examples that are no copies (Alaa et al. 2022, arXiv:2102.08921, Sec. 3.3).

    A generated example counts as a copy if it is closer to its nearest training example than that training example is
    to any other training example. The fraction that draws of the distribution reach depends on the dimension: compare
    with the authenticity of held-out examples.
    """
    x, y = _checked(training, fake, 1)
    between = np.sqrt(kth_distance(x, 1))
    number, distance = nearest(y, x)
    return _fraction(distance > between[number])


def kth_distance(x: np.ndarray, k: int) -> np.ndarray:
    """Return the squared distance of each row to its k-th nearest other row, (n,)."""
    radii, first = [], 0
    for d in _squares(x, x):
        d[np.arange(len(d)), first + np.arange(len(d))] = np.inf  # a row is not its own neighbour
        radii.append(np.partition(d, k - 1, axis=1)[:, k - 1])
        first += len(d)
    return np.concatenate(radii)


def _squares(y: np.ndarray, x: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the squared distances of some rows of y to all rows of x.

    The origin is moved to the first row, since |y|^2 - 2 y.x + |x|^2 loses digits far from the origin. A distance below
    the resolution of float32 features is 0, so that equal rows have no distance.
    """
    origin = x[0]
    x = x - origin
    square_x = (x * x).sum(axis=1)
    rows = max(_ENTRIES // len(x), 1)
    for low in range(0, len(y), rows):
        part = y[low : low + rows] - origin
        squares = (part * part).sum(axis=1)[:, None] + square_x
        d = squares - 2 * (part @ x.T)
        d[d < _RESOLUTION * squares] = 0
        yield d


def _checked(real: ArrayLike, fake: ArrayLike, k: int) -> tuple[np.ndarray, np.ndarray]:
    require_whole("k", k, 1)
    return as_pair(real, fake, least=k + 1)


def _fraction(hits: np.ndarray) -> Estimate:
    p = float(hits.mean())
    return Estimate(p, float(np.sqrt(p * (1 - p) / len(hits))))
