"""This module defines the convolutions and poolings of the feature networks, as functions of arrays (n, h, w, c).

A feature network only predicts, so the normalisation of a batch norm is part of the convolution before it (`folded`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array

Params = Mapping[str, Mapping[str, Array]]
Pair = tuple[int, int]
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def folded(
    kernel: np.ndarray, mean: np.ndarray, variance: np.ndarray, offset: np.ndarray, scale: np.ndarray, eps: float
) -> dict[str, np.ndarray]:
    """Return kernel and bias of a convolution (HWIO) that contains the batch norm after it, computed in float64."""
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + eps)
    return {
        "kernel": (kernel.astype(np.float64) * factor).astype(np.float32),
        "bias": (offset - mean * factor).astype(np.float32),
    }


def conv(params: Mapping[str, Array], x: Array, stride: int = 1, padding: str | int = "SAME", groups: int = 1) -> Array:
    """Return a convolution with a bias, if the parameters have one; an integer pads each side by this many zeros.

    A kernel of one pixel is a product of matrices, which a CPU computes up to twice as fast.
    """
    kernel = params["kernel"]
    if kernel.shape[:2] == (1, 1) and stride == 1 and groups == 1 and padding in ("SAME", "VALID", 0):
        out = x @ kernel[0, 0]
    else:
        pads = padding if isinstance(padding, str) else [(padding, padding)] * 2
        out = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=_DIMENSIONS, feature_group_count=groups
        )
    return out + params["bias"] if "bias" in params else out


def depthwise(params: Mapping[str, Array], x: Array, stride: int) -> Array:
    """Return a convolution of each channel with its own kernel (h, w, 1, c), padded as "SAME", plus a bias.

    The sum over the places of the kernel is one fused loop; XLA's grouped convolution on a CPU is far slower.
    """
    kernel = params["kernel"][:, :, 0]
    height, width = kernel.shape[:2]
    sizes = [-(-length // stride) for length in x.shape[1:3]]
    pads = [
        max((size - 1) * stride + side - length, 0)
        for size, side, length in zip(sizes, (height, width), x.shape[1:3], strict=True)
    ]
    x = jnp.pad(x, ((0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)))
    total = params["bias"]
    for i in range(height):
        for j in range(width):
            rows = slice(i, i + (sizes[0] - 1) * stride + 1, stride)
            columns = slice(j, j + (sizes[1] - 1) * stride + 1, stride)
            total = total + x[:, rows, columns] * kernel[i, j]
    return total


def max_pool(x: Array, side: int, stride: int) -> Array:
    """Return the maximum over each window inside the image.

    A maximum of shifted arrays, along one axis after the other, is one fused loop: XLA's windows on a CPU take four to
    nine times as long.
    """
    return _pooled(x, side, stride, jnp.maximum)


def max_pool_same(x: Array) -> Array:
    """Return the maximum over each 3 x 3 window with stride 1, where pixels outside the image do not count."""
    outside = ((0, 0), (1, 1), (1, 1), (0, 0))
    return _pooled(jnp.pad(x, outside, constant_values=-jnp.inf), 3, 1, jnp.maximum)


def mean_pool(x: Array) -> Array:
    """Return the mean over each 3 x 3 window, with stride 1, over the pixels inside the image only."""
    total = _pooled(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 1, jnp.add)
    counts = [np.convolve(np.ones(size), np.ones(3), "same") for size in x.shape[1:3]]
    return total / jnp.asarray((counts[0][:, None] * counts[1])[None, :, :, None], x.dtype)


def _pooled(x: Array, side: int, stride: int, combine: Callable[[Array, Array], Array]) -> Array:
    for axis in (1, 2):
        size = (x.shape[axis] - side) // stride + 1
        parts = [jax.lax.slice_in_dim(x, i, i + (size - 1) * stride + 1, stride=stride, axis=axis) for i in range(side)]
        x = functools.reduce(combine, parts)
    return x
