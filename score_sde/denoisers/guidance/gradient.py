"""This module defines guidance by the gradient of a log-probability, such as that of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand, to_time
from score_sde.core.checks import shown
from score_sde.core.conditions import Cond, Condition, Conditions, only
from score_sde.core.errors import InputError
from score_sde.denoisers.base import Denoiser, Guide
from score_sde.denoisers.guidance.mixing import Interval, as_interval, as_weight, in_interval, where_active
from score_sde.denoisers.prediction import Prediction
from score_sde.sde import SDE

LogProbability = Callable[[Array, Array, Cond], Array]


class ClassifierGuided(Guide):
    """`ClassifierGuided` adds the gradient of a log-probability (Dhariwal & Nichol 2021, arXiv:2105.05233, Alg. 2).

    With l = weight grad_x log p(y | x_t), the guided score is score + l (Song et al. 2021, Eq. 14):

        x_0' = x_0 + (sigma^2 / alpha) l,  noise' = noise - sigma l.

    With the exact log p(y | x_t) and weight 1, the guided denoiser is the denoiser of p(x_0 | y). Where alpha is 0, x_t
    is pure noise and nothing is added. The gradient is that of the sum over the batch, which is the gradient of each
    example, unless the function mixes examples. The variance is that of the inner denoiser. One prediction costs one
    prediction of the denoiser; the evaluations of the log-probability are not counted.

    Args:
        denoiser: inner denoiser.
        log_prob: function (x, t, cond) -> (batch,) with x of shape (batch, *shape) and t of shape (batch,): the
            log-probability in nats of what is asked for, given x_t. It receives all conditions. A function with
            parameters is an equinox module, so that the parameters are arguments of compiled programs.
        weight: guidance weight, one number.
        reads: declarations of the conditions that only log_prob reads; None for its attribute `conditions`, if any.
        interval: (lo, hi), the noise levels lo < sigma / alpha <= hi where the guide acts; None for all levels.
    """

    log_prob: Any
    weight: Any
    own: Conditions = eqx.field(static=True)
    interval: Interval = eqx.field(static=True)

    def __init__(
        self,
        denoiser: Denoiser,
        log_prob: LogProbability,
        weight: ArrayLike = 1.0,
        *,
        reads: Mapping[str, Condition] | None = None,
        interval: Sequence[float] | None = None,
    ) -> None:
        super().__init__(denoiser)
        if not callable(log_prob):
            raise InputError(f"log_prob of ClassifierGuided is {shown(log_prob)}; expected a function (x, t, cond).")
        self.log_prob, self.weight = log_prob, as_weight("ClassifierGuided", weight)
        self.own = Conditions(getattr(log_prob, "conditions", None) if reads is None else reads)
        self.interval = as_interval("ClassifierGuided", interval)

    @property
    def reads(self) -> Conditions:
        return Conditions(dict(self.own) | dict(self.denoiser.reads))

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        inner = self.denoiser.predict(x, t, only(cond, self.denoiser.reads), keys=keys)

        def guided() -> Prediction:
            gradient = jnp.asarray(self.weight, x.dtype) * self._gradient(x, t, cond)
            return along_gradient(inner, self.sde, t, gradient)

        return where_active(in_interval(self.sde, t, self.interval), guided, lambda: inner)

    def _gradient(self, x: Array, t: ArrayLike, cond: Cond) -> Array:
        """Return grad_x log p, (batch, *shape)."""
        times = jnp.broadcast_to(to_time(t), x.shape[:1])
        value, pull_back = jax.vjp(lambda x: self.log_prob(x, times, cond), x)
        shape = getattr(value, "shape", None)
        if shape != x.shape[:1]:
            raise InputError(
                f"log_prob of ClassifierGuided returned {shown(value) if shape is None else f'shape {shape}'}; "
                f"expected (batch,) = {x.shape[:1]}, one log-probability for each example."
            )
        (gradient,) = pull_back(jnp.ones_like(value))
        return gradient


def along_gradient(prediction: Prediction, sde: SDE, t: ArrayLike, gradient: Array) -> Prediction:
    """Return x_0' = x_0 + (sigma^2 / alpha) l and noise' = noise - sigma l; unchanged where alpha is 0.

    The gradient l = grad_x log p(y | x_t) has the shape of x. The score of the result is score + l.
    """
    t = to_time(t)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    signal = alpha > 0
    on_x0 = jnp.where(signal, sigma**2 / jnp.where(signal, alpha, 1), 0)
    x0 = prediction.x0 + expand(on_x0, gradient) * gradient
    return Prediction(
        x0, prediction.noise - expand(jnp.where(signal, sigma, 0), gradient) * gradient, prediction.variance
    )


__all__ = ["ClassifierGuided", "along_gradient"]
