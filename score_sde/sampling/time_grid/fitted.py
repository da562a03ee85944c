"""This module fits time grids: n steps where a sampler errs least on a model."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Any

import jax
import numpy as np
from scipy.spatial.distance import cdist

from score_sde.core.checks import require_whole
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.core.keys import check_seed
from score_sde.denoisers import Denoiser
from score_sde.denoisers.inputs import as_denoiser
from score_sde.sampling.base import Sampler, sample
from score_sde.sampling.checks import check_sampler
from score_sde.sampling.time_grid.grid import FittedGrid, better_of
from score_sde.sampling.time_grid.named import check_steps, karras, uniform
from score_sde.sampling.time_grid.search import Axis, best, least_calls, loss_of, search

CALLS = 200  # walks of the search, if no budget is given
_EXAMPLES, _EXAMPLES_OF_LAWS, _BLOCKS = 128, 512, 4
_ACCURATE, _LEAST_ACCURATE = 16, 256  # steps of an accurate walk: a multiple of n, and at least


@dataclasses.dataclass
class _Walks:
    """`_Walks` walks from the same starting points, and counts the evaluations."""

    denoiser: Denoiser
    sampler: Sampler
    shape: tuple[int, ...]
    cond: Cond
    n: int
    seed: int
    first: int
    options: dict[str, Any]
    noisy: bool = False
    evaluations: int = 0

    def end(self, grid: np.ndarray, seed: int | None = None, x: np.ndarray | None = None) -> np.ndarray:
        """Return x at the end of a walk, (n, dimensions)."""
        samples = sample(
            self.denoiser,
            self.sampler,
            grid,
            self.shape,
            n=self.n,
            seed=self.seed if seed is None else seed,
            first=self.first,
            cond=self.cond,
            x=x,
            denoise=False,
            **self.options,
        )
        self.evaluations += int(samples.nfe.sum())
        return samples.x.reshape(self.n, -1).astype(np.float64)

    def errors(self, x: np.ndarray, accurate: np.ndarray) -> np.ndarray:
        """Return the error of each example, or of each block of examples if the sampler draws noise."""
        if not self.noisy:
            return np.sqrt(np.mean((x - accurate) ** 2, axis=1))
        blocks = zip(np.array_split(x, _BLOCKS), np.array_split(accurate, _BLOCKS), strict=True)
        return np.asarray([_root_energy_distance(*pair) for pair in blocks])


def _root_energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the root of 2 E |X - Y| - E |X - X'| - E |Y - Y'| of two sets, per root of the dimensions."""
    distance = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    return math.sqrt(max(distance, 0.0) / math.sqrt(x.shape[1]))


