"""This module makes time grids: a grid of n steps has n + 1 times, strictly decreasing from noise to data.

A grid is a float64 array on the host, from sde.t_max to sde.t_stop. On a chain, the times are times of its levels; the
grids that only a chain has (leading, trailing, linspace, spaced) end at level 0, which is data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.denoisers.moment_table import MomentTable, as_table
from score_sde.sde import SDE


def uniform(sde: SDE, n: int) -> np.ndarray:
    """Return a grid of n steps of equal length in t, as in Song et al. 2021: shape (n + 1,)."""
    _check_steps(n)
    return sde.nearest(np.linspace(float(sde.t_max), float(sde.t_stop), n + 1))


def karras(sde: SDE, n: int, rho: float = 7.0) -> np.ndarray:
    """Return a grid of n steps of equal length in (sigma / alpha)^(1 / rho): shape (n + 1,).

    The source is Karras et al. 2022 (arXiv:2206.00364), Eq. 5.
    rho = 1 is uniform in the noise level; rho = 7 places most steps near the data.
    """
    if not (isinstance(rho, int | float) and 0 < rho < np.inf):
        raise InputError(f"rho is {rho!r}; expected a positive number, such as 7.")
    # sigma / alpha = exp(-log_snr / 2).
    return _even_in(sde, n, lambda log_snr: np.exp(-log_snr / 2) ** (1 / rho), lambda level: -2 * rho * np.log(level))


def log_snr(sde: SDE, n: int) -> np.ndarray:
    """Return a grid of n steps of equal length in log-SNR (Lu et al. 2022, arXiv:2206.00927): shape (n + 1,)."""
    return _even_in(sde, n, lambda value: value, lambda value: value)


def default(sde: SDE, n: int) -> np.ndarray:
    """Return the default grid of the SDE, shape (n + 1,): `uniform`, as in its paper, or `karras` for `EDM`."""
    grids: dict[str, Callable[[SDE, int], np.ndarray]] = {"uniform": uniform, "karras": karras, "log_snr": log_snr}
    return grids[sde.default_grid](sde, n)


def linspace(sde: SDE, n: int) -> np.ndarray:
    """Return n levels of a chain, evenly spaced from the last to the first, and data: shape (n + 1,).

    The model is evaluated at the n levels round(1 + (N - 1) i / (n - 1)) (Nichol & Dhariwal 2021, arXiv:2102.09672),
    and the last step leads to level 0, which is data. A sampler takes each next level from the grid.
    """
    levels = _levels_of(sde, n, "linspace")
    return _to_data(sde, np.round(np.linspace(1, levels, n)) if n > 1 else np.asarray([levels]))


def trailing(sde: SDE, n: int) -> np.ndarray:
    """Return n levels of a chain, round(N - N i / n) for i = 0 .. n - 1, and data: shape (n + 1,).

    The last level N is one of them (Lin et al. 2023, arXiv:2305.08891, Table 2).
    """
    levels = _levels_of(sde, n, "trailing")
    return _to_data(sde, np.round(levels - levels * np.arange(n) / n))


def leading(sde: SDE, n: int) -> np.ndarray:
    """Return n levels of a chain, 1 + i floor(N / n) for i = 0 .. n - 1, the highest moved to N, and data: (n + 1,).

    The published spacing (Lin et al. 2023, arXiv:2305.08891, Table 2) never reaches level N, but starts from noise of
    level N. Here the highest level is N, so that the noise at the start is that of the prior.
    """
    levels = _levels_of(sde, n, "leading")
    return _to_data(sde, np.append(1 + np.arange(n - 1) * (levels // n), levels))


def spaced(sde: SDE, counts: str | Sequence[int]) -> np.ndarray:
    """Return levels of a chain by counts per section, and data (Nichol & Dhariwal 2021, published code).

    The levels 1 .. N are divided into equal sections, from the least noise to the most; the first sections have one
    level more if N does not divide. In each section the given number of levels is evenly spaced, with both ends.

    Args:
        sde: the chain.
        counts: numbers of levels, such as (10, 15, 20) or '10,15,20'.
    """
    numbers = _counts(counts)
    levels = _levels_of(sde, sum(numbers), "spaced")
    chosen: list[float] = []
    first = 1
    for i, count in enumerate(numbers):
        size = levels // len(numbers) + (i < levels % len(numbers))
        if count > size:
            raise InputError(
                f"counts asks for {count} levels of section {i}, which has {size} of the {levels} levels of "
                f"{type(sde).__name__}: use smaller counts."
            )
        chosen.extend(np.round(np.linspace(first, first + size - 1, count)) if count > 1 else [first])
        first += size
    if chosen[-1] != levels:
        chosen[-1] = levels  # a section of one level is the highest one, where the prior is
    return _to_data(sde, np.asarray(chosen))


def optimal(sde: SDE, n: int, table: MomentTable | str) -> np.ndarray:
    """Return the grid of n steps with the least variational bound, from the times of a table: shape (n + 1,).

    With the optimal variance V of each step, the bound is a constant and the sum over the steps of log(V / lower) / 2
    for each dimension, where lower is the posterior variance. Dynamic programming finds the minimum over all
    sub-sequences (Bao et al. 2022, arXiv:2201.06503, Sec. 4; Watson et al. 2021, arXiv:2106.03802). The ends are those
    of the table, which has to reach t_max.

    Args:
        sde: the SDE or the chain.
        n: number of steps.
        table: a `MomentTable`, or the path of noise_moments.npz, of the model that is sampled.
    """
    _check_steps(n)
    moments = as_table(table)
    moments.check(sde)
    times = moments.times
    if n > len(times) - 1:
        raise InputError(
            f"n, the steps of a time grid, is {n}, and the table has {len(times)} times; expected at most "
            f"{len(times) - 1}: measure more levels (NoiseMoments)."
        )
    if not np.isclose(times[-1], float(sde.t_max), rtol=1e-5):
        raise InputError(f"The table of moments ends at t = {times[-1]:g}; expected t_max = {float(sde.t_max):g}.")
    with jax.enable_x64(True):
        cost = _step_costs(sde, times, moments.rising_x0_variance())
    chosen = cheapest(cost, n)
    return sde.nearest(times[chosen][::-1].copy())


def cheapest(cost: np.ndarray, n: int) -> np.ndarray:
    """Return n + 1 increasing places, the first and the last included, whose steps have the least total cost.

    Args:
        cost: cost[i, j] of a step between the places i < j, (m, m); other entries are not read.
        n: number of steps, at most m - 1.
    """
    m = len(cost)
    step = np.where(np.triu(np.ones((m, m), bool), 1), cost, np.inf)
    best = np.full(m, np.inf)
    best[0], before = 0.0, []
    for _ in range(n):
        total = best[:, None] + step
        before.append(np.argmin(total, axis=0))
        best = np.min(total, axis=0)
    places = [m - 1]
    for previous in reversed(before):
        places.append(int(previous[places[-1]]))
    return np.asarray(places[::-1])


def _step_costs(sde: SDE, times: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return log(V / lower) / 2 of steps from times[j] to times[i], i < j; V / lower = 1 + SNR_s v C / sigma_t^2."""
    s, t = times[:, None], times[None, :]
    _, v = sde.transition(np.minimum(s, t), t)
    ratio = np.exp(np.asarray(sde.log_snr(s))) * np.asarray(v) * c / np.asarray(sde.variance(t))
    return np.log1p(ratio) / 2


