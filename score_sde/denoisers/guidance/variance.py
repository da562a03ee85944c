"""This module defines the guide that adds an optimal variance to a denoiser that predicts none."""

from __future__ import annotations

import os
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, to_time
from score_sde.core.checks import is_number, shown
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers.base import Denoiser, Guide
from score_sde.denoisers.moment_table import MomentTable, as_table
from score_sde.denoisers.prediction import Prediction
from score_sde.denoisers.reverse_variance import X0Variance


class Analytic(Guide):
    """`Analytic` adds the optimal isotropic variance of Analytic-DPM (Bao et al. 2022, arXiv:2201.06503).

    Var[x_0 | x_t], averaged over x_t and the dimensions, comes from a table that the evaluation `NoiseMoments` measures
    in one pass over the data. x_0 and noise do not change. `Ancestral(variance='optimal')` then draws with the variance
    that minimises the bound among all that depend on (s, t) alone. A variance that the denoiser predicts is replaced.

    Args:
        denoiser: inner denoiser, the one that was measured.
        table: a `MomentTable`, or the path of noise_moments.npz.
        largest: bound of Var[x_0 | x_t], (b - a)^2 / 4 for data in [a, b] on the model's scale; None for no bound. In a
            config it follows from the range of the data.
    """

    table: MomentTable
    largest: float | None = eqx.field(static=True)

    takes_temperature: ClassVar[bool] = True

    def __init__(
        self, denoiser: Denoiser, table: MomentTable | str | os.PathLike[str], largest: float | None = None
    ) -> None:
        super().__init__(denoiser)
        if largest is not None and not (is_number(largest) and largest > 0):
            raise InputError(f"largest of Analytic is {shown(largest)}; expected a positive number, or None.")
        self.table, self.largest = as_table(table), None if largest is None else float(largest)
        self.table.check(self.sde)

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        inner = self.denoiser.predict(x, t, cond, keys=keys)
        variance = self.table.x0_variance(self.sde, jnp.broadcast_to(to_time(t), x.shape[:1]), self.largest)
        return Prediction(inner.x0, inner.noise, X0Variance(variance))


__all__ = ["Analytic"]
