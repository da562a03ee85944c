"""This module checks the arguments of `sample` on the host, before anything is compiled."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import given
from score_sde.core.arrays import Array, as_array, is_concrete
from score_sde.core.checks import is_whole, require_whole, shown
from score_sde.core.conditions import Cond, Conditions, only, without
from score_sde.core.errors import InputError
from score_sde.core.keys import check_seed
from score_sde.denoisers import Denoiser, Guide
from score_sde.sde import SDE

MOST_SIGNAL = 0.1  # largest alpha(t_max) / prior_std at which x at t_max is close enough to the prior


def check_stepped(sampler: Any, stepped: Any, x: Array) -> tuple[Array, Any, Array]:
    """Return (x, state, nfe) of a step; raise InputError if a user's own sampler returned anything else."""
    name = type(sampler).__name__
    if not (isinstance(stepped, tuple) and len(stepped) == 3):
        shown = f"{len(stepped)} values" if isinstance(stepped, tuple) else type(stepped).__name__
        raise InputError(f"step of {name} returned {shown}; expected (x, state, nfe).")
    shape = getattr(stepped[0], "shape", None)
    if shape != x.shape:
        raise InputError(f"step of {name} returned x of shape {shape}; expected {x.shape}, the shape of its argument.")
    return stepped


def check_sampler(sampler: Any, base: type) -> None:
    """Raise InputError unless `sampler` is an object of `base` that is hashable.

    The key of a compiled program contains the sampler, so a sampler must be hashable.
    """
    if isinstance(sampler, type):
        raise InputError(f"sampler is the class {sampler.__name__}; expected an object of it: {sampler.__name__}().")
    if not isinstance(sampler, base):
        raise InputError(f"sampler is {sampler!r}; expected a {base.__name__}, such as Heun().")
    try:
        hash(sampler)
    except TypeError as error:
        name = type(sampler).__name__
        raise InputError(f"{name} is not hashable; declare it with @dataclasses.dataclass(frozen=True).") from error


def check_sample(
    n: int, seed: int, first: int, shape: tuple[int, ...], temperature: float, batch_size: int | None
) -> None:
    """Raise InputError if a number or the shape of a sample is not valid."""
    require_whole("n", n, 1)
    require_whole("first", first, 0)
    if batch_size is not None:
        require_whole("batch_size", batch_size, 1)
    check_seed(seed)
    if first + n > 2**32:
        raise InputError(f"Sample numbers reach {first + n - 1}; a seed has 2**32 samples: use another seed.")
    if not isinstance(shape, tuple | list) or not all(is_whole(side, 1) for side in shape):
        raise InputError(f"shape is {shape!r}; expected the shape of one sample, such as (8, 8, 1).")
    number = as_array(temperature, "temperature")
    if number.shape or number.dtype.kind not in "iuf":
        raise InputError(f"temperature is {temperature!r}; expected a positive number.")
    if not temperature > 0 or not np.isfinite(temperature):
        raise InputError(f"temperature is {temperature}; expected a positive number (a sampler without noise is Heun).")


def check_numbers(numbers: ArrayLike, n: int) -> np.ndarray:
    """Return the numbers of the samples as whole numbers, (n,), or raise InputError."""
    array = as_array(numbers, "numbers")
    if array.shape != (n,) or array.dtype.kind not in "iu" or (array.size and not array.min() >= 0):
        raise InputError(f"numbers are {shown(numbers)}; expected {n} whole numbers of at least 0.")
    if array.max() >= 2**32:
        raise InputError(f"numbers reach {array.max()}; a seed has 2**32 samples: use another seed.")
    return array.astype(np.int64)


def check_temperature(denoiser: Denoiser, sampler: Any, temperature: float) -> None:
    """Raise InputError for a temperature other than 1 with a guide or a sampler to which no temperature applies."""
    if temperature == 1:
        return
    guide = denoiser
    while isinstance(guide, Guide) and guide.takes_temperature:
        guide = guide.denoiser
    wrong = guide if isinstance(guide, Guide) else None if sampler.takes_temperature else sampler
    if wrong is not None:
        raise InputError(
            f"temperature is {temperature} with {type(wrong).__name__}; expected 1: the noise of a guided model has no "
            "temperature. Sample without the guide, or change its weight."
        )


def own_removed(denoiser: Denoiser, own: Conditions, cond: Cond) -> Cond:
    """Return the conditions without those that the sampler reads and the denoiser does not."""
    return without(cond, [name for name in own if name not in denoiser.reads])


def read_by(denoiser: Denoiser, sampler: Any, shape: tuple[int, ...]) -> Conditions:
    """Return the conditions that the denoiser or the sampler reads; raise InputError if both require the same one."""
    own, inner = sampler.reads(tuple(shape)), denoiser.reads
    both = [name for name in own if name in inner and own[name].required and inner[name].required]
    if both:
        raise InputError(
            f"{type(sampler).__name__} and {type(denoiser).__name__} both read {both[0]!r}; expected one of them: a "
            "measurement that is used twice counts twice."
        )
    return Conditions(dict(own) | dict(inner))


