"""This module computes the exact log-density of a diffusion model.

The method is the instantaneous change of variables along the probability flow.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde import ode
from score_sde.core import given
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, dimensions, is_concrete
from score_sde.core.checks import require_whole
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.core.jit import module_jit
from score_sde.core.precision import check_precision
from score_sde.denoisers import Denoiser
from score_sde.denoisers.base import checked_prediction
from score_sde.denoisers.inputs import as_denoiser, as_points, check_shape
from score_sde.likelihood import fixed_steps
from score_sde.likelihood.traces import values_and_traces
from score_sde.sampling.checks import check_grid
from score_sde.sde import SDE

TRACES = ("hutchinson", "exact")
PROBES = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}


class Prior(Protocol):
    """A `Prior` is a density at t_max: any object with log_prob(x) -> (batch,) in nats, such as a Mixture."""

    def log_prob(self, x: Array) -> Array: ...


class LogProb(NamedTuple):
    """`LogProb` holds the result of `log_prob`; value = prior + divergence.

    Attributes:
        value: log p(x) at t_min in nats, (batch,); NaN if the solve failed.
        stderr: standard error of the value from its probes, in nats, (batch,): NaN with one probe, 0
            with the exact trace.
        nfe: network evaluations, each for drift and divergence together, int32 (batch,).
        accepted, rejected: steps of the solve, int32 (batch,).
        latent: end point of the flow from x, at t_max, (batch, *shape).
        status: 0 if solved, otherwise the reason of the failure as in `ode.Solution`, int32 (batch,).
        prior: log-density of the latent under the prior, in nats, (batch,).
        divergence: the integral of the flow's divergence from t_min to t_max, in nats, (batch,).
        solve_error: with a grid, the difference from the value on every second time of the grid, in nats, (batch,): the
            error of the coarser solve, and an upper estimate of the error of this one. None with adaptive steps.
    """

    value: Array
    stderr: Array
    nfe: Array
    accepted: Array
    rejected: Array
    latent: Array
    status: Array
    prior: Array
    divergence: Array
    solve_error: Array | None = None


def log_prob(
    denoiser: Denoiser,
    x: ArrayLike,
    keys: Array | None,
    *,
    cond: Cond = None,
    prior: Prior | None = None,
    trace: str = "hutchinson",
    probes: int = 1,
    probe: str = "rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    chunk: int = 16,
    precision: str = "highest",
    grid: ArrayLike | None = None,
) -> LogProb:
    """Compute log p(x) at t_min under the probability flow from the prior (Song et al. 2021, Sec. 4.3 and App. D.2).

    With v the velocity of the flow, x(t_min) = x and z = x(t_max),

        log p(x) = log prior(z) + integral over [t_min, t_max] of div v(x(t), t) dt    (Eq. 39).

    The result equals the log-density of the data at t_min if the denoiser is exact and `prior` is the true
    marginal at t_max. With the SDE's own prior the difference log prior(z) - log p(z) is part of the model.
    The divergence is the trace of dv/dx: exact, or estimated by e^T (dv/dx) e with random probes e
    (Hutchinson 1990), each fixed for the whole solve. In both cases one forward-mode evaluation of the
    network gives both v and (dv/dx) e. Tolerances apply to x and to the integral per dimension.

    Args:
        denoiser: the model.
        x: data on the model's scale, floating point, shape (batch, *shape). For images use `bits_per_dim`.
        keys: one random key per example for its probes, shape (batch,); None with the exact trace.
        cond: None, or conditions by name as `denoiser.reads` declares them.
        prior: density at t_max; None for the SDE's prior, N(0, prior_std^2 I).
        trace: 'hutchinson', or 'exact' at the cost of one tangent for every dimension.
        probes: number of probes; the standard error needs at least two.
        probe: distribution of the probes, 'rademacher' (the smaller variance) or 'gaussian'.
        rtol, atol: tolerances of the solve.
        chunk: number of tangents that the exact trace computes at once; limits the memory.
        precision: precision of float32 products: 'highest' is full float32 on every platform; 'high' and 'default' are
            faster on GPUs and TPUs and less exact (`score_sde.core.precision`).
        grid: None for adaptive steps; or decreasing times from t_max, such as `likelihood_grid`, for fixed steps of a
            multistep method (`fixed_steps`), one evaluation for each time; t_min is added to a grid that ends before
            it. The value of an example then does not depend on step control, and no example waits for another. A second
            solve on every second time gives `solve_error`; nfe counts both. rtol and atol are not read.

    Returns:
        LogProb. Under an outer jit no DivergenceError is raised: check the status of the result.

    Raises:
        InputError: for input that cannot be used.
        DivergenceError: for examples whose flow could not be solved, with their numbers.
    """
    _check_options(trace, probes, probe, chunk)
    check_precision("precision", precision)
    ode.check_tolerances(rtol, atol)
    denoiser, x = as_denoiser(denoiser), as_points(x)
    check_shape(denoiser, x.shape[1:])
    check_keys(keys, len(x), trace)
    cond = given.checked(cond, denoiser.reads, len(x))
    options = {"trace": trace, "probes": probes, "probe": probe, "chunk": chunk, "precision": precision}
    arguments = denoiser, x, keys, cond, jnp.asarray([rtol, atol], x.dtype)
    times = None if grid is None else jnp.asarray(_rising(denoiser.sde, grid), x.dtype)
    solution, stderr, prior_term = _solve(*arguments, times, **options)
    latent, divergence = solution.y
    if is_concrete(solution.status):
        ode.check_solved(solution.status)
    prior_term = _prior_term(prior, latent, prior_term)
    solve_error, nfe = None, solution.nfe
    value = prior_term + divergence
    if times is not None:
        coarse, _, prior_of_coarse = _solve(*arguments, _every_second(times), **options)
        solve_error = jnp.abs(value - _prior_term(prior, coarse.y[0], prior_of_coarse) - coarse.y[1])
        nfe = nfe + coarse.nfe
    counts = solution.accepted, solution.rejected
    return LogProb(value, stderr, nfe, *counts, latent, solution.status, prior_term, divergence, solve_error)


def _prior_term(prior: Prior | None, latent: Array, own: Array) -> Array:
    """Return the log-density of the latent under the prior: `own` if there is no other."""
    if prior is None:
        return own
    term = jnp.asarray(prior.log_prob(latent))
    if term.shape != own.shape:
        raise InputError(f"prior.log_prob returned shape {term.shape}; expected (batch,) = {own.shape}.")
    return term


def _rising(sde: SDE, grid: ArrayLike) -> np.ndarray:
    """Return the times from t_min to t_max; raise InputError if the grid does not begin at t_max."""
    times, first = check_grid(sde, grid, np.float64, from_prior=True), float(sde.t_min)
    ends_there = np.isclose(times[-1], first, rtol=1e-5)
    return np.append(first, times[::-1][1:] if ends_there else times[::-1])


def _every_second(times: Array) -> Array:
    """Return every second time, and the last one."""
    return jnp.concatenate([times[:-1:2], times[-1:]])


def _solve_batch(
    denoiser: Denoiser,
    x: Array,
    keys: Array | None,
    cond: Cond,
    tolerances: Array,
    grid: Array | None,
    *,
    trace: str,
    probes: int,
    probe: str,
    chunk: int,
    precision: str,
) -> tuple[ode.Solution, Array, Array]:
    """Compute (solution with y = (latent, divergence), stderr, prior term) in one program, without host transfers."""
    sde, tangents = denoiser.sde, None
    probes = probes if trace == "hutchinson" else 1
    if trace == "hutchinson" and keys is not None:
        tangents = keys_.draw(PROBES[probe], keys, (probes, *x.shape[1:]), dtype=x.dtype)

    t0, t1 = jnp.asarray(sde.t_min, x.dtype), jnp.asarray(sde.t_max, x.dtype)
    if grid is None:
        solution = _adaptive(denoiser, x, tangents, cond, (t0, t1), tolerances, probes, chunk, precision)
    else:
        solution = _fixed(denoiser, x, tangents, cond, grid, probes, chunk, precision)
    latent, per_probe = solution.y
    stderr = jnp.zeros(len(x), x.dtype)
    if tangents is not None:
        stderr = jnp.std(per_probe, axis=1, ddof=1) / jnp.sqrt(probes) if probes > 1 else stderr * jnp.nan
    nfe = solution.nfe * ode.network_evaluations(denoiser, t0, t1)
    solution = solution._replace(y=(latent, jnp.mean(per_probe, axis=1)), nfe=nfe)
    return solution, stderr, sde.prior_log_prob(latent)


def _adaptive(
    denoiser: Denoiser,
    x: Array,
    tangents: Array | None,
    cond: Cond,
    times: tuple[Array, Array],
    tolerances: Array,
    probes: int,
    chunk: int,
    precision: str,
) -> ode.Solution:
    """Solve with adaptive steps; y = (latent, the integral of the divergence for each probe)."""
    size = dimensions(x)

    def field(t: Array, y: tuple[Array, Array], args: tuple[Array | None, Cond]) -> tuple[Array, Array]:
        tangents, cond = args
        velocity, trace = values_and_traces(lambda x: ode.velocity(denoiser, t, x, cond)[None], y[0], tangents, chunk)
        return velocity[0], trace[0] / size

    # The integral is per dimension, so that its tolerance does not depend on the number of dimensions.
    start = x, jnp.zeros((len(x), probes), x.dtype)
    options: dict[str, Any] = {"rtol": tolerances[0], "atol": tolerances[1], "precision": precision}
    solution = ode.solve(field, start, *times, (tangents, cond), **options)
    return solution._replace(y=(solution.y[0], size * solution.y[1]))


def _fixed(
    denoiser: Denoiser,
    x: Array,
    tangents: Array | None,
    cond: Cond,
    grid: Array,
    probes: int,
    chunk: int,
    precision: str,
) -> ode.Solution:
    """Solve with the steps of a grid; y = (latent, the integral of the divergence for each probe)."""

    def halves(t: Array, x: Array) -> tuple[Array, Array]:
        def of_one(x: Array, tangents: Array | None, cond: Cond) -> tuple[Array, Array]:
            alone = jax.tree.map(lambda leaf: leaf[None], cond)

            def both(x: Array) -> Array:
                predicted = checked_prediction(denoiser, x[None], t[None], alone)
                return jnp.stack([predicted.x0[0], predicted.noise[0]])

            return values_and_traces(both, x, tangents, chunk)

        return jax.vmap(of_one, out_axes=1)(x, tangents, cond)

    latent, divergence = fixed_steps.solve(halves, denoiser.sde, x, probes, grid, precision)
    solved = jnp.isfinite(latent.reshape(len(x), -1)).all(axis=1) & jnp.isfinite(divergence).all(axis=1)
    status = jnp.where(solved, 0, 2).astype(jnp.int32)
    taken = jnp.full(len(x), len(grid) - 1, jnp.int32)
    return ode.Solution((latent, divergence), taken + 1, taken, jnp.zeros_like(taken), status)


_STATIC = ("trace", "probes", "probe", "chunk", "precision")
_solve = module_jit(_solve_batch, static_argnames=_STATIC, rows=(0, 1, 2))


def _check_options(trace: str, probes: int, probe: str, chunk: int) -> None:
    if not isinstance(trace, str) or trace not in TRACES:
        raise InputError(f"trace is {trace!r}; expected one of {', '.join(TRACES)}.")
    if not isinstance(probe, str) or probe not in PROBES:
        raise InputError(f"probe is {probe!r}; expected one of {', '.join(PROBES)}.")
    require_whole("probes", probes, 1)
    require_whole("chunk", chunk, 1)


def check_keys(keys: Array | None, batch: int, trace: str) -> None:
    """Raise InputError if keys are needed and missing, or are not one random key per example."""
    if keys is None and trace == "hutchinson":
        raise InputError("keys is None; Hutchinson's probes need one key per example (or use trace='exact').")
    if keys is not None and not isinstance(keys, jax.Array):
        raise InputError(
            f"keys are a {type(keys).__name__}; expected one key each, jax.random.split(jax.random.key(seed), {batch})."
        )
    if keys is not None and not (keys.shape == (batch,) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)):
        raise InputError(
            f"keys have shape {keys.shape} and dtype {keys.dtype} for {batch} examples; expected one key each, as from "
            "jax.random.split(jax.random.key(seed), batch)."
        )