def fitted(
    denoiser: Denoiser,
    sampler: Sampler,
    n: int,
    *,
    shape: tuple[int, ...] | None = None,
    cond: Cond = None,
    examples: int | None = None,
    seed: int = 0,
    budget: int | None = None,
    batch_size: int | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> FittedGrid:
    """Return n steps where this sampler errs least on this denoiser: shape (n + 1,), with the attribute `fit`.

    Walks of n steps are compared with a walk of many steps, 16 n or 256, from the same starting points. A search by
    walks (COBYQA) starts from the best of the grids uniform, karras and log_snr, and changes the lengths of the steps
    in log-SNR smoothly along the grid. The best grid is then measured on other starting points. If the default grid is
    better on those, the default grid is returned. The result is a function of the arguments.

    A sampler that draws noise is compared by the distance of its samples from accurate samples. On a chain the
    times are levels.

    Args:
        denoiser: the denoiser that will be sampled, with its guides and clipping; or a `Model`.
        sampler: the sampler that will be used.
        n: number of steps.
        shape: shape of one example; None for a denoiser that knows it.
        cond: None, or conditions by name with leading axis `examples`.
        examples: number of starting points; None for 128, or 512 if the sampler draws noise.
        seed: the seed of the starting points.
        budget: network evaluations of all examples together; None for 200 walks and what they are compared with.
        batch_size, sharding: as in `sample`.

    Raises:
        InputError: for input that cannot be used, and for a budget that is too small.
        DivergenceError: if the accurate walk is not finite.
    """
    denoiser = as_denoiser(denoiser)
    check_steps(n)
    check_sampler(sampler, Sampler)
    check_seed(seed)
    if sampler.chooses_steps:
        raise InputError(
            f"{type(sampler).__name__} chooses its own steps; expected a sampler of fixed steps, as UniPC()."
        )
    shape = denoiser.shape if shape is None else tuple(shape)
    if shape is None:
        raise InputError("shape is None, and the denoiser does not know its shape; expected the shape of one example.")
    for name, value in (("examples", examples), ("budget", budget)):
        if value is not None:
            require_whole(f"{name} of fitted", value, 2 * _BLOCKS)
    options = {"batch_size": batch_size, "sharding": sharding}
    noisy = _draws_noise(_Walks(denoiser, sampler, shape, _first_rows(cond), 2, seed, 0, options), n)
    count = (_EXAMPLES_OF_LAWS if noisy else _EXAMPLES) if examples is None else examples
    fit_on, measured_on = (
        _Walks(denoiser, sampler, shape, cond, count, seed, first, options, noisy) for first in (0, count)
    )
    axis = Axis(denoiser.sde)
    return _fitted(axis, fit_on, measured_on, n, budget)


def _fitted(axis: Axis, fit_on: _Walks, measured_on: _Walks, n: int, budget: int | None) -> FittedGrid:
    levels = fit_on.denoiser.sde.levels
    steps = max(_ACCURATE * n, _LEAST_ACCURATE)
    fine = axis.even(steps if levels is None else min(steps, levels - 1))
    grids = _defaults(axis, fit_on.denoiser.sde, n)
    accurate = fit_on.end(fine)
    of_accurate = fit_on.evaluations

    loss = loss_of(lambda grid: fit_on.errors(fit_on.end(grid), accurate))
    default = best(grids, loss)
    walk = (fit_on.evaluations - of_accurate) // len(grids)
    spent = fit_on.evaluations + of_accurate + 2 * walk
    grid = search(axis, grids[default], loss, _calls(budget, spent, walk, n, fit_on.n))
    others, pair = measured_on.end(fine), (grids[default], grid)
    before, after = (measured_on.errors(measured_on.end(each), others) for each in pair)
    evaluations = fit_on.evaluations + measured_on.evaluations
    return better_of(default, pair, (before, after), evaluations, fit_on.n, fit_on.seed, str(fit_on.sampler))


def _calls(budget: int | None, spent: int, walk: int, n: int, examples: int) -> int:
    """Return the number of walks of the search; raise InputError for a budget that is too small."""
    if budget is None:
        return CALLS
    calls = (budget - spent) // walk
    if calls < least_calls(n):
        raise InputError(
            f"budget is {budget} network evaluations; expected at least {spent + least_calls(n) * walk} to fit {n} "
            f"steps on {examples} examples: use a larger budget, or fewer examples."
        )
    return calls


def _defaults(axis: Axis, sde: Any, n: int) -> dict[str, np.ndarray]:
    """Return the grids with which the search may begin; at alpha = 0 the grid even in log-SNR begins at -14."""
    grids = {"uniform": uniform(sde, n), "log_snr": axis.even(n)}
    with contextlib.suppress(InputError):  # karras is not defined if alpha(t_max) = 0
        grids["karras"] = karras(sde, n)
    return {name: grid for name, grid in grids.items() if np.all(np.diff(grid) < 0)}


def _first_rows(cond: Cond) -> Cond:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:2], cond)


def _draws_noise(walks: _Walks, n: int) -> bool:
    """Return whether two walks from the same points with other keys end at other points."""
    sde = walks.denoiser.sde
    x = sde.prior_std * np.ones((2, *walks.shape), np.float32)
    grid = uniform(sde, min(n, 4))
    return bool(np.any(walks.end(grid, seed=0, x=x) != walks.end(grid, seed=1, x=x)))
