"""Samplers without fresh noise: discretisations of the probability-flow ODE."""

from __future__ import annotations

import dataclasses

from score_sde.core.arrays import Array, expand
from score_sde.denoiser import Cond, Denoiser
from score_sde.sampling.base import Memory, Sampler, evaluations


@dataclasses.dataclass(frozen=True)
class Heun(Sampler):
    """Heun's method on the probability flow dx/dt = velocity(x, t), order 2, two evaluations a step.

    x' = x_t + (s - t) velocity(x_t, t),
    x_s = x_t + (s - t) (velocity(x_t, t) + velocity(x', s)) / 2.

    Karras et al. 2022 (arXiv:2206.00364), Algorithm 1, in the SDE's own time.
    """

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, memory: Memory, cond: Cond = None
    ) -> tuple[Array, Memory, Array]:
        h = expand(s - t, x)
        slope = denoiser.velocity(x, t, cond)
        slope_ahead = denoiser.velocity(x + h * slope, s, cond)
        return x + h / 2 * (slope + slope_ahead), memory, evaluations(x, 2)
