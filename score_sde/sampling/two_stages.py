"""This module defines single-step methods of two evaluations in log-SNR: DPM-Solver++ (2S), as an ODE and as an SDE."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler, State
from score_sde.sampling.checks import check_continuous, check_signal
from score_sde.sampling.counting import evaluations
from score_sde.sampling.in_noise_level import ancestral_levels, noise_level
from score_sde.sde import SDE


class _TwoStages(Sampler):
    """`_TwoStages` is the base of methods of order 2 that evaluate between the ends of a step."""

    @property
    def convergence_order(self) -> float:
        """Return 2."""
        return 2

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_continuous(self, sde)
        check_signal(self, sde, grid)


@dataclasses.dataclass(frozen=True)
class DPMSolverPP2S(_TwoStages):
    """`DPMSolverPP2S` is the single-step method DPM-Solver++ (2S) (Lu et al. 2022, arXiv:2211.01095, Algorithm 1).

    A step takes two evaluations of x_0: at t and, after a step of order 1, at the time m in the middle of lambda. The
    middle is r = 1/2 in the paper, and for r = 1/2 the second x_0 alone is used.
    """

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde = denoiser.sde
        m = sde.time_of((sde.log_snr(t) + sde.log_snr(s)) / 2)
        x_m = _solve(sde, x, denoiser.denoise(x, t, cond), t, m)
        return _solve(sde, x, denoiser.denoise(x_m, m, cond), t, s), state, evaluations(denoiser, x, t, m)


@dataclasses.dataclass(frozen=True)
class DPMSolverPPSDE(_TwoStages):
    """`DPMSolverPPSDE` is DPM-Solver++ (2S) on the reverse-time SDE: DPM++ SDE of k-diffusion.

    A step takes two evaluations: at t, and after a step of order 1 at the time m with lambda_m = lambda_t + r h. The
    second step from t to s uses (1 - 1 / 2r) x_0 + (1 / 2r) x_0_m. Both are `Ancestral` steps with noise eta: in
    n = sigma / alpha they go down to sqrt(n_s^2 - n_up^2), n_up = eta n_s sqrt(1 - n_s^2 / n_t^2), and up by n_up times
    noise. The noise of the step to m is a part of the noise of the whole step (Gonzalez et al. 2023,
    arXiv:2305.14267): the noise at s is its decayed part and a fresh rest.

    Attributes:
        eta: a number from 0 to 1; 0 is the ODE.
        r: the place of m, between 0 and 1.
    """

    eta: float = 1.0
    r: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise InputError(f"DPMSolverPPSDE got eta={self.eta!r}; expected a number from 0 to 1.")
        if not 0 < self.r < 1:
            raise InputError(f"DPMSolverPPSDE got r={self.r!r}; expected a number between 0 and 1, such as 0.5.")

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde, r, dtype = denoiser.sde, self.r, x.dtype
        n_t, n_s = noise_level(sde, t), noise_level(sde, s)
        n_m = n_t ** (1 - r) * n_s**r
        m = sde.time_of(-2 * jnp.log(n_m))
        y = x / expand(sde.alpha(t), x)
        x0 = denoiser.denoise(x, t, cond)
        down, up = ancestral_levels(n_t, n_m, self.eta)
        z_m = keys_.normal(keys_.fold(keys, "middle"), x.shape[1:], dtype)
        y_m = expand(down / n_t, x) * (y - x0) + x0 + expand(up, x) * z_m
        x0_m = denoiser.denoise(expand(sde.alpha(m), x) * y_m, m, cond)
        down, up_s = ancestral_levels(n_t, n_s, self.eta)
        target = (1 - 1 / (2 * r)) * x0 + x0_m / (2 * r)
        y = expand(down / n_t, x) * (y - target) + target
        if self.eta > 0:
            # A step from m to s multiplies the noise of m by its factor of decay, and adds the rest.
            shared = up * ancestral_levels(n_m, n_s, self.eta)[0] / n_m
            rest = jnp.sqrt(jnp.maximum(up_s**2 - shared**2, 0))
            y = y + expand(shared, x) * z_m + expand(rest, x) * keys_.normal(keys, x.shape[1:], dtype)
        return expand(sde.alpha(s), x) * y, state, evaluations(denoiser, x, t, m)


def _solve(sde: SDE, x: Array, x0: Array, t: Array, s: Array) -> Array:
    """Take one step from t to s with a constant x_0."""
    h = (sde.log_snr(s) - sde.log_snr(t)) / 2
    return expand(sde.sigma(s) / sde.sigma(t), x) * x - expand(sde.alpha(s) * jnp.expm1(-h), x) * x0
