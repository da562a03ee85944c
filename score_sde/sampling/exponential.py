"""Samplers that solve the linear part of the probability flow exactly: DPM-Solver++.

With lambda = log(alpha / sigma) and h = lambda_s - lambda_t (Lu et al. 2022, arXiv:2211.01095, Eq. 9),

    x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - e^-h) x_0

if x_0 did not change on the way; the methods differ in what they put for x_0.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler, State, evaluations
from score_sde.sampling.checks import check_continuous, check_signal
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class DPMSolverPP(Sampler):
    """DPM-Solver++ (2M), the multistep method (Lu et al. 2022, arXiv:2211.01095, Algorithm 2).

    x_0 is carried on in a straight line from the last step's to this one's: x_0 + (h / 2 h_last) (x_0 - x_0_last).
    The first step has no last one and is of first order, that is DDIM(0); so are one to sigma = 0, and the first two
    of a walk from alpha = 0. One evaluation a step.

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
        """Its order."""
        return self.order

    def init(self, x: Array) -> State:
        """(x_0, h) of the last step; an infinite h makes the first step one of first order."""
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
    """DPM-Solver++ (2S), the single-step method (Lu et al. 2022, arXiv:2211.01095, Algorithm 1).

    x_0 is evaluated at t and, after a step of first order, at the time m where lambda is half way; with that
    r = 1/2 of the paper the second of the two is put for x_0. Two evaluations a step.
    """

    @property
    def convergence_order(self) -> float:
        """2."""
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
    """From t to s with this x_0 on all the way."""
    h = (sde.log_snr(s) - sde.log_snr(t)) / 2
    return expand(sde.sigma(s) / sde.sigma(t), x) * x - expand(sde.alpha(s) * jnp.expm1(-h), x) * x0
