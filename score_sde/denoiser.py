"""A denoiser knows how to undo an SDE's noise: a network, a closed form, or another one guided."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand, to_time
from score_sde.parametrization import Parametrization, Prediction
from score_sde.sde import SDE

Cond = Any  # None, or a pytree of arrays with leading axis batch, such as {'label': int32}
Apply = Callable[..., Array]


class Denoiser(eqx.Module):
    """The posterior means of x_0 and of the noise given x_t, and the views of them.

    To add one, subclass and define `predict`; a closed form that has only E[x_0 | x_t] or the score
    returns Prediction.from_x0 or Prediction.from_score.

    Attributes:
        sde: the SDE whose noise it undoes.
    """

    sde: SDE

    @abc.abstractmethod
    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        """Both halves of x_t = alpha x_0 + sigma noise.

        Args:
            x: x_t, shape (batch, *shape).
            t: time, shape () or (batch,).
            cond: None, or a pytree with leading axis batch, such as {'label': int32}; a label equal
                to the number of classes means none.
            keys: None in evaluation; in training one key per example, shape (batch,), for dropout.

        Returns:
            Prediction(x0, noise), each of the shape of x.
        """

    def denoise(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """E[x_0 | x_t], shape of x."""
        return self.predict(x, t, cond).x0

    def noise(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """E[noise | x_t], shape of x."""
        return self.predict(x, t, cond).noise

    def score(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """grad_x log p_t(x) = -noise / sigma(t), shape of x."""
        return -self.predict(x, t, cond).noise / expand(self.sde.sigma(t), x)

    def velocity(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """dx/dt of the probability flow, alpha'(t) x_0 + sigma'(t) noise, shape of x.

        Equal to f(t) x - g(t)^2 score / 2 (Song et al. 2021, Eq. 13), and finite even where alpha = 0.
        """
        x0, noise, _ = self.predict(x, t, cond)
        alpha_rate, sigma_rate = self.sde.velocity_rates(t)
        return expand(alpha_rate, x) * x0 + expand(sigma_rate, x) * noise


class NetworkDenoiser(Denoiser):
    """A denoiser made of a network.

    Attributes:
        sde: the SDE.
        parametrization: what the network's output means.
        apply: the network, (params, x, time_label, cond=None, *, keys=None) -> (batch, *shape),
            with time_label of shape (batch,).
        params: its parameters, a pytree of arrays.
    """

    parametrization: Parametrization
    apply: Apply = eqx.field(static=True)
    params: Any

    def __check_init__(self) -> None:
        self.parametrization.check(self.sde)

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        t = jnp.broadcast_to(to_time(t), x.shape[:1])
        scaled = expand(self.parametrization.input_scale(self.sde, t), x) * x
        output = self.apply(self.params, scaled, self.parametrization.label(self.sde, t), cond, keys=keys)
        # A network may compute in bfloat16; the division by alpha may not.
        return self.parametrization.predict(self.sde, x, t, output.astype(x.dtype))
