"""This module defines PNDM, the pseudo linear multistep method of Liu et al. 2022 (arXiv:2202.09778)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler, State
from score_sde.sampling.checks import check_signal
from score_sde.sampling.counting import evaluations
from score_sde.sde import SDE

_RUNGE_KUTTA = 3  # the first steps, whose noise predictions the later steps use
_WEIGHTS = (55 / 24, -59 / 24, 37 / 24, -9 / 24)  # Adams-Bashforth of four values on even steps


@dataclasses.dataclass(frozen=True)
class PNDM(Sampler):
    """`PNDM` has the weights of Adams and Bashforth for even steps inside the step of DDIM, order 2.

    With phi(x, e) = (alpha_s / alpha_t) (x - sigma_t e) + sigma_s e, the step of DDIM(0) for a noise e,

        x_s = phi(x_t, (55 e_t - 59 e_1 + 37 e_2 - 9 e_3) / 24),

    where e_1, e_2 and e_3 are the noises of the last three steps. The first three steps are classical Runge-Kutta steps
    with phi in place of a sum and the middle (t + s) / 2 in time: 4 evaluations each, so a walk of N steps takes N + 9.
    On a chain the three middles have to be levels. The weights do not depend on the grid; on steps of unequal length,
    and inside phi, four values do not give more than order 2 (the paper's Theorem 3.1). The published levels are evenly
    spaced.
    """

    @property
    def convergence_order(self) -> float:
        """Return 2."""
        return 2

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_signal(self, sde, grid)
        starts = np.asarray(grid, np.float64)[: _RUNGE_KUTTA + 1]
        if float(sde.variance(starts[-1])) == 0:
            raise InputError(
                f"PNDM reaches data, at t = {starts[-1]:g}, in its first {_RUNGE_KUTTA} steps, which need noise; "
                f"expected a grid of at least {_RUNGE_KUTTA + 1} steps."
            )
        middles = (starts[:-1] + starts[1:]) / 2
        if sde.levels is not None and not np.allclose(middles * sde.levels, np.round(middles * sde.levels), atol=1e-3):
            raise InputError(
                f"PNDM evaluates at the middle of its first {_RUNGE_KUTTA} steps, and t = {middles[0]:g} is no "
                f"level of {type(sde).__name__}; expected first steps of an even number of levels, or chain.smooth()."
            )

    def init(self, x: Array) -> State:
        """Return (the last noises, the newest first; the number of steps)."""
        return jnp.zeros((len(_WEIGHTS) - 1, *x.shape), x.dtype), jnp.zeros((), jnp.int32)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde, (noises, steps) = denoiser.sde, state
        first = denoiser.noise(x, t, cond)
        m = (t + s) / 2

        def runge_kutta() -> Array:
            second = denoiser.noise(_transfer(sde, x, first, t, m), m, cond)
            third = denoiser.noise(_transfer(sde, x, second, t, m), m, cond)
            fourth = denoiser.noise(_transfer(sde, x, third, t, s), s, cond)
            return (first + 2 * second + 2 * third + fourth) / 6

        def multistep() -> Array:
            return jnp.tensordot(jnp.asarray(_WEIGHTS, x.dtype), jnp.concatenate([first[None], noises]), 1)

        noise = jax.lax.cond(steps < _RUNGE_KUTTA, runge_kutta, multistep)
        used = jnp.where(steps < _RUNGE_KUTTA, evaluations(denoiser, x, t, m, m, s), evaluations(denoiser, x, t))
        state = jnp.concatenate([first[None], noises[:-1]]), steps + 1
        return _transfer(sde, x, noise, t, s), state, used


def _transfer(sde: SDE, x: Array, noise: Array, t: Array, s: Array) -> Array:
    """Return the step of DDIM(0) from t to s with a given noise."""
    ratio = sde.alpha(s) / sde.alpha(t)
    return expand(ratio, x) * x + expand(sde.sigma(s) - ratio * sde.sigma(t), x) * noise
