"""This module defines a variance-preserving SDE whose schedule is learned."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, as_float, is_concrete, to_time
from score_sde.core.checks import check_types, require_whole
from score_sde.core.errors import InputError
from score_sde.sde.continuous import VariancePreserving


class LearnedVP(VariancePreserving):
    """`LearnedVP` is a variance-preserving SDE with a learned log signal-to-noise ratio (Kingma et al. 2021).

    With fixed ends, log_snr(t) = log_snr_max + (log_snr_min - log_snr_max) F(t), where F rises from 0 to 1:

        F(t) = (w_0 t + sum_k w_k S_k(t)) / (w_0 + sum_k w_k),  w = softplus(weights),

    and S_k is a logistic function around the place (k - 1/2) / units, shifted and scaled to S_k(0) = 0 and S_k(1) = 1.
    alpha^2 = S(log_snr), variance = S(-log_snr), with the logistic function S. Equal weights give a log-SNR that is
    nearly linear in t. The ends are those of arXiv:2107.00630, Fig. 1; the form of F is ours, and the paper's is a
    monotone network. The objective `LearnedSchedule` trains `weights`.

    Attributes:
        log_snr_min, log_snr_max: log-SNR at t = 1 and t = 0.
        units: number of logistic functions.
        weights: shape (units + 1,), any real numbers; None for equal weights.
    """

    learned = ("weights",)

    t_min = 0.0
    t_stop = 0.0

    log_snr_min: float = eqx.field(default=-5.0, converter=as_float)
    log_snr_max: float = eqx.field(default=13.3, converter=as_float)
    units: int = eqx.field(default=32, static=True)
    weights: Any = None

    def __post_init__(self) -> None:
        require_whole("units of LearnedVP", self.units, 1)
        if self.weights is None:
            # The straight line has a small part, which keeps the derivative positive everywhere.
            self.weights = np.concatenate([[-2.0], np.zeros(self.units)]).astype(np.float32)
        elif not isinstance(self.weights, jax.Array):
            self.weights = np.asarray(self.weights, np.float32)

    def __check_init__(self) -> None:
        check_types(self)
        if is_concrete(self.log_snr_min, self.log_snr_max) and not -60 <= self.log_snr_min < self.log_snr_max <= 60:
            raise InputError(
                f"LearnedVP got log_snr_min={self.log_snr_min}, log_snr_max={self.log_snr_max}; expected -60 <= "
                "log_snr_min < log_snr_max <= 60."
            )
        if jnp.shape(self.weights) != (self.units + 1,):
            raise InputError(
                f"LearnedVP got weights of shape {jnp.shape(self.weights)}; expected ({self.units + 1},), units + 1."
            )

    def log_snr(self, t: ArrayLike) -> Array:
        t = to_time(t)
        places, sharpness = (np.arange(self.units) + 0.5) / self.units, 2.0 * self.units
        first, last = (jax.nn.sigmoid(sharpness * (end - places)) for end in (0.0, 1.0))
        rising = (jax.nn.sigmoid(sharpness * (t[..., None] - places)) - first) / (last - first)
        w = jax.nn.softplus(jnp.asarray(self.weights, t.dtype))
        part = (w[0] * t + rising @ w[1:]) / jnp.sum(w)
        return self.log_snr_max + (self.log_snr_min - self.log_snr_max) * part

    def log_alpha(self, t: ArrayLike) -> Array:
        return -jax.nn.softplus(-self.log_snr(t)) / 2

    def variance(self, t: ArrayLike) -> Array:
        return jax.nn.sigmoid(-self.log_snr(t))


__all__ = ["LearnedVP"]
