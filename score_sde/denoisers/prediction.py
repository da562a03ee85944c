"""What a denoiser says of x_t: the posterior means of both halves, and a variance where it knows one."""

from __future__ import annotations

from typing import Protocol

import equinox as eqx
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand, to_time
from score_sde.sde import SDE


class ReverseVariance(Protocol):
    """A pytree that answers for a step."""

    def of(self, sde: SDE, s: ArrayLike, t: ArrayLike) -> Array:
        """The variance of x_s given x_t, s < t, that fits x: shape () or (batch,), or that of x."""


class Prediction(eqx.Module):
    """The posterior means of both halves of x_t = alpha x_0 + sigma noise, given x_t.

    Attributes:
        x0: E[x_0 | x_t], shape (batch, *shape).
        noise: E[noise | x_t], shape (batch, *shape).
        variance: None, or what knows the variance of a reverse step from t to any s: `of(sde, s, t)`.
    """

    x0: Array
    noise: Array
    variance: ReverseVariance | None = None

    @classmethod
    def from_x0(cls, sde: SDE, x: Array, t: ArrayLike, x0: Array) -> Prediction:
        """From E[x_0 | x_t]: noise = (x_t - alpha x_0) / sigma."""
        t = to_time(t)
        return cls(x0, (x - expand(sde.alpha(t), x) * x0) / expand(sde.sigma(t), x))

    @classmethod
    def from_score(cls, sde: SDE, x: Array, t: ArrayLike, score: Array) -> Prediction:
        """From the score: noise = -sigma score, x_0 = (x_t + sigma^2 score) / alpha (Tweedie)."""
        t = to_time(t)
        x0 = (x + expand(sde.variance(t), x) * score) / expand(sde.alpha(t), x)
        return cls(x0, -expand(sde.sigma(t), x) * score)
