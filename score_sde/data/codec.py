"""This module defines codecs, which convert between the data's values and the model's scale."""

from __future__ import annotations

import abc
import functools
import math
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, as_array, as_float, is_concrete
from score_sde.core.checks import as_shape, check_types, is_whole, shown
from score_sde.core.errors import InputError

# Terms of the likelihood by name, in nats per example; None if a term has no bound.
Terms = dict[str, Array | None]
_MOST_LEVELS = 2**16 - 1
_as_data_shape = functools.partial(as_shape, "data_shape of a codec")


class Codec(eqx.Module):
    """A codec converts between the data's values and the model's scale, for training, sampling and likelihood.

    To add a codec, define a subclass with `encode`, `decode` and `quantize`, and override the attributes that differ.

    Attributes:
        data_shape: shape of one example's values.
        model_shape: shape of one example on the model's scale.
        is_bound: whether log p(x) + the sum of the terms is a lower bound of the log-probability of the values (as with
            dequantisation noise); otherwise the sum is the log-density itself.
        maximum: largest value if values are whole numbers from 0 to `maximum`; None for real numbers.
        model_range: lowest and highest number on the model's scale; None if there is no range.
        clip_range: range of all x of the data, including the noise of `encode`; None if there is no range.
    """

    data_shape: tuple[int, ...] = eqx.field(static=True, converter=_as_data_shape)

    is_bound = False
    # Only some codecs have the field `maximum`. An annotation here would add the field to all codecs.
    if TYPE_CHECKING:

        @property
        def maximum(self) -> Any: ...

    else:
        maximum = None

    @property
    def model_shape(self) -> tuple[int, ...]:
        return self.data_shape

    @property
    def model_range(self) -> tuple[float, float] | None:
        return None

    @property
    def clip_range(self) -> tuple[float, float] | None:
        return self.model_range

    @abc.abstractmethod
    def encode(self, values: ArrayLike, keys: Array | None) -> tuple[Array, Terms]:
        """Return x on the model's scale, and the terms that the likelihood of values has in addition to log p(x).

        Args:
            values: values on the data's scale, (batch, *data_shape).
            keys: one random key per example, (batch,), for the noise; with None there is no noise, and x is the middle
                of the range of the noise.

        Returns:
            x of shape (batch, *model_shape), and the terms. log p(values) is log p(x) + the sum of the terms or, with
            noise, at least the mean of log p(x) + the sum of the terms over the noise.
        """

    @abc.abstractmethod
    def decode(self, x: ArrayLike) -> Array:
        """Return values on the data's scale, not rounded, (batch, *data_shape); the values are differentiable in x."""

    @abc.abstractmethod
    def quantize(self, values: ArrayLike) -> Array:
        """Return decoded values in the form of the data: rounded and clipped to their range if data are quantised."""

    def bins(self, values: ArrayLike) -> tuple[Array, Array] | None:
        """Return the ends (low, high) on the model's scale of the bin of each value; None if data are not quantised.

        The first bin has no lower end (-infinity), the last bin no upper end. Both arrays are (batch, *model_shape).
        """
        return None

    def check(self, values: np.ndarray) -> None:
        """Raise InputError if values, (batch, *data_shape) on the host, cannot be values of the data."""


