"""Between the data's own values and the scale on which the model works."""

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

# By name, in nats per example; None where that part of the likelihood has no bound.
Terms = dict[str, Array | None]
_MOST_LEVELS = 2**16 - 1
_as_data_shape = functools.partial(as_shape, "data_shape of a codec")


class Codec(eqx.Module):
    """Between the data's own values and the model's scale; one object serves training, sampling and likelihood.

    To add one, subclass, define `encode`, `decode` and `quantize`, and set what differs of the rest.

    Attributes:
        data_shape: the shape of one example's values.
        model_shape: the shape of one example on the model's scale.
        is_bound: whether log p(x) + the terms is a lower bound of the log-probability of values (as with
            dequantisation noise), and not the log-density itself.
        maximum: the largest value where values are whole numbers from 0 to it; None for real numbers.
        model_range: the lowest and the highest number on the model's scale; None where there is no range.
        clip_range: what no x of the data leaves, the noise of `encode` included; None where there is no range.
    """

    data_shape: tuple[int, ...] = eqx.field(static=True, converter=_as_data_shape)

    is_bound = False
    # A field of some codecs, and none of the others: an annotation here would make it one of all.
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
        """The model's x for values, and what the likelihood of values has beside log p(x).

        Args:
            values: on the data's own scale, (batch, *data_shape).
            keys: one key per example, (batch,), for what is drawn; None draws nothing, and x is the middle of what
                could be drawn.

        Returns:
            x of shape (batch, *model_shape), and the terms: log p(values) is log p(x) + their sum, or at least the mean
            of that over what is drawn.
        """

    @abc.abstractmethod
    def decode(self, x: ArrayLike) -> Array:
        """Values on the data's own scale, not rounded, (batch, *data_shape); differentiable in x."""

    @abc.abstractmethod
    def quantize(self, values: ArrayLike) -> Array:
        """Decoded values as data have them: rounded and cut to their range where data are quantised."""

    def check(self, values: np.ndarray) -> None:
        """Raise InputError for values, (batch, *data_shape) on the host, that are not the data's own."""


class QuantizedCodec(Codec):
    """Whole numbers 0 .. maximum to [-1, 1], or to [0, 1], and back.

    x = width (values + u) / maximum - c, with u uniform on [-1/2, 1/2) per number (uniform dequantisation, Theis et al.
    2016, arXiv:1511.01844), width 2 and c 1 for [-1, 1], width 1 and c 0 for [0, 1]. Rounding recovers the values.

    The terms are scale = D log(width / maximum) and dequantization = -log q(u) = 0 nats, D being the number of
    dimensions.

    Attributes:
        data_shape: the shape of one example; also that of x.
        maximum: the largest value, such as 255; at most 65,535.
        centered: whether the model's scale is [-1, 1]; otherwise it is [0, 1], that of the VE models of Song et al.
            2021.
    """

    maximum: int = eqx.field(static=True)
    centered: bool = eqx.field(default=True, static=True)

    is_bound = True

    def __check_init__(self) -> None:
        if not is_whole(self.maximum, 1) or self.maximum > _MOST_LEVELS:
            raise InputError(
                f"QuantizedCodec got maximum={self.maximum!r}; expected a whole number from 1 to {_MOST_LEVELS} "
                "(float32 has no room for the noise between more levels: use ContinuousCodec)."
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
            # In float32 a draw close to 1/2 may come back as the neighbour's (0.4 % of 16-bit values): such draws move
            # inwards by more than the rounding.
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
        """The nearest whole numbers in 0 .. maximum, as integers."""
        dtype = jnp.uint8 if self.maximum < 256 else jnp.int32
        return jnp.clip(jnp.round(jnp.asarray(values)), 0, self.maximum).astype(dtype)

    def check(self, values: np.ndarray) -> None:
        if values.dtype == np.uint8 and self.maximum >= 255:
            return
        # The extremes are enough for whole numbers, and cost less than a mask.
        if values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= self.maximum:
            return
        with np.errstate(invalid="ignore"):
            wrong = values[~((values >= 0) & (values <= self.maximum) & (np.abs(values - np.round(values)) < 1e-2))]
        if wrong.size:
            raise InputError(
                f"values contain {wrong.flat[0]:g}; expected whole numbers from 0 to {self.maximum}, data on their own "
                "scale before any scaling (for real numbers use ContinuousCodec)."
            )


class ContinuousCodec(Codec):
    """Real numbers to (values - mean) / std and back, for data that are not quantised.

    The term is scale = -sum of log(std) in nats.

    Attributes:
        data_shape: the shape of one example; also that of x.
        mean, std: numbers, or arrays that fit an example.
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
        """The values: there is nothing to round."""
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
    """What may have gone wrong with images of another shape than is wanted, for a message."""
    if len(wanted) == 3 and tuple(shape) == (wanted[2], wanted[0], wanted[1]):
        return ": channels come last, values.transpose(0, 2, 3, 1)"
    if len(wanted) == 3 and wanted[2] == 1 and tuple(shape) == tuple(wanted[:2]):
        return ": the one channel has an axis of its own, values[..., None]"
    return ""
