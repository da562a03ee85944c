"""This module defines guides that keep x_0 in the range of the data."""

from __future__ import annotations

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand
from score_sde.core.checks import is_number, require_number, shown
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers.base import Denoiser, Guide
from score_sde.denoisers.guidance.mixing import with_x0
from score_sde.denoisers.prediction import Prediction


class Clipped(Guide):
    """`Clipped` clips x_0 to a range and adapts the noise: noise' = noise + (alpha / sigma) (x_0 - x_0').

    E[x_0 | x_t] lies in the range of the data, so clipping does not change an exact denoiser. A network early in
    training predicts values outside the range. Apply `Clipped` last, after all other guides. Do not use `Clipped` in
    a likelihood: the flow would no longer be the flow of the model. The variance is that of the inner denoiser.

    Args:
        denoiser: inner denoiser.
        low, high: range of x_0, on the model's scale.
    """

    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    takes_temperature: ClassVar[bool] = True

    def __init__(self, denoiser: Denoiser, low: float, high: float) -> None:
        super().__init__(denoiser)
        require_number("low of Clipped", low)
        require_number("high of Clipped", high)
        self.low, self.high = float(low), float(high)
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"Clipped got low={low}, high={high}; expected finite numbers, low below high.")

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        inner = self.denoiser.predict(x, t, cond, keys=keys)
        return with_x0(inner, self.sde, t, jnp.clip(inner.x0, self.low, self.high))


class Thresholded(Guide):
    """`Thresholded` applies dynamic thresholding (Saharia et al. 2022, arXiv:2205.11487, Sec. 2.3) to data in [-1, 1].

    With s the quantile of |x_0| over one example, and at least 1, x_0' = clip(x_0, -s, s) / s. The noise is adapted:
    noise' = noise + (alpha / sigma) (x_0 - x_0'). The variance is that of the inner denoiser. Thresholding is a
    heuristic against the saturated colours of a large guidance weight. Apply `Thresholded` after the guidance.

    Args:
        denoiser: inner denoiser, of data with the range [-1, 1] on the model's scale.
        quantile: the quantile of |x_0|, from 0 to 1; the paper's is 0.995.
    """

    quantile: float = eqx.field(static=True)

    def __init__(self, denoiser: Denoiser, quantile: float = 0.995) -> None:
        super().__init__(denoiser)
        if not is_number(quantile) or not 0 < quantile <= 1:
            raise InputError(f"quantile of Thresholded is {shown(quantile)}; expected a number above 0, at most 1.")
        self.quantile = float(quantile)

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        inner = self.denoiser.predict(x, t, cond, keys=keys)
        sizes = jnp.abs(inner.x0).reshape(len(x), -1)
        s = expand(jnp.maximum(jnp.quantile(sizes, self.quantile, axis=1), 1), inner.x0)
        return with_x0(inner, self.sde, t, jnp.clip(inner.x0, -s, s) / s)


__all__ = ["Clipped", "Thresholded"]
