"""Where a sampler stops on its way from noise to data: n steps are n + 1 times, strictly decreasing.

Grids are float64 arrays on the host, from sde.t_max to sde.t_stop.
"""

from __future__ import annotations

import numpy as np

from score_sde.core.checks import require_whole
from score_sde.sde import SDE


def uniform(sde: SDE, n: int) -> np.ndarray:
    """n steps of equal length in t, as in Song et al. 2021: shape (n + 1,)."""
    require_whole("n, the steps of a time grid,", n, 1)
    return np.linspace(float(sde.t_max), float(sde.t_stop), n + 1)


def default(sde: SDE, n: int) -> np.ndarray:
    """The grid of the paper: `uniform`, shape (n + 1,)."""
    return uniform(sde, n)


__all__ = ["default", "uniform"]
