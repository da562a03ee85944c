"""This module fits the time grid of a likelihood with fixed steps."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array
from score_sde.core.checks import require_whole
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.denoisers.inputs import as_denoiser, as_points
from score_sde.likelihood.density import log_prob
from score_sde.sampling.time_grid import FittedGrid
from score_sde.sampling.time_grid.grid import better_of
from score_sde.sampling.time_grid.search import Axis, best, least_calls, loss_of, search
from score_sde.sde import SDE

_ACCURATE = 1e-6  # tolerance of the values with which the search compares


def likelihood_grid(
    denoiser: Denoiser, x: ArrayLike, keys: Array | None, n: int, *, calls: int = 100, cond: Cond = None, **options: Any
) -> FittedGrid:
    """Return n steps from t_max to t_min on which `log_prob(grid=...)` errs least: shape (n + 1,), with `fit`.

    The first half of the examples is for the search, which compares log p(x) on a grid with that of an adaptive solve
    at tolerances 1e-6, with equal probes. The second half measures the error, in nats. The search starts from the
    better of two grids: even in sqrt(t), in which the method steps, and even in log-SNR.

    Args:
        denoiser: the model.
        x: data on the model's scale, at least 4 examples, shape (batch, *shape).
        keys: one random key per example for its probes, (batch,); None with the exact trace.
        n: number of steps; log_prob takes n + 1 evaluations, and half as many for its error estimate.
        calls: number of grids that the search tries.
        cond: None, or conditions by name with leading axis batch.
        **options: trace, probes, probe, chunk and precision of `log_prob`.

    Raises:
        InputError: for input that cannot be used.
        DivergenceError: if the adaptive solve fails.
    """
    require_whole("n, the steps of a likelihood,", n, 1)
    require_whole("calls of likelihood_grid", calls, least_calls(n))
    denoiser, x = as_denoiser(denoiser), as_points(x)
    if len(x) < 4:
        raise InputError(f"x has {len(x)} examples; expected at least 4, half of them to measure the gain.")
    sde, half = denoiser.sde, len(x) // 2
    if sde.levels is not None:
        raise InputError(f"{type(sde).__name__} has no probability flow between its levels: use denoiser.smooth().")
    solves = _Solves(denoiser, x, keys, cond, options)
    fit_on, measured_on = slice(0, half), slice(half, len(x))
    accurate = solves.values(fit_on, rtol=_ACCURATE, atol=_ACCURATE)

    loss = loss_of(lambda grid: np.abs(solves.values(fit_on, grid=grid) - accurate))
    axis = Axis(sde, last=float(sde.t_min))
    grids = {"square root of t": _even_in_root(sde, n), "log_snr": axis.even(n)}
    default = best(grids, loss)
    grid = search(axis, grids[default], loss, calls)
    others, pair = solves.values(measured_on, rtol=_ACCURATE, atol=_ACCURATE), (grids[default], grid)
    before, after = (np.abs(solves.values(measured_on, grid=each) - others) for each in pair)
    return better_of(default, pair, (before, after), solves.evaluations, half, 0, "log_prob")


@dataclasses.dataclass
class _Solves:
    """`_Solves` computes log p(x) of some of the examples, and counts the evaluations."""

    denoiser: Denoiser
    x: Array
    keys: Array | None
    cond: Cond
    options: dict[str, Any]
    evaluations: int = 0

    def values(self, rows: slice, **how: Any) -> np.ndarray:
        """Return log p(x) of these rows, float64."""
        cond = None if self.cond is None else {name: np.asarray(value)[rows] for name, value in self.cond.items()}
        keys = None if self.keys is None else self.keys[rows]
        result = log_prob(self.denoiser, self.x[rows], keys, cond=cond, **how, **self.options)
        self.evaluations += int(jnp.sum(result.nfe))
        return np.asarray(result.value, np.float64)


def _even_in_root(sde: SDE, n: int) -> np.ndarray:
    """Return the grid from t_max to t_min that is even in sqrt(t)."""
    ends = np.asarray([float(sde.t_max), float(sde.t_min)])
    times = np.linspace(math.sqrt(ends[0]), math.sqrt(ends[1]), n + 1) ** 2
    times[[0, -1]] = ends
    return times
