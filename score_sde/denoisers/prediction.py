"""This module defines `Prediction`: the posterior means of x_0 and noise, and an optional variance."""

from __future__ import annotations

from typing import Protocol

import equinox as eqx
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand, to_time
from score_sde.sde import SDE


class ReverseVariance(Protocol):
    """A `ReverseVariance` is a pytree that returns the variance of a reverse step."""

    def of(self, sde: SDE, s: ArrayLike, t: ArrayLike) -> Array:
        """Return the variance of x_s given x_t, where s < t, in shape () or (batch,) or in the shape of x."""

    # A bound also needs `to_data(sde, t)`, the variance of x_0 given x_t in the same shapes.


class Prediction(eqx.Module):
    """`Prediction` holds the posterior means of x_0 and noise given x_t, where x_t = alpha x_0 + sigma noise.

    Attributes:
        x0: E[x_0 | x_t], shape (batch, *shape).
        noise: E[noise | x_t], shape (batch, *shape).
        variance: None, or an object whose `of(sde, s, t)` returns the variance of a reverse step from t to any s.
    """

    x0: Array
    noise: Array
    variance: ReverseVariance | None = None

    @classmethod
    def from_x0(cls, sde: SDE, x: Array, t: ArrayLike, x0: Array) -> Prediction:
        """Make a prediction from E[x_0 | x_t], with noise = (x_t - alpha x_0) / sigma."""
        t = to_time(t)
        return cls(x0, (x - expand(sde.alpha(t), x) * x0) / expand(sde.sigma(t), x))

    @classmethod
    def from_score(cls, sde: SDE, x: Array, t: ArrayLike, score: Array) -> Prediction:
        """Make a prediction from the score: noise = -sigma score, x_0 = (x_t + sigma^2 score) / alpha (Tweedie)."""
        t = to_time(t)
        x0 = (x + expand(sde.variance(t), x) * score) / expand(sde.alpha(t), x)
        return cls(x0, -expand(sde.sigma(t), x) * score)
