"""This module defines samplers with adaptive step sizes."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from score_sde import ode
from score_sde.core.arrays import Array, expand, per_example_mean
from score_sde.core.conditions import Cond
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler, State
from score_sde.sampling.checks import check_continuous, check_drift, check_velocity
from score_sde.sampling.counting import evaluations
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class ProbabilityFlow(Sampler):
    """`ProbabilityFlow` solves the probability-flow ODE to a tolerance (Song et al. 2021, Sec. 4.3).

    Each sample has its own steps. The sampler takes as many steps between two times of the grid as the tolerance needs,
    so a grid of one step, time_grid.uniform(sde, 1), is enough. More times in the grid give more points of a
    trajectory. A sample whose ODE cannot be solved is NaN, and `sample` reports the number of this sample.

    Attributes:
        rtol, atol: relative and absolute tolerance.
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        ode.check_tolerances(self.rtol, self.atol)

    @property
    def chooses_steps(self) -> bool:
        return True

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_continuous(self, sde)
        check_velocity(self, sde, grid)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        solution = ode.flow(denoiser, x, t, s, cond, rtol=self.rtol, atol=self.atol)
        return solution.y, state, solution.nfe


# Fractions of the interval from sqrt(t) to sqrt(s). _GRAIN, the resolution of Brownian paths, is below the least step.
_FIRST_STEP, _LEAST_STEP, _GRAIN = 0.01, 2.0**-18, 2.0**-20
_SAFETY, _EXPONENT = 0.9, 0.9
_BINS = 4  # bins of the error in an octave: the step depends more on the error than in an ODE method of order 5


class _Progress(NamedTuple):
    """`_Progress` holds the progress of each sample from t to s; every leaf has leading axis batch."""

    x: Array
    first_order: Array  # the last first-order result; this result and the next one set the scale of the error
    way: Array  # the completed fraction of the interval in u = sqrt(t)
    h: Array  # the fraction to try next
    brownian: Array  # the Brownian path so far
    attempts: Array
    nfe: Array  # network evaluations