def checked_cond(denoiser: Denoiser, sampler: Any, shape: tuple[int, ...], cond: Cond, n: int) -> Cond:
    """Return the conditions after all checks of a denoiser, of a sampler and of both together."""
    cond = given.checked(cond, read_by(denoiser, sampler, shape), n)
    denoiser.check_cond(only(cond, denoiser.reads))
    sampler.check_cond(cond)
    return cond


def check_start(x: ArrayLike, n: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the starting points as a numpy array; raise InputError if they cannot be used."""
    x = as_array(x, "x")
    if x.shape != (n, *shape):
        raise InputError(f"x has shape {x.shape}; expected (n, *shape) = {(n, *shape)}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"x has dtype {x.dtype}; expected floating point numbers on the model's scale.")
    if not jnp.isfinite(x).all():
        raise InputError("x contains NaN or infinity; expected finite starting points.")
    return x.astype(jax.dtypes.canonicalize_dtype(jnp.promote_types(x.dtype, jnp.float32)))


def check_grid(sde: SDE, grid: ArrayLike, dtype: Any, from_prior: bool) -> np.ndarray:
    """Return the grid in the dtype of the sampling loop; raise InputError if the grid cannot be used.

    Two times that differ in float64 may be equal in this dtype.
    """
    times = as_array(grid, "grid")
    if times.dtype.kind not in "iuf":
        raise InputError(f"grid has dtype {times.dtype}; expected times, as from time_grid.uniform(sde, steps).")
    times = times.astype(dtype)
    if times.ndim != 1 or len(times) < 2:
        raise InputError(f"grid has shape {times.shape}; expected (steps + 1,), as from time_grid.uniform(sde, steps).")
    if not np.isfinite(times).all():
        raise InputError("grid contains NaN or infinity; expected finite times.")
    rising = np.flatnonzero(np.diff(times) >= 0)
    if rising.size:
        k = rising[0]
        raise InputError(f"grid goes from {times[k]:g} to {times[k + 1]:g} in step {k}; expected decreasing times.")
    sde.check_times(times, "grid")
    if from_prior and not np.isclose(times[0], float(sde.t_max), rtol=1e-5):
        raise InputError(
            f"grid starts at {times[0]:g}; expected t_max = {float(sde.t_max):g}, the time of the prior, or give x."
        )
    return times


def warn_of_prior(sde: SDE) -> None:
    """Warn if x at t_max still contains too much signal for the prior, for data of standard deviation 1."""
    if not is_concrete(sde):
        return
    alpha, std = float(sde.alpha(sde.t_max)), float(sde.prior_std)
    if alpha > MOST_SIGNAL * std:
        warnings.warn(
            f"The noise of {type(sde).__name__} does not reach its prior: x at t_max is {alpha:.2g} x_0 plus noise of "
            f"standard deviation {float(sde.sigma(sde.t_max)):.2g}, but the prior N(0, {std:.2g}^2) contains no x_0, "
            f"so samples are biased towards 0; expected alpha(t_max) of at most {MOST_SIGNAL:g} prior_std for data "
            "of standard deviation 1: use an SDE with more noise at t_max.",
            stacklevel=3,
        )


def check_signal(sampler: Any, sde: SDE, grid: np.ndarray) -> None:
    """Raise InputError if the grid starts at alpha = 0; for samplers that divide by alpha."""
    if float(sde.alpha(grid[0])) == 0:
        raise InputError(
            f"{type(sampler).__name__} is not defined at t = {grid[0]:g}, where {type(sde).__name__} has alpha(t) = 0: "
            f"use a smaller t_max, {type(sde).__name__}(t_max={0.999 * grid[0]:g}), or DDIM, Ancestral, "
            "Euler, Heun or DPMSolverPP."
        )


def check_velocity(sampler: Any, sde: SDE, grid: np.ndarray) -> None:
    """Raise InputError if alpha' or sigma' is infinite at grid[0]; for solvers of the probability-flow ODE in t."""
    rates = [float(rate) for rate in sde.velocity_rates(grid[0])]
    if not np.isfinite(rates).all():
        raise InputError(
            f"{type(sampler).__name__} is not defined at t = {grid[0]:g}, where {type(sde).__name__} has alpha' = "
            f"{rates[0]:g} and sigma' = {rates[1]:g}: use a smaller t_max, {type(sde).__name__}"
            f"(t_max={0.999 * grid[0]:g}), or DDIM, Ancestral or DPMSolverPP."
        )


def check_continuous(sampler: Any, sde: SDE) -> None:
    """Raise InputError for a chain; for samplers that stop between levels or need derivatives in time."""
    if sde.levels is not None:
        raise InputError(
            f"{type(sampler).__name__} needs times between the levels of {type(sde).__name__}: use a denoiser on "
            "chain.smooth(), or a sampler that steps from level to level, such as DDIM, Ancestral or DPMSolverPP."
        )


def check_drift(sampler: Any, sde: SDE, grid: np.ndarray) -> None:
    """Raise InputError for a chain, or if the grid starts at alpha = 0; for samplers that use drift and diffusion."""
    check_continuous(sampler, sde)
    sde.drift_rate(grid[0])
