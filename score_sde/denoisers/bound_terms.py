"""This module defines the terms of the variational bound of a chain of reverse steps, in nats, one value per example.

With the reverse kernel p(x_s | x_t) = N(m, V), where m is the mean of q(x_s | x_t, x_0) at the predicted x_0,

    -log p(x_0) <= L_T + sum of L_t + L_0,
    L_T = KL(q(x_T | x_0) || prior),  L_t = KL(q(x_s | x_t, x_0) || p(x_s | x_t)),  L_0 = -log p(x_0 | x_1)

(Ho et al. 2020, arXiv:2006.11239, Eq. 5), each in the mean over x_t.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand, per_example_sum, to_time
from score_sde.denoisers.prediction import Prediction
from score_sde.denoisers.reverse_variance import at_shape, reverse_variance, variance_to_data
from score_sde.sde import SDE

Bins = tuple[Array, Array]
_NARROW = 0.05  # width of a bin in standard deviations below which a series replaces the difference


def prior_term(sde: SDE, x0: Array) -> Array:
    """Return L_T = KL(N(alpha x_0, sigma^2) || N(0, prior_std^2)) at t_max: x0 (batch, *shape) -> (batch,)."""
    alpha, variance = sde.alpha(sde.t_max), sde.variance(sde.t_max)
    prior = jnp.asarray(sde.prior_std) ** 2
    return 0.5 * per_example_sum((alpha * x0) ** 2 / prior + variance / prior - 1 - jnp.log(variance / prior))


def step_term(sde: SDE, s: ArrayLike, t: ArrayLike, x0: Array, predicted: Prediction, kind: str) -> Array:
    """Return L_t = KL(q(x_s | x_t, x_0) || N(m, V)), where sigma_s > 0, (batch,).

    Both laws are diagonal: with u = lower / V, each dimension has (u - 1 - log u + (alpha_s v / sigma_t^2)^2
    (x_0 - predicted x_0)^2 / V) / 2. With V = lower the term is (SNR_s - SNR_t) |x_0 - predicted x_0|^2 / 2.

    Args:
        sde: the SDE.
        s, t: times, s < t, each of shape () or (batch,).
        x0: data on the model's scale, shape (batch, *shape).
        predicted: prediction at x_t.
        kind: the variance V, as in `reverse_variance`.
    """
    s, t = to_time(s), to_time(t)
    error = x0 - predicted.x0
    if kind == "posterior":
        # SNR_s - SNR_t = SNR_t (e^d - 1), without the cancellation of a difference.
        d = sde.log_snr(s) - sde.log_snr(t)
        return 0.5 * jnp.exp(sde.log_snr(t)) * jnp.expm1(d) * per_example_sum(error**2)
    variance_s, variance_t = sde.variance(s), sde.variance(t)
    _, v = sde.transition(s, t)
    lower = v * variance_s / variance_t
    reverse = reverse_variance(sde, s, t, predicted, kind)
    log_ratio = jnp.broadcast_to(at_shape(jnp.log(reverse), x0) - expand(jnp.log(lower), x0), x0.shape)
    pull = expand((sde.alpha(s) * v / variance_t) ** 2, x0) * error**2 / at_shape(reverse, x0)
    return 0.5 * per_example_sum(jnp.expm1(-log_ratio) + log_ratio + pull)


def data_term(sde: SDE, t: ArrayLike, x0: Array, predicted: Prediction, kind: str, bins: Bins | None) -> Array:
    """Return L_0 = -log p(x_0 | x_t), (batch,), where p is N(predicted x_0, V) and V the variance of a step to data.

    Args:
        sde: the SDE.
        t: the least time, shape () or (batch,).
        x0: data on the model's scale, shape (batch, *shape).
        predicted: prediction at x_t.
        kind: the variance V, as in `reverse_variance`.
        bins: the ends (low, high) of the bin of each number, infinite for the first and the last bin, in the shape of
            x0: the term is then the negative logarithm of a probability. None for a density.
    """
    variance = at_shape(variance_to_data(sde, t, predicted, kind), x0)
    std = jnp.broadcast_to(jnp.sqrt(variance), x0.shape)
    if bins is None:
        z = (x0 - predicted.x0) / std
        return per_example_sum(0.5 * z**2 + jnp.log(std) + 0.5 * math.log(2 * math.pi))
    return -per_example_sum(log_probability(*bins, predicted.x0, std))


def log_probability(low: Array, high: Array, mean: Array, std: Array) -> Array:
    """Return the log-probability of the bin (low, high) under N(mean, std^2), with finite derivatives everywhere.

    An infinite end is left out before anything is divided, because its derivative in std would be NaN.
    """
    below, above = jnp.isneginf(low), jnp.isposinf(high)
    a = (jnp.where(below, high - 1, low) - mean) / std
    b = (jnp.where(above, low + 1, high) - mean) / std
    inside = _log_between(a, b)
    return jnp.where(below, _log_cdf(b), jnp.where(above, _log_cdf(-a), inside))


def _log_between(a: Array, b: Array) -> Array:
    """Return log(Phi(b) - Phi(a)), a < b, where both ends are finite.

    Above 0 both ends are mirrored, because Phi is close to 1 there. In a narrow bin the difference of two logarithms
    would be rounding error. With the middle m and the width w,

        Phi(b) - Phi(a) = phi(m) w sinh(m w / 2) / (m w / 2) (1 - w^2 / 24 + ...),

    from phi(m + u) = phi(m) exp(-m u - u^2 / 2).
    """
    mirrored = a + b > 0
    a, b = jnp.where(mirrored, -b, a), jnp.where(mirrored, -a, b)
    width = b - a
    narrow = width < _NARROW
    # Each branch gets input of its own kind, so that the branch that is not used has finite derivatives.
    wide_a = jnp.where(narrow, b - 1, a)
    top, gap = _log_cdf(b), _log_cdf(wide_a) - _log_cdf(b)
    wide = top + jnp.log1p(-jnp.exp(jnp.minimum(gap, -1e-4)))
    w = jnp.where(narrow, width, _NARROW)
    middle = b - w / 2
    half = jnp.abs(middle) * w / 2
    large = half > 0.1
    safe = jnp.where(large, half, 1.0)
    log_sinhc = jnp.where(large, safe + jnp.log1p(-jnp.exp(-2 * safe)) - jnp.log(2 * safe), half**2 / 6 - half**4 / 180)
    of_narrow = -(middle**2) / 2 - 0.5 * math.log(2 * math.pi) + jnp.log(w) + log_sinhc - w**2 / 24
    return jnp.where(narrow, of_narrow, wide)


def _log_cdf(z: Array) -> Array:
    return jax.scipy.special.log_ndtr(z)


__all__ = ["data_term", "log_probability", "prior_term", "step_term"]
