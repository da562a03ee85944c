"""This module defines samplers of the probability-flow ODE in the noise level n = sigma / alpha, as in k-diffusion.

With y = x / alpha the ODE is dy/dn = noise(x, t), for every SDE. These samplers are not defined at alpha = 0.
"""

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
from score_sde.sde import SDE

# Gauss-Legendre quadrature with two points integrates cubic polynomials exactly.
_POINT = 3**-0.5


def _level(sde: SDE, t: Array) -> Array:
    return jnp.exp(-sde.log_snr(t) / 2)


@dataclasses.dataclass(frozen=True)
class LMS(Sampler):
    """`LMS` is a linear multistep method: a step integrates the polynomial through the last noise predictions.

    y_s = y_t + sum_j noise_j times the integral from n_t to n_s of the j-th Lagrange polynomial. This is the method of
    Adams and Bashforth on an uneven grid. The first steps have fewer predictions and a lower order. A step takes one
    evaluation.

    Attributes:
        order: an integer from 1 to 4; order 1 is DDIM(0).
    """

    order: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2, 3, 4):
            raise InputError(f"LMS got order={self.order!r}; expected 1, 2, 3 or 4.")

    @property
    def convergence_order(self) -> float:
        """Return the order, but at most 2, because the first step is of order 1."""
        return min(self.order, 2)

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_signal(self, sde, grid)

    def init(self, x: Array) -> State:
        """Return (the last noise predictions, their noise levels, their number); the newest prediction is first."""
        past = self.order - 1
        return jnp.zeros((past, *x.shape), x.dtype), jnp.zeros(past, x.dtype), jnp.zeros((), jnp.int32)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde, (noises, levels, known) = denoiser.sde, state
        noises = jnp.concatenate([denoiser.noise(x, t, cond)[None], noises])
        levels = jnp.concatenate([_level(sde, t)[None].astype(x.dtype), levels])
        start, end = levels[0], _level(sde, s).astype(x.dtype)
        by_order = jnp.stack([self._coefficients(levels, start, end, k) for k in range(1, self.order + 1)])
        coefficients = by_order[jnp.minimum(known, self.order - 1)]
        y = x / expand(sde.alpha(t), x) + jnp.tensordot(coefficients, noises, 1)
        state = noises[: self.order - 1], levels[: self.order - 1], known + 1
        return expand(sde.alpha(s), x) * y, state, evaluations(denoiser, x, t)

    def _coefficients(self, levels: Array, start: Array, end: Array, order: int) -> Array:
        """Return the integrals of the Lagrange polynomials through the first `order` levels, followed by zeros."""
        middle, half = (start + end) / 2, (end - start) / 2
        points = middle + half * jnp.asarray([-_POINT, _POINT], levels.dtype)
        nodes, integrals = levels[:order], []
        for j in range(order):
            others = [k for k in range(order) if k != j]
            # Unknown levels are equal, so their quotients are not finite. `step` does not use these quotients.
            factors = [(points - nodes[k]) / (nodes[j] - nodes[k]) for k in others]
            integrals.append(half * jnp.sum(jnp.prod(jnp.stack([jnp.ones_like(points), *factors]), axis=0)))
        return jnp.stack([*integrals, *[jnp.zeros_like(start)] * (self.order - order)])


@dataclasses.dataclass(frozen=True)
class DPM2(Sampler):
    """`DPM2` is DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927; k-diffusion's dpm_2), of order 2.

    A step takes two evaluations. The time m is the midpoint, in log n, between t and the level n_down:

        y_m = y_t + (n_m - n_t) noise(x_t, t),  y_s = y_t + (n_down - n_t) noise(x_m, m) + n_up z.

    In `DPM2`, n_down = n_s and n_up = 0.
    """

    @property
    def convergence_order(self) -> float:
        """Return 2."""
        return 2

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_continuous(self, sde)
        check_signal(self, sde, grid)

    def levels(self, sde: SDE, t: Array, s: Array) -> tuple[Array, Array | None]:
        """Return (n_down, n_up); n_up is None if a step draws no noise."""
        return _level(sde, s), None

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde = denoiser.sde
        start, (down, up) = _level(sde, t), self.levels(sde, t, s)
        middle = jnp.sqrt(start * down)
        m = sde.time_of(-2 * jnp.log(middle))
        y = x / expand(sde.alpha(t), x)
        y_m = y + expand(middle - start, x) * denoiser.noise(x, t, cond)
        y = y + expand(down - start, x) * denoiser.noise(expand(sde.alpha(m), x) * y_m, m, cond)
        if up is not None:
            y = y + expand(up, x) * keys_.normal(keys, x.shape[1:], x.dtype)
        return expand(sde.alpha(s), x) * y, state, evaluations(denoiser, x, t, m)


@dataclasses.dataclass(frozen=True)
class DPM2Ancestral(DPM2):
    """`DPM2Ancestral` is DPM2 with ancestral noise.

    n_up = eta n_s sqrt(1 - n_s^2 / n_t^2), n_down = sqrt(n_s^2 - n_up^2).

    Attributes:
        eta: a number from 0 to 1; eta = 0 is DPM2.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise InputError(f"DPM2Ancestral got eta={self.eta!r}; expected a number from 0 to 1.")

    @property
    def convergence_order(self) -> float:
        """Return 1, or the order of DPM2 if eta is 0."""
        return 1 if self.eta > 0 else super().convergence_order

    def levels(self, sde: SDE, t: Array, s: Array) -> tuple[Array, Array | None]:
        start, end = _level(sde, t), _level(sde, s)
        up = self.eta * end * jnp.sqrt(1 - (end / start) ** 2)
        return jnp.sqrt(jnp.maximum(end**2 - up**2, jnp.finfo(end.dtype).tiny)), up
