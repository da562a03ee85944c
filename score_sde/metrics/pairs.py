"""This module compares pairs of images: PSNR and SSIM, one value for each pair, differentiable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array
from score_sde.core.errors import InputError

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def psnr(x: ArrayLike, y: ArrayLike, data_range: float) -> Array:
    """Return the peak signal-to-noise ratio 10 log10(data_range^2 / mean squared error) in decibels, (n,).

    Equal images have the value infinity.

    Args:
        x, y: images, (n, ...).
        data_range: the distance between the smallest and the largest possible value, such as 255.

    Raises:
        InputError: if the shapes differ, or if data_range is not positive.
    """
    a, b = _checked(x, y, data_range)
    error = ((a - b) ** 2).reshape(len(a), -1).mean(axis=1)
    return 10 * (2 * jnp.log10(jnp.asarray(data_range, error.dtype)) - jnp.log10(error))


def ssim(x: ArrayLike, y: ArrayLike, data_range: float) -> Array:
    """Return the structural similarity of Wang et al. 2004 ("Image quality assessment", Eq. 13), (n,).

    The window is a Gaussian of 11 x 11 pixels with sigma 1.5; K1 = 0.01 and K2 = 0.03; variances have the divisor of
    the window's weights. The value is the mean over all windows inside the image, and over the channels.

    Args:
        x, y: images, (n, height, width, channels), of at least 11 x 11 pixels.
        data_range: the distance between the smallest and the largest possible value, such as 255.

    Raises:
        InputError: if the shapes differ, if the images are smaller than the window, or if data_range is not positive.
    """
    a, b = _checked(x, y, data_range)
    if a.ndim != 4 or min(a.shape[1:3]) < _WINDOW:
        raise InputError(
            f"The images have shape {a.shape}; expected (n, height, width, channels) of at least {_WINDOW} pixels."
        )
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    # Differences from one value per image keep the digits that E[x^2] - E[x]^2 would lose in float32.
    shift = jax.lax.stop_gradient(a.mean(axis=(1, 2), keepdims=True))
    u, v = a - shift, b - shift
    mean_u, mean_v = _windows(u), _windows(v)
    var_u = _windows(u * u) - mean_u**2
    var_v = _windows(v * v) - mean_v**2
    cov = _windows(u * v) - mean_u * mean_v
    mean_a, mean_b = mean_u + shift, mean_v + shift
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * cov + c2) / (var_u + var_v + c2)
    return (luminance * structure).mean(axis=(1, 2, 3))


def _windows(x: Array) -> Array:
    """Return the Gaussian mean over each window inside the image, computed along one axis after the other."""
    taps = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _SIGMA) ** 2)
    taps /= taps.sum()
    for axis in (1, 2):
        size = x.shape[axis] - _WINDOW + 1
        parts = (tap * jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i, tap in enumerate(taps))
        x = sum(parts, start=jnp.zeros((), x.dtype))
    return x


def _checked(x: ArrayLike, y: ArrayLike, data_range: float) -> tuple[Array, Array]:
    a, b = (jnp.asarray(image) for image in (x, y))
    a, b = (image if jnp.issubdtype(image.dtype, jnp.floating) else image.astype(jnp.float32) for image in (a, b))
    if a.shape != b.shape or a.ndim < 2:
        raise InputError(f"The images have the shapes {a.shape} and {b.shape}; expected equal shapes (n, ...).")
    if isinstance(data_range, bool) or not isinstance(data_range, int | float) or not data_range > 0:
        raise InputError(f"data_range is {data_range!r}; expected a positive number, such as 255.")
    return a, b
