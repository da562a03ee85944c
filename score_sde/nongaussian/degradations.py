"""This module defines degradations without noise, in place of noise (Bansal et al. 2022, arXiv:2208.09392)."""

from __future__ import annotations

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.fft import dctn, idctn
from jax.typing import ArrayLike, DTypeLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, to_time
from score_sde.core.checks import is_whole, shown
from score_sde.core.errors import InputError
from score_sde.nongaussian.process import Process


class Degradation(Process):
    """`Degradation` is the base of degradations x_t = D(x_0, t) of pictures (height, width, channels).

    D(x_0, 0) = x_0. A network restores x_0. A walk starts from the degraded pictures in `starts`, which training with
    `Restoration` keeps, with a little noise, without which all pixels of a constant picture stay equal. By convention
    alpha = 1 - t and sigma = t. To add a degradation, write a subclass with `degrade`.

    Attributes:
        starts: pictures at t_max, (number, *shape); None for no starts.
        start_noise: standard deviation of the noise on a start.
    """

    starts: Any = eqx.field(default=None, kw_only=True)
    start_noise: float = eqx.field(default=0.002, kw_only=True)

    def alpha(self, t: ArrayLike) -> Array:
        return 1 - to_time(t)

    def variance(self, t: ArrayLike) -> Array:
        return to_time(t) ** 2

    @abc.abstractmethod
    def degrade(self, x0: Array, t: Array) -> Array:
        """Return D(x_0, t), in the shape of x_0, (batch, height, width, channels), for t of shape (batch, 1, 1, 1)."""

    def perturb(self, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """Return D(x_0, t); the noise is not read."""
        if x0.ndim != 4:
            raise InputError(f"{self} got examples of shape {x0.shape[1:]}; expected (height, width, channels).")
        t = jnp.broadcast_to(to_time(t), x0.shape[:1]).reshape(-1, 1, 1, 1)
        return self.degrade(x0, t.astype(x0.dtype))

    def sample_prior(self, keys: Array, shape: tuple[int, ...]) -> Array:
        """Draw one of the starts, with a little noise, once for each key: (batch, *shape)."""
        if self.starts is None:
            raise InputError(
                f"{type(self).__name__} has no starting pictures: train with the objective Restoration, give "
                "starts=pictures, or give `sample` degraded pictures as x."
            )
        noise = keys_.normal(keys, shape)
        return _some_of(self.starts, keys_.fold(keys, "start"), noise.dtype) + self.start_noise * noise


def _some_of(pictures: ArrayLike, keys: Array, dtype: DTypeLike) -> Array:
    """Draw one of the pictures, (number, *shape), for each key: (batch, *shape)."""
    pictures = jnp.asarray(pictures, dtype)
    return pictures[keys_.draw(jax.random.randint, keys, (), minval=0, maxval=len(pictures))]


class Blurring(Degradation):
    """`Blurring` multiplies the cosine coefficient of frequency (i, j) by exp(-pi^2 (i^2/H^2 + j^2/W^2) std^2 / 2).

    This is Gaussian blur with reflecting edges, or heat (Rissanen et al. 2022, arXiv:2206.13397, Eq. 4), of standard
    deviation std = t std_max pixels.
    """

    std_max: float = 3.0

    def __check_init__(self) -> None:
        if not 0 < self.std_max < math.inf:
            raise InputError(f"std_max of Blurring is {self.std_max}; expected a positive number of pixels.")

    def degrade(self, x0: Array, t: Array) -> Array:
        squares = [(np.arange(side) / side) ** 2 for side in x0.shape[1:3]]
        rate = np.pi**2 / 2 * (squares[0][:, None] + squares[1])[..., None]
        coefficients = dctn(x0, axes=(1, 2), norm="ortho") * jnp.exp(-rate * (t * self.std_max) ** 2)
        return idctn(coefficients, axes=(1, 2), norm="ortho").astype(x0.dtype)


class Pixelating(Degradation):
    """`Pixelating` replaces blocks of 2, 4, ..., 2^halvings pixels by their means, and is linear in t in between."""

    halvings: int = eqx.field(default=2, static=True)

    def __check_init__(self) -> None:
        if not is_whole(self.halvings, 1):
            raise InputError(
                f"halvings of Pixelating is {shown(self.halvings)}; expected a whole number of at least 1."
            )

    def degrade(self, x0: Array, t: Array) -> Array:
        if any(side % 2**self.halvings for side in x0.shape[1:3]):
            raise InputError(f"{self} got pictures of shape {x0.shape[1:]}; expected sides that 2^halvings divides.")
        pixelated = [_in_blocks(x0, 2**k) for k in range(self.halvings + 1)]
        shares = [jnp.clip(1 - jnp.abs(t * self.halvings - k), 0, 1) for k in range(self.halvings + 1)]
        return sum((share * each for share, each in zip(shares, pixelated, strict=True)), jnp.zeros_like(x0))


def _in_blocks(x: Array, size: int) -> Array:
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // size, size, width // size, size, channels)
    return jnp.broadcast_to(blocks.mean(axis=(2, 4), keepdims=True), blocks.shape).reshape(x.shape)


class Masking(Degradation):
    """`Masking` fades a round region around the middle to the value `fill`, which grows with t (inpainting).

    A pixel at distance r from the middle keeps the share 1 - exp(-r^2 / (2 s^2)), with s = t radius.
    """

    radius: float = 4.0
    fill: float = -1.0

    def __check_init__(self) -> None:
        if not 0 < self.radius < math.inf:
            raise InputError(f"radius of Masking is {self.radius}; expected a positive number of pixels.")

    def degrade(self, x0: Array, t: Array) -> Array:
        rows, columns = (np.arange(side) - (side - 1) / 2 for side in x0.shape[1:3])
        squared = (rows[:, None] ** 2 + columns**2)[..., None]
        kept = -jnp.expm1(-squared / jnp.maximum(2 * (t * self.radius) ** 2, 1e-12))
        return jnp.where(t > 0, self.fill + kept * (x0 - self.fill), x0)


class Mixing(Process):
    """`Mixing` mixes a picture with another one: x_t = cos(pi t / 2) x_0 + sin(pi t / 2) e ("animorphosis").

    Attributes:
        pictures: the other pictures, (number, *shape), from which e is drawn; None for pictures of Gaussian noise.
    """

    pictures: Any = None

    def alpha(self, t: ArrayLike) -> Array:
        return jnp.cos(math.pi / 2 * to_time(t))

    def variance(self, t: ArrayLike) -> Array:
        return jnp.sin(math.pi / 2 * to_time(t)) ** 2

    def draw(self, keys: Array, shape: tuple[int, ...], dtype: DTypeLike = float) -> Array:
        return super().draw(keys, shape, dtype) if self.pictures is None else _some_of(self.pictures, keys, dtype)

    def sample_prior(self, keys: Array, shape: tuple[int, ...]) -> Array:
        """Draw other pictures, once for each key: (batch, *shape)."""
        return self.draw(keys, shape)
