"""This module defines `Denoiser`, which predicts x_0 and noise, and `Guide`, a denoiser made from a denoiser."""

from __future__ import annotations

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import Cond, Conditions, only
from score_sde.core.errors import InputError
from score_sde.denoisers.inputs import checked
from score_sde.denoisers.prediction import Prediction
from score_sde.sde import SDE


class Denoiser(eqx.Module):
    """A denoiser predicts the posterior means of x_0 and of the noise given x_t.

    The methods denoise, noise, score and velocity derive from these predictions. These four methods check the
    arguments that are known on the host; `predict` checks no arguments.

    To add a denoiser, write a subclass and define `predict`. A closed form that has only E[x_0 | x_t] or the score
    returns Prediction.from_x0 or Prediction.from_score. A denoiser declares its conditions in `reads`.

    Attributes:
        sde: SDE whose noise the denoiser removes.
    """

    sde: SDE

    @property
    def reads(self) -> Conditions:
        """Return the conditions that the denoiser reads, by name; other conditions raise InputError."""
        return Conditions()

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Return the shape of one example, or None if the denoiser accepts any shape."""
        return None

    def check_cond(self, cond: Cond) -> None:
        """Raise InputError for values of several conditions that do not fit each other; called on the host."""

    @abc.abstractmethod
    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        """Predict x_0 and noise, where x_t = alpha x_0 + sigma noise.

        Args:
            x: x_t, shape (batch, *shape).
            t: time, shape () or (batch,).
            cond: None, or a dictionary of conditions by name, such as {'label': int32 (batch,)}, as `reads` declares
                them; cond['absent'] marks the examples without a condition.
            keys: None in evaluation; in training one random key per example, shape (batch,), for dropout.

        Returns:
            Prediction(x0, noise), each in the shape of x.
        """

    def evaluations(self, t: ArrayLike) -> Array:
        """Return the number of network evaluations of one `predict` at time t, as int32 in the shape of t."""
        return jnp.ones(jnp.shape(t), jnp.int32)

    def vjps(self, t: ArrayLike) -> Array:
        """Return the largest number of vector-Jacobian products of one `predict` at time t, int32 in the shape of t.

        A vector-Jacobian product of a network takes about as long as two evaluations.
        """
        return jnp.zeros(jnp.shape(t), jnp.int32)

    def smooth(self) -> Denoiser:
        """Return this denoiser on `sde.smooth()`, which has derivatives in time (a curve through a chain's levels)."""
        return eqx.tree_at(lambda denoiser: denoiser.sde, self, self.sde.smooth())

    def denoise(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """Return E[x_0 | x_t], in the shape of x."""
        return checked_prediction(self, *checked(self, x, t, cond)).x0

    def noise(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """Return E[noise | x_t], in the shape of x."""
        return checked_prediction(self, *checked(self, x, t, cond)).noise

    def score(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """Return the score grad_x log p_t(x) = -noise / sigma(t), in the shape of x."""
        x, t, cond = checked(self, x, t, cond)
        return -checked_prediction(self, x, t, cond).noise / expand(self.sde.sigma(t), x)

    def velocity(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """Return dx/dt of the probability flow, alpha'(t) x_0 + sigma'(t) noise, in the shape of x.

        The velocity equals f(t) x - g(t)^2 score / 2 (Song et al. 2021, Eq. 13), and is finite even where alpha = 0.
        """
        x, t, cond = checked(self, x, t, cond)
        predicted = checked_prediction(self, x, t, cond)
        alpha_rate, sigma_rate = self.sde.velocity_rates(t)
        return expand(alpha_rate, x) * predicted.x0 + expand(sigma_rate, x) * predicted.noise


def checked_prediction(
    denoiser: Denoiser, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None
) -> Prediction:
    """Return the prediction of a denoiser, or raise InputError if it is not a `Prediction` in the shape of x."""
    predicted = denoiser.predict(x, t, cond, keys=keys)
    name = type(denoiser).__name__
    if not isinstance(predicted, Prediction):
        raise InputError(f"{name}.predict returns a {type(predicted).__name__}; expected Prediction(x0, noise).")
    shapes = jnp.shape(predicted.x0), jnp.shape(predicted.noise)
    if shapes != (x.shape, x.shape):
        raise InputError(
            f"{name}.predict returns x0 and noise of shapes {shapes[0]} and {shapes[1]}; expected that of x, {x.shape}."
        )
    return predicted


class Guide(Denoiser):
    """A guide is a denoiser that changes the predictions of another denoiser.

    To add a guide, write a subclass, add fields, and define `predict`, which computes every field of the prediction. A
    guide that evaluates the denoiser more than once overrides `evaluations`. A guide that reads a condition of its own
    adds the condition to `reads`, and removes the condition from cond (`score_sde.without`) before the inner call.

    Attributes:
        denoiser: inner denoiser.
        takes_temperature: whether `sample` may scale all noise by a temperature; the noise of a guided model has no
            such scale, because the weight of the guide depends on the size of the noise.
    """

    denoiser: Denoiser

    takes_temperature: ClassVar[bool] = False

    def __init__(self, denoiser: Denoiser) -> None:
        if not isinstance(denoiser, Denoiser):
            what = f"the class {denoiser.__name__}" if isinstance(denoiser, type) else f"a {type(denoiser).__name__}"
            raise InputError(f"{type(self).__name__} got {what}; expected a denoiser, such as model.denoiser.")
        self.sde, self.denoiser = denoiser.sde, denoiser

    @property
    def reads(self) -> Conditions:
        return self.denoiser.reads

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self.denoiser.shape

    def evaluations(self, t: ArrayLike) -> Array:
        return self.denoiser.evaluations(t)

    def check_cond(self, cond: Cond) -> None:
        self.denoiser.check_cond(only(cond, self.denoiser.reads))

    def vjps(self, t: ArrayLike) -> Array:
        return self.denoiser.vjps(t)

    def smooth(self) -> Denoiser:
        inner = self.denoiser.smooth()
        return eqx.tree_at(lambda guide: (guide.sde, guide.denoiser), self, (inner.sde, inner))
