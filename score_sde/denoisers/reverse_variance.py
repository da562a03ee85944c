"""This module defines the variance of a reverse step t -> s, which belongs to the pair of times.

With the forward kernel x_t | x_s ~ N(r x_s, v I), the posterior q(x_s | x_t, x_0) has the mean and the variance

    (r sigma_s^2 / sigma_t^2) x_t + (alpha_s v / sigma_t^2) x_0,   lower = v sigma_s^2 / sigma_t^2.

The variance of x_s given x_t alone is at least `lower`; it is v on VP for data of unit variance.
"""

from __future__ import annotations

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand, to_time
from score_sde.core.errors import InputError
from score_sde.denoisers.prediction import Prediction
from score_sde.sde import SDE

# 'posterior' is `lower`, 'forward' is v, 'learned' is the denoiser's own, 'optimal' follows from Var[x_0 | x_t].
FIXED = ("posterior", "forward")
KINDS = (*FIXED, "learned", "optimal")


class OfX0(eqx.Module):
    """`OfX0` is the variance of a reverse step that follows from C = Var[x_0 | x_t] (law of total variance):

        var = v sigma_s^2 / sigma_t^2 + (alpha_s v / sigma_t^2)^2 C.

    With the exact C it is the optimal variance of a Gaussian reverse step, for any s < t (Bao et al. 2022,
    arXiv:2201.06503, Theorem 1; per dimension arXiv:2206.07309). A subclass defines `x0_variance`.
    """

    @abc.abstractmethod
    def x0_variance(self, sde: SDE, t: ArrayLike) -> Array:
        """Return C = Var[x_0 | x_t], not negative, in shape () or (batch,) or in the shape of x."""

    def of(self, sde: SDE, s: ArrayLike, t: ArrayLike) -> Array:
        c = self.x0_variance(sde, t)
        _, v = sde.transition(s, t)
        variance_t = sde.variance(to_time(t))
        scale = at_shape(sde.alpha(to_time(s)) * v / variance_t, c)
        return at_shape(v * sde.variance(to_time(s)) / variance_t, c) + scale**2 * c

    def to_data(self, sde: SDE, t: ArrayLike) -> Array:
        """Return the variance of x_0 given x_t, which is C."""
        return self.x0_variance(sde, t)


class X0Variance(OfX0):
    """`X0Variance` holds C = Var[x_0 | x_t].

    Attributes:
        value: C, shape () or (batch,), or the shape of x.
    """

    value: Array

    def x0_variance(self, sde: SDE, t: ArrayLike) -> Array:
        return self.value


class _OfNoise(OfX0):
    """`_OfNoise` is the base of variances of the noise, which may be 0 near the data.

    As in the published code of Bao et al. 2022, a step to data has the fixed variance 'posterior'.
    """

    def to_data(self, sde: SDE, t: ArrayLike) -> Array:
        return _lower_to_data(sde, t)


class NoiseMoment(_OfNoise):
    """`NoiseMoment` holds h = E[noise^2 | x_t], so that C = (sigma^2 / alpha^2) (h - E[noise | x_t]^2).

    The source is SN-DDPM (Bao et al. 2022, arXiv:2206.07309, Sec. 4.1). C is clipped to [0, largest].

    Attributes:
        h: prediction of E[noise^2 | x_t], in the shape of x.
        noise: prediction of E[noise | x_t], in the shape of x.
        largest: bound of C, (b - a)^2 / 4 for data in [a, b] (Popoviciu's inequality); infinity for no bound.
    """

    h: Array
    noise: Array
    largest: float = eqx.field(static=True)

    def x0_variance(self, sde: SDE, t: ArrayLike) -> Array:
        return _from_noise(sde, t, self.h - self.noise**2, self.largest)


class NoiseResidual(_OfNoise):
    """`NoiseResidual` holds h = E[(noise - predicted noise)^2 | x_t], so that C = (sigma^2 / alpha^2) h.

    The source is NPR-DPM (Bao et al. 2022, arXiv:2206.07309, Sec. 4.2): h also counts the error of the predicted mean.
    C is clipped to [0, largest].

    Attributes:
        h: prediction of the squared residual, in the shape of x.
        largest: bound of C, as in `NoiseMoment`.
    """

    h: Array
    largest: float = eqx.field(static=True)

    def x0_variance(self, sde: SDE, t: ArrayLike) -> Array:
        return _from_noise(sde, t, self.h, self.largest)


class BoundFraction(eqx.Module):
    """`BoundFraction` interpolates log var between the two fixed variances (Nichol & Dhariwal 2021, Eq. 15):

        log var = f log v + (1 - f) log(v sigma_s^2 / sigma_t^2).

    The source is arXiv:2102.09672. f is not bounded. A step to data has lower = 0. As in the published code, its lower
    bound is that of the step from the next level of the chain to t; on an SDE without levels it is v.

    Attributes:
        fraction: f, in the shape of x.
    """

    fraction: Array

    def of(self, sde: SDE, s: ArrayLike, t: ArrayLike) -> Array:
        _, v = sde.transition(s, t)
        return self._between(_lower(sde, s, t), v)

    def to_data(self, sde: SDE, t: ArrayLike) -> Array:
        """Return the variance of a step from t to data."""
        return self._between(_lower_to_data(sde, t), sde.variance(to_time(t)))

    def _between(self, lower: Array, upper: Array) -> Array:
        f = self.fraction
        return jnp.exp(f * jnp.log(at_shape(upper, f)) + (1 - f) * jnp.log(at_shape(lower, f)))