def _levels_of(sde: SDE, n: int, name: str) -> int:
    _check_steps(n)
    levels = sde.levels
    if levels is None:
        raise InputError(f"{type(sde).__name__} has no levels for time_grid.{name}; expected a chain, or 'uniform'.")
    if n > levels:
        raise InputError(
            f"{name} was asked for {n} steps, and {type(sde).__name__} has {levels} levels; expected at most {levels}."
        )
    return levels


def _counts(counts: Any) -> list[int]:
    parts = counts.split(",") if isinstance(counts, str) else counts
    try:
        numbers = [int(part) for part in parts]
    except (TypeError, ValueError) as error:
        raise InputError(f"counts is {counts!r}; expected whole numbers, such as '10,15,20'.") from error
    if not numbers or min(numbers) < 1:
        raise InputError(f"counts is {counts!r}; expected whole numbers of at least 1, such as '10,15,20'.")
    return numbers


def _to_data(sde: SDE, levels: np.ndarray) -> np.ndarray:
    """Return the times of levels in descending order, and of level 0."""
    assert sde.levels is not None
    return np.append(np.sort(levels)[::-1], 0) / sde.levels


def _even_in(
    sde: SDE, n: int, forth: Callable[[np.ndarray], np.ndarray], back: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return times evenly spaced in forth(log_snr), with exact ends; `back` is the inverse of `forth`."""
    _check_steps(n)
    ends = np.asarray([float(sde.t_max), float(sde.t_stop)])
    with jax.enable_x64(True):
        levels = np.asarray(sde.log_snr(ends), np.float64)
        if not np.isfinite(levels).all():
            t = ends[~np.isfinite(levels)][0]
            raise InputError(
                f"{type(sde).__name__} has alpha(t) = 0 at t = {t:g}, where the log signal-to-noise ratio is not "
                f"finite: use time_grid.uniform, or a smaller t_max, {type(sde).__name__}(t_max={0.999 * t:g})."
            )
        start, end = forth(levels)
        times = np.array(sde.time_of(back(np.linspace(start, end, n + 1))), np.float64)
    times[0], times[-1] = ends
    return sde.nearest(times)


def _check_steps(n: int) -> None:
    require_whole("n, the steps of a time grid,", n, 1)


__all__ = ["default", "karras", "leading", "linspace", "log_snr", "optimal", "spaced", "trailing", "uniform"]
