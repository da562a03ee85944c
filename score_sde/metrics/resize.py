"""This module resizes images as the protocols of published metrics do; each protocol has its own interpolation.

All functions take images (n, height, width, channels) of values 0..255 and return float32 images of the same range.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array

Resize = Callable[[Array, int], Array]


def tensorflow(images: Array, size: int) -> Array:
    """Return bilinear samples at source = i input / output, without half-pixel centres and without antialias.

    This is `tf.image.resize_bilinear` of TensorFlow 1 with align_corners=False. The graph of 2015 contains this
    operation. The last index is clamped.
    """
    return _bilinear(images, size, centre=0.0)


def half_pixel(images: Array, size: int) -> Array:
    """Return bilinear samples at source = (i + 1/2) input / output - 1/2, without antialias.

    This is `torch.nn.functional.interpolate(mode='bilinear', align_corners=False)`, which pytorch-fid calls.
    """
    return _bilinear(images, size, centre=0.5)


def clean(images: Array, size: int) -> Array:
    """Return bicubic samples with antialias in float, clipped to 0..255 and not rounded.

    This is Pillow's bicubic filter on each channel in mode 'F', which clean-fid calls (Parmar et al. 2022,
    arXiv:2104.11222). A linear map of the rows and one of the columns give the result.
    """
    x = jnp.asarray(images, jnp.float32)
    rows, columns = (jnp.asarray(_pillow_bicubic(length, size)) for length in x.shape[1:3])
    precision = jax.lax.Precision.HIGHEST
    x = jnp.einsum("nhwc,jw->nhjc", x, columns, precision=precision)
    x = jnp.einsum("nhjc,ih->nijc", x, rows, precision=precision)
    return jnp.clip(x, 0, 255)


RESIZES: dict[str, Resize] = {"tensorflow": tensorflow, "half_pixel": half_pixel, "clean": clean}


def _bilinear(images: Array, size: int, centre: float) -> Array:
    x = jnp.asarray(images, jnp.float32)
    for axis in (1, 2):
        length = x.shape[axis]
        # In float32, as TensorFlow and PyTorch compute the places.
        source = (np.arange(size, dtype=np.float32) + np.float32(centre)) * np.float32(length / size) - np.float32(
            centre
        )
        source = np.clip(source, 0, length - 1)
        low = np.floor(source).astype(np.int32)
        high = np.minimum(low + 1, length - 1)
        part = (source - low).astype(np.float32).reshape(-1, *[1] * (3 - axis))
        x = jnp.take(x, low, axis=axis) * (1 - part) + jnp.take(x, high, axis=axis) * part
    return x


def _pillow_bicubic(length: int, size: int) -> np.ndarray:
    """Return the weights (size, length) of Pillow's bicubic filter (a = -1/2), stretched when the image shrinks."""
    scale = max(length / size, 1.0)
    centres = (np.arange(size) + 0.5) * length / size
    low = np.maximum((centres - 2 * scale + 0.5).astype(int), 0)
    high = np.minimum((centres + 2 * scale + 0.5).astype(int), length)
    places = np.arange(length)
    distance = np.abs((places + 0.5 - centres[:, None]) / scale)
    inside = (places >= low[:, None]) & (places < high[:, None])
    weights = np.where(inside, _cubic(distance), 0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Return the cubic convolution kernel of Keys 1981 at distances x >= 0."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
