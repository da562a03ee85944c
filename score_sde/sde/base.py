"""This module defines `SDE`, the base class of the stochastic differential equations that turn data into noise.

Two functions of time, alpha(t) and variance(t) = sigma(t)^2, define an SDE:

    x_t | x_0 ~ N(alpha(t) x_0, variance(t) I).

The class `SDE` derives all other quantities from the two functions: the drift, the diffusion
coefficient, the kernel between two times, the velocity and the prior. Time runs from data at t_min
to noise at t_max. Times have shape () or (batch,); x has shape (batch, *shape) with any number of axes.

Equations are those of Song et al. 2021, "Score-based generative modeling through stochastic
differential equations" (arXiv:2011.13456), unless the text names another source.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, dimensions, expand, is_concrete, per_example_sum, to_time
from score_sde.core.checks import check_types, require_number
from score_sde.core.errors import InputError


class _UnlessGiven:
    """`_UnlessGiven` is a derived attribute that a subclass can replace by a class attribute or a field.

    Access on the class raises AttributeError; otherwise a dataclass would use the attribute as a field's default.
    """

    def __init__(self, derive: Callable[[Any], Any]) -> None:
        self.derive = derive

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            raise AttributeError(self.name)
        return self.derive(instance)


class SDE(eqx.Module):
    """`SDE` is a linear SDE dx = f(t) x dt + g(t) dw, defined by alpha (or log_alpha) and variance.

    To add an SDE, write a subclass, declare the parameters as fields, and define `variance` and one of
    `alpha` and `log_alpha` with jax.numpy, elementwise in t:

        class Linear(SDE):
            rate: float = 5.0

            def log_alpha(self, t):
                return -self.rate * t

            def variance(self, t):
                return -jnp.expm1(-2 * self.rate * t)

    Attributes:
        t_min: time of the data, at which training and the likelihood start.
        t_max: time of the prior.
        t_stop: time at which sampling stops; the default is t_min.
        prior_std: standard deviation of the prior N(0, prior_std^2 I); the default is sigma(t_max).
        default_grid: name of the function of `time_grid` that `time_grid.default` calls.
        levels: number N of levels if only the times i / N are known and there are no derivatives in time, as in a
            `Chain`; None otherwise.
    """

    t_min = 1e-5
    t_max = 1.0

    default_grid = "uniform"  # the name of a function of time_grid

    t_stop = _UnlessGiven(lambda sde: sde.t_min)
    prior_std = _UnlessGiven(lambda sde: sde.sigma(sde.t_max))

    def __check_init__(self) -> None:
        if type(self).alpha is SDE.alpha and type(self).log_alpha is SDE.log_alpha:
            raise InputError(f"{type(self).__name__} defines neither alpha(t) nor log_alpha(t): define one of them.")
        check_types(self)
        for name in ("t_min", "t_stop", "t_max"):
            require_number(f"{name} of {type(self).__name__}", getattr(self, name))
        if is_concrete(self.t_min, self.t_stop, self.t_max) and not (
            0 <= self.t_min <= self.t_stop < self.t_max < math.inf
        ):
            raise InputError(
                f"{type(self).__name__} has t_min={self.t_min}, t_stop={self.t_stop}, t_max={self.t_max}; "
                "expected 0 <= t_min <= t_stop < t_max, all finite."
            )

    # Two functions define an SDE.

    def log_alpha(self, t: ArrayLike) -> Array:
        """Return log alpha(t), in the shape of t."""
        return jnp.log(self.alpha(t))

    def alpha(self, t: ArrayLike) -> Array:
        """Return alpha(t), the factor on x_0 at time t, in the shape of t."""
        return jnp.exp(self.log_alpha(t))

    @abc.abstractmethod
    def variance(self, t: ArrayLike) -> Array:
        """Return sigma(t)^2, the variance of x_t given x_0, in the shape of t."""

    # The other quantities follow from alpha and variance.

    def sigma(self, t: ArrayLike) -> Array:
        """Return sigma(t), the standard deviation of x_t given x_0, in the shape of t."""
        return jnp.sqrt(self.variance(to_time(t)))

    def log_snr(self, t: ArrayLike) -> Array:
        """Return log(alpha^2 / sigma^2), the log signal-to-noise ratio, in the shape of t."""
        t = to_time(t)
        return 2 * self.log_alpha(t) - jnp.log(self.variance(t))

    def drift_rate(self, t: ArrayLike) -> Array:
        """Return f(t) = (log alpha)'(t), in the shape of t; the drift is f(t) x."""
        self._require_signal(t)
        return _derivative(self.log_alpha, to_time(t))[1]

    def diffusion_squared(self, t: ArrayLike) -> Array:
        """Return g(t)^2 = variance'(t) - 2 f(t) variance(t), in the shape of t."""
        # The derivative is that of the variance, not of sigma, because the square root has no derivative at 0.
        variance, slope = _derivative(self.variance, to_time(t))
        return slope - 2 * self.drift_rate(t) * variance

    def drift(self, x: Array, t: ArrayLike) -> Array:
        """Return the drift f(t) x of the forward SDE, Eq. (5), or raise InputError where alpha(t) = 0."""
        return expand(self.drift_rate(t), x) * x

    def diffusion(self, t: ArrayLike) -> Array:
        """Return the diffusion coefficient g(t), in the shape of t, or raise InputError where alpha(t) = 0."""
        return jnp.sqrt(self.diffusion_squared(t))

    def velocity_rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """Return (alpha'(t), sigma'(t)), where the probability flow is dx/dt = alpha' x_0 + sigma' noise."""
        t = to_time(t)
        variance, slope = _derivative(self.variance, t)
        return _derivative(self.alpha, t)[1], slope / (2 * jnp.sqrt(variance))

    def transition(self, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
        """Return (r, v) of the forward kernel x_t | x_s ~ N(r x_s, v I), where s <= t.

        r = alpha_t / alpha_s and v = variance_t - r^2 variance_s, each in the shape of s and t.
        """
        s, t = to_time(s), to_time(t)
        log_r = self.log_alpha(t) - self.log_alpha(s)
        # variance_t - variance_s + (1 - r^2) variance_s equals v, with less cancellation.
        variance_s = self.variance(s)
        return jnp.exp(log_r), self.variance(t) - variance_s - jnp.expm1(2 * log_r) * variance_s

    def draw(self, keys: Array, shape: tuple[int, ...], dtype: DTypeLike = float) -> Array:
        """Draw the argument `noise` of `perturb`, standard normal, once for each key: keys (batch,) -> (batch, *shape).

        A subclass whose x_t has another random part draws that part.
        """
        return keys_.normal(keys, shape, dtype)

    def perturb(self, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """Return x_t = alpha(t) x_0 + sigma(t) noise, Eq. (29), where x0 and noise have shape (batch, *shape)."""
        t = to_time(t)
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * noise

    def sample_prior(self, keys: Array, shape: tuple[int, ...]) -> Array:
        """Draw from the prior N(0, prior_std^2 I), once for each key: keys (batch,) -> (batch, *shape)."""
        z = keys_.normal(keys, shape)
        return expand(self.prior_std, z) * z

    def prior_log_prob(self, x: Array) -> Array:
        """Return log N(x; 0, prior_std^2 I) in nats: (batch, *shape) -> (batch,)."""
        std = expand(self.prior_std, x)
        return -0.5 * per_example_sum((x / std) ** 2) - dimensions(x) * (jnp.log(std) + 0.5 * math.log(2 * math.pi))

    # The remaining methods convert and check times.

    def time_of(self, log_snr: ArrayLike) -> Array:
        """Return the time at which the log signal-to-noise ratio equals `log_snr`, in the shape of log_snr.

        The method is bisection to the last digit; log-SNR falls with time. Values out of range give t_min or t_max.
        """
        return time_at_log_snr(self, log_snr, self.t_min, self.t_max)

    @property
    def levels(self) -> int | None:
        return None

    def smooth(self) -> SDE:
        """Return an SDE with derivatives in time: this SDE itself, or a curve through the levels of a `Chain`."""
        return self

    def label(self, t: ArrayLike) -> Array:
        """Return the label of a chain's level in published networks, or raise InputError if the SDE has no levels."""
        raise InputError(f"{type(self).__name__} has no levels to label: use time_label='scaled_time' or 'log_sigma'.")

    def nearest(self, times: np.ndarray) -> np.ndarray:
        """Return the nearest times at which this SDE is known: `times` itself, unless the SDE is a chain."""
        return times

    def check_times(self, times: np.ndarray, name: str) -> None:
        """Raise InputError if a time is outside [t_min, t_max], in the precision of `times`."""
        low, high = np.asarray([self.t_min, self.t_max], times.dtype if times.dtype.kind == "f" else float)
        outside = times[~((times >= low) & (times <= high))]
        if outside.size:
            raise InputError(
                f"{name} contains {outside.flat[0]:g}; expected times within [t_min, t_max] = [{low:g}, {high:g}] of "
                f"{type(self).__name__}."
            )

    def _require_signal(self, t: ArrayLike) -> None:
        if is_concrete(self, t):
            with jax.ensure_compile_time_eval():
                times = np.atleast_1d(np.asarray(t))
                gone = times[np.asarray(self.alpha(to_time(times))) == 0]
            if gone.size:
                raise InputError(
                    f"{type(self).__name__} has alpha(t) = 0 at t = {gone[0]:g}, where drift and diffusion are "
                    "infinite; use velocity, transition, or a sampler without drift and diffusion, such as Ancestral."
                )


def _derivative(function: Callable[[Array], Array], t: Array) -> tuple[Array, Array]:
    """Return (function(t), function'(t)) of an elementwise function."""
    return jax.jvp(function, (t,), (jnp.ones_like(t),))


def time_at_log_snr(sde: SDE, log_snr: ArrayLike, earliest: float, latest: float) -> Array:
    """Return the time from `earliest` to `latest` at which the log signal-to-noise ratio of sde equals log_snr.

    The method is bisection. The shape is that of log_snr. Values out of range give `earliest` or `latest`.
    """
    wanted = to_time(log_snr)
    low, high = jnp.full_like(wanted, earliest), jnp.full_like(wanted, latest)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        early = sde.log_snr(middle) > wanted
        return jnp.where(early, middle, low), jnp.where(early, high, middle)

    # A time near `earliest` may be far smaller than `latest`, so its last digit needs more halvings than nmant.
    digits = jnp.finfo(wanted.dtype).nmant + 20
    low, high = jax.lax.fori_loop(0, digits, halve, (low, high))
    early, late = wanted >= sde.log_snr(earliest), wanted <= sde.log_snr(latest)
    return jnp.where(early, earliest, jnp.where(late, latest, (low + high) / 2))


__all__ = ["SDE"]
