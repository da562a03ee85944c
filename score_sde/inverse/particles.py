"""This module defines a particle filter for posteriors with several modes."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand, per_example_sum
from score_sde.core.checks import is_number, is_whole, shown
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.inverse.known import Measuring, repeated
from score_sde.inverse.posterior import check_measurement, measured_values
from score_sde.inverse.variances import Isotropic
from score_sde.sampling import evaluations
from score_sde.sampling.base import State
from score_sde.sampling.counting import own_vjps
from score_sde.sde import SDE


class _Filter(NamedTuple):
    """`_Filter` is the state: the particles x_t of each example, with what their weights need.

    Attributes:
        x: (batch, particles, *shape).
        log_weight: (batch, particles), before the twist at the time of x.
        log_twist: (batch, particles), at the previous time.
        started: whether the particles have been drawn.
    """

    x: Array
    log_weight: Array
    log_twist: Array
    started: Array


class _Twisted(NamedTuple):
    """`_Twisted` holds predictions of all particles: x_0, noise, guided x_0, and log-twists (batch, particles)."""

    x0: Array
    noise: Array
    guided: Array
    log_twist: Array


@dataclasses.dataclass(frozen=True)
class Particles(Measuring):
    """`Particles` is the twisted diffusion sampler (Wu et al. 2023, arXiv:2306.17775), a particle filter.

    Each example has `count` particles. The twist of a particle approximates p(y | x_t),

        psi_t = N(y; A x_0, (noise_std^2 + c r^2) I),  r^2 = sigma^2 s^2 / (alpha^2 s^2 + sigma^2),

    with the predicted x_0, the data's standard deviation s and c the mean of the diagonal of A A^T. A step is an
    ancestral step with x_0 moved along grad log psi_t, and the weight of a particle is multiplied by

        p(x_s | x_t) / q(x_s | x_t) psi_s(x_s) / psi_t(x_t).

    The particles of an example are drawn anew, systematically, where their effective number falls below `resample`
    times `count`. At the end one particle is drawn by the last weights. With many particles and steps, the samples
    follow p(x_0 | y) for any data, also data with several modes, where guided denoisers do not. One sample costs
    `count` evaluations and as many vector-Jacobian products in each step. The memory is that of a batch `count` times
    as large. An operator that is not affine is allowed. At each time of a trajectory another particle may be shown.
    With starting points, one particle of each example starts there, and the others start at draws of the prior.

    Attributes:
        noise_std: the standard deviation of the noise of y.
        count: the number of particles of each example.
        data_std: s, the standard deviation of the data; any value is right for many particles.
        resample: the fraction of `count` below which the effective number leads to new draws; 1 draws at each step.
        operator: A.
    """

    noise_std: float
    count: int = 16
    data_std: float = 1.0
    resample: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.count, 1):
            raise InputError(f"Particles got count={shown(self.count)}; expected a whole number, at least 1.")
        for name, most in (("noise_std", np.inf), ("data_std", np.inf), ("resample", 1.0)):
            value = getattr(self, name)
            if not (is_number(value) and 0 < value <= most and value < np.inf):
                raise InputError(f"Particles got {name}={shown(value)}; expected a positive number, at most {most:g}.")

    @property
    def computes_vjps(self) -> bool:
        return True

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        if not np.isclose(grid[0], float(sde.t_max), rtol=1e-5):
            raise InputError(
                f"Particles got a grid that starts at {grid[0]:g}; expected t_max = {float(sde.t_max):g}, where the "
                "particles are drawn from the prior."
            )

    def init(self, x: Array) -> State:
        every = jnp.broadcast_to(x[:, None], (len(x), self.count, *x.shape[1:]))
        none = jnp.zeros((len(x), self.count), x.dtype)
        return _Filter(every, none, none, jnp.zeros((), bool))

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde = denoiser.sde
        particles = jax.lax.cond(state.started, lambda: state.x, lambda: self._start(keys, sde, x))
        twisted = self._twisted(denoiser, particles, t, cond)
        weight = state.log_weight + twisted.log_twist - state.log_twist
        chosen, weight = self._resampled(keys_.fold(keys, "resample"), weight)
        noise, x0, guided, log_twist = (
            jax.vmap(jnp.take, (0, 0, None))(part, chosen, 0)
            for part in (twisted.noise, twisted.x0, twisted.guided, twisted.log_twist)
        )
        r, v = sde.transition(s, t)
        std = jnp.sqrt(v * sde.variance(s) / sde.variance(t))
        plain = sde.alpha(s) * x0 + r * sde.variance(s) / sde.sigma(t) * noise
        # q differs from p by the mean alone: alpha_s x_0' + r sigma_s^2 / sigma_t noise', with both guided parts.
        shift = sde.alpha(s) * (1 - (r * sde.alpha(t) * sde.variance(s)) / (sde.alpha(s) * sde.variance(t)))
        shift = jnp.where(std > 0, shift * (guided - x0), 0)
        z = keys_.normal(keys_.fold(keys, "step"), x0.shape[1:], x.dtype)
        moved = plain + shift + std * z
        axes = tuple(range(2, moved.ndim))
        squares = jnp.sum(z**2 - (z + shift / jnp.where(std > 0, std, 1)) ** 2, axis=axes) / 2
        weight = weight + jnp.where(std > 0, squares, 0)
        seen = self._picked(keys_.fold(keys, "shown"), moved, weight)
        nfe = self.count * evaluations(denoiser, x, t) + own_vjps(x, self.count)
        return seen, _Filter(moved, weight, log_twist, jnp.ones((), bool)), nfe

    def finish(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, state: State, cond: Cond, denoise: bool
    ) -> tuple[Array, Array]:
        noisy = denoiser.sde.variance(t) > 0  # particles at level 0 of a chain are data
        twisted = jax.lax.cond(
            noisy,
            lambda: self._twisted(denoiser, state.x, t, cond),
            lambda: self._twisted(denoiser, state.x, t, cond, data=True),
        )
        weight = state.log_weight + twisted.log_twist - state.log_twist
        drawn = self._picked(keys, twisted.x0 if denoise else state.x, weight)
        nfe = self.count * (evaluations(denoiser, x, t) + own_vjps(x, 1))
        return drawn, jnp.where(noisy, nfe, 0)

    def _start(self, keys: Array, sde: SDE, x: Array) -> Array:
        """Return the first particles: x, which is a draw of the prior, and further draws of the prior."""
        each = [keys_.fold(keys_.fold(keys, "prior"), number) for number in range(1, self.count)]
        return jnp.stack([x, *(sde.sample_prior(key, x.shape[1:]).astype(x.dtype) for key in each)], axis=1)

    def _twisted(self, denoiser: Denoiser, particles: Array, t: Array, cond: Cond, data: bool = False) -> _Twisted:
        """Return the predictions and twists of all particles; with `data`, particles are data, and their own x_0."""
        sde, batch = denoiser.sde, len(particles)
        flat = particles.reshape(batch * self.count, *particles.shape[2:])
        every = repeated(cond, self.count)
        inner, y = self.inner(denoiser, flat, every), measured_values(every, flat.dtype)

        def predict(x: Array) -> tuple[Array, Array]:
            if data:
                return x, jnp.zeros_like(x)
            predicted = denoiser.predict(x, t, inner)
            return predicted.x0, predicted.noise

        x0, pull, noise = jax.vjp(predict, flat, has_aux=True)
        mean, back = jax.vjp(lambda x: self.operator(x, every), x0)
        check_measurement(self.operator, y, mean)
        residual = self.operator.residual(x0, y, every)
        alpha, variance = sde.alpha(t), sde.variance(t)
        r2 = Isotropic(self.data_std).variance(alpha, variance)
        total = self.noise_std**2 + r2 * self._size(back, y, flat)
        log_twist = -0.5 * per_example_sum(residual**2) / total
        (gradient,) = pull(back(residual / expand(total, residual))[0])
        guided = x0 + expand(jnp.where(alpha > 0, variance / jnp.where(alpha > 0, alpha, 1), 0), x0) * gradient

        def apart(leaf: Array) -> Array:
            return leaf.reshape(batch, self.count, *leaf.shape[1:])

        return _Twisted(apart(x0), apart(noise), apart(guided), apart(log_twist))

    def _size(self, back: Any, y: Array, x: Array) -> Array | float:
        """Return c, the mean of the diagonal of A A^T, known or estimated with one fixed probe of signs."""
        scale = self.operator.scale(x.shape[1:])
        if scale is not None:
            return scale
        signs = np.random.default_rng(0).choice([-1.0, 1.0], y.shape[1:])
        (probe,) = back(jnp.broadcast_to(jnp.asarray(signs, y.dtype), y.shape))
        return jax.lax.stop_gradient(per_example_sum(probe**2) / signs.size)

    def _resampled(self, keys: Array, log_weight: Array) -> tuple[Array, Array]:
        """Return (numbers of the particles to go on with, their log-weights) of each example, systematically drawn."""
        weights = jax.nn.softmax(log_weight, axis=1)
        effective = 1 / jnp.sum(weights**2, axis=1)
        again = effective < self.resample * self.count if self.resample < 1 else jnp.ones(len(log_weight), bool)
        first = keys_.draw(jax.random.uniform, keys, (1,), dtype=log_weight.dtype)
        places = (first + jnp.arange(self.count)) / self.count
        sums = jnp.cumsum(weights, axis=1)
        drawn = jax.vmap(jnp.searchsorted)(sums / sums[:, -1:], places)
        drawn = jnp.where(again[:, None], jnp.minimum(drawn, self.count - 1), jnp.arange(self.count))
        return drawn, jnp.where(again[:, None], 0, log_weight)

    def _picked(self, keys: Array, particles: Array, log_weight: Array) -> Array:
        """Return one particle of each example, drawn by the weights, (batch, *shape)."""
        number = jax.vmap(jax.random.categorical)(keys, log_weight)
        return jax.vmap(lambda all_, one: all_[one])(particles, number)


__all__ = ["Particles"]
