"""This module halves and doubles images, by means and repetition or through a FIR filter.

The FIR filter is from Karras et al. 2020 (arXiv:1912.04958). Let k be the normalised taps and * convolution. Doubling
computes k * z, where z is the image with zeros between its pixels. Halving computes every other pixel of k * x. Pixels
outside the image are zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array
from score_sde.core.errors import InputError

_IMAGES = ("NHWC", "HWIO", "NHWC")
_AXES = (1, 2)  # height and width


def downsample(x: Array) -> Array:
    """Halve height and width with the mean of 2 x 2 pixels."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def upsample(x: Array) -> Array:
    """Double height and width by repeating pixels."""
    batch, height, width, channels = x.shape
    tiled = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return tiled.reshape(batch, 2 * height, 2 * width, channels)


def fir_downsample(x: Array, kernel: Sequence[float]) -> Array:
    """Halve height and width through a FIR filter of unit gain, with equal taps along both axes.

    Args:
        x: images of shape (batch, height, width, channels), with even height and width.
        kernel: taps of the filter, of any number and with a positive sum.
    """
    spare = len(kernel) - 2
    return _fir(x, _normalised(kernel), 1, 2, ((spare + 1) // 2, spare // 2))


def fir_upsample(x: Array, kernel: Sequence[float]) -> Array:
    """Double height and width through a FIR filter whose gain compensates the zeros between the pixels."""
    spare = len(kernel) - 2
    return _fir(x, 2 * _normalised(kernel), 2, 1, ((spare + 1) // 2 + 1, spare // 2))


def fir_conv_downsample(x: Array, weight: Array, kernel: Sequence[float]) -> Array:
    """Apply a FIR filter, then a convolution of stride 2; weight has shape (size, size, inputs, outputs), size odd."""
    spare = len(kernel) - 2 + weight.shape[0] - 1
    x = _fir(x, _normalised(kernel), 1, 1, ((spare + 1) // 2, spare // 2))
    return jax.lax.conv_general_dilated(x, weight, (2, 2), "VALID", dimension_numbers=_IMAGES)


def fir_conv_upsample(x: Array, weight: Array, kernel: Sequence[float]) -> Array:
    """Insert zeros between the pixels, convolve, then apply a FIR filter; weight as in `fir_conv_downsample`."""
    size = weight.shape[0]
    # A pad inserts the zeros: on a CPU a convolution with a dilated input takes 40 times as long.
    around = (0, 0, 0), (size - 1, size - 1, 1), (size - 1, size - 1, 1), (0, 0, 0)
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), around)
    x = jax.lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=_IMAGES)
    spare = len(kernel) - 2 - (size - 1)
    return _fir(x, 2 * _normalised(kernel), 1, 1, ((spare + 1) // 2 + 1, spare // 2 + 1))


def check_kernel(kernel: Sequence[float]) -> tuple[float, ...]:
    """Return the taps of a FIR filter as floats; raise InputError if they are not a filter."""
    try:
        taps = tuple(float(tap) for tap in kernel)
    except (TypeError, ValueError):
        taps = ()
    if not taps or not np.isfinite(taps).all() or not sum(taps) > 0:
        raise InputError(
            f"fir_kernel is {kernel!r}; expected taps of a filter with a positive sum, such as (1, 3, 3, 1)."
        )
    return taps


def _normalised(kernel: Sequence[float]) -> np.ndarray:
    return np.asarray(kernel, np.float64) / np.sum(kernel)


def _fir(x: Array, taps: np.ndarray, up: int, down: int, pad: tuple[int, int]) -> Array:
    """Filter images of shape (batch, height, width, channels) along height and width, as a sum of shifted images.

    `up` and `down` are 1 or 2. `pad` is the number of zeros before and after an image that already has zeros
    between its pixels. A depthwise convolution takes 10 to 100 times as long on XLA:CPU. A depthwise convolution is
    also slow on accelerators, because XLA has no fast kernel for its gradients.
    """
    for axis in _AXES:
        length = (up * x.shape[axis] + sum(pad) - len(taps)) // down + 1
        phases = [
            _fir_phase(x, axis, taps, up, down, pad[0] - phase, -(-(length - phase) // up)) for phase in range(up)
        ]
        x = phases[0] if up == 1 else jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], length, *x.shape[axis + 1 :])
    return x


def _fir_phase(x: Array, axis: int, taps: np.ndarray, up: int, down: int, before: int, length: int) -> Array:
    """Compute every `up`-th value along the filtered axis: the sum over the taps of tap times pixel."""
    total: Array | None = None
    for place, tap in enumerate(taps[::-1].tolist()):  # Python numbers keep the dtype of x
        offset, between = divmod(place - before, up)
        if between:
            continue  # this tap meets only zeros
        ends = [(0, 0, 0)] * x.ndim
        ends[axis] = (-offset, offset + down * (length - 1) + 1 - x.shape[axis], 0)
        shifted = jax.lax.pad(x, jnp.zeros((), x.dtype), ends)
        shifted = shifted if down == 1 else jax.lax.slice_in_dim(shifted, 0, None, down, axis)
        total = tap * shifted if total is None else total + tap * shifted
    return jnp.zeros((*x.shape[:axis], length, *x.shape[axis + 1 :]), x.dtype) if total is None else total
