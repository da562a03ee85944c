"""Between the data's own values and the scale on which the model works."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, dimensions
from score_sde.core.errors import InputError


class QuantizedTransform(eqx.Module):
    """Whole numbers 0 .. maximum to [-1, 1] and back; one object serves training, sampling and likelihood.

    Attributes:
        maximum: the largest value, such as 255, or 16 for the digits.
    """

    maximum: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.maximum < 1:
            raise InputError(f"QuantizedTransform got maximum={self.maximum}; expected a whole number, at least 1.")

    def dequantize(self, values: ArrayLike, keys: Array | None = None) -> Array:
        """values + u with u uniform on [-1/2, 1/2), so that the value is recovered by rounding.

        Args:
            values: whole numbers, shape (batch, *shape).
            keys: one key per example, shape (batch,); None adds nothing.
        """
        floats = jnp.asarray(values, float)
        if keys is None:
            return floats
        uniform = keys_.draw(jax.random.uniform, keys, floats.shape[1:], dtype=floats.dtype, minval=-0.5, maxval=0.5)
        return floats + uniform

    def forward(self, values: ArrayLike) -> Array:
        """2 values / maximum - 1, shape (batch, *shape); whole numbers and dequantised values alike."""
        return 2 * jnp.asarray(values, float) / self.maximum - 1

    def inverse(self, x: ArrayLike) -> Array:
        """(x + 1) maximum / 2, the inverse of `forward`; not rounded."""
        return (jnp.asarray(x) + 1) * self.maximum / 2

    def quantize(self, x: ArrayLike) -> Array:
        """The nearest whole number in 0 .. maximum to `inverse(x)`, as integers."""
        dtype = jnp.uint8 if self.maximum < 256 else jnp.int32
        return jnp.clip(jnp.round(self.inverse(x)), 0, self.maximum).astype(dtype)

    def log_det(self, values: ArrayLike) -> Array:
        """log |det d forward / d values| in nats, -dimensions log(maximum / 2): (batch, *shape) -> (batch,)."""
        values = jnp.asarray(values)
        return jnp.full(values.shape[:1], -dimensions(values) * math.log(self.maximum / 2))
