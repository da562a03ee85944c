"""This module defines SRA1, a stochastic Runge-Kutta method for SDEs with additive noise (Roessler 2010)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import Cond
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler, State
from score_sde.sampling.checks import check_drift, check_signal
from score_sde.sampling.counting import evaluations
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class SRA1(Sampler):
    """`SRA1` is a stochastic Runge-Kutta method of strong order 3/2 and weak order 2 on the reverse-time SDE.

    In y = x / alpha the noise of the reverse-time SDE is additive (it does not depend on y). With u = -t,

        dy = a(y, t) du + G(t) dW,   a = (g^2 / alpha) score,   G = g / alpha.

    With h = t - s, W = sqrt(h) z_1 and the space-time Levy area H = sqrt(h / 12) z_2 (Roessler 2010, SIAM J. Numer.
    Anal. 48, 922-952, Table 6.3),

        y_m = y_t + (3/4) h a(y_t, t) + (3/2) (W / 2 + H) G(s),   m = t - (3/4) h,
        y_s = y_t + h (a(y_t, t) + 2 a(y_m, m)) / 3 + G(t) W + (G(s) - G(t)) (W / 2 - H).

    A step takes two evaluations. The method is at ease on grids that are even in t.
    """

    @property
    def convergence_order(self) -> float:
        """Return 2."""
        return 2

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_drift(self, sde, grid)
        check_signal(self, sde, grid)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde, h = denoiser.sde, t - s
        m = t - 0.75 * h
        w = jnp.sqrt(h) * keys_.normal(keys, x.shape[1:], x.dtype)
        area = jnp.sqrt(h / 12) * keys_.normal(keys_.fold(keys, "area"), x.shape[1:], x.dtype)
        y = x / expand(sde.alpha(t), x)

        def drift(x: Array, t: Array) -> Array:
            return expand(sde.diffusion_squared(t) / sde.alpha(t), x) * denoiser.score(x, t, cond)

        g_t, g_s = (expand(sde.diffusion(u) / sde.alpha(u), x) for u in (t, s))
        slope = drift(x, t)
        y_m = y + 0.75 * h * slope + 1.5 * g_s * (w / 2 + area)
        slope_m = drift(expand(sde.alpha(m), x) * y_m, m)
        y = y + h / 3 * (slope + 2 * slope_m) + g_t * w + (g_s - g_t) * (w / 2 - area)
        return expand(sde.alpha(s), x) * y, state, evaluations(denoiser, x, t, m)
