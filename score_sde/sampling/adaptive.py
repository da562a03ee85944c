"""Samplers that choose their own steps."""

from __future__ import annotations

import dataclasses

import numpy as np

from score_sde import ode
from score_sde.core.arrays import Array
from score_sde.denoiser import Cond, Denoiser
from score_sde.sampling.base import Memory, Sampler
from score_sde.sampling.checks import check_continuous, check_velocity
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class ProbabilityFlow(Sampler):
    """The probability flow solved to a tolerance, each sample with its own steps (Song et al. 2021, Sec. 4.3).

    Between two times of the grid it takes as many steps as it needs, so a grid of one step,
    time_grid.uniform(sde, 1), is enough; more times are where a trajectory is looked at. A sample
    whose flow cannot be solved is NaN, which `sample` reports.

    Attributes:
        rtol, atol: relative and absolute tolerance.
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    def __post_init__(self) -> None:
        ode.check_tolerances(self.rtol, self.atol)

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_continuous(self, sde)
        check_velocity(self, sde, grid)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, memory: Memory, cond: Cond = None
    ) -> tuple[Array, Memory, Array]:
        solution = ode.flow(denoiser, x, t, s, cond, rtol=self.rtol, atol=self.atol)
        return solution.y, memory, solution.nfe
