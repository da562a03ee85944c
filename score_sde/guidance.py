"""Guidance: a denoiser made from a denoiser, acting on both halves of its prediction."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, as_float
from score_sde.denoiser import Cond, Denoiser
from score_sde.parametrization import Prediction


class ClassifierFree(Denoiser):
    """Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598, Eq. 6).

    Both halves are (1 - weight) unconditional + weight conditional: weight 0 forgets the condition,
    1 is the conditional denoiser, more than 1 exaggerates it. (The paper's w is weight - 1.) The
    denoiser must have learned to do without a condition: train it with labels left out at random
    (`drop_labels`). A step then costs two evaluations.

    Args:
        denoiser: a denoiser that takes a condition, and None for none.
        weight: the guidance weight, shape ().
    """

    denoiser: Denoiser
    weight: ArrayLike

    def __init__(self, denoiser: Denoiser, weight: ArrayLike) -> None:
        self.sde, self.denoiser, self.weight = denoiser.sde, denoiser, as_float(weight)

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        without = self.denoiser.predict(x, t, None, keys=keys)
        if cond is None:
            return without
        given = self.denoiser.predict(x, t, cond, keys=keys)
        return jax.tree.map(lambda u, c: (1 - self.weight) * u + self.weight * c, without, given)


def drop_labels(keys: Array, labels: Array, probability: float, num_classes: int) -> Array:
    """Labels of which each is replaced, with this probability, by num_classes, which means none.

    Args:
        keys: one key per example, shape (batch,).
        labels: int, shape (batch,).
    """
    dropped = keys_.draw(jax.random.bernoulli, keys, (), p=probability)
    return jnp.where(dropped, num_classes, labels)


__all__ = ["ClassifierFree", "drop_labels"]
