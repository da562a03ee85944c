"""This module searches the time grid on which a given loss is least."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax
import numpy as np
from scipy.optimize import minimize

from score_sde.core.errors import DivergenceError
from score_sde.sde import SDE

KNOTS = 8
_NO_SIGNAL = -14.0  # the log-SNR that stands for alpha = 0
_ROWS = 4096
_FAILED = 50.0  # the log of the loss of a walk that is not finite


class Axis:
    """`Axis` maps the times of an SDE to log-SNR and back, by a table on the host.

    Log-SNR -14 stands for alpha = 0, and the largest log-SNR of the table for sigma = 0. The last time is t_stop, or
    `last`.
    """

    def __init__(self, sde: SDE, last: float | None = None) -> None:
        self._sde = sde
        ends = np.asarray([float(sde.t_max), float(sde.t_stop) if last is None else last])
        with jax.enable_x64(True):
            low, high = np.asarray(sde.log_snr(ends), np.float64)
            levels = np.linspace(low if np.isfinite(low) else _NO_SIGNAL, high, _ROWS)
            times = np.array(sde.time_of(levels), np.float64)
        times[[0, -1]] = ends
        self._levels, self._times = levels, np.minimum.accumulate(times)

    def levels(self, times: np.ndarray) -> np.ndarray:
        """Return the log-SNR of decreasing times, within the table."""
        with jax.enable_x64(True):
            levels = np.asarray(self._sde.log_snr(np.asarray(times, np.float64)), np.float64)
        return np.clip(levels, self._levels[0], self._levels[-1])

    def grid(self, levels: np.ndarray) -> np.ndarray:
        """Return a strictly decreasing grid with these log-SNRs, and with the ends of the table; of a chain, levels."""
        times = np.interp(levels, self._levels, self._times)
        times[[0, -1]] = self._times[[0, -1]]
        count = self._sde.levels
        return times if count is None else _distinct(np.round(times * count), count) / count

    def even(self, n: int) -> np.ndarray:
        """Return the grid of n steps that is even in log-SNR."""
        return self.grid(np.linspace(self._levels[0], self._levels[-1], n + 1))


def _distinct(numbers: np.ndarray, count: int) -> np.ndarray:
    """Return strictly decreasing whole numbers near non-increasing ones, with the same ends."""
    low, n = numbers[-1], len(numbers) - 1
    for k in range(1, n):
        numbers[k] = np.clip(min(numbers[k], numbers[k - 1] - 1), low + n - k, count)
    return numbers


def search(axis: Axis, start: np.ndarray, loss: Callable[[np.ndarray], float], calls: int) -> np.ndarray:
    """Return the grid of least loss, from `start`, by at most `calls` calls of the loss.

    The logarithms of the steps in log-SNR change by a function that is linear between at most 8 knots along the grid.
    The method is COBYQA (Ragonneau 2022), a trust-region method without derivatives; `loss` is positive.
    """
    levels = axis.levels(start)
    before, n = np.log(np.diff(levels)), len(start) - 1
    knots = min(n, KNOTS)
    at, places = (np.arange(n) + 0.5) / n, (np.arange(knots) + 0.5) / knots
    least = (np.inf, start)

    def changed(change: np.ndarray) -> np.ndarray:
        lengths = np.exp(before + np.interp(at, places, change))
        way = np.concatenate([[0.0], np.cumsum(lengths)]) / np.sum(lengths)
        return axis.grid(levels[0] + (levels[-1] - levels[0]) * way)

    def of_change(change: np.ndarray) -> float:
        nonlocal least
        grid = changed(change)
        value = loss(grid)
        if value < least[0]:
            least = value, grid
        return float(np.log(value)) if np.isfinite(value) and value > 0 else _FAILED

    options = {"maxfev": calls, "initial_tr_radius": 0.5, "final_tr_radius": 1e-3}
    minimize(of_change, np.zeros(knots), method="COBYQA", options=options)
    return least[1]


def loss_of(errors: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], float]:
    """Return the mean of the errors on a grid as a loss, infinite where a value is not finite."""

    def loss(grid: np.ndarray) -> float:
        try:
            return float(errors(grid).mean())
        except DivergenceError:
            return math.inf

    return loss


def best(grids: Mapping[str, np.ndarray], loss: Callable[[np.ndarray], float]) -> str:
    """Return the name of the grid of least loss; each loss is computed once."""
    losses = {name: loss(grid) for name, grid in grids.items()}
    return min(losses, key=losses.__getitem__)


def least_calls(n: int) -> int:
    """Return the number of calls of the loss that the search needs for its first model of it."""
    return 2 * min(n, KNOTS) + 2
