"""Between the data's own values and the scale on which the model works."""

from __future__ import annotations

import math
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, as_float, dimensions
from score_sde.core.errors import InputError


class UniformDequantization(eqx.Module):
    """Values + u with u uniform on [-width/2, width/2): quantised data become continuous, each within its bin.

    Rounding to the nearest bin recovers a value, and the mean does not move.

    Attributes:
        width: the distance between neighbouring values: 1 for whole numbers, 1/255 for pixels divided by 255.
    """

    width: float = eqx.field(default=1.0, converter=as_float)

    def __check_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise InputError(f"UniformDequantization got width={self.width}; expected a positive number.")

    def __call__(self, values: ArrayLike, keys: Array) -> Array:
        """values + u, shape (batch, *shape); keys of shape (batch,), one per example."""
        floats = jnp.asarray(values, float)
        return floats + self.width * keys_.draw(
            jax.random.uniform, keys, floats.shape[1:], dtype=floats.dtype, minval=-0.5, maxval=0.5
        )

    def log_density(self, values: ArrayLike) -> Array:
        """log q(u) in nats, -dimensions log(width): (batch, *shape) -> (batch,)."""
        values = jnp.asarray(values)
        return jnp.full(values.shape[:1], -dimensions(values) * math.log(self.width))

    def check(self, values: np.ndarray) -> None:
        """Raise InputError for values that are not multiples of the width."""
        bins = values / self.width
        off = values[np.abs(bins - np.round(bins)) > 1e-2]
        if off.size:
            raise InputError(
                f"values contain {off.flat[0]:g}, no multiple of the bins' width {self.width:g}; expected quantised "
                "values (for continuous data use dequantization=None)."
            )


class Transform(Protocol):
    """Between the data's own values and the model's scale; one object serves training, sampling and likelihood.

    Attributes:
        maximum: the largest value, where values are whole numbers from 0 to it; None for real numbers.
        dequantization: how values become continuous; None for data that are.
    """

    @property
    def maximum(self) -> int | None: ...

    @property
    def dequantization(self) -> UniformDequantization | None: ...

    def dequantize(self, values: ArrayLike, keys: Array | None = None) -> Array: ...

    def forward(self, values: ArrayLike) -> Array: ...

    def inverse(self, x: ArrayLike) -> Array: ...

    def quantize(self, x: ArrayLike) -> Array: ...

    def log_det(self, values: ArrayLike) -> Array: ...


class QuantizedTransform(eqx.Module):
    """Whole numbers 0 .. maximum to [-1, 1], or to [0, 1], and back.

    Attributes:
        maximum: the largest value, such as 255, or 16 for the digits.
        centered: whether the model's scale is [-1, 1]; else it is [0, 1], that of the VE models of Song et al. 2021.
    """

    maximum: int = eqx.field(static=True)
    centered: bool = eqx.field(default=True, static=True)

    dequantization = UniformDequantization()

    def __check_init__(self) -> None:
        if self.maximum < 1:
            raise InputError(f"QuantizedTransform got maximum={self.maximum}; expected a whole number, at least 1.")

    @property
    def _width(self) -> int:
        """Of the model's scale."""
        return 2 if self.centered else 1

    @property
    def low(self) -> float:
        """The lowest value that can be, dequantised ones included."""
        return -0.5

    @property
    def high(self) -> float:
        """The highest value that can be, dequantised ones included."""
        return self.maximum + 0.5

    def dequantize(self, values: ArrayLike, keys: Array | None = None) -> Array:
        """values + u with u uniform on [-1/2, 1/2), so that the value is recovered by rounding.

        Args:
            values: whole numbers, shape (batch, *shape).
            keys: one key per example, shape (batch,); None adds nothing.
        """
        return jnp.asarray(values, float) if keys is None else UniformDequantization()(values, keys)

    def forward(self, values: ArrayLike) -> Array:
        """2 values / maximum - 1, or values / maximum, shape (batch, *shape); dequantised values too."""
        return self._width * jnp.asarray(values, float) / self.maximum - (1 if self.centered else 0)

    def inverse(self, x: ArrayLike) -> Array:
        """(x + 1) maximum / 2, or x maximum, the inverse of `forward`; not rounded."""
        return (jnp.asarray(x) + (1 if self.centered else 0)) * self.maximum / self._width

    def quantize(self, x: ArrayLike) -> Array:
        """The nearest whole number in 0 .. maximum to `inverse(x)`, as integers."""
        dtype = jnp.uint8 if self.maximum < 256 else jnp.int32
        return jnp.clip(jnp.round(self.inverse(x)), 0, self.maximum).astype(dtype)

    def log_det(self, values: ArrayLike) -> Array:
        """log |det d forward / d values| in nats, -dimensions log(maximum / width): (batch, *shape) -> (batch,)."""
        values = jnp.asarray(values)
        return jnp.full(values.shape[:1], -dimensions(values) * math.log(self.maximum / self._width))


class ContinuousTransform(eqx.Module):
    """Real numbers to (values - mean) / std and back, for data that are not quantised.

    Attributes:
        mean, std: numbers, or arrays that fit an example.
    """

    mean: Any = eqx.field(default=0.0, converter=as_float)
    std: Any = eqx.field(default=1.0, converter=as_float)

    dequantization = None
    maximum = None

    def __check_init__(self) -> None:
        if not (np.all(np.asarray(self.std) > 0) and np.isfinite(self.std).all() and np.isfinite(self.mean).all()):
            raise InputError(
                f"ContinuousTransform got mean={self.mean}, std={self.std}; expected std > 0, both finite."
            )

    def dequantize(self, values: ArrayLike, keys: Array | None = None) -> Array:
        """The values as they are: there is nothing to dequantise."""
        return jnp.asarray(values, float)

    def forward(self, values: ArrayLike) -> Array:
        """(values - mean) / std, shape (batch, *shape)."""
        return (jnp.asarray(values, float) - self.mean) / self.std

    def inverse(self, x: ArrayLike) -> Array:
        """std x + mean, the inverse of `forward`."""
        return jnp.asarray(x) * self.std + self.mean

    def quantize(self, x: ArrayLike) -> Array:
        """`inverse(x)`: there is nothing to round."""
        return self.inverse(x)

    def log_det(self, values: ArrayLike) -> Array:
        """log |det d forward / d values| in nats, the sum of -log(std): (batch, *shape) -> (batch,)."""
        values = jnp.asarray(values)
        each = jnp.broadcast_to(-jnp.log(jnp.asarray(self.std)), values.shape[1:])
        return jnp.full(values.shape[:1], jnp.sum(each))
