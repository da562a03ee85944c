"""This module declares the conditions of an inverse problem: the measurement `y` and the mask of a `Mask`."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import is_concrete
from score_sde.core.conditions import Condition
from score_sde.core.errors import InputError

MEASURED, MASK = "y", "mask"


@dataclasses.dataclass(frozen=True)
class Measurement(Condition):
    """`Measurement` declares y, one measurement for each example, in the units of the operator's output.

    Attributes:
        shape: the shape of the measurement of one example.
        any_shape: whether any shape is valid, because the shape of an example is not known.
    """

    dtype: str = dataclasses.field(default="float64", kw_only=True)
    required: bool = dataclasses.field(default=True, kw_only=True)
    any_shape: bool = dataclasses.field(default=False, kw_only=True)

    excludes_defaults: ClassVar[bool] = True

    def parse(self, value: Any) -> Any:
        array = np.asarray(value)
        return super().parse(self.fitted("y", array) if array.ndim else array)

    def like_of(self, value: Any, batch: int) -> Any:
        if not self.any_shape:
            return self.like(batch)
        return jax.ShapeDtypeStruct((batch, *np.shape(value)[1:]), np.dtype(self.dtype))

    def fitted(self, name: str, value: Any) -> Any:
        if not hasattr(value, "dtype"):
            value = np.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise InputError(
                f"cond[{name!r}] has dtype {value.dtype}; expected floating point numbers in the units of the "
                "operator's output: measure codec.encode(values, None)[0], or use Through(operator, codec) and floats."
            )
        return value


@dataclasses.dataclass(frozen=True)
class Seen(Condition):
    """`Seen` declares a mask: True for the numbers of an example that are known.

    A mask of an image may have one channel, which then stands for all channels. The numbers 0 and 1 are valid too.
    """

    dtype: str = dataclasses.field(default="bool", kw_only=True)
    required: bool = dataclasses.field(default=True, kw_only=True)
    any_shape: bool = dataclasses.field(default=False, kw_only=True)

    def like_of(self, value: Any, batch: int) -> Any:
        shape = np.shape(value)[1:] if self.any_shape else self.shape
        return jax.ShapeDtypeStruct((batch, *shape), np.dtype(bool))

    def parse(self, value: Any) -> Any:
        return super().parse(self.fitted("mask", np.asarray(value)[None])[0])

    def fitted(self, name: str, value: Any) -> Any:
        value = value if hasattr(value, "dtype") else np.asarray(value)
        if value.dtype != bool:
            if is_concrete(value) and not np.isin(np.asarray(value), (0, 1)).all():
                raise InputError(f"cond[{name!r}] has other values than 0 and 1; expected True for known numbers.")
            value = value.astype(bool)
        one_channel = value.ndim == 4 == len(self.shape) + 1 and value.shape[1:] == (*self.shape[:-1], 1)
        if one_channel and not self.any_shape:
            xp: Any = jnp if isinstance(value, jax.Array) else np
            value = xp.broadcast_to(value, (len(value), *self.shape))
        return value

    def check(self, name: str, value: Any) -> None:
        empty = np.flatnonzero(~value.reshape(len(value), -1).any(axis=1))
        if empty.size:
            raise InputError(
                f"cond[{name!r}] of example {empty[0]} is empty; expected at least one known number (True): sample "
                "without the mask if nothing is known."
            )
