"""This module defines the SDEs of the literature in continuous time."""

from __future__ import annotations

import math

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, as_float, expm1, is_concrete, to_time
from score_sde.core.checks import check_types
from score_sde.core.errors import InputError
from score_sde.sde.base import SDE


class VariancePreserving(SDE):
    """`VariancePreserving` is an SDE with variance = 1 - alpha^2; a subclass defines log_alpha, exact near the data."""

    t_stop = 1e-3

    def variance(self, t: ArrayLike) -> Array:
        return -expm1(2 * self.log_alpha(t))


class VP(VariancePreserving):
    """`VP` is the variance-preserving SDE, Eq. (11), the limit of DDPM.

    beta(t) = beta_min + t (beta_max - beta_min),
    log alpha(t) = -t beta_min / 2 - t^2 (beta_max - beta_min) / 4,  variance(t) = 1 - alpha(t)^2.
    """

    beta_min: float = eqx.field(default=0.1, converter=as_float)
    beta_max: float = eqx.field(default=20.0, converter=as_float)

    def __check_init__(self) -> None:
        check_types(self)
        if is_concrete(self.beta_min, self.beta_max) and not 0 <= self.beta_min <= self.beta_max < math.inf:
            raise InputError(
                f"{type(self).__name__} got beta_min={self.beta_min}, beta_max={self.beta_max}; "
                "expected 0 <= beta_min <= beta_max."
            )

    def log_alpha(self, t: ArrayLike) -> Array:
        t = to_time(t)
        return -t * self.beta_min / 2 - t**2 * (self.beta_max - self.beta_min) / 4


def _log_alpha(signal: Array, variance: Array) -> Array:
    """Return log(alpha^2) / 2 from alpha^2 and 1 - alpha^2, computed from the smaller of the two."""
    near_data = variance < 0.5
    return jnp.where(near_data, jnp.log1p(-jnp.minimum(variance, 0.5)), jnp.log(signal)) / 2


class CosineVP(VariancePreserving):
    """`CosineVP` is the cosine schedule (Nichol & Dhariwal 2021, arXiv:2102.09672, Eq. 17) in continuous time.

    alpha(t) = cos(pi/2 (t + s) / (1 + s)) / cos(pi/2 s / (1 + s)),  variance(t) = 1 - alpha(t)^2.

    alpha(1) = 0, where drift and diffusion are infinite. The default t_max is therefore 0.9946, where
    alpha = 0.0084, as in DPM-Solver (Lu et al. 2022, arXiv:2206.00927, App. D). With t_max=1 only methods
    without drift and diffusion can start at t_max.
    """

    s: float = eqx.field(default=0.008, converter=as_float)
    t_max: float = eqx.field(default=0.9946, converter=as_float)

    def __check_init__(self) -> None:
        check_types(self)
        if is_concrete(self.s, self.t_max) and not (0 <= self.s < math.inf and 0 < self.t_max <= 1):
            raise InputError(f"CosineVP got s={self.s}, t_max={self.t_max}; expected s >= 0 and 0 < t_max <= 1.")

    def log_alpha(self, t: ArrayLike) -> Array:
        return _log_alpha(self.alpha(t) ** 2, self.variance(t))

    def variance(self, t: ArrayLike) -> Array:
        # a is the angle at time 0, and b is the angle from time 0 to t.
        # The formula avoids log alpha, which has no derivative at alpha = 0.
        a, b = self._angle(self.s), self._angle(t)
        return jnp.sin(b) * jnp.sin(b + 2 * a) / jnp.cos(a) ** 2

    def alpha(self, t: ArrayLike) -> Array:
        # The cosine of the angle is computed as the sine of pi/2 minus the angle, which has no rounding error at t = 1.
        return jnp.sin(self._angle(1 - to_time(t))) / jnp.cos(self._angle(self.s))

    def _angle(self, t: ArrayLike) -> Array:
        return math.pi / 2 * to_time(t) / (1 + self.s)


