"""This module defines decoupled annealing: solve the flow, draw x_0 given the measurement, and add noise again."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand, per_example_sum
from score_sde.core.checks import is_number, is_whole, shown
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.inverse.known import Measuring
from score_sde.inverse.posterior import check_measurement, measured_values
from score_sde.inverse.solve import conjugate_gradients
from score_sde.sampling import evaluations
from score_sde.sampling.base import State
from score_sde.sampling.checks import check_continuous, check_signal
from score_sde.sde import SDE

_ITERATIONS = 100
_POWERS = 10


@dataclasses.dataclass(frozen=True)
class DAPS(Measuring):
    """`DAPS` is decoupled annealing posterior sampling (Zhang et al. 2024, arXiv:2407.01521, Alg. 1).

    A step from t to s has three parts. `flow_steps` steps of DDIM, even in log-SNR, take x_t along the probability flow
    to x_0. Then x_0 is drawn from N(x_0, r^2 I) times the likelihood N(y; A x_0, noise_std^2 I), with r = sigma_t /
    alpha_t, or with `data_std` r^2 = sigma^2 s^2 / (alpha^2 s^2 + sigma^2). Last, x_s = alpha_s x_0 + sigma_s z.

    For an affine operator, the draw is exact: a draw of N(x_0, r^2 I) and a measurement with a draw of the noise give a
    linear system. For other operators it is `langevin` steps of Metropolis-adjusted Langevin dynamics, whose step size
    is `size` divided by the largest curvature at the start; they may be too few where modes lie apart. The likelihood
    has its own temperature: the published code has another (0.01 whatever the noise, and no factor 1/2) and is several
    times overconfident.

    The network is not differentiated. No data make the method exact: for Gaussian data the spread of a hidden number is
    1.4 posterior standard deviations (docs/inverse.md).

    Attributes:
        noise_std: the standard deviation of the noise of y.
        operator: A, which may be nonlinear.
        flow_steps: the number of evaluations of a step.
        data_std: the standard deviation of the data, or None.
        langevin: the number of Langevin steps for an operator that is not affine.
        size: their step size.
    """

    noise_std: float
    flow_steps: int = 5
    data_std: float | None = None
    langevin: int = 100
    size: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("flow_steps", "langevin"):
            if not is_whole(getattr(self, name), 1):
                raise InputError(f"DAPS got {name}={shown(getattr(self, name))}; expected a whole number, at least 1.")
        for name in ("noise_std", "size", "data_std"):
            value = getattr(self, name)
            if not (value is None and name == "data_std") and not (is_number(value) and 0 < value < np.inf):
                raise InputError(f"DAPS got {name}={shown(value)}; expected a positive number.")

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_continuous(self, sde)
        check_signal(self, sde, grid)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde, inner = denoiser.sde, self.inner(denoiser, x, cond)
        x0, nfe = self._flow(denoiser, x, t, inner)
        ratio2 = sde.variance(t) / sde.alpha(t) ** 2
        r2 = ratio2 if self.data_std is None else ratio2 * self.data_std**2 / (self.data_std**2 + ratio2)
        draw = self._exact if self.operator.is_affine else self._langevin
        x0 = draw(keys_.fold(keys, "measured"), x0, r2, cond)
        z = keys_.normal(keys_.fold(keys, "noise"), x.shape[1:], x.dtype)
        return sde.perturb(x0, z, s), state, nfe

    def _flow(self, denoiser: Denoiser, x: Array, t: Array, cond: Cond) -> tuple[Array, Array]:
        """Return (the end of the probability flow from x_t, nfe)."""
        sde = denoiser.sde
        share = jnp.arange(self.flow_steps + 1) / self.flow_steps
        start, stop = sde.log_snr(t), sde.log_snr(jnp.asarray(sde.t_stop, x.dtype))
        times = sde.time_of(start + share * (stop - start)).at[0].set(t)

        def once(i: Any, x: Array) -> Array:
            predicted = denoiser.predict(x, times[i], cond)
            u = times[i + 1]
            return expand(sde.alpha(u), x) * predicted.x0 + expand(sde.sigma(u), x) * predicted.noise

        end = jax.lax.fori_loop(0, self.flow_steps, once, x)
        nfe = evaluations(denoiser, x, *(times[i] for i in range(self.flow_steps)))
        return end / expand(sde.alpha(times[-1]), x), nfe

    def _exact(self, keys: Array, x0: Array, r2: Array, cond: Cond) -> Array:
        """Return a draw of N(x0, r^2 I) N(y; A x, noise_std^2 I) by a draw of both Gaussians, moved by one solve."""
        y = measured_values(cond, x0.dtype)
        z = keys_.normal(keys_.fold(keys, "prior"), x0.shape[1:], x0.dtype)
        noise = keys_.normal(keys_.fold(keys, "noise of y"), y.shape[1:], x0.dtype)
        drawn = x0 + expand(jnp.sqrt(r2), x0) * z
        mean, forward = jax.linearize(lambda x: self.operator(x, cond), drawn)
        check_measurement(self.operator, y, mean)
        transpose = jax.linear_transpose(forward, drawn)
        residual = self.operator.residual(drawn, y + self.noise_std * noise, cond)

        def apply(u: Array) -> Array:
            return self.noise_std**2 * u + expand(r2, u) * forward(transpose(u)[0])

        change = transpose(conjugate_gradients(apply, residual, _ITERATIONS))[0]
        return drawn + expand(r2, change) * change

    def _langevin(self, keys: Array, x0: Array, r2: Array, cond: Cond) -> Array:
        """Return x after Metropolis-adjusted Langevin dynamics on N(x0, r^2 I) N(y; A x, noise_std^2 I), from x0."""
        y = measured_values(cond, x0.dtype)

        def log_density(x: Array) -> Array:
            prior = per_example_sum((x - x0) ** 2) / r2
            return -0.5 * (prior + per_example_sum(self.operator.residual(x, y, cond) ** 2) / self.noise_std**2)

        def at(x: Array) -> tuple[Array, Array]:
            value, back = jax.vjp(log_density, x)
            return value, back(jnp.ones_like(value))[0]

        check_measurement(self.operator, y, self.operator(x0, cond))
        e = expand(self.size / self._curvature(x0, r2, cond), x0)

        def once(i: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            x, value, gradient = carry
            key = keys_.fold(keys, i)
            z = keys_.normal(keys_.fold(key, "step"), x.shape[1:], x.dtype)
            proposed = x + e * gradient + jnp.sqrt(2 * e) * z
            further, slope = at(proposed)
            back = per_example_sum((x - proposed - e * slope) ** 2 / (4 * e))
            ratio = further - value - back + per_example_sum(z**2) / 2
            u = keys_.draw(jax.random.uniform, keys_.fold(key, "accepted"), (), dtype=x.dtype)
            accepted = jnp.log(u) < ratio  # False where the ratio is not a number

            def chosen(a: Array, b: Array) -> Array:
                return jnp.where(expand(accepted, a), a, b)

            return chosen(proposed, x), chosen(further, value), chosen(slope, gradient)

        return jax.lax.fori_loop(0, self.langevin, once, (x0, *at(x0)))[0]

    def _curvature(self, x0: Array, r2: Array, cond: Cond) -> Array:
        """Return 1 / r^2 + the largest eigenvalue of J^T J / noise_std^2 at x0, by power iteration, (batch,)."""
        _, forward = jax.linearize(lambda x: self.operator(x, cond), x0)
        transpose = jax.linear_transpose(forward, x0)

        def normalised(v: Array) -> Array:
            norm = jnp.sqrt(per_example_sum(v**2))
            return v / expand(jnp.where(norm > 0, norm, 1), v)

        start = jnp.asarray(np.random.default_rng(0).standard_normal(x0.shape[1:]), x0.dtype)
        v = normalised(jnp.broadcast_to(start, x0.shape))
        v = jax.lax.fori_loop(0, _POWERS, lambda _, v: normalised(transpose(forward(v))[0]), v)
        return 1 / r2 + per_example_sum(forward(v) ** 2) / self.noise_std**2


__all__ = ["DAPS"]
