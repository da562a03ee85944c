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
from score_sde.sampling.multistep import Multistep, Step
from score_sde.sde import SDE


def noise_level(sde: SDE, t: Array) -> Array:
    """Return n = sigma / alpha at times."""
    return jnp.exp(-sde.log_snr(t) / 2)


@dataclasses.dataclass(frozen=True)
class LMS(Multistep):
    """`LMS` is a linear multistep method: a step integrates the polynomial through the last noise predictions.

    y_s = y_t + sum_j noise_j times the integral from n_t to n_s of the j-th Lagrange polynomial. This is the method of
    Adams and Bashforth on an uneven grid. A step takes one evaluation.

    Attributes:
        order: an integer from 1 to 4; order 1 is DDIM(0).
        start: as in `Multistep`: 'joint' keeps the order, 'ramp' is the method of k-diffusion, whose first steps limit
            the order to 2.
    """

    order: int = 4
    start: str = "joint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2, 3, 4):
            raise InputError(f"{type(self).__name__} got order={self.order!r}; expected 1, 2, 3 or 4.")
        self._check_start()

    @property
    def convergence_order(self) -> float:
        """Return the order, after a ramp at most 2."""
        return self.order if self.start == "joint" else min(self.order, 2)

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_signal(self, sde, grid)

    def node(self, sde: SDE, t: Array) -> Array:
        return noise_level(sde, t)

    def prediction(self, denoiser: Denoiser, x: Array, t: Array, cond: Cond) -> Array:
        return denoiser.noise(x, t, cond)

    def between(self, sde: SDE, t: Array, s: Array) -> Step:
        first, last = noise_level(sde, t), noise_level(sde, s)
        return Step(first, last, sde.alpha(s) / sde.alpha(t), sde.alpha(s) * (last - first), None)

    def moments(self, sde: SDE, t: Array, s: Array, number: int) -> list[Array]:
        return [jnp.asarray(1 / (k + 1), jnp.result_type(float)) for k in range(number)]


@dataclasses.dataclass(frozen=True)
class LMSAncestral(LMS):
    """`LMSAncestral` is LMS with ancestral noise: a step of LMS goes down to n_down, and noise goes up by n_up.

    n_up = eta n_s sqrt(1 - n_s^2 / n_t^2), n_down = sqrt(n_s^2 - n_up^2), as in `EulerAncestral`.

    Attributes:
        order: an integer from 1 to 4; order 1 is EulerAncestral(eta).
        start: as in `LMS`; with noise only 'ramp' is defined.
        eta: a number from 0 to 1; eta = 0 is LMS.
    """

    start: str = "ramp"
    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise InputError(f"LMSAncestral got eta={self.eta!r}; expected a number from 0 to 1.")
        if self.eta > 0 and self.start == "joint":
            raise InputError("LMSAncestral got start='joint' with noise; expected 'ramp', or eta=0.")

    @property
    def convergence_order(self) -> float:
        """Return 1, or the order of LMS if eta is 0."""
        return 1 if self.eta > 0 else super().convergence_order

    def between(self, sde: SDE, t: Array, s: Array) -> Step:
        if self.eta == 0:
            return super().between(sde, t, s)
        first, (last, up) = noise_level(sde, t), ancestral_levels(noise_level(sde, t), noise_level(sde, s), self.eta)
        return Step(first, last, sde.alpha(s) / sde.alpha(t), sde.alpha(s) * (last - first), sde.alpha(s) * up)


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
        return noise_level(sde, s), None

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde = denoiser.sde
        start, (down, up) = noise_level(sde, t), self.levels(sde, t, s)
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
        return ancestral_levels(noise_level(sde, t), noise_level(sde, s), self.eta)


def ancestral_levels(start: Array, end: Array, eta: float) -> tuple[Array, Array]:
    """Return (n_down, n_up) of a step with ancestral noise between two noise levels."""
    up = eta * end * jnp.sqrt(1 - (end / start) ** 2)
    return jnp.sqrt(jnp.maximum(end**2 - up**2, jnp.finfo(end.dtype).tiny)), up
