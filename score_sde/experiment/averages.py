"""Averages of the parameters over training, named by config.averages: dict(ema=dict(name='WarmedUp', decay=0.999)).

The first in alphabetical order is the one that is evaluated and sampled; `load` takes any.
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
    """An exponential moving average whose decay may depend on the step.

    To add one, subclass and define `decay_at`. Declare settings as a frozen dataclass does.
    """

    def start(self, params: Any) -> Any:
        """The average before the first update: the parameters, in float32 at least, where small changes add up."""
        return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), params)

    @abc.abstractmethod
    def decay_at(self, step: ArrayLike) -> Array:
        """The weight of the old average in update number `step`, from 0; shape ()."""

    def update(self, average: Any, params: Any, step: ArrayLike) -> Any:
        """The average after an update: decay average + (1 - decay) params, in the dtypes of the average."""
        decay = self.decay_at(step)
        return jax.tree.map(lambda old, new: (decay * old + (1 - decay) * new).astype(old.dtype), average, params)


@dataclasses.dataclass(frozen=True)
class Constant(Average):
    """The same decay at every step; the first parameters fade over 1 / (1 - decay) steps.

    Attributes:
        decay: from 0, which keeps the newest parameters, to below 1.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not (isinstance(self.decay, int | float) and 0 <= self.decay < 1):
            raise InputError(f"{type(self).__name__} got decay={self.decay!r}; expected a decay in [0, 1).")

    def decay_at(self, step: ArrayLike) -> Array:
        return jnp.asarray(self.decay, jnp.float32)


@dataclasses.dataclass(frozen=True)
class WarmedUp(Constant):
    """min(decay, (1 + n) / (10 + n)) at step n, so that the random start fades at once."""

    def decay_at(self, step: ArrayLike) -> Array:
        return jnp.minimum(self.decay, (1 + step) / (10 + step))
