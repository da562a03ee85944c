"""This module computes the Frechet distance between two sets of features, its bias and its standard error.

The distance is that of two Gaussians with the moments of the features (Heusel et al. 2017, arXiv:1706.08500, Eq. 6):
|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With features of the Inception network of 2015 it is the FID.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike

from score_sde.core.errors import InputError
from score_sde.metrics.estimate import Estimate, as_features, as_pair


@dataclasses.dataclass(frozen=True)
class Moments:
    """`Moments` holds sums over features in float64, to which the features of more examples can be added.

    Attributes:
        n: the number of examples.
        total: the sum of the features, (d,).
        products: the sum of the outer products of the features with themselves, (d, d).
    """

    n: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def zero(cls, d: int) -> Moments:
        """Return the sums over no examples."""
        return cls(0, np.zeros(d), np.zeros((d, d)))

    @classmethod
    def of(cls, features: ArrayLike) -> Moments:
        """Return the sums over features (n, d)."""
        array = as_features(features, "features", least=1)
        return cls(len(array), array.sum(axis=0), array.T @ array)

    @classmethod
    def of_moments(cls, n: int, mean: np.ndarray, cov: np.ndarray) -> Moments:
        """Return the sums over n examples that have this mean and this covariance (divisor n - 1)."""
        mean = np.asarray(mean, np.float64)
        return cls(n, n * mean, (n - 1) * np.asarray(cov, np.float64) + n * np.outer(mean, mean))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.total + other.total, self.products + other.products)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.n - other.n, self.total - other.total, self.products - other.products)

    @property
    def mean(self) -> np.ndarray:
        """Return the mean of the features, (d,)."""
        if self.n < 1:
            raise InputError("The moments have no examples; expected at least one.")
        return self.total / self.n

    @property
    def cov(self) -> np.ndarray:
        """Return the covariance of the features with divisor n - 1, (d, d)."""
        if self.n < 2:
            raise InputError(f"The moments have {self.n} examples; expected at least two for a covariance.")
        return (self.products - self.n * np.outer(self.mean, self.mean)) / (self.n - 1)


def frechet_of_moments(m1: ArrayLike, S1: ArrayLike, m2: ArrayLike, S2: ArrayLike) -> float:
    """Return the Frechet distance between N(m1, S1) and N(m2, S2).

    tr (S1 S2)^(1/2) is the sum of the square roots of the eigenvalues of R S2 R, where R = S1^(1/2). Both eigenvalue
    problems are symmetric, in float64; eigenvalues that rounding made negative count as 0.

    Args:
        m1, m2: means, (d,).
        S1, S2: covariances, (d, d).

    Raises:
        InputError: if the shapes do not fit, or if a value is not finite.
    """
    mean1, cov1 = _checked_moments(m1, S1)
    mean2, cov2 = _checked_moments(m2, S2)
    if mean1.shape != mean2.shape:
        raise InputError(
            f"The means have the shapes {mean1.shape} and {mean2.shape}; expected features of one network."
        )
    return _distance(mean1, cov1, _root(cov1), mean2, cov2)


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Return the Frechet distance between features (n, d) and (m, d), with covariances of divisor n - 1 and m - 1.

    With finitely many examples the distance is too large on average; `frechet_jackknife` estimates by how much.

    Raises:
        InputError: for features that are not finite, or of different dimensions, or of fewer than two examples.
    """
    first, second = (Moments.of(features) for features in as_pair(a, b))
    return frechet_of_moments(first.mean, first.cov, second.mean, second.cov)