class SigmoidVP(VariancePreserving):
    """`SigmoidVP` is the sigmoid schedule (Jabri et al. 2022, arXiv:2212.11972; Chen 2023, arXiv:2301.10972).

    With S the logistic function and u(t) = (start + t (end - start)) / tau,

        alpha(t)^2 = (S(u(1)) - S(u(t))) / (S(u(1)) - S(u(0))),  variance(t) = 1 - alpha(t)^2,

    so that alpha^2 falls from 1 to 0. alpha(1) = 0, so the default t_max is 0.999, where alpha = 0.017. With
    t_max=1, alpha' is infinite at t_max too, and only samplers that use alpha and sigma without derivatives can
    start there (DDIM, Ancestral).
    """

    start: float = eqx.field(default=-3.0, converter=as_float)
    end: float = eqx.field(default=3.0, converter=as_float)
    tau: float = eqx.field(default=1.0, converter=as_float)
    t_max: float = eqx.field(default=0.999, converter=as_float)

    def __check_init__(self) -> None:
        check_types(self)
        given = (self.start, self.end, self.tau, self.t_max)
        if is_concrete(given) and not (self.start < self.end and self.tau > 0 and 0 < self.t_max <= 1):
            raise InputError(
                f"SigmoidVP got start={self.start}, end={self.end}, tau={self.tau}, t_max={self.t_max}; "
                "expected start < end, tau > 0 and 0 < t_max <= 1."
            )

    def log_alpha(self, t: ArrayLike) -> Array:
        t = to_time(t)
        return _log_alpha(self._part(1 - t, self.start, t), self._part(t, self.end, t))

    def alpha(self, t: ArrayLike) -> Array:
        t = to_time(t)
        return jnp.sqrt(self._part(1 - t, self.start, t))

    def _part(self, length: Array, far: ArrayLike, t: Array) -> Array:
        """Return the rise of S between u(t) and the end at distance `length`, divided by the whole rise.

        `far` is the other end.
        S(a) - S(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)), without cancellation.
        """
        whole = (self.end - self.start) / self.tau
        u = self.start / self.tau + t * whole
        return jnp.sinh(length * whole / 2) / jnp.sinh(whole / 2) * jnp.cosh(far / self.tau / 2) / jnp.cosh(u / 2)


class SubVP(VP):
    """`SubVP` is the sub-variance-preserving SDE, Eq. (12): alpha of `VP`, variance(t) = (1 - alpha(t)^2)^2."""

    def variance(self, t: ArrayLike) -> Array:
        return expm1(2 * self.log_alpha(t)) ** 2


class VE(SDE):
    """`VE` is the variance-exploding SDE, Eq. (9), the limit of SMLD.

    alpha = 1, sigma = sigma_min (sigma_max/sigma_min)^t.
    """

    sigma_min: float = eqx.field(default=0.01, converter=as_float)
    sigma_max: float = eqx.field(default=50.0, converter=as_float)

    def __check_init__(self) -> None:
        check_types(self)
        if is_concrete(self.sigma_min, self.sigma_max) and not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise InputError(
                f"VE got sigma_min={self.sigma_min}, sigma_max={self.sigma_max}; expected 0 < sigma_min < sigma_max."
            )

    def log_alpha(self, t: ArrayLike) -> Array:
        return jnp.zeros_like(to_time(t))

    def variance(self, t: ArrayLike) -> Array:
        t = to_time(t)
        return jnp.exp(2 * (jnp.log(self.sigma_min) * (1 - t) + jnp.log(self.sigma_max) * t))


class EDM(SDE):
    """`EDM` has alpha = 1 and sigma = t (Karras et al. 2022, arXiv:2206.00364, Sec. 3), so time is the noise level."""

    sigma_min: float = eqx.field(default=0.002, converter=as_float)
    sigma_max: float = eqx.field(default=80.0, converter=as_float)
    t_min = property(lambda self: self.sigma_min)
    t_max = property(lambda self: self.sigma_max)
    default_grid = "karras"

    def __check_init__(self) -> None:
        check_types(self)
        if is_concrete(self.sigma_min, self.sigma_max) and not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise InputError(
                f"EDM got sigma_min={self.sigma_min}, sigma_max={self.sigma_max}; expected 0 < sigma_min < sigma_max."
            )

    def log_alpha(self, t: ArrayLike) -> Array:
        return jnp.zeros_like(to_time(t))

    def variance(self, t: ArrayLike) -> Array:
        return to_time(t) ** 2


class RectifiedFlow(SDE):
    """`RectifiedFlow` has alpha = 1 - t and sigma = t, the straight path from data to noise.

    Flow matching (Lipman et al. 2023, arXiv:2210.02747, Eq. 20, with sigma_min = 0 and time reversed) and rectified
    flow (Liu et al. 2023, arXiv:2209.03003) use this path. The probability flow is dx/dt = E[noise - x_0 | x_t], so
    matching the velocity on this path is flow matching. At t = 1 alpha is 0: velocity, transition and perturb are
    defined there, drift and diffusion are not. A method that needs drift or diffusion starts a little earlier, with
    RectifiedFlow(t_max=0.999).
    """

    t_max: float = eqx.field(default=1.0, converter=as_float)

    def __check_init__(self) -> None:
        check_types(self)
        if is_concrete(self.t_max) and not 0 < self.t_max <= 1:
            raise InputError(f"RectifiedFlow got t_max={self.t_max}; expected 0 < t_max <= 1.")

    def alpha(self, t: ArrayLike) -> Array:
        return 1 - to_time(t)

    def log_alpha(self, t: ArrayLike) -> Array:
        return jnp.log1p(-to_time(t))

    def variance(self, t: ArrayLike) -> Array:
        return to_time(t) ** 2


__all__ = ["EDM", "VE", "VP", "CosineVP", "RectifiedFlow", "SigmoidVP", "SubVP", "VariancePreserving"]
