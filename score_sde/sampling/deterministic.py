"""This module defines Euler's and Heun's methods for the probability-flow ODE in time t, with optional churn."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler, State
from score_sde.sampling.checks import check_continuous, check_signal, check_velocity
from score_sde.sampling.counting import evaluations
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class _Churned(Sampler):
    """`_Churned` is the base of samplers that may add fresh noise before a step of the probability-flow ODE.

    Churn (Karras et al. 2022, arXiv:2206.00364, Algorithm 2) first raises the noise level sigma / alpha by the
    factor 1 + gamma with the forward kernel of the SDE. The step then starts from the raised noise level.

    Attributes:
        gamma: min(S_churn / N, sqrt(2) - 1) of the paper, where N is the number of steps; 0 adds no noise.
        s_min, s_max: the noise levels sigma / alpha between which noise is added.
        s_noise: a factor on the standard deviation of the added noise.
    """

    gamma: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.gamma < math.inf and 0 <= self.s_min <= self.s_max and self.s_noise >= 0):
            raise InputError(
                f"{type(self).__name__} got gamma={self.gamma!r}, s_min={self.s_min!r}, s_max={self.s_max!r}, "
                f"s_noise={self.s_noise!r}; expected gamma and s_noise of at least 0 and s_min <= s_max."
            )

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_continuous(self, sde)
        check_velocity(self, sde, grid)
        if self.gamma > 0:
            check_signal(self, sde, grid)

    def churn(self, keys: Array, sde: SDE, x: Array, t: Array) -> tuple[Array, Array]:
        """Return (x, t) after the added noise; t is at most t_max, because no network is trained beyond t_max."""
        if self.gamma == 0:
            return x, t
        log_snr = sde.log_snr(t)
        level = jnp.exp(-log_snr / 2)
        higher = sde.time_of(log_snr - 2 * math.log1p(self.gamma))
        higher = jnp.where((level >= self.s_min) & (level <= self.s_max), jnp.maximum(higher, t), t)
        r, v = sde.transition(t, higher)
        # Between equal times v is zero up to rounding, and may be negative.
        v = jnp.where(higher > t, jnp.maximum(v, 0), 0)
        z = keys_.normal(keys, x.shape[1:], x.dtype)
        return expand(r, x) * x + expand(self.s_noise * jnp.sqrt(v), x) * z, higher


@dataclasses.dataclass(frozen=True)
class Euler(_Churned):
    """`Euler` solves the probability-flow ODE dx/dt = velocity(x, t) with Euler's method, order 1.

    x_s = x_t + (s - t) velocity(x_t, t), in time t of the SDE, with churn if gamma > 0. A step takes one evaluation.
    """

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        x, t = self.churn(keys, denoiser.sde, x, t)
        return x + expand(s - t, x) * denoiser.velocity(x, t, cond), state, evaluations(denoiser, x, t)


@dataclasses.dataclass(frozen=True)
class Heun(_Churned):
    """`Heun` solves the probability-flow ODE dx/dt = velocity(x, t) with Heun's method, order 2.

    x' = x_t + (s - t) velocity(x_t, t),
    x_s = x_t + (s - t) (velocity(x_t, t) + velocity(x', s)) / 2,

    in time t of the SDE, with churn if gamma > 0. A step takes two evaluations. On `EDM` with time_grid.karras, `Heun`
    is Algorithms 1 and 2 of Karras et al. 2022 (arXiv:2206.00364), where the paper's last step to 0 is the final
    denoising. Two things differ: churn raises t to at most t_max, and the final denoising has no churn.
    """

    @property
    def convergence_order(self) -> float:
        """Return 2, or 1 with churn."""
        return 2 if self.gamma == 0 else 1

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        x, t = self.churn(keys, denoiser.sde, x, t)
        h = expand(s - t, x)
        slope = denoiser.velocity(x, t, cond)
        slope_ahead = denoiser.velocity(x + h * slope, s, cond)
        return x + h / 2 * (slope + slope_ahead), state, evaluations(denoiser, x, t, s)