def frechet_bias(cov: ArrayLike, n: int, m: int | None = None) -> float:
    """Return the expected Frechet distance between n and m draws of one Gaussian, to leading order in 1 / n and 1 / m.

    With the eigenvalues l of the covariance S the mean contributes tr S (1/n + 1/m), and the covariances contribute
    sum_ij l_i l_j (1 + [i = j]) / (2 (l_i + l_j)) (1/(n - 1) + 1/(m - 1)). The expansion needs n and m well above the
    number of dimensions in which the features vary.

    Args:
        cov: the covariance, (d, d).
        n: the number of draws of one set.
        m: the number of draws of the other set; None for exact moments.
    """
    eigenvalues = np.clip(np.linalg.eigvalsh(np.asarray(cov, np.float64)), 0, None)
    sums = eigenvalues[:, None] + eigenvalues
    products = eigenvalues[:, None] * eigenvalues * (1 + np.eye(len(eigenvalues)))
    spread = np.divide(products, 2 * sums, out=np.zeros_like(products), where=sums > 0).sum()
    sizes = [size for size in (n, m) if size is not None]
    return float(sum(eigenvalues.sum() / size + spread / (size - 1) for size in sizes))


@dataclasses.dataclass(frozen=True)
class Frechet:
    """`Frechet` holds a Frechet distance with its bias in the number of generated examples.

    Attributes:
        value: the distance at n examples, with its standard error.
        extrapolated: the limit of the distance for n to infinity, linear in 1 / n, with its standard error.
        n: the number of generated examples.
    """

    value: Estimate
    extrapolated: Estimate
    n: int

    @property
    def bias(self) -> float:
        """Return the part of the value that the finite number of generated examples causes."""
        return self.value - self.extrapolated


def frechet_jackknife(mean: np.ndarray, cov: np.ndarray, blocks: Sequence[Moments]) -> Frechet:
    """Return the Frechet distance of generated examples to fixed moments, its limit in n, and standard errors.

    The generated examples come in K blocks. With the distance F of all n examples, and the distances F_j without block
    j, the jackknife estimates the limit K F - (K - 1) mean(F_j), which removes the bias of order 1/n, and the variance
    (K - 1)/K sum (F_j - mean)^2 of both. The bias of the reference moments is not in these numbers. The 1/n bias is
    that of Chong & Forsyth 2020 (arXiv:1911.07023); the jackknife is Quenouille's.

    Args:
        mean, cov: moments of the reference.
        blocks: the sums over K >= 2 blocks of examples of about equal size.

    Raises:
        InputError: for fewer than two blocks, for blocks that leave fewer than two examples, or for wrong shapes.
    """
    if len(blocks) < 2:
        raise InputError(f"The jackknife got {len(blocks)} blocks; expected at least two.")
    mean, cov = _checked_moments(mean, cov)
    root = _root(cov)
    whole = blocks[0]
    for block in blocks[1:]:
        whole = whole + block

    def distance(of: Moments) -> float:
        return _distance(mean, cov, root, of.mean, of.cov)

    value, k = distance(whole), len(blocks)
    without = np.asarray([distance(whole - block) for block in blocks])
    stderr = float(np.sqrt((k - 1) / k * ((without - without.mean()) ** 2).sum()))
    limit = k * value - (k - 1) * float(without.mean())
    return Frechet(Estimate(value, stderr), Estimate(limit, stderr), whole.n)


def _checked_moments(mean: ArrayLike, cov: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    m, S = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if m.ndim != 1 or S.shape != (len(m), len(m)):
        raise InputError(f"The moments have the shapes {m.shape} and {S.shape}; expected (d,) and (d, d).")
    if not (np.isfinite(m).all() and np.isfinite(S).all()):
        raise InputError("The moments have values that are not finite; expected finite means and covariances.")
    return m, (S + S.T) / 2


def _root(cov: np.ndarray) -> np.ndarray:
    """Return the symmetric square root of a covariance."""
    eigenvalues, vectors = np.linalg.eigh(cov)
    return np.asarray((vectors * np.sqrt(np.clip(eigenvalues, 0, None))) @ vectors.T)


def _distance(mean1: np.ndarray, cov1: np.ndarray, root1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    product = root1 @ cov2 @ root1
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh((product + product.T) / 2), 0, None)).sum()
    return float(((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * overlap)
