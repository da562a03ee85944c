"""Samplers of the probability flow in the SDE's own time, with churn if wanted: Euler's and Heun's methods."""

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
from score_sde.sampling.base import Sampler, State, evaluations
from score_sde.sampling.checks import check_continuous, check_signal, check_velocity
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class _Churned(Sampler):
    """A step of the probability flow, before which fresh noise may be added.

    Churn (Karras et al. 2022, arXiv:2206.00364, Algorithm 2) first raises the noise level sigma / alpha by
    the factor 1 + gamma, by the SDE's own forward kernel, and steps down from there.

    Attributes:
        gamma: min(S_churn / N, sqrt(2) - 1) of the paper, N being the steps; 0 adds nothing.
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
        """(x, t) after the added noise; no further than t_max, beyond which no network has been trained."""
        if self.gamma == 0:
            return x, t
        log_snr = sde.log_snr(t)
        level = jnp.exp(-log_snr / 2)
        higher = sde.time_of(log_snr - 2 * math.log1p(self.gamma))
        higher = jnp.where((level >= self.s_min) & (level <= self.s_max), jnp.maximum(higher, t), t)
        r, v = sde.transition(t, higher)
        # Between equal times v is what rounding leaves of zero, of either sign.
        v = jnp.where(higher > t, jnp.maximum(v, 0), 0)
        z = keys_.normal(keys, x.shape[1:], x.dtype)
        return expand(r, x) * x + expand(self.s_noise * jnp.sqrt(v), x) * z, higher


@dataclasses.dataclass(frozen=True)
class Euler(_Churned):
    """Euler's method on the probability flow dx/dt = velocity(x, t), order 1, one evaluation a step.

    x_s = x_t + (s - t) velocity(x_t, t), in the SDE's own time; with churn if gamma > 0.
    """

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        x, t = self.churn(keys, denoiser.sde, x, t)
        return x + expand(s - t, x) * denoiser.velocity(x, t, cond), state, evaluations(denoiser, x, t)


@dataclasses.dataclass(frozen=True)
class Heun(_Churned):
    """Heun's method on the probability flow dx/dt = velocity(x, t), order 2, two evaluations a step.

    x' = x_t + (s - t) velocity(x_t, t),
    x_s = x_t + (s - t) (velocity(x_t, t) + velocity(x', s)) / 2,

    in the SDE's own time; with churn if gamma > 0. On `EDM` with time_grid.karras it is Algorithms 1
    and 2 of Karras et al. 2022 (arXiv:2206.00364), the paper's last step to 0 being the last denoising, but that
    churn goes no further than t_max and the last denoising has none.
    """

    @property
    def convergence_order(self) -> float:
        """2, or 1 with churn."""
        return 2 if self.gamma == 0 else 1

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        x, t = self.churn(keys, denoiser.sde, x, t)
        h = expand(s - t, x)
        slope = denoiser.velocity(x, t, cond)
        slope_ahead = denoiser.velocity(x + h * slope, s, cond)
        return x + h / 2 * (slope + slope_ahead), state, evaluations(denoiser, x, t, s)