def reverse_variance(sde: SDE, s: ArrayLike, t: ArrayLike, predicted: Prediction, kind: str) -> Array:
    """Return the variance of x_s given x_t, in shape () or (batch,) or in the shape of x.

    Args:
        sde: the SDE.
        s, t: times, s < t, each of shape () or (batch,).
        predicted: prediction at t.
        kind: one of KINDS. If s is data (level 0 of a chain), the variance is that of `variance_to_data`.

    Raises:
        InputError: for a variance that the denoiser does not predict.
    """
    if kind == "posterior":
        return _lower(sde, s, t)
    if kind == "forward":
        return sde.transition(s, t)[1]
    check_predicted(predicted, kind)
    assert predicted.variance is not None
    return predicted.variance.of(sde, s, t)


def variance_to_data(sde: SDE, t: ArrayLike, predicted: Prediction, kind: str) -> Array:
    """Return the variance of x_0 given x_t in a step to data, in shape () or (batch,) or in the shape of x.

    'forward' is sigma_t^2, 'posterior' is the posterior variance of the step from the next level of the chain to t
    (Ho et al. 2020), or sigma_t^2 on an SDE without levels. The arguments and the errors are those of
    `reverse_variance`.
    """
    if kind == "posterior":
        return _lower_to_data(sde, t)
    if kind == "forward":
        return sde.variance(to_time(t))
    check_predicted(predicted, kind)
    to_data = getattr(predicted.variance, "to_data", None)
    if to_data is None:
        raise InputError(
            f"{type(predicted.variance).__name__} has no variance of a step to data; expected a method to_data(sde, t)."
        )
    variance: Array = to_data(sde, t)
    return variance


def check_predicted(predicted: Prediction, kind: str) -> None:
    """Raise InputError if a prediction has no variance of this kind."""
    if kind in FIXED:
        return
    if predicted.variance is None:
        raise InputError(
            f"variance is {kind!r}, but the denoiser predicts no variance; expected 'posterior' or 'forward', a "
            "network with parametrization.variance, or the guide Analytic with a table of this model."
        )
    if kind == "optimal" and not isinstance(predicted.variance, OfX0):
        raise InputError(
            f"variance is 'optimal', but the denoiser predicts a {type(predicted.variance).__name__}, from which "
            "Var[x_0 | x_t] does not follow; expected 'learned', or the guide Analytic with a table of this model."
        )


def check_kind(name: str, kind: object) -> None:
    """Raise InputError unless `kind` is one of KINDS."""
    if kind not in KINDS:
        raise InputError(f"{name} got variance={kind!r}; expected one of {', '.join(KINDS)}.")


def _lower(sde: SDE, s: ArrayLike, t: ArrayLike) -> Array:
    """Return v sigma_s^2 / sigma_t^2, or for a step to level 0 of a chain the value of a step to data."""
    s, t = to_time(s), to_time(t)
    _, v = sde.transition(s, t)
    variance_s = sde.variance(s)
    return jnp.where(variance_s > 0, v * variance_s / sde.variance(t), _lower_to_data(sde, t))


def _lower_to_data(sde: SDE, t: ArrayLike) -> Array:
    t = to_time(t)
    variance = sde.variance(t)
    if sde.levels is None:
        return variance
    above = jnp.minimum(t + 1 / sde.levels, sde.t_max)
    later = sde.transition(t, above)[1] * variance / sde.variance(above)
    return jnp.where(sde.variance(above) > variance, later, variance)


def _from_noise(sde: SDE, t: ArrayLike, residual: Array, largest: float) -> Array:
    """Return (sigma^2 / alpha^2) times the variance of the noise, within [0, largest]."""
    t = to_time(t)
    alpha = sde.alpha(t)
    ratio = sde.variance(t) / jnp.where(alpha > 0, alpha, 1) ** 2
    # Where alpha = 0, x_t says nothing about x_0, and the factor of C in a step is finite only for the largest C.
    scaled = jnp.where(
        at_shape(alpha, residual) > 0, at_shape(ratio, residual) * residual, largest if np.isfinite(largest) else 0
    )
    return jnp.clip(scaled, 0, largest)


def at_shape(coefficient: ArrayLike, like: Array) -> Array:
    """Return a coefficient of shape () or (batch,), or in the shape of `like`, so that it multiplies `like`."""
    c = jnp.asarray(coefficient)
    return expand(c, like) if c.ndim < jnp.ndim(like) else c


__all__ = [
    "KINDS",
    "BoundFraction",
    "NoiseMoment",
    "NoiseResidual",
    "OfX0",
    "X0Variance",
    "reverse_variance",
    "variance_to_data",
]