class QuantizedCodec(Codec):
    """`QuantizedCodec` maps whole numbers 0 .. maximum to [-1, 1] or to [0, 1], and back.

    x = width (values + u) / maximum - c, with u uniform on [-1/2, 1/2) per number (uniform dequantisation, Theis et al.
    2016, arXiv:1511.01844). width is 2 and c is 1 for [-1, 1]; width is 1 and c is 0 for [0, 1]. Rounding recovers the
    values.

    The terms are scale = D log(width / maximum) and dequantization = -log q(u) = 0 nats, where D is the number of
    dimensions.

    Attributes:
        data_shape: shape of one example, and of x.
        maximum: largest value, such as 255; at most 65,535.
        centered: whether the model's scale is [-1, 1]; otherwise the scale is [0, 1], as for the VE models of Song et
            al. 2021.
    """

    maximum: int = eqx.field(static=True)
    centered: bool = eqx.field(default=True, static=True)

    is_bound = True

    def __check_init__(self) -> None:
        if not is_whole(self.maximum, 1) or self.maximum > _MOST_LEVELS:
            raise InputError(
                f"QuantizedCodec got maximum={self.maximum!r}; expected a whole number from 1 to {_MOST_LEVELS} "
                "(float32 cannot resolve noise between more levels: use ContinuousCodec)."
            )
        check_types(self)

    @property
    def model_range(self) -> tuple[float, float]:
        return (-1.0, 1.0) if self.centered else (0.0, 1.0)

    @property
    def clip_range(self) -> tuple[float, float]:
        half_a_level = self._width / self.maximum / 2
        return self.model_range[0] - half_a_level, self.model_range[1] + half_a_level

    @property
    def _width(self) -> float:
        low, high = self.model_range
        return high - low

    def encode(self, values: ArrayLike, keys: Array | None) -> tuple[Array, Terms]:
        floats = jnp.asarray(values, float)
        x = self._scaled(floats)
        if keys is not None:
            u = keys_.draw(jax.random.uniform, keys, floats.shape[1:], dtype=floats.dtype, minval=-0.5, maxval=0.5)
            # In float32 a value with u close to 1/2 may decode to the neighbouring value (0.4 % of 16-bit values). In
            # this case u moves inwards by more than the rounding error.
            over = jnp.round(self.decode(self._scaled(floats + u))) - floats
            x = self._scaled(floats + u - over * self.maximum * 2.0**-21)
        scale = math.prod(self.data_shape) * math.log(self._width / self.maximum)
        terms: Terms = {
            "scale": jnp.full(floats.shape[:1], scale),
            "dequantization": None if keys is None else jnp.zeros(floats.shape[:1]),
        }
        return x, terms

    def _scaled(self, floats: Array) -> Array:
        return self._width * floats / self.maximum + self.model_range[0]

    def decode(self, x: ArrayLike) -> Array:
        return (jnp.asarray(x) - self.model_range[0]) * self.maximum / self._width

    def quantize(self, values: ArrayLike) -> Array:
        """Return the nearest whole numbers in 0 .. maximum, as integers."""
        dtype = jnp.uint8 if self.maximum < 256 else jnp.int32
        return jnp.clip(jnp.round(jnp.asarray(values)), 0, self.maximum).astype(dtype)

    def bins(self, values: ArrayLike) -> tuple[Array, Array]:
        floats = jnp.asarray(values, float)
        low, high = self._scaled(floats - 0.5), self._scaled(floats + 0.5)
        return jnp.where(floats < 0.5, -jnp.inf, low), jnp.where(floats > self.maximum - 0.5, jnp.inf, high)

    def check(self, values: np.ndarray) -> None:
        if values.dtype == np.uint8 and self.maximum >= 255:
            return
        # For whole numbers, a check of the extremes is sufficient, and is cheaper than a mask.
        if values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= self.maximum:
            return
        with np.errstate(invalid="ignore"):
            wrong = values[~((values >= 0) & (values <= self.maximum) & (np.abs(values - np.round(values)) < 1e-2))]
        if wrong.size:
            raise InputError(
                f"values contain {wrong.flat[0]:g}; expected whole numbers from 0 to {self.maximum}, without "
                "any scaling of the data (for real numbers use ContinuousCodec)."
            )


class ContinuousCodec(Codec):
    """`ContinuousCodec` maps real numbers to (values - mean) / std and back, for data that are not quantised.

    The term is scale = -sum of log(std) in nats.

    Attributes:
        data_shape: shape of one example, and of x.
        mean, std: numbers, or arrays that broadcast to the shape of one example.
    """

    mean: Any = eqx.field(default=0.0, converter=as_float)
    std: Any = eqx.field(default=1.0, converter=as_float)

    def __check_init__(self) -> None:
        for name, value in (("mean", self.mean), ("std", self.std)):
            if is_concrete(value) and as_array(value, f"{name} of ContinuousCodec").dtype.kind not in "iuf":
                raise InputError(f"{name} of ContinuousCodec is {shown(value)}; expected a number, or an array.")
        if is_concrete(self.mean, self.std) and not (
            np.all(np.asarray(self.std) > 0) and np.isfinite(self.std).all() and np.isfinite(self.mean).all()
        ):
            raise InputError(f"ContinuousCodec got mean={self.mean}, std={self.std}; expected std > 0, both finite.")

    def encode(self, values: ArrayLike, keys: Array | None) -> tuple[Array, Terms]:
        values = jnp.asarray(values, float)
        log_std = jnp.broadcast_to(jnp.log(jnp.asarray(self.std)), self.data_shape)
        return (values - self.mean) / self.std, {"scale": jnp.full(values.shape[:1], -jnp.sum(log_std))}

    def decode(self, x: ArrayLike) -> Array:
        return jnp.asarray(x) * self.std + self.mean

    def quantize(self, values: ArrayLike) -> Array:
        """Return the values unchanged, because real numbers are not rounded."""
        return jnp.asarray(values)

    def check(self, values: np.ndarray) -> None:
        if not np.issubdtype(values.dtype, np.floating):
            raise InputError(
                f"values have dtype {values.dtype}; expected real numbers: the density of whole numbers has no bound "
                "(use QuantizedCodec, which dequantises them)."
            )
        if not np.isfinite(values).all():
            raise InputError("values contain NaN or infinity; expected finite data.")


def shape_hint(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """Return a hint for a message about images of the wrong shape; '' if no hint applies."""
    if len(wanted) == 3 and tuple(shape) == (wanted[2], wanted[0], wanted[1]):
        return ": channels come last, values.transpose(0, 2, 3, 1)"
    if len(wanted) == 3 and wanted[2] == 1 and tuple(shape) == tuple(wanted[:2]):
        return ": the single channel needs its own axis, values[..., None]"
    return ""
