"""This package makes time grids: a grid of n steps has n + 1 times, strictly decreasing from noise to data.

A grid is a float64 array on the host, from sde.t_max to sde.t_stop. On a chain, the times are times of its levels; the
grids that only a chain has (leading, trailing, linspace, spaced) end at level 0, which is data.
"""

from score_sde.sampling.time_grid.fitted import fitted
from score_sde.sampling.time_grid.grid import Fit, FittedGrid
from score_sde.sampling.time_grid.levels import leading, linspace, spaced, trailing
from score_sde.sampling.time_grid.named import default, karras, log_snr, shifted, uniform
from score_sde.sampling.time_grid.optimal import optimal

__all__ = [
    "Fit",
    "FittedGrid",
    "default",
    "fitted",
    "karras",
    "leading",
    "linspace",
    "log_snr",
    "optimal",
    "shifted",
    "spaced",
    "trailing",
    "uniform",
]
