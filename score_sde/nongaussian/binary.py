"""This module defines noise that sets pixels to black or white, and its exact denoiser (Bloem, Deep Learning, VU)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf, gammaln
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, as_array, expand, is_concrete, to_time
from score_sde.core.checks import is_whole, shown
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser, Parametrization, Prediction
from score_sde.nongaussian.process import Process
from score_sde.sde import SDE


class PixelNoise(Process):
    """`PixelNoise` sets a share t of the pixels to black (-1) or white (1) at random; data lie in [-1, 1].

    With a = 1 - t, the mean of x_t given x_0 is a x_0. For data of -1 and 1 the variance is 1 - a^2 in each pixel, so
    that alpha = a and variance = 1 - a^2, as on a variance-preserving SDE. A pixel differs from x_0 with probability
    t / 2, which is D3PM's uniform noise with two values (Austin et al. 2021, arXiv:2107.03006). Data may be grey.

    Attributes:
        pixels: the number d of pixels of an example: level i sets exactly i pixels, without replacement, and t = i / d.
            None sets each pixel independently with probability t.
    """

    pixels: int | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        if self.pixels is not None and not is_whole(self.pixels, 1):
            raise InputError(f"pixels of PixelNoise is {shown(self.pixels)}; expected a positive number, or None.")

    @property
    def levels(self) -> int | None:
        """Return the number of levels: d, or None for independent pixels."""
        return self.pixels

    def nearest(self, times: np.ndarray) -> np.ndarray:
        if self.pixels is None:
            return times
        levels = np.round(times * self.pixels)
        if len(np.unique(levels)) < len(levels):
            raise InputError(f"{len(times) - 1} steps were asked of {self}; expected at most {self.pixels} steps.")
        return levels / self.pixels

    def alpha(self, t: ArrayLike) -> Array:
        return 1 - to_time(t)

    def variance(self, t: ArrayLike) -> Array:
        t = to_time(t)
        return t * (2 - t)

    def perturb(self, x0: Array, noise: Array, t: ArrayLike) -> Array:
        """Return x_t: the size of a standard normal number decides whether its pixel is set, and the sign the colour.

        With the same noise, what is set at s is set at t > s, to the same colours.
        """
        size, t = jnp.abs(noise), expand(to_time(t), x0)
        if self.pixels is None:
            is_set = (erf(size / jnp.sqrt(2.0)) <= t) & (t > 0)
        else:
            flat = size.reshape(len(size), -1)
            if flat.shape[1] != self.pixels:
                raise InputError(f"{self} got examples of shape {x0.shape[1:]}; expected pixels={flat.shape[1]}.")
            rank = jnp.argsort(jnp.argsort(flat, axis=1), axis=1).reshape(size.shape)
            is_set = rank < jnp.round(t * self.pixels)
        return jnp.where(is_set, jnp.where(noise < 0, -1, 1).astype(x0.dtype), x0)

    def sample_prior(self, keys: Array, shape: tuple[int, ...]) -> Array:
        """Draw pictures of independent black and white pixels, once for each key: (batch, *shape)."""
        noise = keys_.normal(keys, shape)
        return self.perturb(jnp.zeros_like(noise), noise, 1.0)

    def previous(self, s: Array, t: Array) -> tuple[Array, Array]:
        """Return (A, B) of E[x_s | x_t] = A E[x_0 | x_t] + B x_t, where s < t, in the shape of s and t.

        A pixel that differs from x_0 at t is set, and was set before s with probability s / t. So A = 1 - s / t and
        B = s / t, for any data.
        """
        return 1 - s / t, s / t


def require_pixel_noise(user: object, sde: SDE, counted: bool = False) -> None:
    """Raise InputError unless sde is `PixelNoise`, with a number of pixels if `counted`."""
    if not isinstance(sde, PixelNoise) or (counted and sde.pixels is None):
        wanted = "PixelNoise with its number of pixels" if counted else "PixelNoise"
        raise InputError(f"{type(user).__name__} got the SDE {type(sde).__name__}; expected {wanted}.")


def colours(keys: Array, mean: Array) -> Array:
    """Draw pixels -1 and 1, independently, with this mean, once for each key: (batch, *shape)."""
    u = keys_.draw(jax.random.uniform, keys, mean.shape[1:], dtype=mean.dtype)
    return jnp.where(2 * u - 1 < mean, 1, -1).astype(mean.dtype)


class PreviousState(Parametrization):
    """`PreviousState` sets F = E[x_s | x_t], where s is one pixel before t, as the network of algorithm 1 of Bloem.

    x_0 = (F - B x_t) / A with the A and B of `PixelNoise.previous`, and noise = (x_t - alpha x_0) / sigma.
    """

    def check(self, sde: SDE) -> None:
        require_pixel_noise(self, sde, counted=True)
        super().check(sde)

    def coefficients(self, sde: SDE, t: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        assert isinstance(sde, PixelNoise) and sde.levels is not None
        a, b = sde.previous(jnp.maximum(t - 1 / sde.levels, 0), t)
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return (-b / a, 1 / a), ((1 + alpha * b / a) / sigma, -alpha / (a * sigma))


class BinaryImages(Denoiser):
    """`BinaryImages` is the exact denoiser of a distribution over binary images.

    E[x_0 | x_t] is the mean of the images under p(image) p(x_t | image). For independent pixels
    p(x_t | x_0) is the product of (1 + a x_t x_0) / 2, also between -1 and 1. For exactly i pixels of d without
    replacement, of which k differ, p(x_t | x_0) = C(d - k, i - k) / (C(d, i) 2^i).

    Attributes:
        images: the images, with pixels -1 and 1, (number, *shape).
        weights: their probabilities, (number,).
    """

    sde: PixelNoise
    images: Array
    weights: Array

    def __init__(self, sde: PixelNoise, images: ArrayLike, weights: ArrayLike) -> None:
        require_pixel_noise(self, sde)
        pixels, share = as_array(images, "images"), as_array(weights, "weights")
        if is_concrete(images, weights):
            wrong = np.asarray(pixels)[np.abs(np.asarray(pixels)) != 1]
            if wrong.size:
                raise InputError(f"images contain {wrong.flat[0]}; expected binary images of -1 and 1.")
            if share.shape != pixels.shape[:1] or not np.all(np.asarray(share) >= 0) or not np.sum(share) > 0:
                raise InputError(f"weights are {shown(weights)} for {len(pixels)} images; expected one share for each.")
        self.sde, self.images = sde, jnp.asarray(pixels, float)
        self.weights = jnp.asarray(share, float) / jnp.sum(jnp.asarray(share, float))

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        t = jnp.broadcast_to(to_time(t), x.shape[:1])
        images = self.images.astype(x.dtype).reshape(len(self.images), -1)
        logits = jnp.log(self.weights).astype(x.dtype) + self._log_likelihood(x.reshape(len(x), -1), images, t[:, None])
        x0 = (jax.nn.softmax(logits, axis=1) @ images).reshape(x.shape)
        return Prediction.from_x0(self.sde, x, t, x0)

    def _log_likelihood(self, x: Array, images: Array, t: Array) -> Array:
        """Return log p(x_t | image) but for a constant, (batch, number), for t of shape (batch, 1)."""
        if self.sde.pixels is None:
            return jnp.sum(jnp.log1p(self.sde.alpha(t)[:, None] * x[:, None] * images), axis=-1)
        d, i = self.sde.pixels, jnp.round(t * self.sde.pixels)
        differing = (d - x @ images.T) / 2
        count = gammaln(d - differing + 1) - gammaln(jnp.maximum(i - differing, 0) + 1)
        return jnp.where(differing > i + 0.5, -jnp.inf, count)
