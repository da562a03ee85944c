"""This module makes the time grids that a formula of the SDE gives."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.sde import SDE


def uniform(sde: SDE, n: int) -> np.ndarray:
    """Return a grid of n steps of equal length in t, as in Song et al. 2021: shape (n + 1,)."""
    check_steps(n)
    return sde.nearest(np.linspace(float(sde.t_max), float(sde.t_stop), n + 1))


def karras(sde: SDE, n: int, rho: float = 7.0) -> np.ndarray:
    """Return a grid of n steps of equal length in (sigma / alpha)^(1 / rho): shape (n + 1,).

    The source is Karras et al. 2022 (arXiv:2206.00364), Eq. 5.
    rho = 1 is uniform in the noise level; rho = 7 places most steps near the data.
    """
    if not (isinstance(rho, int | float) and 0 < rho < np.inf):
        raise InputError(f"rho is {rho!r}; expected a positive number, such as 7.")
    # sigma / alpha = exp(-log_snr / 2).
    return even_in(sde, n, lambda log_snr: np.exp(-log_snr / 2) ** (1 / rho), lambda level: -2 * rho * np.log(level))


def log_snr(sde: SDE, n: int) -> np.ndarray:
    """Return a grid of n steps of equal length in log-SNR (Lu et al. 2022, arXiv:2206.00927): shape (n + 1,)."""
    return even_in(sde, n, lambda value: value, lambda value: value)


def default(sde: SDE, n: int) -> np.ndarray:
    """Return the default grid of the SDE, shape (n + 1,): `uniform`, as in its paper, or `karras` for `EDM`."""
    grids: dict[str, Callable[[SDE, int], np.ndarray]] = {"uniform": uniform, "karras": karras, "log_snr": log_snr}
    return grids[sde.default_grid](sde, n)


def shifted(sde: SDE, n: int, factor: float = 3.0) -> np.ndarray:
    """Return a grid of n steps whose noise levels are `factor` times those of steps even in t: shape (n + 1,).

    The noise level is sigma / alpha. On `RectifiedFlow`, with u even in time, t = factor u / (1 + (factor - 1) u)
    (Esser et al. 2024, arXiv:2403.03206, Eq. 23); more pixels need a larger factor. The ends stay those of the SDE.
    """
    check_steps(n)
    if not (isinstance(factor, int | float) and 0 < factor < np.inf):
        raise InputError(f"factor is {factor!r}; expected a positive number, such as 3.")
    ends = np.asarray([float(sde.t_max), float(sde.t_stop)])
    with jax.enable_x64(True):
        start, end = np.asarray(sde.time_of(np.asarray(sde.log_snr(ends), np.float64) + 2 * np.log(factor)), np.float64)
        times = np.array(sde.time_of(sde.log_snr(np.linspace(start, end, n + 1)) - 2 * np.log(factor)), np.float64)
    times[0], times[-1] = ends
    return sde.nearest(times)


def even_in(
    sde: SDE, n: int, forth: Callable[[np.ndarray], np.ndarray], back: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return times evenly spaced in forth(log_snr), with exact ends; `back` is the inverse of `forth`."""
    check_steps(n)
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


def check_steps(n: int) -> None:
    require_whole("n, the steps of a time grid,", n, 1)
