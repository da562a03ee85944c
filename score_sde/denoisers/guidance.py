"""Guidance: denoisers made from denoisers, acting on both halves of their predictions."""

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
    """Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598, Eq. 6).

    Both halves are (1 - weight) unconditional + weight conditional: weight 0 forgets the condition,
    1 is the conditional denoiser, more than 1 exaggerates it. (The paper's w is weight - 1.) The variance is the
    conditional one's. The denoiser must have learned to do without the condition: train it with the condition left out
    at random (data.drop). A prediction costs two of the denoiser's.

    Args:
        denoiser: a denoiser that reads a condition.
        weight: the guidance weight, shape ().
        drop: the names that are absent in the unconditional half; None for all that the denoiser can do without.
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
            can = ", ".join(optional) or "no condition"
            raise InputError(
                f"ClassifierFree got drop={drop!r}, and the denoiser can do without {can}; expected names of those: "
                "train a conditional model (variant 'conditional'), or leave the guidance out."
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
    """x_0 cut to a range, and the noise that goes with it: noise' = noise + (alpha / sigma) (x_0 - x_0').

    E[x_0 | x_t] lies in the range of the data, so that an exact denoiser stays as it is; a young network's leaves it.
    It is applied last, after all other guides. It has no place in a likelihood: the flow would no longer be the
    model's. The variance is that of the denoiser inside.

    Args:
        denoiser: the denoiser.
        low, high: the range of x_0, on the model's scale.
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
