"""This module defines DPM-Solver++, which solves the linear part of the probability-flow ODE exactly.

With lambda = log(alpha / sigma) and h = lambda_s - lambda_t (Lu et al. 2022, arXiv:2211.01095, Eq. 9),

    x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - e^-h) x_0

if x_0 is constant during the step. The methods differ in the value of x_0 that they use.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler, State
from score_sde.sampling.checks import check_continuous, check_signal
from score_sde.sampling.counting import evaluations
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class DPMSolverPP(Sampler):
    """`DPMSolverPP` is the multistep method DPM-Solver++ (2M) (Lu et al. 2022, arXiv:2211.01095, Algorithm 2).

    The method extrapolates x_0 linearly from the last step and the present step: x_0 + (h / 2 h_last) (x_0 - x_0_last).
    The first step has no last step, so the first step is DDIM(0), of order 1. A step to sigma = 0 and the first two
    steps from alpha = 0 are of order 1 too. A step takes one evaluation.

    Attributes:
        order: 2, or 1 for DDIM(0).
    """

    order: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2):
            raise InputError(f"DPMSolverPP got order={self.order!r}; expected 1 or 2.")

    @property
    def convergence_order(self) -> float:
        """Return the order of the method."""
        return self.order

    def init(self, x: Array) -> State:
        """Return (x_0, h) of the last step; the infinite h here makes the first step a step of order 1."""
        return (jnp.zeros_like(x), jnp.asarray(jnp.inf, x.dtype)) if self.order == 2 else ()

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde = denoiser.sde
        x0 = denoiser.denoise(x, t, cond)
        if self.order == 1:
            return _solve(sde, x, x0, t, s), state, evaluations(denoiser, x, t)
        last_x0, last_h = state
        h = ((sde.log_snr(s) - sde.log_snr(t)) / 2).astype(x.dtype)
        reach = jnp.where(jnp.isfinite(h), h / (2 * last_h), 0)
        return _solve(sde, x, x0 + reach * (x0 - last_x0), t, s), (x0, h), evaluations(denoiser, x, t)


@dataclasses.dataclass(frozen=True)
class DPMSolverPP2S(Sampler):
    """`DPMSolverPP2S` is the single-step method DPM-Solver++ (2S) (Lu et al. 2022, arXiv:2211.01095, Algorithm 1).

    A step takes two evaluations of x_0: at t and, after a step of order 1, at the time m in the middle of lambda. The
    middle is r = 1/2 in the paper, and for r = 1/2 the second x_0 alone is used.
    """

    @property
    def convergence_order(self) -> float:
        """Return 2."""
        return 2

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_continuous(self, sde)
        check_signal(self, sde, grid)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde = denoiser.sde
        m = sde.time_of((sde.log_snr(t) + sde.log_snr(s)) / 2)
        x_m = _solve(sde, x, denoiser.denoise(x, t, cond), t, m)
        return _solve(sde, x, denoiser.denoise(x_m, m, cond), t, s), state, evaluations(denoiser, x, t, m)


def _solve(sde: SDE, x: Array, x0: Array, t: Array, s: Array) -> Array:
    """Take one step from t to s with a constant x_0."""
    h = (sde.log_snr(s) - sde.log_snr(t)) / 2
    return expand(sde.sigma(s) / sde.sigma(t), x) * x - expand(sde.alpha(s) * jnp.expm1(-h), x) * x0
