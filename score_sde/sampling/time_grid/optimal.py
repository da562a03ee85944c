"""This module makes the time grid with the least variational bound, by dynamic programming."""

from __future__ import annotations

import jax
import numpy as np

from score_sde.core.errors import InputError
from score_sde.denoisers.moment_table import MomentTable, as_table
from score_sde.sampling.time_grid.named import check_steps
from score_sde.sde import SDE


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
    check_steps(n)
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
