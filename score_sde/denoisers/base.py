"""A denoiser predicts what is data and what is noise: a network, a closed form, or another one guided."""

from __future__ import annotations

import abc

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import InputError
from score_sde.denoisers.inputs import checked
from score_sde.denoisers.prediction import Prediction
from score_sde.sde import SDE


class Denoiser(eqx.Module):
    """The posterior means of x_0 and of the noise given x_t, and the views of them.

    The views (denoise, noise, score, velocity) check what they are given where it is known on the host; `predict`
    never does.

    To add one, subclass and define `predict`; a closed form that has only E[x_0 | x_t] or the score
    returns Prediction.from_x0 or Prediction.from_score. One that reads a condition declares it in `reads`.

    Attributes:
        sde: the SDE whose noise it undoes.
    """

    sde: SDE

    @property
    def reads(self) -> Conditions:
        """The conditions that it reads, by name; others are refused."""
        return Conditions()

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of one example; None where any shape will do."""
        return None

    @abc.abstractmethod
    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        """Both halves of x_t = alpha x_0 + sigma noise.

        Args:
            x: x_t, shape (batch, *shape).
            t: time, shape () or (batch,).
            cond: None, or a dictionary by name, such as {'label': int32 (batch,)}, of what `reads` declares;
                cond['absent'] says which examples lack a condition.
            keys: None in evaluation; in training one key per example, shape (batch,), for dropout.

        Returns:
            Prediction(x0, noise), each of the shape of x.
        """

    def evaluations(self, t: ArrayLike) -> Array:
        """The network evaluations that one `predict` costs at time t, int32 in the shape of t."""
        return jnp.ones(jnp.shape(t), jnp.int32)

    def smooth(self) -> Denoiser:
        """This denoiser at every time, for what needs derivatives in time: on the curve through a chain's levels."""
        return eqx.tree_at(lambda denoiser: denoiser.sde, self, self.sde.smooth())

    def denoise(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """E[x_0 | x_t], shape of x."""
        return checked_prediction(self, *checked(self, x, t, cond)).x0

    def noise(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """E[noise | x_t], shape of x."""
        return checked_prediction(self, *checked(self, x, t, cond)).noise

    def score(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """grad_x log p_t(x) = -noise / sigma(t), shape of x."""
        x, t, cond = checked(self, x, t, cond)
        return -checked_prediction(self, x, t, cond).noise / expand(self.sde.sigma(t), x)

    def velocity(self, x: Array, t: ArrayLike, cond: Cond = None) -> Array:
        """dx/dt of the probability flow, alpha'(t) x_0 + sigma'(t) noise, shape of x.

        Equal to f(t) x - g(t)^2 score / 2 (Song et al. 2021, Eq. 13), and finite even where alpha = 0.
        """
        x, t, cond = checked(self, x, t, cond)
        predicted = checked_prediction(self, x, t, cond)
        alpha_rate, sigma_rate = self.sde.velocity_rates(t)
        return expand(alpha_rate, x) * predicted.x0 + expand(sigma_rate, x) * predicted.noise


def checked_prediction(
    denoiser: Denoiser, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None
) -> Prediction:
    """What a denoiser predicts; raises InputError where that is no Prediction of the shape of x."""
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
    """A denoiser made from a denoiser.

    To add one, subclass, add fields, and define `predict`, which says what becomes of each field of the prediction. One
    that evaluates the denoiser more than once overrides `evaluations`; one that reads a condition of its own adds it to
    `reads`, and takes it out of cond (`score_sde.without`) before it calls the denoiser.

    Attributes:
        denoiser: the denoiser inside.
    """

    denoiser: Denoiser

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

    def smooth(self) -> Denoiser:
        inner = self.denoiser.smooth()
        return eqx.tree_at(lambda guide: (guide.sde, guide.denoiser), self, (inner.sde, inner))
