"""Samplers that draw fresh noise at every step: discretisations of the reverse-time SDE."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand
from score_sde.core.errors import InputError
from score_sde.denoiser import Cond, Denoiser
from score_sde.sampling.base import Memory, Sampler, evaluations
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """The Euler-Maruyama discretisation of the reverse-time SDE (Song et al. 2021, Eq. 6), weak order 1.

    x_s = x_t - (f x_t - g^2 score) (t - s) + g sqrt(t - s) z.
    """

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        sde.drift_rate(grid[0])

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, memory: Memory, cond: Cond = None
    ) -> tuple[Array, Memory, Array]:
        sde, dt = denoiser.sde, t - s
        g2 = sde.diffusion_squared(t)
        z = keys_.normal(keys, x.shape[1:], x.dtype)
        mean = x - expand(dt, x) * (sde.drift(x, t) - expand(g2, x) * denoiser.score(x, t, cond))
        return mean + expand(jnp.sqrt(g2 * dt), x) * z, memory, evaluations(x, 1)


@dataclasses.dataclass(frozen=True)
class Ancestral(Sampler):
    """Ancestral sampling: draws x_s from q(x_s | x_t, x_0) with x_0 the predicted mean, weak order 1.

    With the forward kernel x_t | x_s ~ N(r x_s, v I),

        x_s = alpha_s x_0 + (r sigma_s^2 / sigma_t) noise + std z,

    std^2 = v sigma_s^2 / sigma_t^2 ('posterior', the reverse variance were x_0 known) or v
    ('forward', which on VP is the reverse variance for data of unit variance). Ho et al. 2020 (arXiv:2006.11239),
    Eq. (6-7), for VP; Song et al. 2021, App. F, for VE; here for any SDE.

    Attributes:
        variance: 'posterior' or 'forward'.
    """

    variance: str = "posterior"

    def __post_init__(self) -> None:
        if self.variance not in ("posterior", "forward"):
            raise InputError(f"Ancestral got variance={self.variance!r}; expected 'posterior' or 'forward'.")

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, memory: Memory, cond: Cond = None
    ) -> tuple[Array, Memory, Array]:
        sde = denoiser.sde
        r, v = sde.transition(s, t)
        variance_s, variance_t = sde.variance(s), sde.variance(t)
        std = jnp.sqrt(v * variance_s / variance_t if self.variance == "posterior" else v)
        x0, noise, _ = denoiser.predict(x, t, cond)
        z = keys_.normal(keys, x.shape[1:], x.dtype)
        mean = expand(sde.alpha(s), x) * x0 + expand(r * variance_s / jnp.sqrt(variance_t), x) * noise
        return mean + expand(std, x) * z, memory, evaluations(x, 1)
