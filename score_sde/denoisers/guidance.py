"""This module defines guides, which are denoisers that change the x_0 and the noise predicted by another denoiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, as_float, expand
from score_sde.core.checks import is_number, require_number, shown
from score_sde.core.conditions import Cond, without
from score_sde.core.errors import InputError
from score_sde.denoisers.base import Denoiser, Guide
from score_sde.denoisers.prediction import Prediction


class ClassifierFree(Guide):
    """`ClassifierFree` applies classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598, Eq. 6).

    Each prediction (x_0 and noise) is (1 - weight) unconditional + weight conditional. Weight 0 ignores the condition,
    weight 1 gives the conditional denoiser, and a weight above 1 exaggerates the condition. (The paper's w is
    weight - 1.) The variance is that of the conditional prediction. The denoiser must also predict without the
    condition: train the denoiser with conditions omitted at random (data.drop). One prediction costs two predictions
    of the inner denoiser.

    Args:
        denoiser: a denoiser that reads a condition.
        weight: guidance weight, shape ().
        drop: names that are absent in the unconditional prediction; None for all optional conditions of the denoiser.
    """

    weight: Any
    drop: tuple[str, ...] | None = eqx.field(static=True)

    def __init__(self, denoiser: Denoiser, weight: ArrayLike, *, drop: Sequence[str] | None = None) -> None:
        super().__init__(denoiser)
        if not is_number(weight):
            raise InputError(f"weight of ClassifierFree is {shown(weight)}; expected one number for all examples.")
        if not (drop is None or isinstance(drop, list | tuple)):
            raise InputError(f"drop of ClassifierFree is {shown(drop)}; expected names of conditions, or None.")
        self.weight, self.drop = as_float(weight), None if drop is None else tuple(drop)
        optional = denoiser.reads.optional
        wrong = [name for name in self.drop or () if name not in optional]
        if wrong or not optional:
            can = ", ".join(optional) or "none"
            raise InputError(
                f"ClassifierFree got drop={drop!r}; expected optional conditions of the denoiser, which are: {can}. "
                "Train a conditional model (variant 'conditional'), or omit the guidance."
            )

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        names = self.denoiser.reads.optional if self.drop is None else self.drop
        bad = self.denoiser.predict(x, t, without(cond, names), keys=keys)
        good = self.denoiser.predict(x, t, cond, keys=keys)
        x0 = (1 - self.weight) * bad.x0 + self.weight * good.x0
        noise = (1 - self.weight) * bad.noise + self.weight * good.noise
        return Prediction(x0, noise, good.variance)

    def evaluations(self, t: ArrayLike) -> Array:
        return 2 * self.denoiser.evaluations(t)


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

    def __init__(self, denoiser: Denoiser, low: float, high: float) -> None:
        super().__init__(denoiser)
        require_number("low of Clipped", low)
        require_number("high of Clipped", high)
        self.low, self.high = float(low), float(high)
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"Clipped got low={low}, high={high}; expected finite numbers, low below high.")

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        inner = self.denoiser.predict(x, t, cond, keys=keys)
        x0 = jnp.clip(inner.x0, self.low, self.high)
        noise = inner.noise + expand(self.sde.alpha(t) / self.sde.sigma(t), x) * (inner.x0 - x0)
        return Prediction(x0, noise, inner.variance)


__all__ = ["ClassifierFree", "Clipped"]
