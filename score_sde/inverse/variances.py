"""This module defines approximations of Cov[x_0 | x_t], which make the guidance of `Posterior` different methods.

Every class returns the change of x_0, W A^T (S + A V A^T)^-1 (y - A x_0), with its own V and W. Cov[x_0 | x_t] is
(sigma^2 / alpha) J, where J is the Jacobian of the predicted x_0 (Tweedie's formula for the second moment).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, as_array, as_float, expand
from score_sde.core.checks import is_number, is_whole, shown
from score_sde.core.errors import InputError
from score_sde.inverse.solve import conjugate_gradients

_ITERATIONS = 100  # of systems whose matrix needs no network


class Problem(NamedTuple):
    """`Problem` is the linear Gaussian problem y = A x_0 + N(0, S) at x_t, for each example.

    Attributes:
        residual: y - A x_0 with the predicted x_0, and 0 where nothing is measured, (batch, *measured shape).
        measured: 1 where something is measured, otherwise 0, in the shape of the residual.
        forward: v -> A v.
        back: u -> A^T u.
        covariance: v -> (sigma^2 / alpha) J^T v, one vector-Jacobian product of the denoiser.
        noise_variance: S, a factor on the residual.
        alpha, variance: alpha and sigma^2 at t, shape () or (batch,).
    """

    residual: Array
    measured: Array
    forward: Callable[[Array], Array]
    back: Callable[[Array], Array]
    covariance: Callable[[Array], Array]
    noise_variance: Array
    alpha: Array
    variance: Array

    def solve(self, covariance: Callable[[Array], Array], iterations: int, tolerance: float | None = None) -> Array:
        """Return (S + A V A^T)^-1 (y - A x_0), where V v = covariance(v)."""

        def apply(z: Array) -> Array:
            return self.noise_variance * z + self.forward(covariance(self.back(z)))

        return conjugate_gradients(apply, self.residual, iterations, tolerance)


class Variance(eqx.Module):
    """`Variance` is the base class of the approximations; a subclass defines `shift`, and `vjps` if it needs any."""

    @abc.abstractmethod
    def shift(self, problem: Problem) -> Array:
        """Return the change of x_0, (batch, *shape)."""

    @property
    def vjps(self) -> int:
        """Return the largest number of vector-Jacobian products of the denoiser in one `shift`."""
        return 0


class Moments(Variance):
    """`Moments` uses Cov[x_0 | x_t] of the denoiser itself (MMPS, Rozet et al. 2024, arXiv:2405.13712).

    V = W = (sigma^2 / alpha) J. The system is solved by conjugate gradients to a relative residual, with one
    vector-Jacobian product in each iteration. For Gaussian data the guided denoiser is exact, whatever their covariance
    and the operator. A few iterations give most of the effect at a fraction of the cost.

    Attributes:
        iterations: the largest number of iterations.
        tolerance: relative residual at which an example stops; None for 2.4e-5 in float32 and 3.7e-11 in float64.
    """

    iterations: int = eqx.field(default=100, static=True)
    tolerance: float | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        if not is_whole(self.iterations, 1) or isinstance(self.iterations, bool):
            raise InputError(f"iterations of Moments is {shown(self.iterations)}; expected a whole number, at least 1.")
        if self.tolerance is not None and not (is_number(self.tolerance) and self.tolerance >= 0):
            raise InputError(
                f"tolerance of Moments is {shown(self.tolerance)}; expected a number of at least 0, or None."
            )

    @property
    def vjps(self) -> int:
        return self.iterations + 1

    def shift(self, problem: Problem) -> Array:
        z = problem.solve(problem.covariance, self.iterations, self.tolerance)
        return problem.covariance(problem.back(z))


class RowSums(Variance):
    """`RowSums` takes the sums of the rows of A V A^T as a diagonal (TMPD, Boys et al. 2023, arXiv:2310.06721).

    V = W = (sigma^2 / alpha) J, with two vector-Jacobian products. For Gaussian data the guided denoiser is exact if
    A V A^T is diagonal. Negative sums count as 0.
    """

    @property
    def vjps(self) -> int:
        return 2

    def shift(self, problem: Problem) -> Array:
        sums = problem.forward(problem.covariance(problem.back(problem.measured)))
        total = problem.noise_variance + jnp.maximum(sums, 0) * problem.measured
        z = _divide(problem.residual, total)
        return problem.covariance(problem.back(z))


class Isotropic(Variance):
    """`Isotropic` solves with the posterior variance of data N(m, data_std^2 I) (PiGDM, Song et al. 2023).

    V = r^2 I with r^2 = sigma^2 data_std^2 / (alpha^2 data_std^2 + sigma^2), and W = (sigma^2 / alpha) J, with one
    vector-Jacobian product. The guided denoiser is exact for data N(m, data_std^2 I).

    Attributes:
        data_std: the standard deviation of the data; PiGDM has 1.
    """

    data_std: float = eqx.field(default=1.0, converter=as_float)

    def __check_init__(self) -> None:
        _check_positive("data_std of Isotropic", self.data_std)

    @property
    def vjps(self) -> int:
        return 1

    def shift(self, problem: Problem) -> Array:
        z = problem.solve(lambda v: expand(self.variance(problem.alpha, problem.variance), v) * v, _ITERATIONS)
        return problem.covariance(problem.back(z))

    def variance(self, alpha: Array, variance: Array) -> Array:
        """Return r^2, in the shape of alpha."""
        s2 = self.data_std**2
        return variance * s2 / (alpha**2 * s2 + variance)


class Prior(Variance):
    """`Prior` uses the posterior covariance of data N(m, C) in both places, without the network (JFPS of azula).

    V = W = (C^-1 + (alpha / sigma)^2 I)^-1. The guided denoiser is exact for Gaussian data with this covariance.

    Args:
        cov: C: one variance for all numbers, one variance for each number in the shape of an example, or the matrix of
            the flattened example, (D, D).
    """

    values: np.ndarray
    vectors: np.ndarray | None

    def __init__(self, cov: ArrayLike) -> None:
        array = as_array(cov, "cov of Prior")
        if array.dtype.kind not in "iuf" or not array.size or not np.isfinite(array).all():
            raise InputError(f"cov of Prior is {shown(cov)}; expected finite numbers.")
        square = array.ndim == 2 and array.shape[0] == array.shape[1] and np.allclose(array, array.T)
        if square and array.size > 1:
            self.values, self.vectors = np.linalg.eigh(array.astype(float))
        else:
            self.values, self.vectors = array.astype(float), None
        if np.min(self.values) < -1e-8 * np.max(np.abs(self.values)) or np.max(self.values) <= 0:
            raise InputError(f"cov of Prior has the variance {np.min(self.values):.3g}; expected positive variances.")
        self.values = np.maximum(self.values, 0)

    def shift(self, problem: Problem) -> Array:
        def covariance(v: Array) -> Array:
            alpha2, s2 = problem.alpha**2, problem.variance
            if self.vectors is None:
                values = jnp.asarray(self.values, v.dtype)
                if values.ndim and values.size > 1 and values.shape != v.shape[1:]:
                    raise InputError(
                        f"cov of Prior has the shape {values.shape}; expected {v.shape[1:]}, or one number."
                    )
                return expand(s2, v) * values / (expand(alpha2, v) * values + expand(s2, v)) * v
            flat, vectors = v.reshape(len(v), -1), jnp.asarray(self.vectors, v.dtype)
            if flat.shape[1] != len(vectors):
                raise InputError(f"cov of Prior has {len(vectors)} rows; expected {flat.shape[1]}, as examples have.")
            values = jnp.asarray(self.values, v.dtype)
            factor = expand(s2, flat) * values / (expand(alpha2, flat) * values + expand(s2, flat))
            return ((flat @ vectors * factor) @ vectors.T).reshape(v.shape)

        return covariance(problem.back(problem.solve(covariance, _ITERATIONS)))


class Flat(Variance):
    """`Flat` uses V = W = (sigma / alpha)^2 / weight, the posterior variance of a flat prior (DiffPIR).

    The source is Zhu et al. 2023, arXiv:2305.08995. The guided x_0 is the proximal step
    argmin |y - A x|^2 / S + weight (alpha / sigma)^2 |x - x_0|^2. No network is differentiated. The guided denoiser is
    not exact for any data.

    Attributes:
        weight: the weight of the predicted x_0, lambda of the paper; weight 1 is the flat prior.
    """

    weight: float = eqx.field(default=1.0, converter=as_float)

    def __check_init__(self) -> None:
        _check_positive("weight of Flat", self.weight)

    def shift(self, problem: Problem) -> Array:
        # Where alpha is 0, Posterior ignores the result.
        alpha2 = jnp.where(problem.alpha > 0, problem.alpha, 1) ** 2

        def covariance(v: Array) -> Array:
            return expand(problem.variance / alpha2 / self.weight, v) * v

        return covariance(problem.back(problem.solve(covariance, _ITERATIONS)))


class Zero(Variance):
    """`Zero` solves with V = 0 and W = (sigma^2 / alpha) J: the score of DPS (Chung et al. 2022, Eq. 11).

    The source is arXiv:2209.14687. `Posterior` has it for variance=None. One vector-Jacobian product. The noise of y
    must be positive. The guided samples are overconfident, because the uncertainty of x_0 is left out.
    """

    @property
    def vjps(self) -> int:
        return 1

    def shift(self, problem: Problem) -> Array:
        return problem.covariance(problem.back(problem.residual / problem.noise_variance))


def _divide(residual: Array, total: Array) -> Array:
    return jnp.where(total > 0, residual / jnp.where(total > 0, total, 1), 0)


def _check_positive(name: str, value: Any) -> None:
    if not is_number(value) or not 0 < value < np.inf:
        raise InputError(f"{name} is {shown(value)}; expected a positive number.")


__all__ = ["Flat", "Isotropic", "Moments", "Prior", "Problem", "RowSums", "Variance", "Zero"]