@dataclasses.dataclass(frozen=True)
class AdaptiveReverseSDE(Sampler):
    """`AdaptiveReverseSDE` solves the reverse-time SDE to a tolerance (Jolicoeur-Martineau et al. 2021).

    Each sample has its own steps. A step h takes two evaluations. With dW the increment of the sample's Brownian path
    and F(x, t) = g^2 score - f x,

        x' = x + h F(x, t) + g(t) dW,
        x~ = x + h F(x', t - h) + g(t - h) dW,  x'' = (x' + x~) / 2   (improved Euler, Roberts 2012),
        E^2 = mean of ((x' - x'') / max(atol, rtol max(|x'|, |last x'|)))^2,

    x'' is accepted if E <= 1, and h becomes 0.9 h E^-0.9 in either case (arXiv:2105.14080, Algorithm 1). E is rounded
    to quarters of an octave, so that rounding of the score does not change the steps (`ode.coarse`). Two things differ
    from the paper. First, the Brownian path of a sample is a function of its key (a virtual Brownian tree). A repeated
    step uses the same noise, so rejection does not favour small increments, and each sample converges to its own limit
    as the tolerances go to 0. Second, h is a step in u = sqrt(t), as in `ProbabilityFlow`. If sigma grows with t from
    0.002 to 80, a step of a fraction of sigma near the data would be below the float32 resolution of t.

    The sampler takes as many steps between two times of the grid as the tolerance needs, so a grid of one step,
    time_grid.uniform(sde, 1), is enough. A sample that cannot be solved is NaN, and `sample` reports its number.

    Attributes:
        rtol: relative tolerance; the paper uses 0.01 to 0.05.
        atol: absolute tolerance; the paper uses one grey value, 0.0078 for data in [-1, 1].
    """

    rtol: float = 0.01
    atol: float = 0.0078

    def __post_init__(self) -> None:
        super().__post_init__()
        ode.check_tolerances(self.rtol, self.atol)

    @property
    def chooses_steps(self) -> bool:
        return True

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_drift(self, sde, grid)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        batch, dtype = x.shape[:1], x.dtype
        t, s = jnp.asarray(t, dtype), jnp.asarray(s, dtype)

        def running(at: _Progress) -> Array:
            return (at.way < 1) & (at.h >= _LEAST_STEP) & (at.attempts < ode.MAX_STEPS)

        def attempt(at: _Progress) -> _Progress:
            # The remaining interval must not be shorter than the least step.
            ahead = jnp.where(at.way + at.h > 1 - _LEAST_STEP, 1, at.way + at.h)
            brownian = _brownian(keys, ahead, x)
            first, second = self._try(denoiser, at, ahead, brownian - at.brownian, t, s, cond)
            scale = jnp.maximum(self.atol, self.rtol * jnp.maximum(jnp.abs(first), jnp.abs(at.first_order)))
            error = ode.coarse(jnp.sqrt(per_example_mean(((first - second) / scale) ** 2)), _BINS)
            # If the result is not finite, the next attempt uses a tenth of the step.
            factor = jnp.where(jnp.isfinite(error), _SAFETY * error**-_EXPONENT, 0.1)
            taken = _Progress(second, first, ahead, at.h, brownian, at.attempts, at.nfe)
            moved = _choose(running(at) & (error <= 1), taken, at)
            h = jnp.where(moved.way < 1, jnp.minimum(at.h * factor, 1 - moved.way), at.h)
            used = evaluations(denoiser, x, self._time(at.way, t, s), self._time(ahead, t, s))
            tried = moved._replace(h=h, attempts=at.attempts + 1, nfe=at.nfe + used)
            return _choose(running(at), tried, at)

        way, h, none = jnp.zeros(batch, dtype), jnp.full(batch, _FIRST_STEP, dtype), jnp.zeros(batch, jnp.int32)
        start = _Progress(x, x, way, h, jnp.zeros_like(x), none, none)
        end = jax.lax.while_loop(lambda at: jnp.any(running(at)), attempt, start)
        x = jnp.where((end.way >= 1).reshape(-1, *[1] * (x.ndim - 1)), end.x, jnp.nan)
        return x, state, end.nfe

    @staticmethod
    def _time(way: Array, t: Array, s: Array) -> Array:
        """Return the time at the fraction `way` of the interval from t to s in sqrt(t)."""
        return jnp.where(way < 1, (jnp.sqrt(t) - way * (jnp.sqrt(t) - jnp.sqrt(s))) ** 2, s)

    def _try(
        self, denoiser: Denoiser, at: _Progress, ahead: Array, brownian: Array, t: Array, s: Array, cond: Cond
    ) -> tuple[Array, Array]:
        """Return the first-order and second-order results of one step; `brownian` is an increment in time `way`."""
        sde, u_t, u_s = denoiser.sde, jnp.sqrt(t), jnp.sqrt(s)
        h = expand(ahead - at.way, at.x)

        def increment(x: Array, way: Array) -> Array:
            """Return the increment of the SDE in time `way`, from 0 to 1; `speed` is -dt/d(way)."""
            now, speed = self._time(way, t, s), 2 * (u_t - way * (u_t - u_s)) * (u_t - u_s)
            g2 = sde.diffusion_squared(now)
            slope = expand(g2, x) * denoiser.score(x, now, cond) - sde.drift(x, now)
            return h * expand(speed, x) * slope + expand(jnp.sqrt(g2 * speed), x) * brownian

        first = increment(at.x, at.way)
        return at.x + first, at.x + (first + increment(at.x + first, ahead)) / 2


def _brownian(keys: Array, way: Array, x: Array) -> Array:
    """Return the Brownian path of each key at the time of its example in [0, 1], in the shape of x."""

    def one(key: Array, way: Array) -> Any:
        shape = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        return diffrax.VirtualBrownianTree(0.0, 1.0, _GRAIN, shape, key).evaluate(way)

    return jax.vmap(one)(keys, way)


def _choose(mask: Array, yes: _Progress, no: _Progress) -> _Progress:
    return jax.tree.map(lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), yes, no)
