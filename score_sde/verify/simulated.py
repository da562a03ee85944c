"""This module simulates with an SDE: the forward process, time reversal, the likelihood, and samples."""

from __future__ import annotations

import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import likelihood as likelihood_
from score_sde import ode
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand
from score_sde.core.jit import module_jit
from score_sde.denoisers import Denoiser, GaussianMixture, Mixture
from score_sde.sampling import Ancestral, EulerMaruyama, Heun, sample, time_grid
from score_sde.sde import SDE
from score_sde.verify import laws, steps
from score_sde.verify.report import NotAsked

_STEPS = 400
Law = tuple[np.ndarray, Mixture, np.ndarray]


def forward(sde: SDE, data: Mixture) -> list[Law]:
    """Return (x, marginal, exact samples) at three times of the forward SDE.

    The forward SDE starts from exact samples at t_min (level 1 of a chain).
    """
    model = laws.model_of(sde, data)
    times = laws.times_of(sde)
    alpha = np.asarray(sde.alpha(times), np.float64)
    end = float(times[alpha >= 0.05 * alpha.max()][-1])
    if sde.levels is not None:
        grid = times[times <= end + 1e-9]
    else:
        grid = float(sde.t_min) + (end - float(sde.t_min)) * (np.arange(_STEPS + 1) / _STEPS) ** 2
    if len(grid) < 4:
        raise NotAsked("the chain has too few levels for a simulation")
    start = jnp.asarray(laws.exact(model, grid[0], 5))
    path = _simulate(sde, start, jnp.asarray(grid, jnp.float32), continuous=sde.levels is None)
    stops = [max(1, len(grid) * k // 3 - 1) for k in (1, 2, 3)]
    return [(np.asarray(path[k - 1]), model.marginal(grid[k]), laws.exact(model, grid[k], 6)) for k in stops]


@functools.partial(module_jit, static_argnames=("continuous",))
def _simulate(sde: SDE, x: Array, grid: Array, *, continuous: bool) -> Array:
    """Return x at each time after the first, by Heun's steps of drift and diffusion, or by the kernel of a chain."""

    def step(x: Array, at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        key, s, t = at
        z = jax.random.normal(key, x.shape)
        if not continuous:
            r, v = sde.transition(s, t)
            x = r * x + jnp.sqrt(v) * z
            return x, x
        h = t - s
        noise = expand(sde.diffusion((s + t) / 2) * jnp.sqrt(h), x) * z
        slope = sde.drift(x, s)
        x = x + h / 2 * (slope + sde.drift(x + h * slope + noise, t)) + noise
        return x, x

    return jax.lax.scan(step, x, (jax.random.split(keys_.stream(7, "verify"), len(grid) - 1), grid[:-1], grid[1:]))[1]


def reversal(sde: SDE, data: Mixture) -> Law:
    """Return (x, marginal, exact samples) at t_stop, by the reverse-time SDE from exact samples at the start."""
    sde = laws.smooth(sde)  # a chain may have too few levels for any sampler
    model, grid = laws.model_of(sde, data), laws.fine_grid(sde, _STEPS)
    start = laws.exact(model, grid[0], 8)
    shape, n = start.shape[1:], len(start)
    x = sample(model, EulerMaruyama(), grid, shape, n=n, seed=0, x=start, denoise=False, batch_size=n).x
    return x, model.marginal(grid[-1]), laws.exact(model, grid[-1], 9)


def likelihood(sde: SDE, data: Mixture) -> float:
    curve = laws.smooth(sde)
    if float(curve.variance(curve.t_min)) == 0:
        raise NotAsked("log_prob starts at t_min, where the SDE has no noise: give the SDE a t_min such as 1e-5")
    if not np.all(np.isfinite(np.asarray(curve.velocity_rates(curve.t_max)))):
        raise NotAsked("the probability flow is not finite at t_max")
    model = laws.model_of(curve, data)
    return likelihood_error(model, model, seed=10)


def likelihood_error(denoiser: Denoiser, model: GaussianMixture, seed: int) -> float:
    """Return the largest error of log_prob in nats, for 16 samples at t_min and a denoiser that should be `model`."""
    first, last = model.sde.t_min, model.sde.t_max
    with jax.enable_x64(True):
        x = jnp.asarray(laws.exact(model, first, seed, 16), float)
        prior = model.marginal(last)
        value = likelihood_.log_prob(denoiser, x, None, prior=prior, trace="exact", rtol=1e-6, atol=1e-6).value
        return float(jnp.abs(value - model.marginal(first).log_prob(x)).max())


def order(sde: SDE, data: Mixture) -> float:
    """Return the order of convergence of Heun with 16, 32 and 64 steps, over the middle of the time range."""
    if sde.levels is not None:
        raise NotAsked("a chain has no derivatives in time")
    model, ends = laws.model_of(sde, data), laws.part_of(sde)
    with jax.enable_x64(True):
        x = jnp.asarray(laws.exact(model, ends[0], 11, 32), float)
        exact = ode.flow(model, x, *ends, rtol=1e-10, atol=1e-10).y
        errors = [float(jnp.abs(steps.walk(Heun(), model, x, ends, n) - exact).max()) for n in (16, 32, 64)]
    return min(float(np.log2(a / b)) for a, b in itertools.pairwise(errors))


def invariance(sde: SDE, data: Mixture) -> float:
    """Return the largest difference of samples 3 and 4, drawn alone and among eight, from the prior of the SDE."""
    model, shape = laws.model_of(sde, data), data.means.shape[1:]
    grid = time_grid.uniform(sde, 3)
    with warnings.catch_warnings():  # a warning about the prior does not matter here
        warnings.simplefilter("ignore")
        together = sample(model, Ancestral(), grid, shape, n=8, seed=0).x
        apart = sample(model, Ancestral(), grid, shape, n=2, seed=0, first=3, batch_size=1).x
    return float(np.abs(apart - together[3:5]).max() / np.abs(together).max())
