"""This module computes the kernel distance between two sets of features, an unbiased squared MMD with its error.

The kernel is k(x, y) = (x.y / d + 1)^3 for features of d dimensions (Binkowski et al. 2018, arXiv:1801.01401). With
features of the Inception network of 2015 the distance is the KID.
"""

from __future__ import annotations

import math

import numpy as np
from jax.typing import ArrayLike

from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.metrics.estimate import Estimate, as_pair

DEGREE = 3


def kernel_distance(real: ArrayLike, fake: ArrayLike, *, block_size: int = 5000) -> Estimate:
    """Return the unbiased squared MMD between features (n, d) and (m, d), with its standard error.

    The mean over all samples is MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y), which is 0 for one distribution, so an
    estimate may be negative. The standard error is that of the U-statistic, with the terms of first and second order in
    its Hoeffding decomposition. Therefore the error is right also where both distributions agree and the terms of first
    order vanish.

    Larger sets are divided into blocks of at most `block_size` rows of each set, in order, and the result is the mean
    over the blocks. The cost of a block is quadratic in its size. If the order of the rows has a meaning, such as
    sorted classes, shuffle the rows first.

    Raises:
        InputError: for features that are not finite, of different dimensions, or of fewer than four examples.
    """
    x, y = as_pair(real, fake, least=4)
    require_whole("block_size", block_size, 4)
    count = max(math.ceil(len(x) / block_size), math.ceil(len(y) / block_size))
    if min(len(x), len(y)) < 4 * count:
        raise InputError(
            f"{len(x)} real and {len(y)} fake features make {count} blocks, with fewer than 4 rows in a block; "
            "expected sets of more equal sizes, or a larger block_size."
        )
    values, variances = zip(
        *(_mmd(a, b) for a, b in zip(np.array_split(x, count), np.array_split(y, count), strict=True)), strict=True
    )
    return Estimate(float(np.mean(values)), math.sqrt(max(sum(variances), 0.0)) / count)


def kernel_subsets(
    real: ArrayLike, fake: ArrayLike, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the mean and the standard deviation of the squared MMD over random subsets, as published KIDs have it.

    A subset has `subset_size` rows of each set, drawn without replacement. The standard deviation is not the error of
    the mean, because the subsets overlap; `kernel_distance` has a standard error.

    Raises:
        InputError: if a set has fewer rows than a subset.
    """
    x, y = as_pair(real, fake)
    require_whole("subsets", subsets, 1)
    require_whole("subset_size", subset_size, 2)
    if min(len(x), len(y)) < subset_size:
        raise InputError(
            f"subset_size is {subset_size}, and the sets have {len(x)} and {len(y)} rows; expected at most the rows of "
            "the smaller set."
        )
    rng = np.random.default_rng(seed)
    values = [_mmd(*(s[rng.choice(len(s), subset_size, replace=False)] for s in (x, y)))[0] for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    values = x @ y.T / x.shape[1] + 1
    return np.asarray(values * values * values)


def _mmd(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the unbiased squared MMD and its estimated variance.

    With g(x) = mean k(x, x') - mean k(x, y) over the other examples, and with the squared doubly centred kernels
    e_xx, e_xy, e_yy, the variance is 4/n V(g(x)) + 4/m V(g(y)) - 2 e_xx/(n(n-1)) - 2 e_yy/(m(m-1)) - 4 e_xy/(nm): V(g)
    contains the noise of the means in g, so it counts the terms of second order twice as often as the variance does.
    """
    n, m = len(x), len(y)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    np.fill_diagonal(xx, 0)
    np.fill_diagonal(yy, 0)
    row_x, row_y = xx.sum(axis=1) / (n - 1), yy.sum(axis=1) / (m - 1)
    cross_x, cross_y = xy.mean(axis=1), xy.mean(axis=0)
    e_xx, e_yy = _centred_square(xx, row_x), _centred_square(yy, row_y)
    e_xy = float(((xy - cross_x[:, None] - cross_y + cross_x.mean()) ** 2).sum()) / ((n - 1) * (m - 1))
    value = float(row_x.mean() + row_y.mean() - 2 * cross_x.mean())
    first = 4 / n * np.var(row_x - cross_x, ddof=1) + 4 / m * np.var(row_y - cross_y, ddof=1)
    second = 2 * e_xx / (n * (n - 1)) + 2 * e_yy / (m * (m - 1)) + 4 * e_xy / (n * m)
    # By chance the estimate of the terms of first order can be negative; half of the second order bounds the error.
    return value, float(max(first - second, second / 2))


def _centred_square(kernel: np.ndarray, rows: np.ndarray) -> float:
    """Return the mean square, over pairs of different examples, of a kernel whose row and column means are removed."""
    n = len(kernel)
    centred = kernel - rows[:, None] - rows + rows.mean()
    np.fill_diagonal(centred, 0)
    return float((centred**2).sum()) / (n * (n - 1))
