"""This module defines averages of the parameters over training.

config.averages names the averages: dict(ema=dict(name='WarmedUp', decay=0.999)). Evaluation and sampling use the first
average in alphabetical order; `load` can load any average.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array
from score_sde.core.errors import InputError


class Average(abc.ABC):
    """An `Average` is an exponential moving average of the parameters whose decay may depend on the step.

    To add an average, subclass `Average` and define `decay_at`. Declare settings as in a frozen dataclass.
    """

    def start(self, params: Any) -> Any:
        """Return the average before the first update: the parameters in at least float32, so small changes add up."""
        return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), params)

    @abc.abstractmethod
    def decay_at(self, step: ArrayLike) -> Array:
        """Return the weight of the old average in update number `step`, counted from 0; the shape is ()."""

    def update(self, average: Any, params: Any, step: ArrayLike) -> Any:
        """Return the average after an update: decay average + (1 - decay) params, in the dtypes of the average.

        The form average + (1 - decay) (params - average) keeps the bits of a parameter that does not change.
        """
        decay = self.decay_at(step)
        return jax.tree.map(lambda old, new: (old + (1 - decay) * (new - old)).astype(old.dtype), average, params)


@dataclasses.dataclass(frozen=True)
class Constant(Average):
    """`Constant` uses the same decay at every step; the first parameters fade over 1 / (1 - decay) steps.

    Attributes:
        decay: the decay, in [0, 1); 0 keeps the newest parameters only.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not (isinstance(self.decay, int | float) and 0 <= self.decay < 1):
            raise InputError(f"{type(self).__name__} got decay={self.decay!r}; expected a decay in [0, 1).")

    def decay_at(self, step: ArrayLike) -> Array:
        return jnp.asarray(self.decay, jnp.float32)


@dataclasses.dataclass(frozen=True)
class WarmedUp(Constant):
    """`WarmedUp` uses the decay min(decay, (1 + n) / (10 + n)) at step n; the random first parameters fade quickly."""

    def decay_at(self, step: ArrayLike) -> Array:
        return jnp.minimum(self.decay, (1 + step) / (10 + step))
